//! `user`: the users of an app, through the REST API.

use std::convert::Infallible;
use std::fmt;
use std::io::Write;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context, bail};
use axum::http::Method;
use clap::{Args, Subcommand};
use domain::{AppId, Email, Role};
use serde_json::{Value, json};
use uuid::Uuid;

use super::operator::{Operation, Target, open, print, send};
use super::{Globals, Run, app_id};
use crate::channel::Channel;
use crate::config::Config;
use crate::instance::Instance;

mod create;

/// Users of an app
#[derive(Debug, Subcommand)]
pub enum User {
    /// Create a user, optionally with a password hash from another system
    Create(create::NewUser),
    /// Show a user
    Show(UserTarget),
    /// Ban a user: all sessions end, and logins are refused
    Ban {
        #[command(flatten)]
        user: UserTarget,
        /// The reason, for the audit log
        #[arg(long)]
        reason: String,
    },
    /// Lift a ban
    Unban(UserTarget),
    /// Forget a user's failed logins, so that the next attempt is allowed
    Unlock(UserTarget),
    /// End all sessions of a user
    RevokeSessions(UserTarget),
    /// Grant a role to a user
    GrantRole {
        #[command(flatten)]
        user: UserTarget,
        /// The role; the one that the app's `admin_role` names opens its admin routes
        #[arg(long, value_parser = role)]
        role: Role,
    },
    /// Revoke a role from a user
    RevokeRole {
        #[command(flatten)]
        user: UserTarget,
        /// The role
        #[arg(long, value_parser = role)]
        role: Role,
    },
}

impl Run for User {
    fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        globals.with_config(async |config| Box::pin(run(config, self)).await)
    }
}

/// A user as named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    Id(Uuid),
    /// Checked when it is looked up.
    Address(String),
}

impl FromStr for Who {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.parse().map_or_else(|_| Self::Address(text.to_owned()), Self::Id))
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Address(address) => f.write_str(address),
        }
    }
}

/// Selects a user.
#[derive(Debug, Args)]
pub struct UserTarget {
    /// The app
    #[arg(value_parser = app_id)]
    app: AppId,
    /// The user's id, or their address
    #[arg(value_name = "ID|ADDRESS")]
    user: Who,
    #[command(flatten)]
    target: Target,
}

async fn run(config: Config, command: User) -> anyhow::Result<ExitCode> {
    let shows = matches!(command, User::Show(_));
    let (user, method, rest, body, done) = match command {
        User::Create(new) => return Box::pin(create::run(config, new)).await,
        User::Show(user) => (user, Method::GET, String::new(), None, "found".to_owned()),
        User::Ban { user, reason } => {
            let body = Some(json!({ "reason": reason }));
            (user, Method::POST, "/ban".to_owned(), body, "banned, every session ended".to_owned())
        }
        User::Unban(user) => (user, Method::POST, "/unban".to_owned(), None, "ban lifted".to_owned()),
        User::Unlock(user) => {
            (user, Method::POST, "/unlock".to_owned(), None, "failed logins forgotten".to_owned())
        }
        User::RevokeSessions(user) => {
            let body = Some(json!({}));
            (user, Method::POST, "/sessions/revoke-all".to_owned(), body, "sessions ended".to_owned())
        }
        User::GrantRole { user, role } => {
            (user, Method::PUT, format!("/roles/{role}"), None, format!("role {role} granted"))
        }
        User::RevokeRole { user, role } => {
            (user, Method::DELETE, format!("/roles/{role}"), None, format!("role {role} taken"))
        }
    };
    let show = |user: &Value| shows.then(|| serde_json::to_string_pretty(user).ok()).flatten();
    user.request(config, Operation { method, path: rest, body, done }, show).await
}

impl UserTarget {
    /// Sends a request whose path begins with the user's, and prints the result.
    pub(super) async fn request(
        self,
        config: Config,
        operation: Operation,
        shown: impl Fn(&Value) -> Option<String>,
    ) -> anyhow::Result<ExitCode> {
        let Self { app, user: who, target } = self;
        let Operation { method, path, body, done } = operation;
        let (channel, instance) = open(config, &target).await?;
        let sent = async {
            let id = identify(&channel, instance.as_ref(), &app, &who).await?;
            let path = format!("/v1/apps/{app}/admin/users/{id}{path}");
            let done = format!("{done} (user {id} of {app})");
            send(&channel, Operation { method, path, body, done }).await
        };
        let sent = sent.await;
        drop(channel);
        if let Some(instance) = instance {
            instance.close().await;
        }
        let (answer, done) = sent?;
        print(&target, &answer, &done, shown)
    }

    /// Writes what a GET answers whose path begins with the user's.
    pub(super) async fn copy(self, config: Config, path: &str, to: &mut impl Write) -> anyhow::Result<()> {
        let Self { app, user: who, target } = self;
        let (channel, instance) = open(config, &target).await?;
        let copied = async {
            let id = identify(&channel, instance.as_ref(), &app, &who).await?;
            channel.copy(&format!("/v1/apps/{app}/admin/users/{id}{path}"), to).await
        };
        let copied = copied.await;
        drop(channel);
        if let Some(instance) = instance {
            instance.close().await;
        }
        copied
    }
}

/// The id of a user, who may be named by address.
pub(super) async fn identify(
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
    let nobody = || format!("no user of {app} has the address {text}");
    if let Some(instance) = instance {
        // By the claim, because the read models of a freshly opened folder may lag behind.
        return Ok(instance.locate(app, &email).await?.with_context(nobody)?.0);
    }
    let query: String = url::form_urlencoded::byte_serialize(email.as_str().as_bytes()).collect();
    let found = channel.all(&format!("/v1/apps/{app}/admin/users?query={query}")).await?;
    let user = found.iter().find(|user| user["email"] == email.as_str()).with_context(nobody)?;
    user["id"].as_str().and_then(|id| id.parse().ok()).context("the answer holds no id")
}

fn role(text: &str) -> Result<Role, domain::role::InvalidRole> {
    Role::parse(text)
}
