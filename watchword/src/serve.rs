//! `serve`: the service until it is told to stop.

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::http::header::CONNECTION;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpSocket};
use tower::ServiceExt;

use crate::args::{Serve, ServeRole};
use crate::bus;
use crate::config::{Config, variable};
use crate::instance::{Instance, Role, Stores};
use crate::linger::Lingering;
use crate::serving::Serving;
use crate::traces::Traces;

/// How long a client may take for the head of its next request. One that sends it byte by byte, or nothing at all, would
/// hold its connection for ever.
const HEAD_TIME: Duration = Duration::from_secs(30);

pub async fn run(mut config: Config, arguments: &Serve) -> anyhow::Result<ExitCode> {
    let role = match arguments.role {
        None => Role::All,
        Some(_) if !config.shares_stores() => bail!(
            "one role alone needs stores that several processes can open, and the journal {} is an SQLite file. \
             Run `watchword serve` without a role: it does both",
            config.journal.display()
        ),
        Some(ServeRole::Commands) => Role::Commands,
        Some(ServeRole::Projections) => Role::Projections,
    };
    if let Some(listen) = arguments.listen {
        config.listen = listen;
    }
    // Before anything is made: a start that is refused for one of these leaves nothing behind. Connections are taken when
    // there is somebody to answer.
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
    let stores = match role {
        Role::Commands => Stores::open_truth(&config).await?,
        Role::All | Role::Projections => Stores::open(&config).await?,
    };
    let instance = Box::pin(Instance::start(&config, stores, address, role)).await?;
    let listening = || {
        let listener = socket.listen(BACKLOG).with_context(|| taken(address, "listen"))?;
        let internal = internal.map(|(socket, address)| {
            let listener = socket.listen(BACKLOG).with_context(|| taken(address, "internal_listen"))?;
            anyhow::Ok((listener, address))
        });
        anyhow::Ok((listener, internal.transpose()?))
    };
    let (listener, internal) = match listening() {
        Ok(listening) => listening,
        Err(error) => {
            instance.close().await;
            return Err(error);
        }
    };
    if !config.shares_stores() {
        let address = internal.as_ref().map_or(address, |(_, internal)| *internal);
        let serving = Serving { instance: instance.public_id(), address };
        if let Err(error) = serving.leave(&config.data_dir) {
            tracing::warn!(%error, "`watchword doctor` cannot tell this server by its folder");
        }
    }
    // Caught from before anybody can know of the process: a signal right after the announcement drains, too.
    let stop_signal = stop_signal()?;
    announce(&config, &instance, internal.as_ref().map(|(_, address)| *address))?;

    let (stopping, stopped) = tokio::sync::watch::channel(false);
    if let Some((listener, _)) = internal {
        // Until the process ends: how it drains is what its probes ask.
        tokio::spawn(serve(listener, instance.internal_router(), std::future::pending()));
    }
    let timeout = config.shutdown_timeout;
    let end_streams = instance.stream_end();
    let server = serve(listener, instance.mounted(), async move {
        stop_signal.await;
        tracing::info!("stopping: no new requests; those begun have {timeout:?}");
        end_streams();
        let _ = stopping.send(true);
    });
    let late = async {
        let mut stopped = stopped;
        // The sender is dropped only with the server, which then has ended first.
        let _ = stopped.wait_for(|stopping| *stopping).await;
        tokio::time::sleep(timeout).await;
    };
    tokio::select! {
        () = server => {}
        () = late => tracing::warn!("some requests did not end within {timeout:?} and were cut off"),
    }
    // What is acknowledged is durable by now; closing only tidies up, and must not hold up the exit for long.
    if tokio::time::timeout(Duration::from_secs(5), instance.close()).await.is_err() {
        tracing::warn!("the stores took too long to close; nothing is lost");
    }
    if !config.shares_stores() {
        Serving::take_away(&config.data_dir);
    }
    if let Some(traces) = traces {
        traces.close().await;
    }
    Ok(ExitCode::SUCCESS)
}

/// How many connections wait to be taken.
const BACKLOG: u32 = 1024;

/// Takes the address, and no connections yet.
fn bind(address: SocketAddr, key: &str) -> anyhow::Result<(TcpSocket, SocketAddr)> {
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A server that just ended there is no obstacle; one that listens is.
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

/// Answers requests until `stop`, then ends those begun.
pub async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()> + Send + 'static) {
    serve_with(listener, router, stop, HEAD_TIME).await;
}

async fn serve_with(
    mut listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
    head_time: Duration,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(head_time);
    let connections = GracefulShutdown::new();
    let mut stop = pin!(stop);
    loop {
        let (stream, peer) = tokio::select! {
            // It waits where the system has no more files to give.
            accepted = Listener::accept(&mut listener) => accepted,
            () = &mut stop => break,
        };
        // Small answers go out at once instead of waiting for more to send.
        let _ = stream.set_nodelay(true);
        let router = router.clone();
        let linger = Arc::new(AtomicBool::new(false));
        let closes = Arc::clone(&linger);
        let answer = service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            let (answering, closes) = (router.clone().oneshot(request), Arc::clone(&closes));
            async move {
                let response = answering.await;
                // Only an answer that did not wait for all of its request says so.
                if response.as_ref().is_ok_and(|response| response.headers().contains_key(CONNECTION)) {
                    closes.store(true, Ordering::Relaxed);
                }
                response
            }
        });
        let connection =
            connections.watch(http.serve_connection(TokioIo::new(Lingering::new(stream, linger)), answer));
        tokio::spawn(async move {
            metrics::gauge!("watchword_http_connections").increment(1);
            // It can only fail by what the client did, and nobody is there to hear of it.
            let _ = connection.await;
            metrics::gauge!("watchword_http_connections").decrement(1);
        });
    }
    drop(listener);
    connections.shutdown().await;
}

fn announce(config: &Config, instance: &Instance, internal: Option<SocketAddr>) -> anyhow::Result<()> {
    if !config.limits.enabled {
        tracing::warn!("rate limits are off: for load tests only");
    }
    let address = instance.address();
    let mut out = std::io::stdout();
    writeln!(out, "watchword {} listens on http://{address}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "documentation: {}/docs", config.public_url(address))?;
    let key = config.admin_key_file();
    if key.exists() {
        writeln!(out, "platform key: in {}", key.display())?;
    } else {
        writeln!(out, "platform key: not in {} any more; use the copy you keep", key.display())?;
    }
    if let Some(internal) = internal {
        writeln!(out, "metrics and readiness: http://{internal}, without a key")?;
    }
    Ok(out.flush()?)
}

/// Catches SIGTERM and SIGINT from now on; the answer ends with the first.
#[cfg(unix)]
fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    let catch = |kind| signal(kind).context("the system refuses to let signals be caught");
    let (mut terminate, mut interrupt) = (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Ends with Ctrl-C.
#[cfg(not(unix))]
fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn who_never_ends_a_request_is_let_go_and_the_others_are_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let router = Router::new().route("/", get(|| async { "hello" }));
        let stopped = async {
            let _ = stopped.await;
        };
        let server = tokio::spawn(serve_with(listener, router, stopped, Duration::from_millis(200)));
        for head in ["", "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
            let mut slow = TcpStream::connect(address).await.expect("connects");
            slow.write_all(head.as_bytes()).await.expect("writes");
            let mut quick = TcpStream::connect(address).await.expect("connects");
            quick.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("writes");
            let mut answer = String::new();
            quick.read_to_string(&mut answer).await.expect("reads");
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
            let end = tokio::time::timeout(Duration::from_secs(10), slow.read_to_end(&mut Vec::new())).await;
            end.expect("its connection ends").expect("reads");
        }
        let _ = stop.send(());
        server.await.expect("drains");
    }
}
