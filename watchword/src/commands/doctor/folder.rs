//! Whether the data folder is writable, and unreadable for other users.

use std::path::{Path, PathBuf};

use event_store::sqlite::private::{BESIDE, for_others};

use super::Findings;
use crate::config::Config;
use crate::instance::storage;

/// Examines the folder and its files, or the place where it would be created.
pub fn examine(findings: &mut Findings, config: &Config) {
    let folder = &config.data_dir;
    match existing(folder) {
        Some(there) if !may_write(there, true) => findings.fault(
            "data folder",
            format!(
                "{} cannot be written by this user. Give it to the user that runs watchword, or run this as that user; or set \
                 data_dir (WATCHWORD_DATA_DIR) to another folder",
                there.display()
            ),
        ),
        Some(_) => {}
        None => findings.fault("data folder", format!("there is no place for {}", folder.display())),
    }
    for file in files(config) {
        examine_file(findings, &file);
    }
    for folder in storage::folders(config) {
        if let Some(free) = folder.look().filter(|free| *free < config.storage_free) {
            findings.warning("disk", storage::is_low(&folder, free, config.storage_free));
        }
    }
    let outbox = folder.join("outbox");
    if outbox.is_dir() && !may_write(&outbox, true) {
        findings.fault(
            "mail",
            format!("{} cannot be written by this user: no mail can be stored there", outbox.display()),
        );
    }
}

fn examine_file(findings: &mut Findings, file: &Path) {
    if for_others(file) != 0 {
        findings.fault(
            "data folder",
            format!("other users of this machine can read {0}. Run: chmod 600 {0}; the next start does so as well", file.display()),
        );
    }
    if !may_write(file, false) {
        findings.fault(
            "data folder",
            format!(
                "{} cannot be written by this user. Give it to the user that runs watchword",
                file.display()
            ),
        );
    }
}

/// The existing files of the stores.
fn files(config: &Config) -> Vec<PathBuf> {
    let replica = config.data_dir.join("replica.db");
    let stores =
        [Some(config.journal.as_path()), Some(config.key_store.as_path()), config.read_models.file()];
    let mut files = Vec::new();
    for store in stores.into_iter().flatten().chain([replica.as_path()]) {
        files.push(store.to_owned());
        for suffix in BESIDE {
            let mut name = store.as_os_str().to_owned();
            name.push(suffix);
            files.push(name.into());
        }
    }
    files.retain(|file| file.exists());
    files
}

/// The folder, or its nearest existing parent.
fn existing(folder: &Path) -> Option<&Path> {
    let there = folder.ancestors().find(|path| path.exists())?;
    Some(if there.as_os_str().is_empty() { Path::new(".") } else { there })
}

/// Asks the system instead of trying, which would leave a trace.
fn may_write(path: &Path, is_folder: bool) -> bool {
    #[cfg(unix)]
    {
        use rustix::fs::{Access, AtFlags, CWD, accessat};
        let access = if is_folder { Access::WRITE_OK | Access::EXEC_OK } else { Access::WRITE_OK };
        accessat(CWD, path, access, AtFlags::EACCESS).is_ok()
    }
    #[cfg(not(unix))]
    {
        let _ = is_folder;
        std::fs::metadata(path).is_ok_and(|found| !found.permissions().readonly())
    }
}
