//! What a running server reports, and whether one could run.

use std::net::SocketAddr;

use axum::http::Method;
use secrecy::SecretString;
use serde_json::Value;

use super::{Findings, mail, signing_keys, whose};
use crate::channel::HttpClient;
use crate::config::Config;

/// Queries this instance's server, and no other, at this address or the configured one.
///
/// The progress of each part is available on the internal address, or with the platform key, which is sent to no other
/// server.
pub async fn running(
    findings: &mut Findings,
    config: &Config,
    address: Option<SocketAddr>,
    instance: Option<&str>,
) {
    let listen = address.or(config.internal_listen).unwrap_or(config.listen);
    let in_file = || std::fs::read_to_string(config.admin_key_file()).ok();
    let key = config.admin_key.clone().or_else(|| in_file().map(|key| SecretString::from(key.trim())));
    let host = if listen.ip().is_unspecified() {
        format!("127.0.0.1:{}", listen.port())
    } else {
        listen.to_string()
    };
    let url = format!("http://{host}");
    let ask = async |key: Option<&SecretString>| {
        let client = HttpClient::new(url.parse()?)?;
        client.send(Method::GET, "/readyz", key, &[], None).await
    };
    let Ok(answer) = ask(None).await else {
        findings.warning(
                "server",
                format!("does not answer at {url}. If it listens elsewhere, run this with the same configuration (WATCHWORD_LISTEN)"),
            );
        return;
    };
    if !whose::is_ours(findings, &url, &answer, instance) {
        return;
    }
    // The key is sent only within this machine, and only to its own server.
    let key = key.as_ref().filter(|_| listen.ip().is_loopback() || listen.ip().is_unspecified());
    let answer = if key.is_some() { ask(key).await.unwrap_or(answer) } else { answer };
    if answer.is_success() {
        findings.fine("server", format!("ready at {url}"));
    } else {
        findings.fault("server", format!("answers at {url} but is not ready; its log says why"));
    }
    for store in ["journal", "key_store", "read_models"] {
        let check = &answer.json["checks"][store];
        if check["ok"] == false {
            let why = check["detail"].as_str().unwrap_or("it cannot be read; the log says why");
            findings.fault("server", format!("its {store}: {why}"));
        }
    }
    tasks(findings, &answer.json["checks"]["tasks"]);
    log(findings, &answer.json["checks"]["log"]);
    if let Some(why) = answer.json["checks"]["clock"]["detail"].as_str() {
        findings.warning("clock", why);
    }
    if let Some(relay) = answer.json["checks"].get("relay") {
        let (at, why) = (place(relay), relay["detail"].as_str().unwrap_or("the server's log says why"));
        match relay["state"].as_str() {
            Some("stopped") => findings.fault("relay", format!("stands still{at}: {why}")),
            Some("interrupted") => findings.warning("relay", format!("tries again{at}: {why}")),
            _ => findings.fine("relay", format!("publishes{at}")),
        }
    }
    if let Some(check) = answer.json["checks"].get("signing_keys") {
        signing_keys::tell(findings, check);
    }
    if let Some(brought) = answer.json["checks"].get("bus") {
        bus(findings, brought);
    }
    // If the journal is unreadable, that fault was already reported.
    let mailer =
        answer.json["checks"].get("mailer").filter(|_| answer.json["checks"]["journal"]["ok"] != false);
    if let Some(mailer) = mailer {
        match mailer["state"].as_str() {
            Some("interrupted") => findings.warning(
                "mail",
                "the mailer could not use the journal a moment ago, but it is readable now. It resumes by itself, within 30 \
                 seconds at most; if this stays, the server's log says why",
            ),
            Some("standby") => findings.fine("mail", "another node sends them"),
            _ => findings.fine(
                "mail",
                match (mailer["position"].as_u64(), mailer["waiting"].as_u64()) {
                    (Some(position), Some(waiting)) => {
                        format!("done up to event {position}, {waiting} waiting for a retry")
                    }
                    _ => "a node sends them".to_owned(),
                },
            ),
        }
        mail::given_up(findings, mailer["failed"].as_u64().unwrap_or_default());
    }
    for projector in answer.json["checks"]["projectors"].as_array().into_iter().flatten() {
        let name = projector["name"].as_str().unwrap_or("?");
        let state = projector["state"].as_str().unwrap_or("?");
        let text = format!("{name}: {state}{}", place(projector));
        if state == "failed" {
            findings.fault("projector", format!("{text}. The server's log and GET /v1/projections say why; stop the server and run this again"));
        } else {
            findings.fine("projector", text);
        }
    }
}

/// The server's background tasks.
fn tasks(findings: &mut Findings, check: &Value) {
    for task in check["list"].as_array().into_iter().flatten() {
        let name = task["name"].as_str().unwrap_or("?");
        match (task["ok"] == true, task["restarts"].as_u64().unwrap_or_default()) {
            (true, 0) => {}
            (true, restarts) => findings.warning(
                "tasks",
                format!("{name} runs, but has failed {restarts} times since the start; the server's log says why"),
            ),
            (false, restarts) => findings.fault(
                "tasks",
                format!(
                    "{name} has failed, {restarts} times so far; the server's log says why. It is started again by itself"
                ),
            ),
        }
    }
}

/// The server's log.
fn log(findings: &mut Findings, check: &Value) {
    let lost = check["lost"].as_u64().unwrap_or_default();
    if check["ok"] == false {
        let why = check["detail"].as_str().unwrap_or("it cannot be written");
        findings.warning(
            "log",
            format!(
                "{why}; {lost} lines were lost since the start. Nothing else is affected. Make room where stderr goes, or restart \
                 what reads it"
            ),
        );
    } else if lost > 0 {
        findings.warning(
            "log",
            format!("{lost} lines were lost since the start; the log says when. A larger log_buffer_mib keeps more"),
        );
    }
}

/// The events from NATS.
fn bus(findings: &mut Findings, bus: &Value) {
    let refused = |member: &str| bus[member].as_u64().unwrap_or_default();
    if bus["ok"] == true && refused("unmarked") == 0 {
        findings.fine("bus", "events come from NATS, and every message is this instance's");
    } else if refused("forged") > 0 {
        findings.fault(
            "bus",
            format!(
                "{} messages of the stream were not published by this instance there, the last at {}. None was \
                 believed: their events were read from the journal. Find out who can write to the stream, then run \
                 `watchword relay --rebuild`",
                refused("forged"),
                bus["last_refused"]
            ),
        );
    } else if refused("unmarked") > 0 {
        findings.warning(
            "bus",
            format!(
                "{} messages have no mark, the last at {}: an earlier version published them, or somebody else. Their \
                 events were read from the journal. `watchword relay --rebuild` makes the stream anew",
                refused("unmarked"),
                bus["last_refused"]
            ),
        );
    } else {
        let why = bus["detail"].as_str().unwrap_or("the server's log says why");
        findings.warning("bus", format!("some of its messages are not used: {why}"));
    }
}

/// The progress of a part, if reported.
fn place(part: &Value) -> String {
    match (part["position"].as_u64(), part["lag"].as_u64()) {
        (Some(position), Some(lag)) => format!(", at event {position}, {lag} behind"),
        _ => String::new(),
    }
}

/// Whether a server could listen on this address.
pub fn port(findings: &mut Findings, listen: SocketAddr) {
    match std::net::TcpListener::bind(listen) {
        Ok(_) => findings.fine("listen", format!("{listen} is free")),
        Err(error) => findings.fault(
            "listen",
            format!("cannot listen on {listen}: {error}. Stop what listens there, or set listen (WATCHWORD_LISTEN) to another address"),
        ),
    }
}
