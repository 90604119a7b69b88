//! The witnesses of signed checkpoints.

use super::Findings;
use crate::config::Config;

/// Whether each configured witness answers.
pub async fn examine(findings: &mut Findings, config: &Config) {
    for witness in &config.witnesses {
        let name = witness.key.name();
        match witness.answers().await {
            Ok(()) => findings.fine("witnesses", format!("{name} answers at {}", witness.url)),
            Err(problem) => findings.warning(
                "witnesses",
                format!(
                    "{name} does not sign checkpoints now: {problem}. Check witnesses (WATCHWORD_WITNESSES), and ask who runs it"
                ),
            ),
        }
    }
}
