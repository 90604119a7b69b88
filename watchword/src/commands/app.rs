//! `app`: the apps of a deployment, through the REST API.

use std::process::ExitCode;

use axum::http::Method;
use clap::Subcommand;
use domain::AppId;
use serde_json::json;

use super::operator::{Operation, Target, list, perform};
use super::{Globals, Run, app_id};
use crate::config::Config;

/// Apps: the tenants, each with its own users, keys and settings
#[derive(Debug, Subcommand)]
pub enum App {
    /// Create an app
    Create {
        /// Its id: a-z, 0-9 and single hyphens, 1 to 40 characters
        #[arg(value_parser = app_id)]
        app: AppId,
        /// The name people see [default: the id]
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// List the apps
    List(Target),
}

impl Run for App {
    fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        globals.with_config(async |config| Box::pin(run(config, self)).await)
    }
}

async fn run(config: Config, command: App) -> anyhow::Result<ExitCode> {
    let (app, name, target) = match command {
        App::Create { app, name, target } => (app, name, target),
        App::List(target) => {
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
