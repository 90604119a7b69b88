//! `history`: what happened, in words, through the REST API.

use std::io::Write;
use std::process::ExitCode;

use anyhow::bail;
use axum::http::Method;
use clap::{Args, Subcommand, ValueEnum};
use domain::AppId;
use serde_json::{Value, json};

use super::operator::{Target, open, show};
use super::user::{Who, identify};
use super::{Globals, Run, app_id};
use crate::channel::Channel;
use crate::config::Config;
use crate::instance::Instance;

/// Histories in words
#[derive(Debug, Subcommand)]
pub enum History {
    /// Print what happened to a user, oldest first: time, position, what, and by whom
    ///
    /// Sessions, magic links, failed logins, mails and reads of the person's data are included. An erased person has a
    /// history without personal data: name them by their id.
    User(OfUser),
}

#[derive(Debug, Args)]
pub struct OfUser {
    /// The app
    #[arg(value_parser = app_id)]
    app: AppId,
    /// The user's id, or their address
    #[arg(value_name = "ID|ADDRESS")]
    user: Who,
    /// How it is written; --json is --format json
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line of text for each event
    Text,
    /// One JSON object
    Json,
    /// A JSON object for each event
    Ndjson,
    /// A table for spreadsheets
    Csv,
}

impl Run for History {
    fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        let Self::User(user) = self;
        globals.with_config(async |config| Box::pin(run(config, user)).await)
    }
}

impl Format {
    /// The media type; nothing for pages of JSON.
    fn media(self) -> Option<&'static str> {
        match self {
            Self::Text => Some("text/plain"),
            Self::Json => None,
            Self::Ndjson => Some("application/x-ndjson"),
            Self::Csv => Some("text/csv"),
        }
    }
}

async fn run(config: Config, user: OfUser) -> anyhow::Result<ExitCode> {
    let (channel, instance) = open(config, &user.target).await?;
    let read = read(&channel, instance.as_ref(), &user).await;
    drop(channel);
    if let Some(instance) = instance {
        instance.close().await;
    }
    match read? {
        Read::Items(items) => show(&user.target, &json!({ "items": items })),
        Read::Text(text) => {
            std::io::stdout().write_all(text.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

enum Read {
    Items(Vec<Value>),
    Text(String),
}

async fn read(channel: &Channel, instance: Option<&Instance>, user: &OfUser) -> anyhow::Result<Read> {
    let OfUser { app, user, format, target } = user;
    let id = identify(channel, instance, app, user).await?;
    let path = format!("/v1/apps/{app}/admin/users/{id}/history");
    let Some(media) = format.media().filter(|_| !target.output.json) else {
        return Ok(Read::Items(channel.all(&path).await?));
    };
    let answer = channel.send_for(media, Method::GET, &path, None).await?;
    if !answer.is_success() {
        bail!("refused: {}", answer.refusal());
    }
    Ok(Read::Text(answer.text))
}
