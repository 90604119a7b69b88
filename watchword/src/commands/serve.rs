//! `serve`: runs the service until it is stopped.

use clap::{Args, ValueEnum};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use http_kit::Entrance;
use tasks::{End, Task, Weight};
use tokens::PublicUrl;
use tokio::net::TcpSocket;
use tokio::sync::watch;

use super::{Globals, Run};
use crate::bus;
use crate::config::{Config, variable};
use crate::connections::{HttpSettings, Room, Stage, serve};
use crate::descriptors;
use crate::init;
use crate::instance::{Instance, Role, Stores};
use crate::logging;
use crate::serving::Serving;
use crate::signals::stop_signal;
use crate::told::told;
use crate::traces::Traces;
use crate::waiting::{self, Waiting};

/// Run the service: commands and projections in one process, or one role of several processes
///
/// Prints the listen address, the URL of the API's documentation and the location of the first platform key. On SIGTERM,
/// SIGINT or SIGHUP it accepts no new requests, finishes pending ones and exits within `shutdown_timeout`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Run only one role. Needs a journal that several processes can open; SQLite is not one
    role: Option<ServeRole>,
    /// The address to listen on, instead of the configured one
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ServeRole {
    /// Only the routes that change state, and publishing to NATS
    Commands,
    /// Only the read models and their routes
    Projections,
}

impl Run for Serve {
    fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        globals.with_log(false, async |config| Box::pin(run(config, &self)).await)
    }
}

async fn run(mut config: Config, arguments: &Serve) -> anyhow::Result<ExitCode> {
    let role = match arguments.role {
        None => Role::All,
        Some(_) if !config.shares_stores() => bail!(
            "a single role needs stores that several processes can open, but the journal {} is an SQLite file. \
             Run `watchword serve` without a role: it does both",
            config.journal.display()
        ),
        Some(ServeRole::Commands) => Role::Commands,
        Some(ServeRole::Projections) => Role::Projections,
    };
    if let Some(listen) = arguments.listen {
        config.listen = listen;
    }
    init::reap_orphans_as_first_process()?;
    // Registered first: a signal while waiting for a store ends the process cleanly, and one right after the announcement
    // drains.
    let mut stop_signal = pin!(stop_signal()?);
    // Before anything is created: a start refused for one of these leaves nothing behind.
    let (socket, address) = bind(config.listen, "listen")?;
    let internal = config.internal_listen.map(|internal| bind(internal, "internal_listen")).transpose()?;
    if let Some((_, internal)) = &internal
        && *internal == address
    {
        bail!(taken(*internal, "internal_listen"));
    }
    if let Some(nats) = &config.nats {
        bus::check(nats).await?;
    }
    let traces = config.traces.as_ref().map(|traces| Traces::start(traces, role)).transpose()?;
    tasks::end_after(config.task_failures);
    crate::metrics::start();
    descriptors::fit(&mut config.connections, &mut config.requests_in_flight);
    let room = Room::new(config.connections, &config.trusted_proxies);
    // Of the descriptors that stay free of clients.
    let internal_room = Room::new(INTERNAL_CONNECTIONS, &[]);
    let waiting = Waiting::new();
    let public_url = config.public_url(address);
    let meanwhile = |details| Stage::from(waiting_entrance(&waiting, &public_url, details));
    let mut doors = Doors {
        public: Door::new(socket, address, "listen", meanwhile(false), config.http, room),
        internal: internal.map(|(socket, address)| {
            Door::new(socket, address, "internal_listen", meanwhile(true), config.http, internal_room)
        }),
    };
    // Stores on servers may be unavailable, so requests are answered at once. A start on files answers when the stores are
    // open, or exits.
    if waiting::has_servers(&config) {
        doors.open()?;
    }
    let opening = async {
        if waiting::has_servers(&config) {
            waiting.until_there(async || Box::pin(open(&config, address, role)).await).await
        } else {
            Box::pin(open(&config, address, role)).await
        }
    };
    let instance = tokio::select! {
        biased;
        () = &mut stop_signal => {
            tracing::info!("stopping: the stores were not opened yet");
            doors.close().await;
            if let Some(traces) = traces {
                traces.close().await;
            }
            return Ok(ExitCode::SUCCESS);
        }
        // Without its address, nobody would hear of a process that waits.
        reason = tasks::hopeless() => {
            if let Some(traces) = traces {
                traces.close().await;
            }
            bail!("{reason}. Its earlier messages are in the log");
        }
        opened = opening => opened?,
    };
    doors.show(|details| if details { instance.internal_router() } else { instance.mounted() });
    if let Err(error) = doors.open() {
        instance.close().await;
        return Err(error);
    }
    let internal_address = doors.internal.as_ref().map(|door| door.address);
    if !config.shares_stores() {
        let serving =
            Serving { instance: instance.public_id(), address: internal_address.unwrap_or(address) };
        if let Err(error) = serving.leave(&config.data_dir) {
            tracing::warn!(%error, "`watchword doctor` cannot tell this server by its folder");
        }
    }
    announce(&config, &instance, internal_address);
    #[cfg(feature = "fail-points")]
    arm_what_fails_in_service();

    let (instance, hopeless) = Box::pin(until_end(&config, &doors, instance, role, stop_signal)).await?;
    stop(&config, doors, instance, traces).await;
    match hopeless {
        None => Ok(ExitCode::SUCCESS),
        Some(reason) => bail!("{reason}. Its earlier messages are in the log"),
    }
}

/// Arms the fail points that a test wants only in a process that serves: at its start, their failures would end it.
#[cfg(feature = "fail-points")]
fn arm_what_fails_in_service() {
    let points = std::env::var("FAILPOINTS_IN_SERVICE").unwrap_or_default();
    for (name, actions) in points.split(';').filter_map(|point| point.split_once('=')) {
        fail::cfg(name, actions).expect("a test's actions are right");
    }
}

/// Serves until the process is to stop. Returns the services, if they are open, and why it stops, unless it was asked to.
async fn until_end(
    config: &Config,
    doors: &Doors,
    mut instance: Instance,
    role: Role,
    mut stop_signal: Pin<&mut impl Future<Output = ()>>,
) -> anyhow::Result<(Option<Instance>, Option<String>)> {
    loop {
        let lost = tokio::select! {
            () = &mut stop_signal => return Ok((Some(instance), None)),
            reason = tasks::hopeless() => return Ok((Some(instance), Some(reason))),
            lost = instance.went_back() => lost,
        };
        // Nothing that the services know is to be trusted: they start anew from the journal, as after a restart.
        let (waiting, address) = (Waiting::again(&lost), instance.address());
        doors.show(|details| waiting_entrance(&waiting, &config.public_url(address), details));
        instance.stream_end()();
        close(instance).await;
        let opening = waiting.until_there(async || Box::pin(open(config, address, role)).await);
        instance = tokio::select! {
            biased;
            () = &mut stop_signal => return Ok((None, None)),
            opened = opening => opened?,
        };
        if let Err(error) = instance.record_loss(&lost).await {
            tracing::error!(%error, "it cannot be recorded in the journal that it went back");
        }
        doors.show(|details| if details { instance.internal_router() } else { instance.mounted() });
        tracing::warn!("the services have started anew from the journal, which went back");
    }
}

/// Finishes pending requests, and closes everything, within bounds.
async fn stop(config: &Config, mut doors: Doors, instance: Option<Instance>, traces: Option<Traces>) {
    let timeout = config.shutdown_timeout;
    tracing::info!("stopping: no new requests; pending ones have {timeout:?}");
    if let Some(instance) = &instance {
        instance.stream_end()();
    }
    if tokio::time::timeout(timeout, doors.close()).await.is_err() {
        tracing::warn!("some requests did not finish within {timeout:?} and were aborted");
    }
    if let Some(instance) = instance {
        close(instance).await;
    }
    if !config.shares_stores() {
        Serving::take_away(&config.data_dir);
    }
    if let Some(traces) = traces {
        traces.close().await;
    }
}

/// Acknowledged data is already durable; closing only tidies up, and must not delay what comes next.
async fn close(instance: Instance) {
    if tokio::time::timeout(Duration::from_secs(5), instance.close()).await.is_err() {
        tracing::warn!("the stores took too long to close; nothing is lost");
    }
}

/// The routes while the stores are not open.
fn waiting_entrance(waiting: &Waiting, public_url: &PublicUrl, details: bool) -> Entrance {
    Entrance::from(waiting.router(public_url, details)).below(public_url.prefix())
}

/// Opens the stores of a role and starts its services.
async fn open(config: &Config, address: SocketAddr, role: Role) -> anyhow::Result<Instance> {
    let stores = match role {
        Role::Commands => Stores::open_truth(config).await?,
        Role::All | Role::Projections => Stores::open(config).await?,
    };
    Box::pin(Instance::start(config, stores, address, role)).await
}

/// The addresses on which requests arrive.
struct Doors {
    public: Door,
    /// It stays open until the process ends: probes watch the draining through it.
    internal: Option<Door>,
}

impl Doors {
    /// Answers from now on with these routes: with details on the internal address.
    fn show(&self, entrance: impl Fn(bool) -> Entrance) {
        self.public.stage.set(entrance(false));
        if let Some(internal) = &self.internal {
            internal.stage.set(entrance(true));
        }
    }

    /// Starts accepting connections, unless already done.
    fn open(&mut self) -> anyhow::Result<()> {
        self.public.open()?;
        self.internal.as_mut().map_or(Ok(()), Door::open)
    }

    /// Stops accepting connections on the public address, and waits until pending requests are answered.
    async fn close(&mut self) {
        self.public.close().await;
    }
}

/// An address on which requests arrive, and its handler.
struct Door {
    /// Present until it is opened.
    socket: Option<TcpSocket>,
    address: SocketAddr,
    key: &'static str,
    stage: Stage,
    http: HttpSettings,
    room: Room,
    stopping: watch::Sender<bool>,
    server: Option<Task>,
}

impl Door {
    fn new(
        socket: TcpSocket,
        address: SocketAddr,
        key: &'static str,
        stage: Stage,
        http: HttpSettings,
        room: Room,
    ) -> Self {
        let stopping = watch::Sender::new(false);
        Self { socket: Some(socket), address, key, stage, http, room, stopping, server: None }
    }

    fn open(&mut self) -> anyhow::Result<()> {
        let Some(socket) = self.socket.take() else { return Ok(()) };
        let listener = socket.listen(BACKLOG).with_context(|| taken(self.address, self.key))?;
        let stopping = self.stopping.subscribe();
        let stop = |mut stopping: watch::Receiver<bool>| async move {
            // The sender lives as long as the process.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        };
        let (stage, http, room) = (self.stage.clone(), self.http, self.room.clone());
        let (address, key) = (self.address, self.key);
        let mut first = Some(listener);
        self.server = Some(tasks::start(key, Weight::Vital, move || {
            let (first, stage, room) = (first.take(), stage.clone(), room.clone());
            let stopping = stopping.clone();
            async move {
                // One that failed has closed its own.
                let listener = match first {
                    Some(listener) => listener,
                    None => match bind(address, key).and_then(|(socket, _)| Ok(socket.listen(BACKLOG)?)) {
                        Ok(listener) => listener,
                        Err(error) => {
                            tracing::error!(error = told(&error), "no connections are accepted for now");
                            return End::Unasked;
                        }
                    },
                };
                serve(listener, stage, http, room, stop(stopping)).await;
                End::Asked
            }
        }));
        Ok(())
    }

    async fn close(&mut self) {
        self.stopping.send_replace(true);
        if let Some(server) = &mut self.server {
            server.ended().await;
        }
    }
}

/// The maximum length of the queue of connections not yet accepted.
const BACKLOG: u32 = 1024;

/// The maximum of connections to the internal address.
const INTERNAL_CONNECTIONS: usize = 32;

/// Binds the address without accepting connections yet.
fn bind(address: SocketAddr, key: &str) -> anyhow::Result<(TcpSocket, SocketAddr)> {
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A server that just ended there does not block the address; a listening one does.
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let address = socket.local_addr()?;
        Ok::<_, std::io::Error>((socket, address))
    };
    bound().with_context(|| taken(address, key))
}

fn taken(address: SocketAddr, key: &str) -> String {
    let variable = variable(key);
    format!(
        "cannot listen on {address}. Stop what listens there, or set {key} ({variable}) to another address"
    )
}

fn announce(config: &Config, instance: &Instance, internal: Option<SocketAddr>) {
    let address = instance.address();
    let public_url = config.public_url(address);
    if !config.limits.enabled {
        tracing::warn!("rate limits are off: for load tests only");
    }
    if config.public_url.is_none() {
        let what = "public_url (WATCHWORD_PUBLIC_URL) is not set: tokens, links and events name";
        if address.ip().is_loopback() {
            tracing::info!("{what} {public_url}, which works on this machine alone");
        } else {
            tracing::warn!(
                "{what} {public_url}, which others cannot reach. Set it to the address that clients see"
            );
        }
    }
    let say = |line: String| logging::say(config.log_format, &line);
    say(format!("watchword {} listens on http://{address}", env!("CARGO_PKG_VERSION")));
    say(format!("documentation: {public_url}/docs"));
    say(format!("platform key: {}", config.where_admin_key_is()));
    if let Some(internal) = internal {
        say(format!("metrics and readiness: http://{internal}, without a key"));
    }
}
