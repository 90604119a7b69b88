//! Compares the read models with what the events make, in a temporary folder.

use std::sync::Arc;

use anyhow::Context;
use event_store::Repository;
use read_models::{CompareError, Comparison, compare};

use crate::config::Config;
use crate::data_dir;
use crate::progress::Progress;

/// Rebuilds them, or those that are named, and compares them row by row. Shows the progress.
pub async fn comparisons(
    config: &Config,
    repository: &Arc<Repository>,
    names: &[&str],
    head: u64,
) -> anyhow::Result<Result<Vec<Comparison>, CompareError>> {
    // No other place may be writable.
    let folder = data_dir::create(&config.data_dir)
        .map_err(anyhow::Error::from)
        .and_then(|()| Ok(tempfile::Builder::new().prefix(".compare-").tempdir_in(&config.data_dir)?));
    let folder = folder.with_context(|| {
        let folder = config.data_dir.display();
        format!("they are not compared with the events: {folder} is no place for temporary files")
    })?;
    let origin = match event_store::origin::read(&**repository.journal()).await {
        Ok(Some(origin)) => origin,
        // The next start gives the journal this one.
        Ok(None) => config.log_origin(config.listen)?,
        Err(error) => return Ok(Err(error.into())),
    };
    let progress = Progress::start(head);
    let at = |done, position| progress.at(done, position);
    let comparisons = compare(&config.read_models, folder.path(), repository, &origin, names, at).await;
    progress.end();
    Ok(comparisons)
}
