//! The only script of the pages: it lets people see the password that they type. The page works without it, and its
//! policy allows this script alone, by its hash (CSP Level 3 section 2.3.1).

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The content of the script element.
pub(crate) const SCRIPT: &str = include_str!("../../assets/page.js");

/// The source expression that allows it.
pub(crate) static SOURCE: LazyLock<String> =
    LazyLock::new(|| format!("'sha256-{}'", STANDARD.encode(digest(&SHA256, SCRIPT.as_bytes()))));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_can_stand_in_a_page() {
        // These would end the element early or change the parser's state (HTML section 13.2.5.6).
        for forbidden in ["</script", "<!--", "<script"] {
            assert!(!SCRIPT.contains(forbidden), "{forbidden}");
        }
        assert_eq!(SOURCE.len(), "'sha256-'".len() + 44);
    }
}
