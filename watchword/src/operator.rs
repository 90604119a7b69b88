//! `app`, `api-key`, `user`: an operator's shortcuts. Each is one request of the REST API.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use axum::http::Method;
use domain::{AppId, Email, Permission};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::args::{ApiKeyCommand, AppCommand, Target, UserCommand, UserTarget, Who, permission_name};
use crate::channel::{Answer, Channel, HttpClient};
use crate::config::Config;
use crate::data_dir;
use crate::instance::Instance;

/// One request, and what to say when it was done.
struct Operation {
    method: Method,
    path: String,
    body: Option<Value>,
    done: String,
}

pub async fn app(config: Config, command: AppCommand) -> anyhow::Result<ExitCode> {
    let (app, name, target) = match command {
        AppCommand::Create { app, name, target } => (app, name, target),
        AppCommand::List(target) => {
            let columns = &["app_id", "created_at", "disabled", "name"];
            return list(config, &target, "/v1/apps", columns).await;
        }
    };
    let name = name.unwrap_or_else(|| app.to_string());
    let operation = Operation {
        method: Method::POST,
        path: "/v1/apps".to_owned(),
        body: Some(json!({ "app_id": app, "name": name })),
        done: format!("created the app {app}"),
    };
    perform(config, &target, operation, |_| None).await
}

pub async fn api_key(config: Config, command: ApiKeyCommand) -> anyhow::Result<ExitCode> {
    match command {
        ApiKeyCommand::Create { app, name, permissions, out, target }
            if app.is_platform()
                && target.url.is_none()
                && !permissions.contains(&Permission::MetricsRead) =>
        {
            platform_key(&config, &name, out.as_deref(), &target).await
        }
        ApiKeyCommand::Create { app, name, mut permissions, out, target } => {
            if app.is_platform() && permissions.is_empty() {
                permissions = vec![Permission::Platform];
            }
            let permissions: Vec<String> = permissions.into_iter().map(permission_name).collect();
            let operation = Operation {
                method: Method::POST,
                path: format!("/v1/apps/{app}/admin/api-keys"),
                body: Some(json!({ "name": name, "permissions": permissions })),
                done: format!("created an API key of {app}; it is shown this once"),
            };
            if let Some(path) = out {
                require_absent(&path)?;
                let answer = request(config, &target, operation).await?;
                let key = answer.json["key"].as_str().context("the answer holds no key")?;
                data_dir::write_secret(&path, &SecretString::from(key))?;
                return written(&path, target.output.json);
            }
            perform(config, &target, operation, |answer| answer["key"].as_str().map(str::to_owned)).await
        }
        ApiKeyCommand::List { app, target } => {
            let columns = &["id", "created_at", "expires_at", "permissions", "name"];
            list(config, &target, &format!("/v1/apps/{app}/admin/api-keys"), columns).await
        }
        ApiKeyCommand::Revoke { app, key, target } => {
            let operation = Operation {
                method: Method::DELETE,
                path: format!("/v1/apps/{app}/admin/api-keys/{key}"),
                body: None,
                done: format!("revoked the API key {key} of {app}"),
            };
            perform(config, &target, operation, |_| None).await
        }
    }
}

pub async fn user(config: Config, command: UserCommand) -> anyhow::Result<ExitCode> {
    let shows = matches!(command, UserCommand::Show(_));
    let (user, method, rest, body, done) = match command {
        UserCommand::Show(user) => (user, Method::GET, String::new(), None, "found".to_owned()),
        UserCommand::Ban { user, reason } => {
            let body = Some(json!({ "reason": reason }));
            (user, Method::POST, "/ban".to_owned(), body, "banned, every session ended".to_owned())
        }
        UserCommand::Unban(user) => (user, Method::POST, "/unban".to_owned(), None, "ban lifted".to_owned()),
        UserCommand::Unlock(user) => {
            (user, Method::POST, "/unlock".to_owned(), None, "failed logins forgotten".to_owned())
        }
        UserCommand::RevokeSessions(user) => {
            let body = Some(json!({}));
            (user, Method::POST, "/sessions/revoke-all".to_owned(), body, "sessions ended".to_owned())
        }
        UserCommand::GrantRole { user, role } => {
            (user, Method::PUT, format!("/roles/{role}"), None, format!("role {role} granted"))
        }
        UserCommand::RevokeRole { user, role } => {
            (user, Method::DELETE, format!("/roles/{role}"), None, format!("role {role} taken"))
        }
    };
    let UserTarget { app, user: who, target } = user;
    let (channel, instance) = open(config, &target).await?;
    let sent = async {
        let id = identify(&channel, instance.as_ref(), &app, &who).await?;
        let path = format!("/v1/apps/{app}/admin/users/{id}{rest}");
        let done = format!("{done} (user {id} of {app})");
        send(&channel, Operation { method, path, body, done }).await
    };
    let sent = sent.await;
    drop(channel);
    if let Some(instance) = instance {
        instance.close().await;
    }
    let (answer, done) = sent?;
    print(&target, &answer, &done, |user| shows.then(|| serde_json::to_string_pretty(user).ok()).flatten())
}

/// Another key of the platform, made without one.
async fn platform_key(
    config: &Config,
    name: &str,
    out: Option<&Path>,
    target: &Target,
) -> anyhow::Result<ExitCode> {
    if let Some(path) = out {
        require_absent(path)?;
    }
    let instance = open_stores(config).await?;
    let made = instance.make_platform_key(name).await;
    instance.close().await;
    let key = made?;
    if let Some(path) = out {
        data_dir::write_secret(path, &key)?;
        return written(path, target.output.json);
    }
    let mut stdout = std::io::stdout();
    if target.output.json {
        writeln!(stdout, "{}", json!({ "name": name, "key": key.expose_secret() }))?;
    } else {
        writeln!(
            std::io::stderr(),
            "created a platform key, which may do everything; it is shown this once"
        )?;
        writeln!(stdout, "{}", key.expose_secret())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A key that is made and then cannot be written would be lost.
fn require_absent(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        bail!("{} is there already: name another file with --out, or move it away", path.display());
    }
    Ok(())
}

fn written(path: &Path, as_json: bool) -> anyhow::Result<ExitCode> {
    if as_json {
        writeln!(std::io::stdout(), "{}", json!({ "file": path }))?;
    } else {
        writeln!(std::io::stderr(), "wrote the key to {}", path.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints all pages of a list: a line for each item, with these members of it.
async fn list(config: Config, target: &Target, path: &str, columns: &[&str]) -> anyhow::Result<ExitCode> {
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

/// The id of a user who may be named by address.
async fn identify(
    channel: &Channel,
    instance: Option<&Instance>,
    app: &AppId,
    who: &Who,
) -> anyhow::Result<Uuid> {
    let text = match who {
        Who::Id(id) => return Ok(*id),
        Who::Address(text) => text,
    };
    let Ok(email) = Email::parse(text) else {
        bail!("{text} is neither the id of a user nor an address");
    };
    let nobody = || format!("nobody in {app} has the address {text}");
    if let Some(instance) = instance {
        // By the claim, as the read models of a folder that was just opened may be behind.
        return Ok(instance.locate(app, &email).await?.with_context(nobody)?.0);
    }
    let query: String = url::form_urlencoded::byte_serialize(email.as_str().as_bytes()).collect();
    let found = channel.all(&format!("/v1/apps/{app}/admin/users?query={query}")).await?;
    let user = found.iter().find(|user| user["email"] == email.as_str()).with_context(nobody)?;
    user["id"].as_str().and_then(|id| id.parse().ok()).context("the answer holds no id")
}

/// Sends the request, which must be done.
async fn request(config: Config, target: &Target, operation: Operation) -> anyhow::Result<Answer> {
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

/// Sends the request and prints what came of it: with `--json` the answer, else what a person wants to know.
async fn perform(
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

async fn send(channel: &Channel, operation: Operation) -> anyhow::Result<(Answer, String)> {
    let Operation { method, path, body, done } = operation;
    Ok((channel.send(method, &path, body.as_ref()).await?, done))
}

fn print(
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

async fn open(config: Config, target: &Target) -> anyhow::Result<(Channel, Option<Instance>)> {
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

async fn open_stores(config: &Config) -> anyhow::Result<Instance> {
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
