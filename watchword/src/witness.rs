//! A witness of other people's logs ([C2SP tlog-witness]): for each log it remembers the newest checkpoint that it has
//! signed, and signs another one only if that tree begins the new one. So a log cannot show two histories to two readers who
//! ask for this witness's signature.
//!
//! It trusts nobody who sends requests: what is signed follows from the log's own signature, a proof, and the remembered
//! checkpoint, which is on disk before its signature leaves the process. It opens no store of Watchword, and needs none.
//!
//! [C2SP tlog-witness]: https://c2sp.org/tlog-witness

mod key;
mod request;
mod routes;
mod state;

use std::collections::BTreeMap;

use event_store::{Clock, SystemClock};
use tlog::note::{Kind, Signature};
use tlog::{Checkpoint, Note, Signer, VerifierKey, proof};
use tokio::sync::{Mutex, MutexGuard};

use crate::told::told;
pub use key::{Held, default_name, open as open_key};
pub use request::Request;
pub use routes::router;
pub use state::{State, Unverified};

/// Why a checkpoint is not signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request is not well-formed.
    #[error("{0}")]
    Malformed(&'static str),
    /// The log is not one of this witness.
    #[error("this witness knows no log of this origin")]
    UnknownLog,
    /// None of the log's keys signed it, or a signature is not that of the key that it names.
    #[error("the checkpoint is not signed by a key of its log that this witness knows")]
    NotSigned,
    /// The request is about another size than that of the newest signed checkpoint, which is this one.
    #[error("the newest checkpoint signed by this witness has the size {0}")]
    Conflict(u64),
    /// The remembered tree does not begin this one, or the proof does not show it.
    #[error("{0}")]
    Inconsistent(&'static str),
    /// It could not be remembered, and so is not signed.
    #[error("the witness cannot sign now: try again later")]
    Unavailable,
}

/// The witness of some logs.
pub struct Witness {
    signer: Signer,
    /// The keys of each log, by its origin.
    logs: BTreeMap<String, Vec<VerifierKey>>,
    /// Held from the comparison with what is remembered until the new checkpoint is remembered.
    state: Mutex<State>,
}

impl Witness {
    /// A witness with this key and memory, of the logs with these keys: several keys of one name are those of one log.
    pub fn new(signer: Signer, keys: Vec<VerifierKey>, state: State) -> Self {
        let mut logs: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for key in keys {
            logs.entry(key.name().to_owned()).or_default().push(key);
        }
        Self { signer, logs, state: Mutex::new(state) }
    }

    /// Its public key.
    pub fn key(&self) -> &VerifierKey {
        self.signer.key()
    }

    /// The logs that it is a witness of.
    pub fn origins(&self) -> impl Iterator<Item = &str> {
        self.logs.keys().map(String::as_str)
    }

    /// Signs a checkpoint that the remembered one begins, and remembers it.
    pub async fn add(&self, request: Request) -> Result<Signature, Refusal> {
        let Request { old, proof, note, checkpoint } = request;
        let keys = self.logs.get(&checkpoint.origin).ok_or(Refusal::UnknownLog)?;
        // What costs computing comes before the wait for one's turn.
        let by_log = note.verified(keys).map_err(|_| Refusal::NotSigned)?;
        if by_log.is_empty() {
            return Err(Refusal::NotSigned);
        }
        if old > checkpoint.size {
            return Err(Refusal::Malformed("the old size is larger than the size of the checkpoint"));
        }
        let mut state = self.state().await;
        let (size, root) = state.tree_of(&checkpoint.origin);
        // Only the log's key can make two roots of one size.
        let contradicts = size == checkpoint.size && root != checkpoint.root;
        let continues =
            old == size && proof::extends(&proof, (size, root), (checkpoint.size, checkpoint.root));
        if (contradicts || (old == size && !continues)) && state.is_new_refusal(&checkpoint) {
            let Checkpoint { origin, size: refused, .. } = &checkpoint;
            tracing::warn!(%origin, refused, signed = size, contradicts, %note, "refused a checkpoint that is not shown to continue the signed one");
        }
        if old != size {
            return Err(Refusal::Conflict(size));
        }
        if contradicts {
            return Err(Refusal::Inconsistent("the signed checkpoint of this size has another root"));
        }
        if !continues {
            return Err(Refusal::Inconsistent(
                "the proof does not show that the signed checkpoint begins this one",
            ));
        }
        let time = u64::try_from(SystemClock.now().as_second()).ok().filter(|time| *time > 0);
        let Some(time) = time else {
            tracing::error!("the clock is before 1970: no checkpoint is signed until it is set");
            return Err(Refusal::Unavailable);
        };
        let signature = self.signer.sign(&note.text, time);
        let signatures = [by_log, vec![signature.clone()]].concat();
        let signed = Note { text: note.text, signatures };
        // Without a point at which this could be cancelled in between; others use another thread meanwhile.
        let remembered = tokio::task::block_in_place(|| state.remember(checkpoint, signed));
        match remembered {
            Ok(()) => Ok(signature),
            Err(error) => {
                tracing::error!(
                    error = told(&error.into()),
                    "the state cannot be written: nothing is signed"
                );
                Err(Refusal::Unavailable)
            }
        }
    }

    /// The newest signed checkpoint of the log whose origin has this SHA-256 hash, in hexadecimal digits.
    pub async fn newest(&self, origin_hash: &str) -> Option<String> {
        let origin = self.origins().find(|origin| routes::origin_hash(origin) == origin_hash)?;
        self.state().await.note_of(origin).map(Note::to_string)
    }

    async fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().await
    }
}

/// A key of a log, from the command line.
pub fn log_key(text: &str) -> Result<VerifierKey, String> {
    let key: VerifierKey = text.parse().map_err(|error: tlog::note::NoKey| error.to_string())?;
    match key.kind() {
        Kind::Log => Ok(key),
        Kind::Witness => {
            Err("it is the key of a witness: give a key of the log, which signs its checkpoints".to_owned())
        }
    }
}
