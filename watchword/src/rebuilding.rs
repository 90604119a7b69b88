//! `rebuild` beside a running server that has the files to itself: the server is asked to do it, and its progress shown.

use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::http::Method;
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::channel::{Channel, HttpClient};
use crate::config::Config;
use crate::progress::Progress;
use crate::serving::Serving;

/// How often the server is asked for the progress.
const BETWEEN: Duration = Duration::from_millis(200);

const BY_HAND: &str = "stop the server, or have it do this with POST /v1/projections/{name}/rebuild";

/// Has the server of this data folder rebuild read models, one after the other. Returns the position of each.
pub async fn by_server<'n>(
    config: &Config,
    names: &[&'n str],
    throttle: Option<NonZeroU32>,
) -> anyhow::Result<Vec<(&'n str, u64)>> {
    let server = find(config).await.context(BY_HAND)?;
    let mut rebuilt = Vec::new();
    for &name in names {
        let path = format!("/v1/projections/{name}/rebuild");
        let body = throttle.map(|throttle| json!({ "throttle": throttle }));
        let asked = server.send(Method::POST, &path, body.as_ref()).await?;
        if !asked.is_success() {
            bail!("{name}: {}", asked.refusal());
        }
        rebuilt.push((name, wait(&server, name).await?));
    }
    Ok(rebuilt)
}

/// The server of this data folder, and no other: the key of the platform is sent to it, within this machine.
async fn find(config: &Config) -> anyhow::Result<Channel> {
    let serving = Serving::read(&config.data_dir)
        .context("the server that has the files left no record of its address")?;
    let (ip, port) = (serving.address.ip(), serving.address.port());
    let host = if ip.is_unspecified() { format!("127.0.0.1:{port}") } else { serving.address.to_string() };
    if !ip.is_unspecified() && !ip.is_loopback() {
        bail!(
            "the server listens at {host} only, and the key of the platform is sent to no address but this machine's own"
        );
    }
    let in_file = || std::fs::read_to_string(config.admin_key_file()).ok();
    let key = config.admin_key.clone().or_else(|| in_file().map(|key| SecretString::from(key.trim())));
    let key = key.context("there is no platform key: neither admin.key nor WATCHWORD_ADMIN_KEY")?;
    let client = HttpClient::new(format!("http://{host}").parse()?)?;
    let answer = client.send(Method::GET, "/readyz", None, &[], None).await?;
    if answer.json["instance"].as_str() != Some(serving.instance.as_str()) {
        bail!("what answers at {host} is not the server of this data folder");
    }
    Ok(Channel::Server { client, key })
}

/// Waits until a read model is rebuilt.
async fn wait(server: &Channel, name: &str) -> anyhow::Result<u64> {
    let mut progress = None;
    loop {
        let list = server.all("/v1/projections").await?;
        let it =
            list.iter().find(|it| it["name"] == name).context("the server does not know this read model")?;
        let (rebuild, number) = (&it["rebuild"], |it: &Value| it.as_u64().unwrap_or_default());
        let progress =
            progress.get_or_insert_with(|| Progress::start(number(&it["position"]) + number(&it["lag"])));
        match rebuild["state"].as_str() {
            None => {
                progress.at(number(&it["position"]), number(&it["position"]));
                return Ok(number(&it["position"]));
            }
            Some("interrupted") => {
                let why =
                    rebuild["error"].as_str().unwrap_or("the server's log says why; run this again to go on");
                bail!("the rebuild of {name} was interrupted: {why}");
            }
            Some(_) => progress.at(number(&rebuild["position"]), number(&rebuild["position"])),
        }
        tokio::time::sleep(BETWEEN).await;
    }
}
