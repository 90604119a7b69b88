//! `app`, `api-key`, `user`: an operator's shortcuts. Each is one request of the REST API.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, bail};
use axum::http::Method;
use serde_json::{Value, json};

use crate::args::{ApiKeyCommand, AppCommand, Target, UserCommand, UserTarget, permission_name};
use crate::channel::{Channel, HttpClient};
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
    let AppCommand::Create { app, name, target } = command;
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
        ApiKeyCommand::Create { app, name, permissions, target } => {
            let permissions: Vec<String> = permissions.into_iter().map(permission_name).collect();
            let operation = Operation {
                method: Method::POST,
                path: format!("/v1/apps/{app}/admin/api-keys"),
                body: Some(json!({ "name": name, "permissions": permissions })),
                done: format!("created an API key of {app}; it is shown this once"),
            };
            let shown = |answer: &Value| {
                let text = |member: &str| answer[member].as_str().map(str::to_owned);
                text("key").or_else(|| text("api_key")).or_else(|| text("token"))
            };
            perform(config, &target, operation, shown).await
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
    let operation =
        |user: &UserTarget, method: Method, rest: &str, body: Option<Value>, done: &str| Operation {
            method,
            path: format!("/v1/apps/{}/admin/users/{}{rest}", user.app, user.user),
            body,
            done: format!("{done} (user {} of {})", user.user, user.app),
        };
    let (user, operation) = match command {
        UserCommand::Show(user) => {
            let operation = operation(&user, Method::GET, "", None, "found");
            return perform(config, &user.target, operation, |user| serde_json::to_string_pretty(user).ok())
                .await;
        }
        UserCommand::Ban { user, reason } => {
            let body = Some(json!({ "reason": reason }));
            let operation = operation(&user, Method::POST, "/ban", body, "banned, every session ended");
            (user, operation)
        }
        UserCommand::Unban(user) => {
            let operation = operation(&user, Method::POST, "/unban", None, "ban lifted");
            (user, operation)
        }
        UserCommand::Unlock(user) => {
            let operation = operation(&user, Method::POST, "/unlock", None, "failed logins forgotten");
            (user, operation)
        }
        UserCommand::RevokeSessions(user) => {
            let operation =
                operation(&user, Method::POST, "/sessions/revoke-all", Some(json!({})), "sessions ended");
            (user, operation)
        }
        UserCommand::GrantRole { user, role } => {
            let operation = operation(
                &user,
                Method::PUT,
                &format!("/roles/{role}"),
                None,
                &format!("role {role} granted"),
            );
            (user, operation)
        }
        UserCommand::RevokeRole { user, role } => {
            let operation = operation(
                &user,
                Method::DELETE,
                &format!("/roles/{role}"),
                None,
                &format!("role {role} taken"),
            );
            (user, operation)
        }
    };
    perform(config, &user.target, operation, |_| None).await
}

/// Sends the request and prints what came of it: with `--json` the answer, else what a person wants to know.
async fn perform(
    config: Config,
    target: &Target,
    operation: Operation,
    shown: impl Fn(&Value) -> Option<String>,
) -> anyhow::Result<ExitCode> {
    let (channel, instance) = open(config, target).await?;
    let Operation { method, path, body, done } = operation;
    let answer = channel.send(method, &path, body.as_ref()).await;
    drop(channel);
    if let Some(instance) = instance {
        instance.close().await;
    }
    let answer = answer?;
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
        if !path.exists() {
            bail!("there is no platform key at {}. Name its file with --admin-key-file", path.display());
        }
        let key = data_dir::read_secret(&path)?;
        return Ok((Channel::Server { client: HttpClient::new(url.clone())?, key }, None));
    }
    if data_dir::inspect(&config)? == data_dir::State::Fresh {
        return Err(data_dir::DataDirError::Absent { path: config.data_dir }.into());
    }
    let listen = config.listen;
    let instance = Box::pin(Instance::open(&config, listen)).await.with_context(|| {
        format!(
            "the data folder {} cannot be opened (to send the command to a running server, add --url http://{listen})",
            config.data_dir.display()
        )
    })?;
    let key = instance.platform_key().await?;
    Ok((Channel::Embedded { router: instance.router(), key }, Some(instance)))
}
