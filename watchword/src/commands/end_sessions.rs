//! `end-sessions`: ends all sessions of all users, after an older state of the journal was restored.
//!
//! Such a journal has lost acknowledged revocations, and accepts a refresh token that was already used as the newest of
//! its session. The affected sessions are unknown, so all of them end. Tokens of sessions that the journal does not
//! know are refused anyway.

use clap::Args;
use std::io::Write;
use std::process::ExitCode;

use anyhow::bail;
use axum::http::Method;
use serde_json::json;

use super::{Globals, Output, Run};
use crate::channel::Channel;
use crate::config::Config;
use crate::data_dir::{self, DataDirError, State};
use crate::instance::Instance;
use crate::progress::Progress;

/// End all sessions of all users
///
/// For use after an older state of the journal was restored: it does not know which sessions were revoked since. With a
/// journal in SQLite the server must be stopped; with PostgreSQL or KurrentDB it need not be, but run this before any
/// node starts on a restored journal. All users have to log in again.
#[derive(Debug, Args)]
pub struct EndSessions {
    /// Confirm that all sessions end
    #[arg(long, required = true)]
    all: bool,
    #[command(flatten)]
    output: Output,
}

impl Run for EndSessions {
    fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        let Self { all: _, output } = self;
        globals.with_config(async |config| run(config, output.json).await)
    }
}

/// What was done.
struct Ended {
    users: u64,
    sessions: u64,
}

async fn run(mut config: Config, as_json: bool) -> anyhow::Result<ExitCode> {
    if data_dir::inspect(&config)? == State::Fresh {
        return Err(DataDirError::Absent { path: config.data_dir }.into());
    }
    // All requests come from one address here.
    config.limits.enabled = false;
    let instance = Instance::open(&config, config.listen).await?;
    let ended = end_all(&instance).await;
    instance.close().await;
    let Ended { users, sessions } = ended?;
    let mut out = std::io::stdout();
    if as_json {
        writeln!(out, "{}", json!({ "users": users, "sessions": sessions }))?;
    } else {
        writeln!(out, "ended {sessions} sessions of {users} users")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One request per user, so that each is logged as an operator's action. It can be rerun after an interruption.
async fn end_all(instance: &Instance) -> anyhow::Result<Ended> {
    let reading = Progress::start(instance.head().await?);
    let users = instance.users_with_sessions(|position| reading.at(position, position)).await;
    reading.end();
    let users = users?;
    let channel = Channel::Embedded { router: instance.router(), key: instance.platform_key().await? };
    let progress = Progress::start(users.len() as u64);
    let mut ended = Ended { users: 0, sessions: 0 };
    for (app, user) in users {
        let path = format!("/v1/apps/{app}/admin/users/{user}/sessions/revoke-all");
        let answer = channel.send(Method::POST, &path, Some(&json!({}))).await?;
        if !answer.is_success() {
            bail!("the sessions of the user {user} of {app} were not ended: {}", answer.refusal());
        }
        ended.users += 1;
        ended.sessions += answer.json["revoked"].as_u64().unwrap_or_default();
        progress.at(ended.users, ended.users);
    }
    progress.end();
    Ok(ended)
}
