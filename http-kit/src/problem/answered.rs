//! The request that a task answers, wherever it is.

use std::cell::Cell;
use std::sync::Arc;

use crate::request::Requester;

tokio::task_local! {
    /// The request that the task answers. Set by [`crate::around`](fn@crate::around).
    pub(crate) static ANSWERED: Answered;
}

/// What is known of it by those who do not see it: problems, queues, whoever writes.
pub(crate) struct Answered {
    /// Its id.
    pub request_id: Arc<str>,
    /// The path prefix of the service as clients see it: empty, or `/…` without a trailing slash.
    pub prefix: Arc<str>,
    /// Whether the request has written something.
    pub has_written: Cell<bool>,
    /// Whether the request is about to write something, or writes it.
    pub is_writing: Cell<bool>,
    /// Whether the request has valid credentials.
    pub has_credentials: Cell<bool>,
    /// The requester, and its app.
    pub requester: Requester,
}

impl Answered {
    /// A request of which nothing is known yet.
    pub fn new(request_id: Arc<str>, prefix: Arc<str>) -> Self {
        Self {
            request_id,
            prefix,
            has_written: Cell::new(false),
            is_writing: Cell::new(false),
            has_credentials: Cell::new(false),
            requester: Requester::default(),
        }
    }
}

/// Records that the request answered by this task has written something. If its answer then fails because a dependency
/// no longer responds, the answer must not claim that nothing was changed.
pub fn has_written() {
    // Outside of a request there is no answer.
    let _ = ANSWERED.try_with(|request| request.has_written.set(true));
}

/// Records that the request answered by this task is about to write something, or is done with it.
pub fn is_writing(now: bool) {
    let _ = ANSWERED.try_with(|request| request.is_writing.set(now));
}
