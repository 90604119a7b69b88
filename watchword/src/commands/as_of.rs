//! `as-of`: what something was at a moment of the past, through the REST API.

use std::process::ExitCode;

use anyhow::{Context, bail};
use axum::http::Method;
use clap::{Args, Subcommand};
use domain::AppId;
use serde_json::Value;
use uuid::Uuid;

use super::operator::{Target, open, show};
use super::{Globals, Run, app_id};
use crate::channel::Channel;
use crate::config::Config;

/// Show a user, a session or an app as of a moment of the past
///
/// The state is folded from the log, up to the last event that is not later. Looking at a person's data is recorded, as
/// looking at the present is.
#[derive(Debug, Args)]
pub struct AsOf {
    /// A time such as 2026-01-31T09:30:00Z, a date, or a position of the log
    #[arg(value_name = "TIME|POSITION")]
    moment: String,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show an app and its settings
    App {
        /// The app
        #[arg(value_parser = app_id)]
        id: AppId,
        #[command(flatten)]
        target: Target,
    },
    /// Show a user
    User(Sought),
    /// Show a session that was live
    Session(Sought),
}

/// What has an id that is unique among all apps.
#[derive(Debug, Args)]
struct Sought {
    /// Its id
    id: Uuid,
    /// Its app [default: found among all apps]
    #[arg(long, value_parser = app_id)]
    app: Option<AppId>,
    #[command(flatten)]
    target: Target,
}

impl Run for AsOf {
    fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        globals.with_config(async |config| Box::pin(run(config, self)).await)
    }
}

async fn run(config: Config, AsOf { moment, what }: AsOf) -> anyhow::Result<ExitCode> {
    let target = match &what {
        What::App { target, .. }
        | What::User(Sought { target, .. })
        | What::Session(Sought { target, .. }) => target,
    };
    let (channel, instance) = open(config, target).await?;
    let found = find(&channel, &moment, &what).await;
    drop(channel);
    if let Some(instance) = instance {
        instance.close().await;
    }
    show(target, &found?)
}

async fn find(channel: &Channel, moment: &str, what: &What) -> anyhow::Result<Value> {
    let as_of: String = url::form_urlencoded::byte_serialize(moment.as_bytes()).collect();
    match what {
        What::App { id, .. } => {
            let app = read(channel, &format!("/v1/apps/{id}?as_of={as_of}")).await?;
            app.with_context(|| format!("there was no app {id} then"))
        }
        What::User(Sought { id, app, .. }) => {
            for app in apps(channel, app.as_ref()).await? {
                let path = format!("/v1/apps/{app}/admin/users/{id}?as_of={as_of}");
                if let Some(user) = read(channel, &path).await? {
                    return Ok(user);
                }
            }
            bail!("there was no user {id} then")
        }
        What::Session(Sought { id, app, .. }) => {
            for app in apps(channel, app.as_ref()).await? {
                let begun =
                    format!("/v1/apps/{app}/audit/events?session_id={id}&type=SessionStarted&limit=1");
                let begun = read(channel, &begun).await?.unwrap_or_default();
                let Some(user) = begun["items"][0]["user_id"].as_str() else { continue };
                let sessions = format!("/v1/apps/{app}/admin/users/{user}/sessions?as_of={as_of}");
                let mut sessions = channel.all(&sessions).await?.into_iter();
                let session = sessions.find(|session| session["id"] == id.to_string().as_str());
                return session.with_context(|| format!("the session {id} was not live then"));
            }
            bail!("there is no session {id}")
        }
    }
}

/// The ids of the apps to look in.
async fn apps(channel: &Channel, only: Option<&AppId>) -> anyhow::Result<Vec<String>> {
    if let Some(app) = only {
        return Ok(vec![app.to_string()]);
    }
    let apps = channel.all("/v1/apps").await?;
    Ok(apps.iter().filter_map(|app| app["app_id"].as_str().map(str::to_owned)).collect())
}

/// What is there; nothing if it is absent.
async fn read(channel: &Channel, path: &str) -> anyhow::Result<Option<Value>> {
    let answer = channel.send(Method::GET, path, None).await?;
    match answer.status {
        404 => Ok(None),
        _ if answer.is_success() => Ok(Some(answer.json)),
        _ => bail!("refused: {}", answer.refusal()),
    }
}
