//! The witnesses of the configuration.

use projection_service::WitnessSettings;
use serde_json::Value;
use tlog::VerifierKey;
use tlog::note::Kind;
use url::Url;

/// The most witnesses: each costs a task, and a line in every note.
const MOST: usize = 16;

/// A list of objects with `key` and `url`, as JSON. Empty: none.
pub(super) fn witnesses(text: &str) -> Result<Vec<WitnessSettings>, String> {
    if text.trim().is_empty() {
        return Ok(vec![]);
    }
    let wrong =
        || r#"give a list such as [{"key": "<vkey>", "url": "https://witness.example.com"}]"#.to_owned();
    let list: Vec<Value> = serde_json::from_str(text).map_err(|_| wrong())?;
    if list.len() > MOST {
        return Err(format!("it has more than {MOST} witnesses"));
    }
    let mut witnesses: Vec<WitnessSettings> = Vec::new();
    for item in &list {
        let (Some(members), Some(key), Some(url)) =
            (item.as_object(), item["key"].as_str(), item["url"].as_str())
        else {
            return Err(wrong());
        };
        if members.len() != 2 {
            return Err(wrong());
        }
        let witness = WitnessSettings { key: witness_key(key)?, url: witness_url(url)? };
        if witnesses.iter().any(|other| other.key.name() == witness.key.name()) {
            return Err(format!("two witnesses have the name {}", witness.key.name()));
        }
        witnesses.push(witness);
    }
    Ok(witnesses)
}

fn witness_key(text: &str) -> Result<VerifierKey, String> {
    let key: VerifierKey = text.trim().parse().map_err(|error| format!("{text:?}: {error}"))?;
    match key.kind() {
        Kind::Witness => Ok(key),
        Kind::Log => {
            Err(format!("{text:?} is the key of a log: give that of a witness, which it prints at its start"))
        }
    }
}

fn witness_url(text: &str) -> Result<Url, String> {
    // Not quoted, because it may contain a password.
    let wrong = || {
        "the URL of a witness is http:// or https://, a host and perhaps a path, without a password"
            .to_owned()
    };
    let url = Url::parse(text).map_err(|_| wrong())?;
    let is_plain = url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() || !is_plain {
        return Err(wrong());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use tlog::Signer;

    use super::*;

    #[test]
    fn a_witness_has_a_key_of_its_kind_and_a_url() {
        let key = |kind| Signer::from_seed("w.example/1", kind, &[1; 32]).expect("a key").key().to_string();
        let item = |key: &str, url: &str| format!(r#"{{"key": "{key}", "url": "{url}"}}"#);
        let (witness, url) = (key(Kind::Witness), "https://w.example/1");
        let read = witnesses(&format!("[{}]", item(&witness, url))).expect("a witness");
        assert_eq!((read.len(), read[0].key.name(), read[0].url.as_str()), (1, "w.example/1", url));
        assert!(witnesses("").expect("none").is_empty() && witnesses("[]").expect("none").is_empty());
        let good = item(&witness, url);
        for wrong in [
            good.clone(),
            format!("[{good}, {good}]"),
            format!("[{}]", item(&key(Kind::Log), url)),
            format!("[{}]", item("nonsense", url)),
            format!("[{}]", item(&witness, "ftp://w.example")),
            format!("[{}]", item(&witness, "https://a:secret@w.example")),
            format!("[{}]", item(&witness, "https://w.example/?a=1")),
            format!(r#"[{{"key": "{witness}"}}]"#),
            format!(r#"[{{"key": "{witness}", "url": "{url}", "name": "x"}}]"#),
            "[1]".to_owned(),
            "{".to_owned(),
        ] {
            let error = witnesses(&wrong).expect_err(&wrong);
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
