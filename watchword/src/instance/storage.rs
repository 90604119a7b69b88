//! Watches what the stores are kept on: their files, whether they can be written, and the free space of their folders.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use effects::mailer::MailUrl;
use event_store::durable::folder_of;
use event_store::storage::free_bytes;
use event_store::{Journal, KeyStore, StoreError, Why};
use read_models::ReadModels;
use serde_json::{Value, json};
use tasks::{End, Task, Weight};

use super::Stores;
use crate::config::Config;

/// How often files are looked at, and stores that could not be written are tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// Free space changes less quickly.
const PAUSES_BETWEEN_LOOKS_AT_SPACE: u32 = 5;

/// A folder that the service writes to.
#[derive(Debug)]
pub struct Folder {
    /// What it is for, as metrics name it.
    pub name: &'static str,
    pub path: PathBuf,
    free: AtomicU64,
}

impl Folder {
    /// Bytes that may still be written, as of the last look; `None` if the system does not say.
    pub fn free(&self) -> Option<u64> {
        Some(self.free.load(Ordering::Relaxed)).filter(|free| *free != u64::MAX)
    }

    /// Looks again.
    pub fn look(&self) -> Option<u64> {
        let free = free_bytes(&self.path);
        self.free.store(free.unwrap_or(u64::MAX), Ordering::Relaxed);
        free
    }
}

/// The folders that a service of this configuration writes to, each once.
pub fn folders(config: &Config) -> Vec<Folder> {
    let of = |file: Option<&Path>| file.map(|file| folder_of(file).to_owned());
    let own = |file: &Path| config.databases.is_none().then(|| folder_of(file).to_owned());
    let outbox = config.mail.as_ref().and_then(|mail| match &mail.url {
        MailUrl::Files(folder) => Some(folder.clone()),
        MailUrl::Smtp(_) => None,
    });
    let all = [
        ("journal", own(&config.journal)),
        ("key_store", own(&config.key_store)),
        ("read_models", of(config.read_models.file())),
        ("data", Some(config.data_dir.clone())),
        ("outbox", outbox.filter(|outbox| !outbox.starts_with(&config.data_dir))),
    ];
    let mut folders: Vec<Folder> = Vec::new();
    for (name, path) in all {
        let Some(path) = path else { continue };
        if folders.iter().all(|folder| folder.path != path) {
            folders.push(Folder { name, path, free: AtomicU64::new(u64::MAX) });
        }
    }
    folders
}

/// Watches until it is dropped.
pub struct StorageWatch {
    watched: Arc<Watched>,
    task: Task,
}

/// What is watched.
struct Watched {
    journal: Arc<dyn Journal>,
    key_store: Arc<KeyStore>,
    read_models: Option<Arc<ReadModels>>,
    folders: Vec<Folder>,
    /// Less free space than this is a warning.
    enough: u64,
}

impl StorageWatch {
    pub(super) fn start(config: &Config, stores: &Stores) -> Self {
        let watched = Arc::new(Watched {
            journal: Arc::clone(&stores.journal),
            key_store: Arc::clone(&stores.key_store),
            read_models: stores.read_models.clone(),
            folders: folders(config),
            enough: config.storage_free,
        });
        let running = Arc::clone(&watched);
        let task = tasks::start("storage_watch", Weight::Usual, move || Arc::clone(&running).run());
        Self { watched, task }
    }

    /// The folders for `/readyz`. Little space is a warning: requests are answered as long as there is some.
    pub fn check(&self) -> Value {
        let one = |folder: &Folder| {
            let free = folder.free();
            let low = free.filter(|free| *free < self.watched.enough);
            let mut check = json!({ "name": folder.name, "ok": low.is_none(), "free_bytes": free });
            if let Some(free) = low {
                check["detail"] = is_low(folder, free, self.watched.enough).into();
            }
            check
        };
        self.watched.folders.iter().map(one).collect()
    }
}

impl Drop for StorageWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What to say of a folder with too little free space.
pub fn is_low(folder: &Folder, free: u64, enough: u64) -> String {
    const MIB: u64 = 1024 * 1024;
    format!(
        "{} has {} MiB free, less than {} (storage.free_mib): without space nobody can log in. Make room, or move the \
         stores to a larger disk",
        folder.path.display(),
        free / MIB,
        enough / MIB
    )
}

impl Watched {
    async fn run(self: Arc<Self>) -> End {
        let (mut journal, mut key_store) = (Told::default(), Told::default());
        let mut round = 0_u32;
        loop {
            if round.is_multiple_of(PAUSES_BETWEEN_LOOKS_AT_SPACE) {
                self.folders.iter().for_each(|folder| self.look_at(folder));
            }
            // They say so themselves.
            let _ = (self.journal.check_files(), self.key_store.check_files());
            if let Some(read_models) = &self.read_models {
                let _ = read_models.check_files();
            }
            // A store that cannot be written is tried again, so that everybody sees when it can be. One that can is
            // left alone: a disk would never rest.
            if self.journal.last_append().is_err() {
                let _ = self.journal.can_append().await;
            }
            if self.key_store.last_write().is_err() {
                let _ = self.key_store.can_write().await;
            }
            journal.tell("journal", &self.journal.last_append());
            key_store.tell("key_store", &self.key_store.last_write());
            tokio::time::sleep(PAUSE).await;
            round = round.wrapping_add(1);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge need not be exact past 2^53 bytes")]
    fn look_at(&self, folder: &Folder) {
        let is_first = folder.free().is_none();
        let was_low = folder.free().is_some_and(|free| free < self.enough);
        let Some(free) = folder.look() else { return };
        let is_low_now = free < self.enough;
        metrics::gauge!("watchword_storage_free_bytes", "folder" => folder.name).set(free as f64);
        metrics::gauge!("watchword_storage_low", "folder" => folder.name)
            .set(f64::from(u8::from(is_low_now)));
        if is_low_now && !was_low {
            tracing::warn!("{}", is_low(folder, free, self.enough));
        } else if was_low && !is_low_now && !is_first {
            tracing::info!(folder = %folder.path.display(), "there is enough free space again");
        }
    }
}

/// What was last said of a store.
#[derive(Default)]
struct Told(Option<&'static str>);

impl Told {
    fn tell(&mut self, store: &'static str, outcome: &Result<(), Why>) {
        metrics::gauge!("watchword_store_writable", "store" => store)
            .set(f64::from(u8::from(outcome.is_ok())));
        let cause = outcome.as_ref().err().map(|why| why.cause.name());
        if cause == self.0 {
            return;
        }
        self.0 = cause;
        if let Err(why) = outcome {
            tracing::error!(store, cause, %why, "a store cannot be written: requests get 503");
        } else {
            tracing::info!(store, "the store can be written again");
        }
    }
}

/// What `/readyz` says of a store that cannot be written.
pub(super) fn not_writable(error: &StoreError) -> Value {
    match error {
        StoreError::Unavailable(why) => {
            json!({ "ok": false, "state": why.cause.name(), "detail": format!("it cannot be written: {why}") })
        }
        _ => json!({ "ok": false, "detail": "it cannot be written; the log says why" }),
    }
}
