//! `user create`.

use std::path::PathBuf;
use std::process::ExitCode;

use axum::http::Method;
use clap::Args;
use domain::{AppId, Role};
use secrecy::ExposeSecret;
use serde_json::json;

use super::super::app_id;
use super::super::operator::{Operation, Target, perform};
use super::role;
use crate::config::Config;
use crate::data_dir;

/// The new user.
#[derive(Debug, Args)]
pub struct NewUser {
    /// The app
    #[arg(value_parser = app_id)]
    app: AppId,
    /// The address; it starts unverified
    address: String,
    /// The name shown to people
    #[arg(long)]
    name: Option<String>,
    /// An initial role; may be repeated
    #[arg(long = "role", value_name = "ROLE", value_parser = role)]
    roles: Vec<Role>,
    /// A file with the password hash from another system: argon2, bcrypt, scrypt, PBKDF2, SHA-2 crypt, or as Django, Firebase,
    /// better-auth, ASP.NET Core Identity, WordPress, phpass or LDAP ({SSHA}, {SSHA512}) store it. It must not be
    /// world-readable
    #[arg(long, value_name = "FILE")]
    password_hash_file: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn run(config: Config, new: NewUser) -> anyhow::Result<ExitCode> {
    let NewUser { app, address, name, roles, password_hash_file, target } = new;
    let hash = password_hash_file.map(|file| data_dir::read_secret(&file)).transpose()?;
    let mut body = json!({ "email": address, "roles": roles });
    if let Some(name) = name {
        body["name"] = name.into();
    }
    if let Some(hash) = hash {
        body["password_hash"] = hash.expose_secret().into();
    }
    let path = format!("/v1/apps/{app}/admin/users");
    let done = format!("created {address} in {app}");
    let operation = Operation { method: Method::POST, path, body: Some(body), done };
    perform(config, &target, operation, |user| user["id"].as_str().map(str::to_owned)).await
}
