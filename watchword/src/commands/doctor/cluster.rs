//! Checks for clusters: servers, rights, nodes with leases, and the stream.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use effects::relay::{self, StreamStanding};
use event_store::postgres::{EventRights, PostgresServer};
use event_store::{Journal, Location, MessageKey, PostgresUrl};
use read_models::{Node, ProjectorState, ReadModels, Standing};

use super::Findings;
use crate::bus;
use crate::config::{Config, Nats};
use crate::databases::Databases;
#[cfg(feature = "kurrentdb")]
use crate::databases::SharedJournal;
use crate::told::{told, told_of};

/// The oldest version that this program is tested with.
const OLDEST_POSTGRES: u32 = 13;
/// Beyond this skew, the times of events and the expiry of tokens differ noticeably between nodes.
const SKEW: Duration = Duration::from_secs(2);
/// Beyond this skew, other nodes reject a node's tokens as not yet valid or expired.
const LONG_SKEW: Duration = Duration::from_mins(1);

/// The servers of the stores, each once.
pub async fn servers(findings: &mut Findings, config: &Config, databases: &Databases) {
    let mut seen = BTreeSet::new();
    let read_models = match &config.read_models {
        Location::Postgres(url) => Some(url),
        Location::File(_) => None,
    };
    for url in [databases.journal.postgres(), Some(&databases.key_store), read_models].into_iter().flatten() {
        if seen.insert(url.to_string()) {
            server(findings, databases, url).await;
        }
    }
}

async fn server(findings: &mut Findings, databases: &Databases, url: &PostgresUrl) {
    let server = match PostgresServer::look(url, &databases.settings).await {
        Ok(server) => server,
        Err(error) => {
            findings.fault(
                "server",
                format!("{error}. Check that it runs, and that user and password are right"),
            );
            return;
        }
    };
    let PostgresServer { version, major, connections, max_connections, clock_skew, user, .. } = &server;
    findings.fine(
        "server",
        format!(
            "{url}: PostgreSQL {version}, as {user}, {connections} of {max_connections} connections in use"
        ),
    );
    if *major < OLDEST_POSTGRES {
        findings.fault(
            "server",
            format!("{url}: PostgreSQL {version} is too old: {OLDEST_POSTGRES} or later is needed"),
        );
    }
    if server.is_replica {
        findings.fault("server", format!("{url} is a read-only replica: name its primary, or promote it"));
    }
    if !server.unsafe_settings.is_empty() {
        let off = server.unsafe_settings.join(" and ");
        findings.fault("server", format!("{url} may lose what it acknowledged: switch {off} on"));
    }
    if server.ignores_replica {
        findings.warning(
            "server",
            format!(
                "{url} has a synchronous replica, but commits do not wait for it (synchronous_commit = local): what was acknowledged \
                 last is lost when the replica is promoted, bans and logouts included. Set synchronous_commit to on for this user"
            ),
        );
    }
    if u64::from(*connections) * 10 > u64::from(*max_connections) * 9 {
        findings.warning(
            "server",
            format!("{url} has few connections left: raise max_connections there, or lower postgres.connections here"),
        );
    }
    let text = format!("{url}: its clock is {} s from this machine's", clock_skew.as_secs());
    if *clock_skew >= LONG_SKEW {
        findings.fault("clock", format!("{text}. Tokens end too early or too late: have NTP set both"));
    } else if *clock_skew >= SKEW {
        findings.warning("clock", format!("{text}: have NTP set both"));
    }
}

/// Who could change history.
pub async fn rights(findings: &mut Findings, databases: &Databases) {
    #[cfg(feature = "kurrentdb")]
    if let SharedJournal::Kurrent { url, .. } = &databases.journal {
        super::kurrentdb::rights(findings, url).await;
    }
    let Some(journal) = databases.journal.postgres() else { return };
    let role = journal.role();
    let rights = EventRights::look(journal, &databases.settings).await;
    if let Ok(EventRights { shared_with, .. }) = &rights
        && !shared_with.is_empty()
    {
        findings.warning(
            "role",
            format!(
                "the role {role} also has rights in other databases of this server ({}): a node's user of one instance can access \
                 what is another's. Give each instance a role of its own (postgres.role, then `watchword migrate` as the owner), or \
                 keep them apart at the door of each database: REVOKE CONNECT ON DATABASE <database> FROM PUBLIC; GRANT CONNECT ON \
                 DATABASE <database> TO <owner>, <node>",
                shared_with.join(", ")
            ),
        );
    }
    match rights {
        Ok(EventRights { of_role, .. }) if !of_role.is_empty() => findings.fault(
            "rights",
            format!(
                "the role {role} may {} events. Run as the owner: REVOKE {} ON watchword.events FROM {role}, and from every role \
                 that it is a member of",
                of_role.join(", "),
                of_role.join(", ")
            ),
        ),
        Ok(EventRights { user_is_owner: true, .. }) => findings.warning(
            "rights",
            format!(
                "this user owns the events, or is a superuser: anybody with its password could change them. Keep it for \
                 `watchword migrate`, and have nodes log in as a user that was only granted {role}"
            ),
        ),
        Ok(_) => findings.fine("rights", "the service can read and append events, but neither change nor delete them"),
        Err(error) => findings.fault("rights", format!("they cannot be read: {error}")),
    }
}

/// The nodes that share the projectors, and the state of each projector.
pub async fn projectors(findings: &mut Findings, config: &Config, head: u64) {
    let (standings, nodes) = match ReadModels::look_at_nodes(&config.read_models).await {
        Ok(Some(found)) => found,
        Ok(None) => return,
        Err(error) => {
            findings.fault("nodes", told_of(&error));
            return;
        }
    };
    let (there, gone): (Vec<&Node>, Vec<&Node>) = nodes.iter().partition(|node| node.is_there);
    let names = |nodes: &[&Node]| nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ");
    match there.len() {
        0 => findings.warning(
            "nodes",
            "none runs the projectors: queries return stale data. Start one with `watchword serve projections`",
        ),
        count => findings.fine("nodes", format!("{count} share the projectors: {}", names(&there))),
    }
    if !gone.is_empty() {
        findings.warning(
            "nodes",
            format!("no longer heard from: {}. Others take over their projectors", names(&gone)),
        );
    }
    for standing in &standings {
        projector(findings, standing, head, !there.is_empty());
    }
}

fn projector(findings: &mut Findings, standing: &Standing, head: u64, has_nodes: bool) {
    let Standing { key, position, holder, .. } = standing;
    let lag = head.saturating_sub(*position);
    let at = if lag == 0 {
        format!("at event {position}, like the journal")
    } else {
        format!("at event {position}, {lag} behind")
    };
    let on = holder.as_ref().map_or_else(|| "on no node".to_owned(), |holder| format!("on {holder}"));
    let text = format!("{key}: {} {on}, {at}", standing.state.name());
    match &standing.state {
        ProjectorState::Failed { position, error } => findings.fault(
            "projector",
            format!(
                "{text}: it is stuck at event {position}: {error}. It retries by itself. A newer version may know \
                 the event; if what it has written is damaged, drop the schema watchword_read while no projection node \
                 runs, and it is built anew"
            ),
        ),
        _ if standing.is_rebuild() && holder.is_none() => findings.warning(
            "projector",
            format!("{key}: an interrupted rebuild, {at}: run `watchword rebuild` again, which continues it"),
        ),
        _ if standing.paused => findings.warning("projector", format!("{text}: it was paused")),
        _ if holder.is_none() && has_nodes => findings.warning(
            "projector",
            format!("{text}. A node takes it within seconds; if this stays, the log of the nodes says why"),
        ),
        _ => findings.fine("projector", text),
    }
}

/// The stream, compared with the journal.
pub async fn stream(findings: &mut Findings, nats: &Nats, journal: Arc<dyn Journal>, key: MessageKey) {
    let client = match bus::connect(nats).await {
        Ok(client) => client,
        Err(error) => {
            findings.fault("NATS", told(&error));
            return;
        }
    };
    let standing = match relay::look(client, journal, key, nats.relay.clone()).await {
        Ok(standing) => standing,
        Err(error) => {
            findings.warning(
                "NATS",
                format!("{error}. Nothing is lost: events are published when it is back. Check nats_url, and its log"),
            );
            return;
        }
    };
    let StreamStanding { server, end, journal, replicas, consumers, has_holes, fault } = standing;
    findings.fine("NATS", format!("nats-server {server}"));
    match (fault, end) {
        (Some(fault), _) => findings.fault("stream", format!("{fault}. No relay publishes until then")),
        (None, None) => findings.warning("stream", "there is none: the relay of a command node creates it"),
        (None, Some(_)) if has_holes => findings.fault(
            "stream",
            "it has lost events that cannot be put back. The relay of a command node recreates it; its consumers must be \
             made again, behind the position they have handled",
        ),
        (None, Some(end)) => findings.fine(
            "stream",
            format!(
                "at event {end}, {} behind the journal, on {replicas} server(s), with {consumers} consumer(s)",
                journal.saturating_sub(end)
            ),
        ),
    }
    if nats.relay.replicas > replicas && end.is_some() {
        findings.warning(
            "stream",
            format!(
                "it should be on {} servers: the relay of a command node changes that",
                nats.relay.replicas
            ),
        );
    }
}
