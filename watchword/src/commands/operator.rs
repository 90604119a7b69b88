//! What `app`, `api-key` and `user` share: each command is one request to the REST API.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use axum::http::Method;
use clap::Args;
use serde_json::{Value, json};

use super::Output;
use crate::channel::{Answer, Channel, HttpClient};
use crate::config::Config;
use crate::data_dir;
use crate::instance::Instance;

/// Where a command is sent.
#[derive(Debug, Args)]
pub struct Target {
    /// A running server, such as `http://127.0.0.1:8080`. Without it the stores are opened directly: with SQLite the
    /// server must be stopped, with PostgreSQL or KurrentDB nodes keep running
    #[arg(long, value_name = "URL")]
    pub url: Option<url::Url>,
    /// The file with the platform key for --url [default: admin.key in the data folder]
    #[arg(long, value_name = "FILE", requires = "url")]
    pub admin_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub output: Output,
}

/// A request, and the message on success.
pub struct Operation {
    pub method: Method,
    pub path: String,
    pub body: Option<Value>,
    pub done: String,
}

/// Prints all pages of a list: a line per item, with these members.
pub async fn list(config: Config, target: &Target, path: &str, columns: &[&str]) -> anyhow::Result<ExitCode> {
    let (channel, instance) = open(config, target).await?;
    let items = channel.all(path).await;
    drop(channel);
    if let Some(instance) = instance {
        instance.close().await;
    }
    let items = items?;
    let mut out = std::io::stdout();
    if target.output.json {
        writeln!(out, "{}", json!({ "items": items }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let cell = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(texts) => texts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    };
    let rows: Vec<Vec<String>> = std::iter::once(columns.iter().map(|&name| name.to_owned()).collect())
        .chain(items.iter().map(|item| columns.iter().map(|name| cell(&item[name])).collect()))
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends the request and requires success.
pub async fn request(config: Config, target: &Target, operation: Operation) -> anyhow::Result<Answer> {
    let (channel, instance) = open(config, target).await?;
    let Operation { method, path, body, .. } = operation;
    let answer = channel.send(method, &path, body.as_ref()).await;
    drop(channel);
    if let Some(instance) = instance {
        instance.close().await;
    }
    let answer = answer?;
    if !answer.is_success() {
        bail!("refused: {}", answer.refusal());
    }
    Ok(answer)
}

/// Sends the request and prints the result: the answer with `--json`, otherwise a summary.
pub async fn perform(
    config: Config,
    target: &Target,
    operation: Operation,
    shown: impl Fn(&Value) -> Option<String>,
) -> anyhow::Result<ExitCode> {
    let (channel, instance) = open(config, target).await?;
    let answer = send(&channel, operation).await;
    drop(channel);
    if let Some(instance) = instance {
        instance.close().await;
    }
    let (answer, done) = answer?;
    print(target, &answer, &done, shown)
}

pub async fn send(channel: &Channel, operation: Operation) -> anyhow::Result<(Answer, String)> {
    let Operation { method, path, body, done } = operation;
    Ok((channel.send(method, &path, body.as_ref()).await?, done))
}

pub fn print(
    target: &Target,
    answer: &Answer,
    done: &str,
    shown: impl Fn(&Value) -> Option<String>,
) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    if target.output.json {
        let body =
            if answer.json.is_null() { json!({ "status": answer.status }) } else { answer.json.clone() };
        writeln!(out, "{body}")?;
    }
    if !answer.is_success() {
        bail!("refused: {}", answer.refusal());
    }
    if !target.output.json {
        writeln!(std::io::stderr(), "{done}")?;
        if let Some(text) = shown(&answer.json) {
            writeln!(out, "{text}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints what was found: on one line with `--json`.
pub fn show(target: &Target, found: &Value) -> anyhow::Result<ExitCode> {
    let text = if target.output.json { found.to_string() } else { serde_json::to_string_pretty(found)? };
    writeln!(std::io::stdout(), "{text}")?;
    Ok(ExitCode::SUCCESS)
}

pub async fn open(config: Config, target: &Target) -> anyhow::Result<(Channel, Option<Instance>)> {
    if let Some(url) = &target.url {
        let path = target.admin_key_file.clone().unwrap_or_else(|| config.admin_key_file());
        let key = match &config.admin_key {
            Some(key) if target.admin_key_file.is_none() => key.clone(),
            _ if path.exists() => data_dir::read_secret(&path)?,
            _ => bail!("there is no platform key at {}. Name its file with --admin-key-file", path.display()),
        };
        return Ok((Channel::Server { client: HttpClient::new(url.clone())?, key }, None));
    }
    let instance = open_stores(&config).await?;
    match instance.platform_key().await {
        Ok(key) => Ok((Channel::Embedded { router: instance.router(), key }, Some(instance))),
        Err(error) => {
            instance.close().await;
            Err(error)
        }
    }
}

pub async fn open_stores(config: &Config) -> anyhow::Result<Instance> {
    if data_dir::inspect(config)? == data_dir::State::Fresh {
        return Err(data_dir::DataDirError::Absent { path: config.data_dir.clone() }.into());
    }
    let listen = config.listen;
    Box::pin(Instance::open(config, listen)).await.with_context(|| {
        format!(
            "the data folder {} cannot be opened (to send the command to a running server, add --url http://{listen})",
            config.data_dir.display()
        )
    })
}
