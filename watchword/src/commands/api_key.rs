//! `api-key`: API keys, through the REST API. The first platform key is created without one.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use axum::http::Method;
use clap::error::ErrorKind;
use clap::{CommandFactory, Subcommand};
use domain::{AppId, Permission};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use uuid::Uuid;

use super::operator::{Operation, Target, list, open_stores, perform, request};
use super::{Arguments, Globals, Run, app_id};
use crate::config::Config;
use crate::data_dir;

/// API keys for programs
#[derive(Debug, Subcommand)]
pub enum ApiKey {
    /// Create an API key and print it, the only time it is shown
    ///
    /// For the app `platform` it creates another platform key, which may do everything. Without --url this needs no
    /// other key: it is the recovery path if admin.key is lost or every platform key is revoked, for an operator who
    /// can open the stores with the master key.
    Create {
        /// The app it is for; `platform` for a platform key
        #[arg(value_parser = app_id)]
        app: AppId,
        /// The purpose of the key
        #[arg(long)]
        name: String,
        /// A permission; repeat the option or separate values with commas. A platform key needs none
        #[arg(long = "permission", value_name = "PERMISSION", value_delimiter = ',', value_parser = permission)]
        permissions: Vec<Permission>,
        /// Write the key to this new file, readable only by its owner, instead of printing it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        target: Target,
    },
    /// List the usable API keys of an app, without their texts
    List {
        /// The app; `platform` for the platform's own keys
        #[arg(value_parser = app_id)]
        app: AppId,
        #[command(flatten)]
        target: Target,
    },
    /// Revoke an API key
    Revoke {
        /// The app it is for; `platform` for a platform key
        #[arg(value_parser = app_id)]
        app: AppId,
        /// The key's id, as the list of keys shows it
        key: Uuid,
        #[command(flatten)]
        target: Target,
    },
}

impl Run for ApiKey {
    fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        self.check();
        globals.with_config(async |config| Box::pin(run(config, self)).await)
    }
}

impl ApiKey {
    /// Exits as for wrong usage if the permissions do not fit the app.
    fn check(&self) {
        let Self::Create { app, permissions, .. } = self else { return };
        let problem = match (app.is_platform(), permissions.as_slice()) {
            (true, []) => return,
            (true, permissions) if Permission::fit_the_platform(permissions) => return,
            (true, _) => {
                "a platform key may do everything: leave --permission out, or give only metrics:read or audit:read"
            }
            (false, []) => "an API key of an app needs at least one --permission",
            (false, permissions) if permissions.contains(&Permission::Platform) => {
                "only keys of the app `platform` can have the permission `platform`"
            }
            (false, _) => return,
        };
        Arguments::command().error(ErrorKind::ValueValidation, problem).exit();
    }
}

async fn run(config: Config, command: ApiKey) -> anyhow::Result<ExitCode> {
    match command {
        ApiKey::Create { app, name, permissions, out, target }
            if app.is_platform()
                && target.url.is_none()
                && matches!(permissions.as_slice(), [] | [Permission::Platform]) =>
        {
            platform_key(&config, &name, out.as_deref(), &target).await
        }
        ApiKey::Create { app, name, mut permissions, out, target } => {
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
        ApiKey::List { app, target } => {
            let columns = &["id", "created_at", "expires_at", "permissions", "name"];
            list(config, &target, &format!("/v1/apps/{app}/admin/api-keys"), columns).await
        }
        ApiKey::Revoke { app, key, target } => {
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

/// Creates another platform key without needing one.
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

/// Fails early: a key that is created but cannot be written would be lost.
fn require_absent(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        bail!("{} already exists: name another file with --out, or move it away", path.display());
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

fn permission(text: &str) -> Result<Permission, String> {
    let all = || Permission::OF_AN_APP.into_iter().chain([Permission::MetricsRead, Permission::Platform]);
    all()
        .find(|permission| permission_name(*permission) == text)
        .ok_or_else(|| format!("give one of {}", all().map(permission_name).collect::<Vec<_>>().join(", ")))
}

/// A permission as spelled in the API.
fn permission_name(permission: Permission) -> String {
    match serde_json::to_value(permission) {
        Ok(serde_json::Value::String(name)) => name,
        _ => unreachable!("a permission serializes as a string"),
    }
}
