//! Passwords that attackers try first, shipped in the binary.

use std::collections::HashSet;
use std::sync::LazyLock;

/// One a line, in lower case. See its first lines for source and licence.
const LIST: &str = include_str!("../assets/common-passwords.txt");

static COMMON: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| LIST.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect());

/// Whether the password, given in lower case, is on the list.
pub(crate) fn is_common(lower_case: &str) -> bool {
    COMMON.contains(lower_case)
}

#[cfg(test)]
mod tests {
    use super::{COMMON, is_common};

    #[test]
    fn knows_the_usual_ones() {
        assert!(is_common("password") && is_common("12345678") && is_common("qwertyuiop"));
        assert!(!is_common("correct horse battery staple"));
        assert!(COMMON.len() > 5000);
        assert!(COMMON.iter().all(|word| word.to_lowercase() == **word));
    }
}
