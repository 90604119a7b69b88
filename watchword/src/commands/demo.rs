//! `demo`: the main features, with real requests, explained to a newcomer.

mod proof;
mod tour;

use clap::Args;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use axum::http::Method;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Globals, Run, runtime};
use crate::channel::HttpClient;
use crate::config::Config;
use crate::connections::{Room, serve};
use crate::data_dir;
use crate::descriptors;
use crate::instance::Instance;
use tour::{Expected, Tour};

const EMAIL: &str = "ada@example.com";
const PASSWORD: &str = "correct horse battery staple";
const AUTH: &str = "/v1/apps/default/auth";
const ADMIN: &str = "/v1/apps/default/admin";

/// Show what Watchword does, with real requests against an instance in a temporary folder
///
/// Registers a person, logs in, refreshes, replays a stolen token, bans the person while a read model is paused, and
/// reads the stats, the audit log and the event feed, and proves an event to somebody who has only the log's public key.
/// Prints each request, the events it caused and what the read models show. Nothing is left behind. Exit code 1 if any step does not go as expected.
#[derive(Debug, Args)]
pub struct Demo {}

impl Run for Demo {
    fn run(self, _: &Globals) -> anyhow::Result<ExitCode> {
        runtime()?.block_on(run())
    }
}

async fn run() -> anyhow::Result<ExitCode> {
    let folder = tempfile::Builder::new()
        .prefix("watchword-demo-")
        .tempdir()
        .context("cannot create a temporary folder. Set TMPDIR to a writable folder")?;
    let data_dir = folder.path().join("data");
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .context("cannot listen on the loopback address 127.0.0.1")?;
    let address = listener.local_addr()?;
    let mut config = Config::in_folder(&data_dir);
    descriptors::fit(&mut config.connections, &mut config.requests_in_flight);
    let instance = Instance::open(&config, address).await?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let room = Room::new(config.connections, &config.trusted_proxies);
    let server = tokio::spawn(serve(listener, instance.mounted(), config.http, room, async {
        let _ = stopped.await;
    }));

    let client = HttpClient::new(format!("http://{address}").parse()?)?;
    let admin = data_dir::read_secret(&config.admin_key_file())?;
    let mut tour = Tour::new(client, admin);
    let told = tell(&mut tour, &instance, &data_dir).await;

    let _ = stop.send(());
    server.await?;
    instance.close().await;
    folder.close().context("cannot delete the temporary folder")?;
    told?;
    Ok(if tour.conclude() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn tell(tour: &mut Tour, instance: &Instance, data_dir: &Path) -> anyhow::Result<()> {
    tour.say(
        "Watchword keeps accounts and logins. It never overwrites anything: each thing that happens is an event, \
         written at the end of a log and given the next number. Everything else (who may log in, user lists, \
         statistics, the audit log) is worked out from the log. This demo runs a real instance in a temporary \
         folder and talks to it over HTTP, as your app would.",
    );
    tour.fact(&format!("The instance: http://{} in {}", instance.address(), data_dir.display()));

    first_start(tour).await?;
    let user = register(tour).await?;
    wrong_password(tour, &user).await?;
    let session = login(tour, &user).await?;
    me(tour, &session.access).await?;
    refresh_and_reuse(tour, session, &user).await?;
    ban(tour, instance, &user).await?;
    read_models(tour, &user).await?;
    feed(tour).await?;
    check_log(tour, instance, data_dir).await?;
    proof::prove(tour, &user).await
}

/// The tokens that a client gets from a login.
struct Tokens {
    access: SecretString,
    refresh: SecretString,
}

impl Tokens {
    fn of(answer: &Value) -> anyhow::Result<Self> {
        let token = |member: &str| {
            answer[member]
                .as_str()
                .map(SecretString::from)
                .with_context(|| format!("the answer has no {member}"))
        };
        Ok(Self { access: token("access_token")?, refresh: token("refresh_token")? })
    }
}

async fn first_start(tour: &mut Tour) -> anyhow::Result<()> {
    tour.step(
        "The first start",
        "A new instance creates the app \"default\" with keys that sign its tokens, and a key for its operator. \
         These are events, too.",
    );
    let events = tour.new_events().await?;
    tour.check(!events.is_empty() && events[0]["position"] == 1, "the log begins with event 1");
    Ok(())
}

async fn register(tour: &mut Tour) -> anyhow::Result<String> {
    tour.step(
        "Ada registers",
        "She is logged in at once: the answer has a short-lived access token and a refresh token to get the next one.",
    );
    let body = json!({ "email": EMAIL, "password": PASSWORD, "name": "Ada Lovelace" });
    let answer = tour
        .call(Method::POST, &format!("{AUTH}/register"), None, Some(&body), Expected::status(201))
        .await?;
    tour.expect_events(&["UserRegistered", "SessionStarted"]).await?;
    let user = answer.json["user"]["id"].as_str().context("the answer has no user id")?.to_owned();
    tour.after(&answer);
    let shown = tour.query(&format!("{ADMIN}/users/{user}")).await?;
    tour.models(&user).await?;
    tour.check(shown["email"] == EMAIL && shown["banned"] == false, "the read models show her");
    tour.say("That the operator has looked at her data is in the log, too, once within an hour:");
    tour.expect_events(&["PersonalDataRead"]).await?;
    Ok(user)
}

async fn wrong_password(tour: &mut Tour, user: &str) -> anyhow::Result<()> {
    tour.step(
        "Somebody tries a wrong password",
        "The failure is written to the log before the refusal is sent, so that guesses are counted even if the server \
         stops right then. The refusal does not tell whether the address is known.",
    );
    let body = json!({ "email": EMAIL, "password": "incorrect horse" });
    let expected = Expected::refusal(401, "invalid_credentials");
    tour.call(Method::POST, &format!("{AUTH}/login"), None, Some(&body), expected).await?;
    tour.expect_events(&["LoginFailed"]).await?;
    tour.models(user).await
}

async fn login(tour: &mut Tour, user: &str) -> anyhow::Result<Tokens> {
    tour.step(
        "Ada logs in",
        "The account's state is folded from the log, the password is checked, and the new session is written only if \
         neither changed meanwhile.",
    );
    let tokens = log_in(tour).await?;
    tour.expect_events(&["SessionStarted"]).await?;
    tour.models(user).await?;
    Ok(tokens)
}

async fn log_in(tour: &mut Tour) -> anyhow::Result<Tokens> {
    let body = json!({ "email": EMAIL, "password": PASSWORD });
    let answer =
        tour.call(Method::POST, &format!("{AUTH}/login"), None, Some(&body), Expected::status(200)).await?;
    tour.after(&answer);
    Tokens::of(&answer.json)
}

async fn me(tour: &mut Tour, access: &SecretString) -> anyhow::Result<()> {
    tour.step(
        "Who am I?",
        "Her access token gives access to her account. Reading changes nothing, so there is no new event.",
    );
    let answer =
        tour.call(Method::GET, &format!("{AUTH}/me"), Some(access), None, Expected::status(200)).await?;
    tour.check(answer.json["email"] == EMAIL, "the answer is about Ada");
    tour.expect_events(&[]).await
}

async fn refresh_and_reuse(tour: &mut Tour, first: Tokens, user: &str) -> anyhow::Result<()> {
    let path = format!("{AUTH}/refresh");
    let body = |token: &SecretString| {
        use secrecy::ExposeSecret;
        json!({ "refresh_token": token.expose_secret() })
    };
    tour.step(
        "The app refreshes",
        "Each refresh token is used once: the answer has its successor. No token is stored anywhere; it is derived from \
         the session and the number of its refreshes.",
    );
    let answer =
        tour.call(Method::POST, &path, None, Some(&body(&first.refresh)), Expected::status(200)).await?;
    let second = Tokens::of(&answer.json)?;
    tour.expect_events(&["SessionRefreshed"]).await?;
    tour.say(
        "The reply was lost? Asking again within seconds gives the same successor, and no second event.",
    );
    let again =
        tour.call(Method::POST, &path, None, Some(&body(&first.refresh)), Expected::status(200)).await?;
    tour.check(again.json["refresh_token"] == answer.json["refresh_token"], "it is the same successor");
    tour.expect_events(&[]).await?;

    tour.step(
        "A thief replays a stolen refresh token",
        "The app has refreshed once more when the first token turns up again. Two parties hold the same chain of \
         tokens, and the service cannot tell which is the thief: the whole session ends.",
    );
    let answer =
        tour.call(Method::POST, &path, None, Some(&body(&second.refresh)), Expected::status(200)).await?;
    let newest = Tokens::of(&answer.json)?;
    tour.expect_events(&["SessionRefreshed"]).await?;
    let expected = Expected::refusal(401, "invalid_refresh_token");
    tour.call(Method::POST, &path, None, Some(&body(&first.refresh)), expected).await?;
    tour.expect_events(&["RefreshTokenReused", "SessionRevoked"]).await?;
    tour.say("The newest token is invalid, too, and so is the access token that came with it:");
    let expected = Expected::refusal(401, "session_revoked");
    tour.call(Method::POST, &path, None, Some(&body(&newest.refresh)), expected).await?;
    let me = format!("{AUTH}/me");
    tour.call(Method::GET, &me, Some(&newest.access), None, Expected::status(401)).await?;
    tour.expect_events(&[]).await?;
    tour.models(user).await
}

async fn ban(tour: &mut Tour, instance: &Instance, user: &str) -> anyhow::Result<()> {
    tour.step("Ada logs in again", "With her password she gets a new session.");
    let tokens = log_in(tour).await?;
    tour.expect_events(&["SessionStarted"]).await?;
    tour.settle("login_checks").await?;

    tour.step(
        "An operator bans Ada while a read model is paused",
        "The read model that login uses to find accounts is stopped on purpose, and so still shows Ada as she was. That \
         must not matter: decisions come from the log, read models only help to find things.",
    );
    instance.pause("login_checks").await?;
    let body = json!({ "reason": "demo" });
    let admin = tour.admin();
    tour.call(
        Method::POST,
        &format!("{ADMIN}/users/{user}/ban"),
        Some(&admin),
        Some(&body),
        Expected::success(),
    )
    .await?;
    tour.expect_events(&["UserBanned", "SessionRevoked", "SessionRevoked"]).await?;
    let paused = tour.projection("login_checks").await?;
    tour.model(
        "login_checks",
        &format!("state {}, at event {}; it does not have the ban yet", paused["state"], paused["position"]),
    );
    tour.check(paused["state"] == "paused", "the read model is paused");
    tour.say("Her access token has not expired, but is refused at once. So is her correct password:");
    tour.call(Method::GET, &format!("{AUTH}/me"), Some(&tokens.access), None, Expected::status(401)).await?;
    let body = json!({ "email": EMAIL, "password": PASSWORD });
    let expected = Expected::refusal(403, "user_banned");
    tour.call(Method::POST, &format!("{AUTH}/login"), None, Some(&body), expected).await?;
    tour.expect_events(&[]).await?;
    instance.resume("login_checks").await?;
    tour.settle("login_checks").await?;
    tour.say("Once resumed, the read model catches up from the log.");
    Ok(())
}

async fn read_models(tour: &mut Tour, user: &str) -> anyhow::Result<()> {
    tour.step(
        "What the read models show",
        "All of it is derived from the events above, and can be rebuilt from them.",
    );
    for model in read_models::NAMES {
        tour.settle(model).await?;
    }
    let admin = tour.admin();
    let shown = tour.query(&format!("{ADMIN}/users/{user}")).await?;
    tour.models(user).await?;
    tour.check(shown["banned"] == true, "the user is shown as banned");

    let path = format!("{ADMIN}/stats?granularity=day");
    let stats = tour.call(Method::GET, &path, Some(&admin), None, Expected::status(200)).await?;
    let day = stats.json["items"].as_array().and_then(|items| items.last()).cloned().unwrap_or_default();
    tour.check(!day.is_null(), "today has its numbers");

    let path = format!("/v1/apps/default/audit/events?user_id={user}&limit=200");
    let audit = tour.call(Method::GET, &path, Some(&admin), None, Expected::status(200)).await?;
    let items = audit.json["items"].as_array().cloned().unwrap_or_default();
    for item in &items {
        tour.audit_row(item);
    }
    tour.check(items.len() >= 10, "the audit log has each decision about Ada");
    Ok(())
}

async fn feed(tour: &mut Tour) -> anyhow::Result<()> {
    tour.step(
        "Other programs follow the events",
        "A live feed (server-sent events) starts after any event number, so a consumer that was away misses nothing.",
    );
    let head = tour.shown();
    let after = head.saturating_sub(3);
    let ids = tour.follow("/v1/events", after, 3).await?;
    tour.check(
        ids == (after + 1..=head).collect::<Vec<_>>(),
        "the feed continues after the named event, without a gap",
    );
    Ok(())
}

async fn check_log(tour: &mut Tour, instance: &Instance, data_dir: &Path) -> anyhow::Result<()> {
    tour.step(
        "The log is whole, and keeps its secrets",
        "Every event number from the first to the last is there, each stream's versions run without a gap, and no file \
         has Ada's address, her password or one of her tokens in readable form.",
    );
    let report = instance.check_journal().await?;
    tour.fact(&format!("{} events in {} streams", report.events, report.streams));
    for fault in &report.faults {
        tour.fact(&fault.text);
    }
    tour.check(
        report.faults.is_empty(),
        "no gap in positions or versions, and every event, sealed part and claim is as it should be",
    );
    let found = files_with(data_dir, &[EMAIL, PASSWORD, "Lovelace", "wwr_", "eyJ0eX"])?;
    tour.check(
        found.is_empty(),
        &format!("searched every byte of the data folder: {} readable traces", found.len()),
    );
    Ok(())
}

/// The files of a folder in which one of the texts can be read.
fn files_with(folder: &Path, texts: &[&str]) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if !path.is_file() {
            continue;
        }
        let bytes = std::fs::read(&path)?;
        if texts.iter().any(|text| bytes.windows(text.len()).any(|window| window == text.as_bytes())) {
            found.push(path);
        }
    }
    Ok(found)
}
