//! The data folder: its contents, and whether it may be used. Inspecting changes nothing.

use std::path::{Path, PathBuf};

use event_store::sqlite::private;
use event_store::{MasterKey, durable};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::config::{Config, ConfigError, refuse_world_readable};
use crate::serving;

/// Why the data folder cannot be used. Nothing in it was touched.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("the data folder {} cannot be read: {source}. Give it to the user that runs watchword, or set data_dir (WATCHWORD_DATA_DIR) to another", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("the data folder {} cannot be created: {source}. Create it and give it to the user that runs watchword, or set data_dir (WATCHWORD_DATA_DIR) to another", path.display())]
    NotCreated { path: PathBuf, source: std::io::Error },
    #[error("{} is not a folder. Set data_dir (WATCHWORD_DATA_DIR) to a folder", path.display())]
    NoFolder { path: PathBuf },
    #[error("{} holds files of something else ({found}) and no journal. Set data_dir (WATCHWORD_DATA_DIR) to a new or empty folder", path.display())]
    Foreign { path: PathBuf, found: String },
    #[error("there is a journal at {} but {} is missing. Restore it from the backup of the same moment: without it the journal's sealed data cannot be read, so no new one is made", journal.display(), missing.display())]
    Incomplete { journal: PathBuf, missing: PathBuf },
    #[error("{} is there but the journal {} is missing. Restore it from the backup, or move the remaining files away to start anew", present.display(), journal.display())]
    NoJournal { journal: PathBuf, present: PathBuf },
    #[error("{} is empty: an earlier version was started on a full disk, or the file lost its content. The stores of this instance need their key: restore it from its backup. If nothing was ever stored, move {} away: the next start makes a new key and new stores", path.display(), store.display())]
    EmptyMasterKey { path: PathBuf, store: PathBuf },
    #[error("{origin} holds no master key: {problem}")]
    BadMasterKey { origin: String, problem: String },
    #[error("no stores yet at {}. Run `watchword migrate` or `watchword serve` to create them, or set data_dir (WATCHWORD_DATA_DIR) to where they are", path.display())]
    Absent { path: PathBuf },
    #[error("{} cannot be written: {source}", path.display())]
    NotWritten { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// The state of a data folder before anything is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It holds no stores yet.
    Fresh,
    /// The stores exist.
    Present,
}

/// Looks at the data folder and refuses one that should not be used.
pub fn inspect(config: &Config) -> Result<State, DataDirError> {
    if config.databases.is_some() {
        // A database reports its own state, and needs nothing in the folder.
        return Ok(State::Present);
    }
    let path = &config.data_dir;
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return if config.journal.exists() { present(config) } else { Ok(State::Fresh) };
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => {
            return Err(DataDirError::NoFolder { path: path.clone() });
        }
        Err(source) => return Err(DataDirError::Unreadable { path: path.clone(), source }),
    };
    let mut foreign = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| DataDirError::Unreadable { path: path.clone(), source })?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !is_ours(config, &entry.path(), &name) {
            foreign.push(name);
        }
    }
    if config.journal.exists() {
        return present(config);
    }
    let others = [Some(config.key_store.as_path()), config.read_models.file()];
    if let Some(store) = others.into_iter().flatten().find(|store| store.exists()) {
        return Err(DataDirError::NoJournal { journal: config.journal.clone(), present: store.to_owned() });
    }
    if !foreign.is_empty() {
        foreign.sort();
        foreign.truncate(3);
        return Err(DataDirError::Foreign { path: path.clone(), found: foreign.join(", ") });
    }
    Ok(State::Fresh)
}

/// A journal is created after the master key, so one without a key has lost it. The key store comes last: the opened
/// journal tells whether a missing one is lost or a first start was interrupted.
fn present(config: &Config) -> Result<State, DataDirError> {
    if config.master_key.is_none() && !config.master_key_file().exists() {
        return Err(incomplete(config, &config.master_key_file()));
    }
    Ok(State::Present)
}

/// Refuses files with secrets that other users of the machine can read, before anything is opened.
pub fn require_own_secrets(config: &Config) -> Result<(), DataDirError> {
    for path in [config.master_key_file(), config.admin_key_file(), config.next_master_key_file()] {
        if path.exists() {
            refuse_world_readable(&path)?;
        }
    }
    Ok(())
}

/// Refuses a journal with events whose keys are gone.
pub fn require_key_store(config: &Config, head: u64) -> Result<(), DataDirError> {
    if head > 0 && !config.key_store.exists() { Err(incomplete(config, &config.key_store)) } else { Ok(()) }
}

fn incomplete(config: &Config, missing: &Path) -> DataDirError {
    DataDirError::Incomplete { journal: config.journal.clone(), missing: missing.to_owned() }
}

fn is_ours(config: &Config, path: &Path, name: &str) -> bool {
    let stores =
        [Some(config.journal.as_path()), config.read_models.file(), Some(config.key_store.as_path())];
    let of_a_store = stores.into_iter().flatten().any(|store| {
        let store = store.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with(&store)
    });
    of_a_store
        || matches!(
            name,
            "master.key"
                | "master.key.new"
                | "admin.key"
                | "watchword.toml"
                | "outbox"
                | "lost+found"
                | serving::FILE
        )
        || name.starts_with('.')
        || config.file.as_deref().is_some_and(|file| file == path)
}

/// Reads the master key from the configuration or its file; `None` if both are absent.
pub fn master_key(config: &Config) -> Result<Option<MasterKey>, DataDirError> {
    if let Some(text) = &config.master_key {
        return parse(text, "master_key (WATCHWORD_MASTER_KEY)").map(Some);
    }
    let path = config.master_key_file();
    if !path.exists() {
        return Ok(None);
    }
    if is_empty(&path) {
        // Without stores nothing was ever encrypted, and a new key is made.
        let stores = [&config.journal, &config.key_store].into_iter();
        return match stores.map(PathBuf::as_path).find(|store| store.exists()) {
            Some(store) => Err(DataDirError::EmptyMasterKey { path, store: store.to_owned() }),
            None => Ok(None),
        };
    }
    master_key_in(&path).map(Some)
}

/// Reads a master key from a file.
pub fn master_key_in(path: &Path) -> Result<MasterKey, DataDirError> {
    read_secret(path).and_then(|text| parse(&text, &path.display().to_string()))
}

fn parse(text: &SecretString, origin: &str) -> Result<MasterKey, DataDirError> {
    MasterKey::from_base64(text.expose_secret())
        .map_err(|e| DataDirError::BadMasterKey { origin: origin.to_owned(), problem: e.to_string() })
}

/// Reads a secret from a file, unless everybody can read it.
pub fn read_secret(path: &Path) -> Result<SecretString, DataDirError> {
    refuse_world_readable(path)?;
    std::fs::read_to_string(path)
        .map(|text| SecretString::from(text.trim().to_owned()))
        .map_err(|source| DataDirError::Unreadable { path: path.to_owned(), source })
}

/// Creates the data folder, accessible to its owner only.
pub fn create(path: &Path) -> Result<(), DataDirError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    let is_new = !path.exists();
    let create = || {
        builder.create(path)?;
        if is_new {
            private::adopt(&std::fs::File::open(path)?, path);
        }
        Ok(())
    };
    create().map_err(|source| DataDirError::NotCreated { path: path.to_owned(), source })
}

/// Durably writes a secret to a new file that only its owner can read. An empty file in its place, as earlier versions left
/// behind on a full disk, is replaced.
pub fn write_secret(path: &Path, secret: &SecretString) -> Result<(), DataDirError> {
    let line = Zeroizing::new(format!("{}\n", secret.expose_secret()));
    let written = if is_empty(path) {
        durable::put(path, line.as_bytes())
    } else {
        durable::create(path, line.as_bytes())
    };
    written.map_err(|source| DataDirError::NotWritten { path: path.to_owned(), source })
}

/// Whether there is a file, and nothing in it.
pub fn is_empty(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() == 0)
}

/// Durably and atomically replaces a file by another one, which is renamed to it. It gets the replaced file's owner, group and
/// mode, because the caller may be root and the service is not.
pub fn replace(path: &Path, with: &Path) -> Result<(), DataDirError> {
    let liken = || {
        if path.exists() { private::liken(&std::fs::File::open(with)?, with, path) } else { Ok(()) }
    };
    liken()
        .and_then(|()| std::fs::rename(with, path))
        .and_then(|()| durable::sync_folder_of(path))
        .map_err(|source| DataDirError::NotWritten { path: path.to_owned(), source })
}
