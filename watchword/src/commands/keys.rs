//! `keys`: the keys that sign access tokens, and those that sign checkpoints, by the REST API.

use std::io::Write;
use std::process::ExitCode;

use axum::http::Method;
use clap::Subcommand;
use domain::AppId;
use serde_json::{Value, json};

use super::operator::{Operation, Target, list, perform, request};
use super::{Globals, Run, app_id};
use crate::config::Config;

/// The keys that sign an app's access tokens, and those that sign checkpoints of the log
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Let the next key sign as soon as verifiers know it, and publish a new next key
    ///
    /// It signs once it was published for the app's key_propagation, which usually is at once; else it is scheduled. Tokens of
    /// earlier keys stay valid.
    Rotate {
        /// The app
        #[arg(value_parser = app_id)]
        app: AppId,
        /// A private key may have leaked: the next key signs at once, and tokens of all earlier keys are refused from
        /// now on. Verifiers that do not know the next key yet refuse its tokens until they fetch the keys again
        #[arg(long)]
        emergency: bool,
        #[command(flatten)]
        target: Target,
    },
    /// List the published keys of an app: which signs, and which is to sign from when on
    List {
        /// The app
        #[arg(value_parser = app_id)]
        app: AppId,
        #[command(flatten)]
        target: Target,
    },
    /// Have a new key sign checkpoints of the log, and print the public keys that sign, the newest first
    ///
    /// The key before it endorses it, so that auditors who trust that one can trust the new one, and signs beside it until
    /// checkpoint.key_overlap is over or the next rotation. Witnesses of this log follow no endorsement: give them the new key
    /// within that time.
    RotateCheckpoint {
        #[command(flatten)]
        target: Target,
    },
}

impl Run for Keys {
    fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        globals.with_config(async |config| Box::pin(run(config, self)).await)
    }
}

async fn run(config: Config, command: Keys) -> anyhow::Result<ExitCode> {
    match command {
        Keys::Rotate { app, emergency, target } => {
            let operation = Operation {
                method: Method::POST,
                path: format!("/v1/apps/{app}/admin/keys/rotate"),
                body: emergency.then(|| json!({ "emergency": true })),
                done: format!("rotated the signing keys of {app}"),
            };
            perform(config, &target, operation, |answer| Some(state(answer))).await
        }
        Keys::List { app, target } => {
            let columns = &["kid", "alg", "status", "published_at", "signs_from", "signs_until"];
            list(config, &target, &format!("/v1/apps/{app}/admin/keys"), columns).await
        }
        Keys::RotateCheckpoint { target } => {
            let operation = Operation {
                method: Method::POST,
                path: "/v1/audit/key/rotate".to_owned(),
                body: None,
                done: "rotated the key that signs checkpoints".to_owned(),
            };
            let done = operation.done.clone();
            let keys = request(config, &target, operation).await?.text;
            if target.output.json {
                let keys: Vec<&str> = keys.lines().collect();
                writeln!(std::io::stdout(), "{}", json!({ "keys": keys }))?;
            } else {
                writeln!(std::io::stderr(), "{done}")?;
                write!(std::io::stdout(), "{keys}")?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Which key signs, and which will.
fn state(answer: &Value) -> String {
    let of = |status: &str| {
        let keys = answer["items"].as_array().into_iter().flatten();
        keys.filter(|key| key["status"] == status).collect::<Vec<_>>()
    };
    let text = |key: &Value, member: &str| key[member].as_str().unwrap_or_default().to_owned();
    let mut lines: Vec<String> = of("current")
        .into_iter()
        .map(|key| format!("{} ({}) signs", text(key, "kid"), text(key, "alg")))
        .collect();
    let scheduled = of("next").into_iter().filter(|key| key["signs_from"].is_string());
    lines.extend(scheduled.map(|key| {
        format!("{} ({}) signs from {}", text(key, "kid"), text(key, "alg"), text(key, "signs_from"))
    }));
    lines.join("\n")
}
