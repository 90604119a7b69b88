//! `serve`: the service until it is told to stop.

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;

use crate::args::Serve;
use crate::config::Config;
use crate::instance::{Instance, Stores};

pub async fn run(mut config: Config, arguments: &Serve) -> anyhow::Result<ExitCode> {
    if arguments.role.is_some() {
        bail!(
            "one role alone needs a journal that several processes can open, and this version keeps it in SQLite. \
             Run `watchword serve` without a role: it does both"
        );
    }
    if let Some(listen) = arguments.listen {
        config.listen = listen;
    }
    let stores = Stores::open(&config).await?;
    let (listener, address) = match listen(config.listen).await {
        Ok(listening) => listening,
        Err(error) => {
            stores.close().await;
            return Err(error);
        }
    };
    let instance = Instance::start(&config, stores, address).await?;
    // Caught from before anybody can know of the process: a signal right after the announcement drains, too.
    let stop_signal = stop_signal()?;
    announce(&config, &instance)?;

    let (stopping, stopped) = tokio::sync::watch::channel(false);
    let timeout = config.shutdown_timeout;
    let end_streams = instance.stream_end();
    let server = serve(listener, instance.router(), async move {
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
        ended = server => ended.context("the server failed")?,
        () = late => tracing::warn!("some requests did not end within {timeout:?} and were cut off"),
    }
    // What is acknowledged is durable by now; closing only tidies up, and must not hold up the exit for long.
    if tokio::time::timeout(Duration::from_secs(5), instance.close()).await.is_err() {
        tracing::warn!("the stores took too long to close; nothing is lost");
    }
    Ok(ExitCode::SUCCESS)
}

async fn listen(address: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address}. Stop what listens there, or set listen (WATCHWORD_LISTEN) to another address"
        )
    })?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Answers requests until `stop`, then ends those begun.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let listener = listener.tap_io(|stream| {
        // Small answers go out at once instead of waiting for more to send.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(stop)
        .await
}

fn announce(config: &Config, instance: &Instance) -> anyhow::Result<()> {
    if !config.limits.enabled {
        tracing::warn!("rate limits are off: for load tests only");
    }
    let address = instance.address();
    let mut out = std::io::stdout();
    writeln!(out, "watchword {} listens on http://{address}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "documentation: {}docs", config.public_url(address))?;
    let key = config.admin_key_file();
    if key.exists() {
        writeln!(out, "platform key: in {}", key.display())?;
    } else {
        writeln!(out, "platform key: not in {} any more; use the copy you keep", key.display())?;
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
