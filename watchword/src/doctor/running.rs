//! What a running server says of itself, and whether one could run.

use std::net::SocketAddr;

use axum::http::Method;

use super::{Findings, mail};
use crate::channel::HttpClient;

/// Asks the server that holds the data folder.
pub async fn running(findings: &mut Findings, listen: SocketAddr) {
    let host = if listen.ip().is_unspecified() {
        format!("127.0.0.1:{}", listen.port())
    } else {
        listen.to_string()
    };
    let url = format!("http://{host}");
    let asked = async {
        let client = HttpClient::new(url.parse()?)?;
        client.send(Method::GET, "/readyz", None, &[], None).await
    };
    let Ok(answer) = asked.await else {
        findings.warning(
                "server",
                format!("does not answer at {url}. If it listens elsewhere, run this with the same configuration (WATCHWORD_LISTEN)"),
            );
        return;
    };
    if answer.is_success() {
        findings.fine("server", format!("ready at {url}"));
    } else {
        findings.fault("server", format!("answers at {url} but is not ready; its log says why"));
    }
    for store in ["journal", "key_store", "read_models"] {
        if answer.json["checks"][store]["ok"] == false {
            findings.fault("server", format!("its {store} cannot be read; its log says why"));
        }
    }
    if let Some(relay) = answer.json["checks"].get("relay") {
        let lag = &relay["lag"];
        match relay["state"].as_str() {
            Some("stopped") => findings.fault(
                "relay",
                format!("stands still, {lag} events behind. The server's log says why, and what to do"),
            ),
            Some("interrupted") => findings
                .warning("relay", format!("{lag} events behind, and tries again. The server's log says why")),
            _ => findings.fine("relay", format!("at event {}, {lag} behind", relay["position"])),
        }
    }
    if let Some(mailer) = answer.json["checks"].get("mailer") {
        match mailer["state"].as_str() {
            Some("interrupted") => findings.warning(
                "mail",
                "none is sent for now, as the journal cannot be read or written; the server's log says more",
            ),
            Some("standby") => findings.fine("mail", "another node sends them"),
            _ => findings.fine(
                "mail",
                format!(
                    "done up to event {}, {} wait for another try",
                    mailer["position"], mailer["waiting"]
                ),
            ),
        }
        mail::given_up(findings, mailer["failed"].as_u64().unwrap_or_default());
    }
    for projector in answer.json["checks"]["projectors"].as_array().into_iter().flatten() {
        let name = projector["name"].as_str().unwrap_or("?");
        let state = projector["state"].as_str().unwrap_or("?");
        let text =
            format!("{name}: {state}, at event {}, {} behind", projector["position"], projector["lag"]);
        if state == "failed" {
            findings.fault("projector", format!("{text}. The server's log and GET /v1/projections say why; stop the server and run this again"));
        } else {
            findings.fine("projector", text);
        }
    }
}

/// Whether a server could listen there.
pub fn port(findings: &mut Findings, listen: SocketAddr) {
    match std::net::TcpListener::bind(listen) {
        Ok(_) => findings.fine("listen", format!("{listen} is free")),
        Err(error) => findings.fault(
            "listen",
            format!("cannot listen on {listen}: {error}. Stop what listens there, or set listen (WATCHWORD_LISTEN) to another address"),
        ),
    }
}
