//! `witness`: a witness of other people's logs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use tlog::VerifierKey;
use tokio::net::TcpListener;

use super::{Globals, Run};
use crate::config::Config;
use crate::connections::{HttpSettings, Room, serve};
use crate::descriptors;
use crate::logging;
use crate::signals::stop_signal;
use crate::witness::{self, Held, Unverified};

/// The most connections, and requests at a time on one of HTTP/2. Bodies are short, and logs are few.
const CONNECTIONS: usize = 512;
const STREAMS: u32 = 4;

/// Run a witness of somebody else's log, which signs only checkpoints that continue those it has signed
///
/// The log asks for each new checkpoint with POST /add-checkpoint (C2SP tlog-witness). Whoever requires the signature of this
/// witness cannot be shown another history than everybody else. The newest checkpoint of each log is also served, at
/// `/{SHA-256 of its origin}/checkpoint`.
///
/// Run it where the operator of the log has no access, and behind a proxy with TLS. It opens no store. Its key and its state
/// belong together: never restore an older state file, and never run two processes with one key. If one of the files is lost,
/// begin as a new witness. Prints the listen address and the public key, which auditors and the log need.
#[derive(Debug, Args)]
pub struct Witness {
    /// The address to listen on
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// The file with the private key, which is made by the first start
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// The file with the newest signed checkpoint of each log, which is made by the first start
    #[arg(long, value_name = "FILE")]
    state_file: PathBuf,
    /// A public key of a log (a vkey), as GET /v1/audit/key shows it; repeat the option for each key and each log
    #[arg(long = "log", value_name = "VKEY", required = true, value_parser = witness::log_key)]
    logs: Vec<VerifierKey>,
    /// The name of a new key, a URL without its scheme such as witness.example.com/w1 [default: the listen address]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

impl Run for Witness {
    fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        globals.with_log(false, async |config| Box::pin(run(config, self)).await)
    }
}

async fn run(mut config: Config, arguments: Witness) -> anyhow::Result<ExitCode> {
    let Witness { listen, key_file, state_file, logs, name } = arguments;
    // Registered first, so that a signal right after the announcement ends the process cleanly.
    let stop = stop_signal()?;
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!("cannot listen on {listen}. Stop what listens there, or give --listen another address")
    })?;
    let address = listener.local_addr()?;
    // The state is made first: a key without one is refused, as it may have signed something.
    let state = Unverified::open(&state_file)?.made(&key_file)?;
    let Held { signer, lock } =
        witness::open_key(&key_file, name.as_deref(), &witness::default_name(address), state.is_new())?;
    let state = state.verified(signer.key(), lock)?;
    let witness = Arc::new(witness::Witness::new(signer, logs, state));

    descriptors::fit(&mut config.connections, &mut config.requests_in_flight);
    let room = Room::new(config.connections.min(CONNECTIONS), &config.trusted_proxies);
    let http = HttpSettings { streams: config.http.streams.min(STREAMS), ..config.http };
    let say = |line: String| logging::say(config.log_format, &line);
    say(format!("watchword {} is a witness on http://{address}", env!("CARGO_PKG_VERSION")));
    say(format!("witness key: {}", witness.key()));
    for origin in witness.origins() {
        say(format!("log: {origin}"));
    }
    let stopped = async move {
        stop.await;
        tracing::info!("stopping: no new requests");
    };
    // Each request has its own bound, and a signature that was not sent does no harm.
    serve(listener, witness::router(witness), http, room, stopped).await;
    Ok(ExitCode::SUCCESS)
}
