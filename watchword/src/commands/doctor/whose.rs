//! Whether the answering server is the intended one: another may listen there.

use super::Findings;
use crate::channel::Answer;

/// Distinguishes this instance's server from others, and reports another one.
pub fn is_ours(findings: &mut Findings, url: &str, answer: &Answer, instance: Option<&str>) -> bool {
    match (instance, answer.json["instance"].as_str()) {
        (Some(ours), Some(theirs)) if ours == theirs => return true,
        (Some(_), Some(_)) => findings.warning(
            "server",
            format!("what answers at {url} is another instance of Watchword, and is not reported here. {ELSEWHERE}"),
        ),
        (_, None) => findings.warning(
            "server",
            format!("what answers at {url} is not Watchword in this version, and is not reported here. {ELSEWHERE}"),
        ),
        (None, Some(_)) => findings.warning(
            "server",
            format!(
                "cannot determine whether what answers at {url} is the server of this data folder, so it is not reported here. \
                 {ELSEWHERE}"
            ),
        ),
    }
    false
}

const ELSEWHERE: &str = "If the server listens elsewhere, run this with the same configuration as it has (WATCHWORD_LISTEN, WATCHWORD_DATA_DIR)";
