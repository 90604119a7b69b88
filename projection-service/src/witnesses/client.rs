//! One exchange with a witness (C2SP tlog-witness). It is a stranger's server: nothing in its answer is believed but a valid
//! signature by its key, and neither a long nor a slow answer costs more than a little.

use std::time::Duration;

use domain::Timestamp;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use jiff::SignedDuration;
use tlog::note::Signature;
use tlog::{Hash, Note, VerifierKey};
use url::Url;

/// The longest that an exchange takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest answer that is read: room for signatures by several keys, also of kinds that are not known here.
const MAX_ANSWER: usize = 32 * 1024;

/// The most digits of a size, and a line break.
const MAX_SIZE: usize = 21;

/// How far a witness's clock may be off.
const LEEWAY: SignedDuration = SignedDuration::from_mins(5);

/// A witness: its public key, and where it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessSettings {
    /// Its public key.
    pub key: VerifierKey,
    /// What `add-checkpoint` is appended to.
    pub url: Url,
}

impl WitnessSettings {
    /// Whether there is a witness; else why not.
    pub async fn answers(&self) -> Result<(), String> {
        Client::new(self.clone()).is_there().await.map_err(|error| error.to_string())
    }
}

/// What a witness answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It signed the checkpoint.
    Signed(Signature),
    /// The newest checkpoint that it signed has this size.
    Has(u64),
}

/// Why there is no answer that counts.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("it cannot be reached ({})", without_url(.0))]
    Unreachable(#[from] reqwest::Error),
    #[error("it did not answer within {PATIENCE:?}")]
    TooSlow,
    #[error("its answer is too long")]
    TooLong,
    #[error("it answers with status {0}{means}", means = meaning(*.0))]
    Refused(StatusCode),
    #[error("its answer is not one of a witness")]
    Malformed,
    #[error("its answer has no valid signature by its key")]
    Unsigned,
    #[error("its clock is off: it says that it signed at {0} seconds after 1970")]
    WrongTime(u64),
}

/// The URL may have a password.
fn without_url(error: &reqwest::Error) -> &'static str {
    if error.is_connect() { "no connection" } else { "no answer" }
}

/// What the operator should know of a status.
fn meaning(status: StatusCode) -> &'static str {
    match status {
        StatusCode::FORBIDDEN => ": it does not know the key that signs checkpoints",
        StatusCode::NOT_FOUND => ": it does not know this log, or the URL is not that of a witness",
        StatusCode::UNPROCESSABLE_ENTITY => ": it has signed another history of this log",
        _ => "",
    }
}

/// A client of one witness.
pub(super) struct Client {
    http: reqwest::Client,
    key: VerifierKey,
    url: Url,
}

impl Client {
    /// A client.
    pub(super) fn new(settings: WitnessSettings) -> Self {
        let WitnessSettings { key, mut url } = settings;
        url.set_path(&format!("{}/add-checkpoint", url.path().trim_end_matches('/')));
        // It follows no redirect, so that nobody but the configured server is asked.
        let mut http =
            reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).user_agent("watchword");
        if url.scheme() == "http" {
            // It needs no certificates, and the machine may have none.
            http = http.tls_certs_only([]);
        }
        Self { http: http.build().expect("these settings are valid"), key, url }
    }

    /// The key of the witness.
    pub(super) fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// Asks the witness to sign a note of the log, which has a checkpoint of size `old` of it, with the proof that this one
    /// continues that.
    pub(super) async fn ask(
        &self,
        old: u64,
        proof: &[Hash],
        note: &Note,
        times: Times,
    ) -> Result<Answer, NoAnswer> {
        let lines = proof.iter().flat_map(|hash| [hash.to_string(), "\n".to_owned()]);
        let body = format!("old {old}\n{}\n{note}", lines.collect::<String>());
        let exchange = tokio::time::timeout(PATIENCE, self.exchange(body));
        match exchange.await.map_err(|_| NoAnswer::TooSlow)?? {
            Raw::Lines(lines) => self.verify(&lines, note, times).map(Answer::Signed),
            Raw::Size(size) => {
                let size = size.strip_suffix('\n').unwrap_or(&size);
                let number: u64 = size.parse().map_err(|_| NoAnswer::Malformed)?;
                if number.to_string() == size { Ok(Answer::Has(number)) } else { Err(NoAnswer::Malformed) }
            }
        }
    }

    /// Whether a witness is there: it refuses a request without a checkpoint as malformed.
    async fn is_there(&self) -> Result<(), NoAnswer> {
        match tokio::time::timeout(PATIENCE, self.exchange("old 0\n\n".to_owned()))
            .await
            .map_err(|_| NoAnswer::TooSlow)?
        {
            Err(NoAnswer::Refused(StatusCode::BAD_REQUEST)) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(NoAnswer::Malformed),
        }
    }

    async fn exchange(&self, body: String) -> Result<Raw, NoAnswer> {
        let response = self.http.post(self.url.clone()).body(body).send().await?;
        let is_size = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "text/x.tlog.size");
        match response.status() {
            StatusCode::OK => read(response, MAX_ANSWER).await.map(Raw::Lines),
            StatusCode::CONFLICT if is_size => read(response, MAX_SIZE).await.map(Raw::Size),
            other => Err(NoAnswer::Refused(other)),
        }
    }

    /// The signature of the witness, if its answer has it. Lines of other keys are ignored.
    fn verify(&self, lines: &str, note: &Note, times: Times) -> Result<Signature, NoAnswer> {
        let lines = lines.strip_suffix('\n').ok_or(NoAnswer::Malformed)?.split('\n');
        let signatures =
            lines.map(Signature::parse).collect::<Option<Vec<_>>>().ok_or(NoAnswer::Malformed)?;
        verified(&self.key, note, signatures, times)
    }
}

/// When a signature of a witness can have been made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// When the log signed.
    pub(super) from: Timestamp,
    /// Now.
    pub(super) until: Timestamp,
}

impl Times {
    /// Whether a time is one of them, as far as clocks agree.
    fn contain(self, time: u64) -> bool {
        let at = i64::try_from(time).ok().and_then(|time| Timestamp::from_second(time).ok());
        at.is_some_and(|at| self.from.duration_since(at) <= LEEWAY && at.duration_since(self.until) <= LEEWAY)
    }
}

/// The signature of the note by this key.
pub(super) fn verified(
    key: &VerifierKey,
    note: &Note,
    signatures: Vec<Signature>,
    times: Times,
) -> Result<Signature, NoAnswer> {
    let answered = Note { text: note.text.clone(), signatures };
    let own = answered.verified(std::slice::from_ref(key)).map_err(|_| NoAnswer::Unsigned)?;
    let signature = own.into_iter().next().ok_or(NoAnswer::Unsigned)?;
    let alone = Note { text: answered.text, signatures: vec![signature.clone()] };
    let time = key.signed(&alone).ok_or(NoAnswer::Unsigned)?;
    if times.contain(time) { Ok(signature) } else { Err(NoAnswer::WrongTime(time)) }
}

/// A body that nobody has verified.
enum Raw {
    Lines(String),
    Size(String),
}

async fn read(mut response: reqwest::Response, most: usize) -> Result<String, NoAnswer> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > most {
            return Err(NoAnswer::TooLong);
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).map_err(|_| NoAnswer::Malformed)
}

#[cfg(test)]
mod tests {
    use tlog::Signer;
    use tlog::note::Kind;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn a_signature_counts_if_it_is_the_witness_s_own_and_of_about_now() {
        let signer = |name, key| Signer::from_seed(name, Kind::Witness, &[key; 32]).expect("a key");
        let (witness, other) = (signer("w.example/1", 1), signer("w.example/2", 2));
        let note = Note { text: "log.example\n1\nroot\n".to_owned(), signatures: vec![] };
        let times = Times { from: at(10_000), until: at(20_000) };
        let check = |signatures| verified(witness.key(), &note, signatures, times);
        let own = |time| witness.sign(&note.text, time);
        for time in [9_700, 10_000, 20_000, 20_300] {
            assert_eq!(check(vec![other.sign(&note.text, time), own(time)]).expect("it counts"), own(time));
        }
        for time in [0, 9_699, 20_301, u64::MAX, i64::MAX.unsigned_abs()] {
            assert!(
                matches!(check(vec![own(time)]), Err(NoAnswer::WrongTime(found)) if found == time),
                "{time}"
            );
        }
        let of_another_text = witness.sign("log.example\n2\nroot\n", 15_000);
        let of_another_key = signer("w.example/1", 3).sign(&note.text, 15_000);
        for signatures in
            [vec![], vec![other.sign(&note.text, 15_000)], vec![of_another_text], vec![of_another_key]]
        {
            assert!(matches!(check(signatures), Err(NoAnswer::Unsigned)));
        }
    }
}
