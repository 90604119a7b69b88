//! Requests to the only task of a process that writes to its journal. Every adapter has one.

use tokio::sync::{mpsc, oneshot};

use crate::journal::{Append, AppendError, Appended, StoreError};

/// Has events appended. If the task ends meanwhile, it is unknown whether they were.
pub(crate) async fn append<R: Send>(
    requests: &mpsc::Sender<R>,
    append: Append,
    request: impl FnOnce(Box<Append>, oneshot::Sender<Result<Appended, AppendError>>) -> R + Send,
) -> Result<Appended, AppendError> {
    if append.is_empty() || append.writes.iter().any(|write| write.events.is_empty()) {
        return Err(AppendError::Empty);
    }
    let stopped = |_| AppendError::Unavailable("the writer has stopped".into());
    let place = requests.reserve().await.map_err(stopped)?;
    let (answer, answered) = oneshot::channel();
    place.send(request(Box::new(append), answer));
    answered.await.unwrap_or_else(|_| Err(AppendError::Unknown("the writer stopped".to_owned())))
}

/// Makes a request that can safely be repeated.
pub(crate) async fn ask<R: Send, T: Send>(
    requests: &mpsc::Sender<R>,
    request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> R + Send,
) -> Result<T, StoreError> {
    let stopped = || StoreError::Unavailable("the writer has stopped".into());
    let (answer, answered) = oneshot::channel();
    requests.send(request(answer)).await.map_err(|_| stopped())?;
    answered.await.unwrap_or_else(|_| Err(stopped()))
}
