//! Whether the server that answers is the one that was meant: another one may listen there.

use super::Findings;
use crate::channel::Answer;

/// Tells the server of this instance from another one, and says what it is if it is not.
pub fn is_ours(findings: &mut Findings, url: &str, answer: &Answer, instance: Option<&str>) -> bool {
    match (instance, answer.json["instance"].as_str()) {
        (Some(ours), Some(theirs)) if ours == theirs => return true,
        (Some(_), Some(_)) => findings.warning(
            "server",
            format!("what answers at {url} is another instance of Watchword, and is not reported here. {ELSEWHERE}"),
        ),
        (_, None) => findings.warning(
            "server",
            format!("what answers at {url} is no Watchword of this version, and is not reported here. {ELSEWHERE}"),
        ),
        (None, Some(_)) => findings.warning(
            "server",
            format!(
                "whether what answers at {url} is the server of this data folder cannot be told, so it is not reported here. \
                 {ELSEWHERE}"
            ),
        ),
    }
    false
}

const ELSEWHERE: &str = "If the server listens elsewhere, run this with the same configuration as it has (WATCHWORD_LISTEN, WATCHWORD_DATA_DIR)";
