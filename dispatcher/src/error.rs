//! Why a command did nothing, and what its caller is told then.

use domain::StreamId;
use event_store::{AppendError, Claim, StoreError};
use http_kit::problem::Problem;
use schemas::problems;

use crate::MAX_EVENT;

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError<E> {
    /// The decision was a refusal.
    #[error("refused")]
    Refused(E),
    /// Another stream holds a claim.
    #[error("the {} claim is held by {owner}", claim.kind)]
    ClaimTaken { claim: Claim, owner: StreamId },
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    IdempotencyKeyReused,
    /// Concurrent writers kept winning.
    #[error("others kept writing the same streams first")]
    Contended,
    /// The outcome of the append is unknown: repeating the request under the same idempotency key finds out.
    #[error("whether the events were written is unknown: {0}")]
    Unknown(String),
    /// An event would be longer than the tree of the log takes.
    #[error("the event {0} would be longer than {MAX_EVENT} bytes")]
    TooLong(String),
    /// The journal or the key store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<E> DispatchError<E> {
    /// Maps the type of the refusal.
    pub fn map_refusal<F>(self, map: impl FnOnce(E) -> F) -> DispatchError<F> {
        match self {
            Self::Refused(refusal) => DispatchError::Refused(map(refusal)),
            Self::ClaimTaken { claim, owner } => DispatchError::ClaimTaken { claim, owner },
            Self::IdempotencyKeyReused => DispatchError::IdempotencyKeyReused,
            Self::Contended => DispatchError::Contended,
            Self::Unknown(reason) => DispatchError::Unknown(reason),
            Self::TooLong(name) => DispatchError::TooLong(name),
            Self::Store(error) => DispatchError::Store(error),
        }
    }
}

impl<E> From<AppendError> for DispatchError<E> {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::ClaimTaken { claim, owner } => Self::ClaimTaken { claim, owner },
            AppendError::IdempotencyKeyReused => Self::IdempotencyKeyReused,
            AppendError::Unknown(reason) => Self::Unknown(reason),
            AppendError::Damaged(what) => StoreError::Damaged(what).into(),
            AppendError::Unavailable(why) => StoreError::Unavailable(why).into(),
            AppendError::Conflict { .. } | AppendError::Empty => {
                StoreError::Unavailable(error.to_string().into()).into()
            }
        }
    }
}

impl<E: Into<Problem>> From<DispatchError<E>> for Problem {
    fn from(error: DispatchError<E>) -> Self {
        match error {
            DispatchError::Refused(refusal) => refusal.into(),
            DispatchError::IdempotencyKeyReused => Self::new(problems::IDEMPOTENCY_KEY_REUSED),
            DispatchError::Store(error) => error.into(),
            DispatchError::Unknown(reason) => {
                tracing::error!(%reason, "the outcome of an append stays unknown");
                Self::new(problems::OUTCOME_UNKNOWN).retry_after(1)
            }
            DispatchError::TooLong(_) => Self::new(problems::EVENT_TOO_LONG).detail(format!(
                "what the log would record of this has more than {MAX_EVENT} bytes: send less at a time"
            )),
            DispatchError::Contended => Self::overloaded("others kept writing the same streams first"),
            // Handlers whose claims may be taken by others match on this first.
            DispatchError::ClaimTaken { claim, owner } => {
                Self::internal(format!("the {} claim is held by {owner}", claim.kind))
            }
        }
    }
}
