//! Dependencies other than stores: whether they accept connections.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

use super::Findings;
use crate::bus;
use crate::config::{Config, Nats};
use crate::told::told;

/// The time limit for a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// The trace collector, and the list of breached passwords.
pub async fn examine(findings: &mut Findings, config: &Config) {
    if let Some(traces) = &config.traces {
        address(
            findings,
            "traces",
            &traces.endpoint,
            "Traces are lost until it does; nothing else is affected",
        )
        .await;
    }
    if let Some(list) = &config.breached_passwords {
        address(findings, "breached passwords", list, "Until it does, passwords are not checked against it")
            .await;
    }
}

/// Whether NATS accepts our login, if there is no journal to compare its stream with.
pub async fn bus(findings: &mut Findings, nats: &Nats) {
    let asked = async {
        let client = bus::connect(nats).await.map_err(|error| told(&error))?;
        let answered = timeout(PATIENCE, client.flush()).await;
        answered
            .map_err(|_| "it does not answer, or refuses the login".to_owned())?
            .map_err(|error| error.to_string())?;
        Ok::<_, String>(client.server_info().version)
    };
    match asked.await {
        Ok(version) => findings.fine("NATS", format!("nats-server {version}")),
        Err(error) => findings.warning(
            "NATS",
            format!(
                "{error}. Nothing is lost: events are published when it is there. Check nats_url, and its log"
            ),
        ),
    }
}

async fn address(findings: &mut Findings, about: &'static str, url: &Url, otherwise: &str) {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    let shown = format!("{}://{}:{port}", url.scheme(), url.host_str().unwrap_or_default());
    match timeout(PATIENCE, TcpStream::connect((host.as_str(), port))).await {
        Ok(Ok(_)) => findings.fine(about, format!("{shown} takes connections")),
        Ok(Err(error)) => {
            findings.warning(about, format!("{shown} takes no connection: {error}. {otherwise}"));
        }
        Err(_) => findings.warning(about, format!("{shown} takes no connection in time. {otherwise}")),
    }
}
