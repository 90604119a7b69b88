//! `users export`.

use std::io::{BufWriter, Write};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use domain::access::ExportForm;
use domain::memberships::Memberships;
use domain::organization::Organization;
use domain::user::User;
use domain::{AppId, StreamId, UserId};
use event_store::lookup::app_claim;
use event_store::{Clock, Repository, SystemClock};
use http_kit::{AccessLog, Looking};
use schemas::Actor;
use serde_json::{Map, Value, json};

use super::super::app_id;
use crate::config::Config;
use crate::data_dir::{self, DataDirError, State};
use crate::instance::Stores;
use crate::progress::Progress;

const PAGE: usize = 1000;
/// How a hash of another system that looks like ours is marked in the log.
const MARK: &str = "argon2$argon2";

#[derive(Debug, Args)]
pub struct Export {
    /// The app
    #[arg(value_parser = app_id)]
    app: AppId,
    /// With password hashes: whoever has the file can try passwords on them
    #[arg(long)]
    with_hashes: bool,
}

pub(super) async fn run(config: &Config, export: &Export) -> anyhow::Result<ExitCode> {
    if data_dir::inspect(config)? == State::Fresh {
        return Err(DataDirError::Absent { path: config.data_dir.clone() }.into());
    }
    let stores = Stores::open_truth(config).await?;
    let written = write(config, &stores, export).await;
    stores.close().await;
    writeln!(std::io::stderr(), "exported {} users", written?)?;
    Ok(ExitCode::SUCCESS)
}

async fn write(config: &Config, stores: &Stores, export: &Export) -> anyhow::Result<u64> {
    let (journal, repository) = (stores.journal(), stores.repository(config));
    if journal.claim_owner(&app_claim(&export.app)).await?.is_none() {
        bail!("there is no app {}. `watchword app list` lists them", export.app);
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let request = super::super::export::request(&clock);
    let form = if export.with_hashes { ExportForm::UsersWithHashes } else { ExportForm::Users };
    let log = AccessLog::new(Arc::clone(&repository), clock);
    let looking = Looking::new(&request, &export.app, &Actor::system());
    log.exported(&looking, Some(&export.app), form, None, true).await.map_err(|problem| {
        anyhow!("the export cannot be recorded in the history ({}), so nothing is exported", problem.code())
    })?;
    let head = journal.head().await?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let progress = Progress::start(head);
    let (mut after, mut written) = (0, 0);
    loop {
        let events = journal.read_all(after, PAGE).await?;
        let Some(last) = events.last() else { break };
        after = last.position;
        let is_new = |event: &&schemas::RecordedEvent| {
            event.name == "UserRegistered" && event.metadata.app_id == export.app
        };
        for event in events.iter().filter(is_new) {
            let Some(id) = event.stream.uuid().map(UserId).filter(|id| event.stream == StreamId::user(*id))
            else {
                continue;
            };
            let user =
                repository.load::<User>(&id).await.with_context(|| format!("user {id} cannot be read"))?;
            if !user.state.is_of(&export.app) {
                continue;
            }
            let memberships = memberships(&repository, &export.app, id).await?;
            writeln!(out, "{}", line(&user.state, memberships, export.with_hashes))?;
            written += 1;
        }
        progress.at(after, after);
    }
    out.flush()?;
    progress.end();
    Ok(written)
}

/// A user as `users import` reads it.
fn line(user: &User, memberships: Vec<Value>, with_hash: bool) -> Value {
    let mut line = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            line.insert(name.to_owned(), value);
        }
    };
    set("id", user.id.map(|id| id.to_string().into()));
    set("external_id", user.external_id.clone().map(Into::into));
    set("email", user.email.as_ref().map(|email| email.as_str().into()));
    set("email_verified", Some(user.email_verified.into()));
    set("name", user.name.clone().map(Into::into));
    set("phone", user.phone.clone().map(Into::into));
    set("avatar_url", user.avatar_url.clone().map(Into::into));
    let roles: Vec<&str> = user.roles.iter().map(domain::Role::as_str).collect();
    set("roles", (!roles.is_empty()).then(|| roles.into()));
    set("created_at", Some(user.since().to_string().into()));
    let hash = user.password_hash.as_ref().filter(|_| with_hash).map(|hash| {
        let is_marked = hash.0.starts_with(MARK);
        if is_marked { hash.0.trim_start_matches("argon2") } else { &hash.0 }
    });
    set("password_hash", hash.map(Into::into));
    set("banned", user.banned.then_some(true.into()));
    set("orgs", (!memberships.is_empty()).then(|| memberships.into()));
    Value::Object(line)
}

/// The organizations that a user is a member of. The user's list says only where to look.
async fn memberships(repository: &Repository, app_id: &AppId, user_id: UserId) -> anyhow::Result<Vec<Value>> {
    let list = repository.load::<Memberships>(&user_id).await?;
    let mut memberships = Vec::new();
    for id in &list.state.organizations {
        let organization = &repository.load::<Organization>(id).await?.state;
        if let (true, Some(slug), Some(role)) =
            (organization.is_of(app_id), &organization.slug, organization.role_of(user_id))
        {
            memberships.push(json!({ "slug": slug.as_str(), "role": role.as_str() }));
        }
    }
    Ok(memberships)
}
