//! Whether the server warned while it carried out a statement.
//!
//! It warns when an administrator cancels the wait for a synchronous replica: the commit is then answered as if it had
//! succeeded, but the replica may not have it. sqlx passes notices on only as events for the log, without their codes, so
//! they are caught on their way there, for one future only. The text depends on the server's language; nothing else that a
//! node sends makes a server warn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::instrument::WithSubscriber;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Level, Metadata, Subscriber, dispatcher};

/// The target of the events.
const NOTICE: &str = "sqlx::postgres::notice";

/// Catches warnings.
pub(super) struct Warnings {
    listening: Dispatch,
    heard: Arc<AtomicBool>,
}

impl Warnings {
    pub(super) fn new() -> Self {
        let heard: Arc<AtomicBool> = Arc::default();
        let log = dispatcher::get_default(Dispatch::clone);
        Self { listening: Dispatch::new(Listening { log, heard: Arc::clone(&heard) }), heard }
    }

    /// Runs something, and says whether the server warned meanwhile.
    pub(super) async fn of<T>(&self, run: impl Future<Output = T>) -> (T, bool) {
        self.heard.store(false, Ordering::Relaxed);
        let done = run.with_subscriber(self.listening.clone()).await;
        (done, self.heard.swap(false, Ordering::Relaxed))
    }
}

/// The log, with an ear for warnings.
struct Listening {
    log: Dispatch,
    heard: Arc<AtomicBool>,
}

fn is_warning(metadata: &Metadata<'_>) -> bool {
    metadata.target() == NOTICE && *metadata.level() == Level::WARN
}

impl Subscriber for Listening {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        let of_log = self.log.register_callsite(metadata);
        if is_warning(metadata) { Interest::sometimes() } else { of_log }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::current().max(LevelFilter::WARN))
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_warning(metadata) || self.log.enabled(metadata)
    }

    fn event(&self, event: &Event<'_>) {
        if is_warning(event.metadata()) {
            self.heard.store(true, Ordering::Relaxed);
        }
        if self.log.enabled(event.metadata()) {
            self.log.event(event);
        }
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.log.new_span(span)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.log.record(span, values);
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        self.log.record_follows_from(span, follows);
    }

    fn enter(&self, span: &Id) {
        self.log.enter(span);
    }

    fn exit(&self, span: &Id) {
        self.log.exit(span);
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.log.clone_span(id)
    }

    fn try_close(&self, id: Id) -> bool {
        self.log.try_close(id)
    }
}
