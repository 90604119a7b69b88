//! An effect at work: what a process holds of the mailer, and of the sender of webhooks.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use event_store::{Journal, StoreError};
use tasks::{End, Task, Weight};
use tokio::sync::watch;

use crate::cursor::{EffectStatus, Ending};

/// The loop of an effect.
pub(crate) trait Perform: Send + 'static {
    /// Its name, as task and in the log.
    const NAME: &'static str;
    /// How long what is in progress may take at a shutdown.
    const LAST: Duration;
    /// What becomes of that if it takes longer.
    const CUT_OFF: &'static str;

    /// Performs the effect until it is asked to end.
    fn run(&mut self) -> impl Future<Output = End> + Send;
}

/// Works until it is shut down.
pub struct Effect {
    pub(crate) status: watch::Receiver<EffectStatus>,
    ending: watch::Sender<bool>,
    pub(crate) task: Mutex<Option<Task>>,
    last: Duration,
    cut_off: &'static str,
}

impl Effect {
    /// Starts the loop that is made of where it reports its state, and where it learns that it is to end.
    pub(crate) fn start<P: Perform>(make: impl FnOnce(watch::Sender<EffectStatus>, Ending) -> P) -> Self {
        let (status, seen) = watch::channel(EffectStatus::STARTING);
        let ending = watch::Sender::new(false);
        let performer = Arc::new(tokio::sync::Mutex::new(make(status, Ending(ending.subscribe()))));
        let task = tasks::start(P::NAME, Weight::Usual, move || {
            let performer = Arc::clone(&performer);
            async move { performer.lock().await.run().await }
        });
        Self { status: seen, ending, task: Mutex::new(Some(task)), last: P::LAST, cut_off: P::CUT_OFF }
    }

    /// Its state.
    pub fn status(&self) -> EffectStatus {
        self.status.borrow().clone()
    }

    /// Stops it after what is in progress, but does not wait for a server that does not answer.
    pub async fn shutdown(&self) {
        self.ending.send_replace(true);
        let task = self.task.lock().expect("no holder panics").take();
        if let Some(mut task) = task
            && tokio::time::timeout(self.last, task.ended()).await.is_err()
        {
            tracing::warn!("{}", self.cut_off);
            task.abort();
            task.ended().await;
        }
    }
}

/// Creates the cursor of an effect if there is none yet. What is requested from then on is performed, even by a process that
/// starts later. Otherwise this writes nothing, so that a start does not wait for a database that takes no writes for a while.
pub(crate) async fn begin(journal: &dyn Journal, effect: &str) -> Result<(), StoreError> {
    if journal.cursor_position(effect).await?.is_some() {
        return Ok(());
    }
    journal.hold_cursor(effect, "nobody", Duration::ZERO).await.map(|_| ())
}
