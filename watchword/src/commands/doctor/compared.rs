//! Whether read models match the events exactly.

use std::sync::Arc;

use event_store::{Journal, KeyStore, Repository, Sealer};
use read_models::{CompareError, Comparison};

use super::Findings;
use crate::comparing;
use crate::config::Config;

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
    let repository = Arc::new(Repository::new(journal, Arc::new(Sealer::new(key_store)), 1));
    let compared = match comparing::comparisons(config, &repository, &[], head).await {
        Ok(compared) => compared,
        Err(error) => {
            findings.fault("read models", format!("{error:#}"));
            return;
        }
    };
    match compared {
        Ok(comparisons) => comparisons.iter().for_each(|comparison| tell(findings, comparison)),
        Err(CompareError::Journal(error)) => findings.warning(
            "read models",
            format!("they cannot be compared with the events, because one cannot be read: {error}"),
        ),
        Err(error) => findings.fault("read models", format!("{error}. {REMEDY}")),
    }
}

const REMEDY: &str =
    "`watchword rebuild --all` builds them anew from the events (with files, while the server is stopped)";

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
