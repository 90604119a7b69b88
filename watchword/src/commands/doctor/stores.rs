//! The stores of an instance, opened and compared.

use std::sync::Arc;

use event_store::{Journal, JournalLock, KeyStore, MasterKey, MessageKey, OpenError, SqliteJournal};

use super::running::{port, running};
use super::{Findings, RESTORE, cluster, compared, events, mail, pages, read_models, rotate_master_key};
use crate::config::Config;
use crate::data_dir;
use crate::databases::{Databases, will_do};
use crate::serving::Serving;
use crate::told::told;

/// Examines the stores under the journal's lock, so that no server starts on them meanwhile.
pub(super) async fn stores(findings: &mut Findings, config: &Config, master_key: MasterKey) {
    let lock = match JournalLock::take(&config.journal) {
        Ok(lock) => lock,
        Err(OpenError::InUse(_)) => {
            findings.fine("journal", format!("{} is in use by a running server", config.journal.display()));
            let serving = Serving::read(&config.data_dir);
            let address = serving.as_ref().map(|serving| serving.address);
            let instance = serving.as_ref().map(|serving| serving.instance.as_str());
            running(findings, config, address, instance).await;
            return;
        }
        Err(error) => {
            findings.fault("journal", error.to_string());
            return;
        }
    };
    port(findings, config.listen);
    let head = match lock.head().await {
        Ok(Some(head)) => head,
        Ok(None) => {
            findings.fault("journal", format!("{} is missing. {RESTORE}", config.journal.display()));
            return;
        }
        Err(error) => {
            findings.fault("journal", error.to_string());
            return;
        }
    };
    findings.fine("journal", format!("{}: {head} events", config.journal.display()));
    pages(findings, "journal", &config.journal, RESTORE).await;
    if let Err(error) = data_dir::require_key_store(config, head) {
        findings.fault("key store", error.to_string());
        return;
    }
    if !config.key_store.exists() {
        findings.fine("key store", "absent; the next start creates it");
        return;
    }
    let master_key = match rotate_master_key::opening(config, master_key).await {
        Ok((master_key, rotated)) => {
            if rotated {
                findings.warning("master key", "its rotation was interrupted; the next start completes it");
            }
            master_key
        }
        Err(error) => {
            findings.fault("key store", error.to_string());
            return;
        }
    };
    let key_store = match KeyStore::look(&config.key_store, &master_key).await {
        Ok(key_store) => Arc::new(key_store),
        Err(error) => {
            findings.fault("key store", error.to_string());
            return;
        }
    };
    findings.fine("key store", format!("{}: opens with the master key", config.key_store.display()));
    if key_store.lacks_checkpoints() {
        findings.warning(
            "key store",
            "it is of an older format, without signed checkpoints; the next start upgrades it",
        );
    }
    pages(findings, "key store", &config.key_store, RESTORE).await;
    if !key_store.is_marked() {
        findings
            .warning("journal", "its events carry checksums, which prove nothing; the next start adds MACs");
    }
    let journal: Arc<dyn Journal> = match SqliteJournal::look(&lock, &key_store.macs()).await {
        Ok(journal) => Arc::new(journal),
        Err(error) => {
            findings.fault("journal", error.to_string());
            return;
        }
    };
    read_models(findings, config, &*journal).await;
    mail::failures(findings, &*journal).await;
    mail::senders(findings, config, &*journal).await;
    match &config.nats {
        Some(nats) if head > 0 => {
            let key = MessageKey::new(key_store.instance_key());
            cluster::stream(findings, nats, Arc::clone(&journal), key).await;
        }
        Some(_) | None => {}
    }
    events(findings, config, Arc::clone(&journal), Arc::clone(&key_store), head).await;
    compared::read_models(findings, config, journal, key_store, head).await;
}

/// Examines stores that other nodes may be using.
pub(super) async fn in_databases(
    findings: &mut Findings,
    config: &Config,
    databases: &Databases,
    master_key: &MasterKey,
) {
    let is_free = std::net::TcpListener::bind(config.listen).is_ok();
    if is_free {
        findings.fine("listen", format!("{} is free", config.listen));
    }
    cluster::servers(findings, config, databases).await;
    let found = match databases.look().await {
        Ok(found) => found,
        Err(error) => {
            findings.fault("databases", told(&error));
            return;
        }
    };
    if let Err(error) = databases.check_has_macs(&found, master_key).await {
        findings.fault("journal", told(&error));
        return;
    }
    let mut complete = true;
    let stores = [
        ("journal", databases.journal.to_string(), found.journal),
        ("key store", databases.key_store.to_string(), Some(found.key_store)),
    ];
    for (about, url, migrated) in stores {
        if let Some(migrated) = migrated
            && migrated.from < migrated.to
        {
            complete = false;
            let will = will_do(migrated);
            findings.warning(
                about,
                format!("{url}: is {will} by `watchword migrate`, or the next start by its owner"),
            );
        }
    }
    if !complete {
        return;
    }
    match databases.is_marked(master_key).await {
        Ok(true) => {}
        Ok(false) => {
            findings.warning(
                "journal",
                format!(
                    "{}: its events carry checksums, which prove nothing. `watchword migrate` adds MACs; until then \
                     no node opens it",
                    databases.journal
                ),
            );
            return;
        }
        Err(error) => {
            findings.fault("key store", told(&error));
            return;
        }
    }
    // Everything exists, so opening changes nothing.
    let folder = match temporary_folder(config, databases) {
        Ok(folder) => folder,
        Err(fault) => {
            findings.fault("databases", fault);
            return;
        }
    };
    let place = folder.as_ref().map_or(config.data_dir.as_path(), tempfile::TempDir::path);
    match databases.to_look(place).open(master_key).await {
        Ok((journal, key_store)) => {
            if !is_free {
                let instance = key_store.instance_key().public_id();
                running(findings, config, None, Some(&instance)).await;
            }
            let head = match journal.head().await {
                Ok(head) => head,
                Err(error) => {
                    findings.fault("journal", format!("{}: {error}", databases.journal));
                    return;
                }
            };
            findings.fine("journal", format!("{}: {head} events", databases.journal));
            findings.fine("key store", format!("{}: opens with the master key", databases.key_store));
            cluster::rights(findings, databases).await;
            read_models(findings, config, &*journal).await;
            if let Some(nats) = &config.nats {
                let key = MessageKey::new(key_store.instance_key());
                cluster::stream(findings, nats, journal.clone(), key).await;
            }
            mail::failures(findings, &*journal).await;
            mail::senders(findings, config, &*journal).await;
            events(findings, config, journal.clone(), key_store.clone(), head).await;
            compared::read_models(findings, config, journal.clone(), key_store.clone(), head).await;
            journal.close().await;
            key_store.close().await;
        }
        Err(error) => findings.fault("databases", told(&error)),
    }
}

/// A temporary place for a node's local files: below the data folder, because no other place may be writable. `None` if the node
/// keeps no local files.
fn temporary_folder(config: &Config, databases: &Databases) -> Result<Option<tempfile::TempDir>, String> {
    if !databases.keeps_a_replica() {
        return Ok(None);
    }
    data_dir::create(&config.data_dir).map_err(|error| error.to_string())?;
    let made = tempfile::Builder::new().prefix(".doctor-").tempdir_in(&config.data_dir);
    made.map(Some)
        .map_err(|error| format!("{} is no place for temporary files: {error}", config.data_dir.display()))
}
