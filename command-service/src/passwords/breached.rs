//! Checks whether a password is known from a breach of another service, without revealing it to the list's server.
//!
//! Only the first five hexadecimal digits of the password's SHA-1 hash leave this process. The answer, padded so that its
//! length reveals nothing, is searched here (k-anonymity, as in `api.pwnedpasswords.com/range/`). A failure is counted in a
//! metric and lets the password pass: an unavailable list must not keep people from choosing one.

use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use domain::password::Password;
use url::Url;

/// How long to wait for the list's answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// The maximum length of an answer in bytes. Usual ones have about 40 000.
const MAX_ANSWER: usize = 1024 * 1024;
/// How many digits of the hash are sent.
const PREFIX: usize = 5;

/// The list, if one is configured.
pub(crate) struct BreachedPasswords(Option<List>);

struct List {
    url: Url,
    client: reqwest::Client,
}

impl BreachedPasswords {
    /// Queries this URL with the digits appended; without a URL, nothing is checked.
    pub fn new(url: Option<Url>) -> Self {
        Self(url.map(|url| List { url, client: client() }))
    }

    /// Whether the list contains this password. False if it cannot be queried.
    pub async fn know(&self, password: &Password) -> bool {
        let (Some(list), Some(bytes)) = (&self.0, password.bytes()) else { return false };
        let hash = hash_of(bytes);
        let (prefix, suffix) = hash.split_at(PREFIX);
        let outcome = match tokio::time::timeout(PATIENCE, list.range(prefix)).await {
            Ok(Ok(range)) => return is_in(&range, suffix),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "timed out".to_owned(),
        };
        metrics::counter!("watchword_breach_checks_failed_total").increment(1);
        tracing::warn!(%outcome, "could not query the list of breached passwords: a password was accepted unchecked");
        false
    }
}

/// Follows no redirect, so that the digits go only to the configured server.
fn client() -> reqwest::Client {
    let builder =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).user_agent("watchword");
    builder.build().expect("these settings are valid")
}

#[derive(Debug, thiserror::Error)]
enum ListError {
    #[error("it cannot be reached: {}", without_url(.0))]
    Unreachable(#[from] reqwest::Error),
    #[error("it answers {0}")]
    Refused(http::StatusCode),
    #[error("its answer is too long")]
    TooLong,
}

/// Without the URL, whose digits must not reach a log.
fn without_url(error: &reqwest::Error) -> &'static str {
    if error.is_connect() { "no connection" } else { "no answer" }
}

impl List {
    async fn range(&self, prefix: &str) -> Result<String, ListError> {
        let mut url = self.url.clone();
        url.set_path(&format!("{}/{prefix}", self.url.path().trim_end_matches('/')));
        let mut response = self.client.get(url).header("add-padding", "true").send().await?;
        if !response.status().is_success() {
            return Err(ListError::Refused(response.status()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_ANSWER {
                return Err(ListError::TooLong);
            }
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn hash_of(bytes: &[u8]) -> String {
    hex::encode_upper(digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes))
}

/// Lines of `<the other 35 digits>:<count>`; a count of zero is padding.
fn is_in(range: &str, suffix: &str) -> bool {
    range.lines().any(|line| {
        line.trim()
            .split_once(':')
            .is_some_and(|(known, times)| known.eq_ignore_ascii_case(suffix) && times != "0")
    })
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::Path;
    use axum::http::HeaderMap;
    use axum::routing::get;
    use tokio::net::TcpListener;

    use super::*;

    /// A list that has `password`, whose hash begins with 5BAA6.
    async fn list(pause: Duration) -> Url {
        let answer = move |Path(prefix): Path<String>, headers: HeaderMap| async move {
            tokio::time::sleep(pause).await;
            assert_eq!(headers["add-padding"], "true");
            assert_eq!(prefix.len(), PREFIX, "no more than that is sent");
            let known =
                if prefix == "5BAA6" { "1E4C9B93F3F0682250B6CF8331B7EE68FD8:3861493\r\n" } else { "" };
            format!("{known}0000000000000000000000000000000000A:0\r\n")
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/range/", listener.local_addr().expect("an address"));
        let router = Router::new().route("/range/{prefix}", get(answer));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Url::parse(&url).expect("a URL")
    }

    #[tokio::test]
    async fn what_is_on_the_list_is_known() {
        let breaches = BreachedPasswords::new(Some(list(Duration::ZERO).await));
        assert!(breaches.know(&Password::new("password")).await);
        assert!(!breaches.know(&Password::new("violet-Kettle-93-harbour")).await);
        assert!(!BreachedPasswords::new(None).know(&Password::new("password")).await);
    }

    #[tokio::test]
    async fn a_list_that_is_slow_or_away_knows_nothing() {
        let slow = BreachedPasswords::new(Some(list(Duration::from_secs(30)).await));
        let started = tokio::time::Instant::now();
        assert!(!slow.know(&Password::new("password")).await);
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        let away = Url::parse("http://127.0.0.1:9/range/").expect("a URL");
        assert!(!BreachedPasswords::new(Some(away)).know(&Password::new("password")).await);
    }

    #[test]
    fn padding_is_no_password() {
        assert!(is_in("00A:1\r\n00B:12", "00b"));
        assert!(!is_in("00A:1\r\n00B:0", "00B"));
        assert!(!is_in("", "00B") && !is_in("00B", "00B"));
    }
}
