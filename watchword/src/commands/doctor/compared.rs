//! Whether read models match the events exactly.

use std::path::Path;
use std::sync::Arc;

use event_store::{Journal, KeyStore, Repository, Sealer, StoreError};
use read_models::{CompareError, Comparison, compare};

use super::Findings;
use crate::config::Config;
use crate::data_dir;
use crate::progress::Progress;

/// Rebuilds them in a temporary folder, and compares them row by row.
pub async fn read_models(
    findings: &mut Findings,
    config: &Config,
    journal: Arc<dyn Journal>,
    key_store: Arc<KeyStore>,
    head: u64,
) {
    if config.read_models.file().is_some_and(|path| !path.exists()) {
        return;
    }
    // No other place may be writable.
    let made = data_dir::create(&config.data_dir).map_err(|error| error.to_string()).and_then(|()| {
        let folder = tempfile::Builder::new().prefix(".doctor-").tempdir_in(&config.data_dir);
        folder.map_err(|error| error.to_string())
    });
    let folder = match made {
        Ok(folder) => folder,
        Err(error) => {
            let folder = config.data_dir.display();
            findings.fault(
                "read models",
                format!(
                    "they are not compared with the events: {folder} is no place for temporary files: {error}"
                ),
            );
            return;
        }
    };
    let repository = Repository::new(journal, Arc::new(Sealer::new(key_store)), 1);
    match comparisons(config, folder.path(), &repository, head).await {
        Ok(comparisons) => comparisons.iter().for_each(|comparison| tell(findings, comparison)),
        Err(CompareError::Journal(error)) => findings.warning(
            "read models",
            format!("they cannot be compared with the events, because one cannot be read: {error}"),
        ),
        Err(error) => findings.fault("read models", format!("{error}. {REMEDY}")),
    }
}

const REMEDY: &str = "Stop every node that runs projectors and delete the read models (the file read-models.db with its \
    -wal and -shm, or PostgreSQL's schema watchword_read): they are built anew from the events at the next start";

async fn comparisons(
    config: &Config,
    folder: &Path,
    repository: &Repository,
    head: u64,
) -> Result<Vec<Comparison>, CompareError> {
    let origin = match event_store::origin::read(&**repository.journal()).await? {
        Some(origin) => origin,
        // The next start gives the journal this one.
        None => config.log_origin(config.listen).map_err(|error| StoreError::Damaged(error.to_string()))?,
    };
    let progress = Progress::start(head);
    let at = |done, position| progress.at(done, position);
    let comparisons = compare(&config.read_models, folder, repository, &origin, at).await;
    progress.end();
    comparisons
}

fn tell(findings: &mut Findings, comparison: &Comparison) {
    let Comparison { projector, position, rows, differences, more } = comparison;
    if differences.is_empty() {
        findings
            .fine("read models", format!("{projector}: its {rows} rows match the events up to {position}"));
        return;
    }
    for difference in differences {
        findings.fault("read models", format!("{difference}. Somebody else wrote it. {REMEDY}"));
    }
    if *more > 0 {
        findings.fault("read models", format!("{more} more rows of {projector} do not match the events"));
    }
}
