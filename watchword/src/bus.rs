//! The connection to NATS.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use effects::relay::RelaySettings;
use percent_encoding::percent_decode_str;
use secrecy::ExposeSecret;

use crate::config::{Nats, refuse_world_readable};
use crate::init::hostname;

const LONGEST_RETRY: Duration = Duration::from_secs(1);
/// After how long without a word the server is asked whether it is there. Two questions without an answer end the connection
/// with the third, within 12 seconds; a host that died without a word is not noticed otherwise.
const PING: Duration = Duration::from_secs(4);

/// The client of NATS, and how events are published there, if it is configured.
pub async fn configured(nats: Option<&Nats>) -> anyhow::Result<Option<(Client, RelaySettings)>> {
    let Some(nats) = nats else { return Ok(None) };
    Ok(Some((connect(nats).await?, nats.relay.clone())))
}

/// Connects in the background: this does not wait for NATS, and fails only if the configuration is unusable.
pub async fn connect(nats: &Nats) -> anyhow::Result<Client> {
    let servers = servers(nats.url.expose_secret()).map_err(anyhow::Error::msg)?;
    let options = options(nats, &servers).await?;
    metrics::gauge!("watchword_nats_connected").set(0);
    options.connect(servers).await.context("cannot start the NATS client")
}

/// Fails if the configuration is unusable.
pub async fn check(nats: &Nats) -> anyhow::Result<()> {
    options(nats, &servers(nats.url.expose_secret()).map_err(anyhow::Error::msg)?).await.map(drop)
}

async fn options(nats: &Nats, servers: &[ServerAddr]) -> anyhow::Result<ConnectOptions> {
    let mut options = ConnectOptions::new()
        .name(concat!("watchword ", env!("CARGO_PKG_VERSION")))
        .retry_on_initial_connect()
        .ping_interval(PING)
        .reconnect_delay_callback(|attempts| {
            LONGEST_RETRY.min(Duration::from_millis(50) * attempts.try_into().unwrap_or(u32::MAX))
        })
        .event_callback(async |event| match event {
            Event::Connected => {
                tracing::info!("NATS is connected");
                metrics::gauge!("watchword_nats_connected").set(1);
            }
            Event::Disconnected => {
                tracing::warn!("NATS is disconnected; reconnecting");
                metrics::gauge!("watchword_nats_connected").set(0);
            }
            other => tracing::debug!(event = %other, "NATS"),
        });
    if let Some(path) = &nats.credentials {
        refuse_world_readable(path)?;
        let problem = || format!("the NATS credentials {} cannot be used", path.display());
        options = options.credentials_file(path).await.with_context(problem)?;
    }
    if let Some((user, password)) = servers.iter().find_map(user_and_password) {
        options = options.user_and_password(user, password);
    }
    Ok(options)
}

/// The user and password in an address. The client does not read them from there, and it learns the other servers of a
/// cluster, which share the same users, from the first one.
fn user_and_password(server: &ServerAddr) -> Option<(String, String)> {
    let decoded = |text: &str| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
    Some((decoded(server.username()?)?, decoded(server.password()?)?))
}

/// The configured servers. An invalid address is not quoted, because it may contain a password. With a `/` in it that is not
/// escaped, the password would be taken for a port and its rest for a path.
pub fn servers(text: &str) -> Result<Vec<ServerAddr>, String> {
    let address = |part: &str| {
        let (_, rest) = part.split_once("://").unwrap_or(("", part));
        let behind = rest.find(['/', '?', '#']).map_or("", |end| &rest[end..]);
        let address: ServerAddr = part.trim().parse().ok().filter(|_| !behind.contains('@'))?;
        (matches!(address.scheme(), "nats" | "tls") && !address.host().is_empty()).then_some(address)
    };
    let servers: Option<Vec<ServerAddr>> = text.split(',').map(address).collect();
    servers.ok_or_else(|| {
        "give addresses such as nats://127.0.0.1:4222 or tls://nats.example.com, separated by commas; in a password write %40 \
         for @, %2F for /, %2C for a comma"
            .to_owned()
    })
}

/// The name of this process's consumer: stable across restarts, and unique among processes.
pub fn consumer_name(address: SocketAddr) -> String {
    let name = format!("projections-{}-{}", hostname(), address.port());
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use effects::relay::RelaySettings;
    use test_services::Nats;

    use super::*;
    use crate::config;

    #[test]
    fn addresses_are_checked_and_never_quoted() {
        let two = servers("nats://user:secret@a:4222, tls://b").expect("valid");
        assert!(two[0].has_user_pass() && !two[0].tls_required() && two[1].tls_required());
        assert_eq!(servers("127.0.0.1:4222").expect("valid")[0].port(), 4222);
        for bad in [
            "http://user:secret@a",
            "nats://user:secret@a:port",
            "nats://user:12/secret@a",
            "nats://user:12#secret@a",
            "ws://a",
            "",
            "nats://a,,",
        ] {
            assert!(!servers(bad).expect_err(bad).contains("secret"));
        }
    }

    #[tokio::test]
    async fn the_user_of_an_address_logs_in() {
        let server = Nats::start_with("authorization { user: relay, password: \"p@ss word\" }");
        let url = |user: &str| format!("nats://{user}127.0.0.1:{0}, nats://127.0.0.1:{0}", server.port());
        let connected = async |user: &str| {
            let nats =
                config::Nats { url: url(user).into(), credentials: None, relay: RelaySettings::default() };
            let client = connect(&nats).await.expect("the configuration can be used");
            // It waits for the connection.
            tokio::time::timeout(Duration::from_secs(3), client.flush())
                .await
                .is_ok_and(|flushed| flushed.is_ok())
        };
        assert!(connected("relay:p%40ss%20word@").await, "{}", server.log());
        assert!(!connected("relay:wrong@").await && !connected("").await);
    }

    #[test]
    fn a_consumer_has_a_name_that_nats_takes() {
        let name = consumer_name("127.0.0.1:8080".parse().expect("an address"));
        assert!(name.starts_with("projections-") && name.ends_with("-8080"));
        // Asks the system itself: a unit with ProcSubset=pid has no /proc/sys.
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("this test sees it");
        assert_eq!(hostname(), host.trim());
        assert!(!name.contains(['.', '*', '>', ' ', '\n']));
    }
}
