//! The long-lived tasks of the process: each is started here, so that none ends unnoticed.
//!
//! A task that panics, or ends without having been asked to, is started again after a pause, counted and logged. One that
//! fails again and again without doing well in between ends the process, with an error: a new process has none of its
//! memory, and whoever watches the process sees it. The list of tasks belongs to the process, as its metrics and its log
//! do.
//!
//! What lasts no longer than a request, a connection or a step of a task needs none of this.
#![deny(missing_docs)]

use std::any::Any;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The pauses before a failed task is started again: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A task that ran for this long did well: its next failure is the first of a row.
const WELL: Duration = Duration::from_mins(1);
/// How often a task in a row may fail, unless [`end_after`] says otherwise.
const FAILURES: u32 = 20;
/// How often a task that waits takes a step, in builds in which a test can make it fail there.
const STEP: Duration = Duration::from_millis(50);

static LIST: Mutex<Vec<Arc<Entry>>> = Mutex::new(Vec::new());
static MOST_FAILURES: AtomicU32 = AtomicU32::new(FAILURES);
static HOPELESS: LazyLock<watch::Sender<Option<String>>> = LazyLock::new(|| watch::Sender::new(None));

/// How a task ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was asked to, or nothing uses it any more.
    Asked,
    /// It had no reason to.
    Unasked,
}

/// What depends on a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Requests: without it the process is not ready.
    Vital,
    /// Something that may come later.
    Usual,
}

/// The state of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// `running`, `restarting` or `failed`: then the process is about to end.
    pub state: &'static str,
    /// Whether requests depend on it.
    pub is_vital: bool,
    /// How often it was started again.
    pub restarts: u64,
}

/// A task that was started.
pub struct Task(JoinHandle<()>);

impl Task {
    /// Ends it at its next step.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Waits until it has ended for good.
    pub async fn ended(&mut self) {
        // It does not panic, and one that was aborted has ended, too.
        let _ = (&mut self.0).await;
    }
}

/// Starts a task. `make` makes it, and makes it again after a failure; state that outlives a failure belongs to `make`.
pub fn start<F>(name: impl Into<String>, weight: Weight, mut make: impl FnMut() -> F + Send + 'static) -> Task
where
    F: Future<Output = End> + Send,
{
    let listed = Listed::new(name.into(), weight);
    Task(tokio::spawn(async move {
        loop {
            let begun = Instant::now();
            let run = async { steps(&listed.0.point, make()).await };
            let ended = AssertUnwindSafe(run).catch_unwind().await;
            match listed.0.ended(begun, ended) {
                Next::Again(pause) => tokio::time::sleep(pause).await,
                Next::Done => return,
                Next::Hopeless => return listed.stay(),
            }
            listed.0.set(State::Running);
        }
    }))
}

/// Like [`start`], for a task that goes on after a failure with the state that it left.
pub fn start_with<S: Send + 'static>(
    name: impl Into<String>,
    weight: Weight,
    state: S,
    run: impl for<'s> Fn(&'s mut S) -> BoxFuture<'s, End> + Send + 'static,
) -> Task {
    let going = Arc::new(tokio::sync::Mutex::new((state, run)));
    start(name, weight, move || {
        let going = Arc::clone(&going);
        async move {
            let (state, run) = &mut *going.lock().await;
            run(state).await
        }
    })
}

/// Starts a task that blocks, on a thread of its own. It should call [`step`] with its name at each step.
pub fn start_thread(
    name: impl Into<String>,
    weight: Weight,
    mut run: impl FnMut() -> End + Send + 'static,
) -> io::Result<()> {
    let name = name.into();
    let named = thread::Builder::new().name(name.clone());
    let listed = Listed::new(name, weight);
    named.spawn(move || {
        loop {
            let begun = Instant::now();
            let ended = catch_unwind(AssertUnwindSafe(&mut run));
            match listed.0.ended(begun, ended) {
                Next::Again(pause) => thread::sleep(pause),
                Next::Done => return,
                Next::Hopeless => return listed.stay(),
            }
            listed.0.set(State::Running);
        }
    })?;
    Ok(())
}

/// A step of a task that blocks: a test may make it fail here.
pub fn step(name: &str) {
    may_fail(&point(name));
}

/// For how long a task that blocks may wait before it takes a step: not long where a test may make it fail.
pub fn longest_wait() -> Duration {
    if fail::has_failpoints() { STEP } else { Duration::from_hours(1) }
}

/// All tasks of the process, by name.
pub fn statuses() -> Vec<Status> {
    let mut statuses: Vec<Status> = locked(&LIST).iter().map(|entry| entry.status()).collect();
    statuses.sort_by(|one, other| one.name.cmp(&other.name));
    statuses
}

/// Sets how often a task may fail in a row. With one more failure the process ends.
pub fn end_after(failures: u32) {
    MOST_FAILURES.store(failures.max(1), Ordering::Relaxed);
}

/// Waits until a task has failed so often that the process should end, and returns why.
pub async fn hopeless() -> String {
    let mut hopeless = HOPELESS.subscribe();
    match hopeless.wait_for(Option::is_some).await {
        Ok(reason) => reason.clone().unwrap_or_default(),
        // The sender is never dropped.
        Err(_) => std::future::pending().await,
    }
}

/// A task of the list.
struct Entry {
    name: String,
    /// Where a test may make it fail.
    point: String,
    weight: Weight,
    standing: Mutex<Standing>,
}

#[derive(Clone, Copy)]
struct Standing {
    state: State,
    restarts: u64,
    failures_in_a_row: u32,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Running,
    Restarting,
    Failed,
}

/// What comes after the end of a task.
enum Next {
    Again(Duration),
    Done,
    Hopeless,
}

impl Entry {
    /// Judges how a task ended.
    fn ended(&self, begun: Instant, ended: Result<End, Box<dyn Any + Send>>) -> Next {
        let why = match ended {
            Ok(End::Asked) => return Next::Done,
            Ok(End::Unasked) => "it ended by itself".to_owned(),
            Err(panic) => format!("it panicked: {}", text(&*panic)),
        };
        let failures = {
            let mut standing = locked(&self.standing);
            if begun.elapsed() >= WELL {
                standing.failures_in_a_row = 0;
            }
            standing.failures_in_a_row += 1;
            standing.failures_in_a_row
        };
        let task = self.name.as_str();
        if failures >= MOST_FAILURES.load(Ordering::Relaxed) {
            let reason = format!("the background task {task} failed {failures} times in a row: {why}");
            tracing::error!(task, failures, "a background task is not started again, and the process ends");
            self.set(State::Failed);
            HOPELESS.send_if_modified(|first| {
                let is_first = first.is_none();
                first.get_or_insert(reason);
                is_first
            });
            return Next::Hopeless;
        }
        let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures - 1)).min(LONGEST_PAUSE);
        tracing::error!(task, failures, why, ?pause, "a background task failed and is started again");
        self.set(State::Restarting);
        locked(&self.standing).restarts += 1;
        Next::Again(pause)
    }

    fn set(&self, state: State) {
        locked(&self.standing).state = state;
    }

    fn status(&self) -> Status {
        let Standing { state, restarts, .. } = *locked(&self.standing);
        let state = match state {
            State::Running => "running",
            State::Restarting => "restarting",
            State::Failed => "failed",
        };
        Status { name: self.name.clone(), state, is_vital: self.weight == Weight::Vital, restarts }
    }
}

/// A task on the list, for as long as this is not dropped.
struct Listed(Arc<Entry>);

impl Listed {
    fn new(name: String, weight: Weight) -> Self {
        let standing = Standing { state: State::Running, restarts: 0, failures_in_a_row: 0 };
        let point = point(&name);
        let entry = Arc::new(Entry { name, point, weight, standing: Mutex::new(standing) });
        locked(&LIST).push(Arc::clone(&entry));
        Self(entry)
    }

    /// Stays on the list: everybody should see what failed.
    fn stay(self) {
        std::mem::forget(self);
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        locked(&LIST).retain(|entry| !Arc::ptr_eq(entry, &self.0));
    }
}

/// Updates the metrics of all tasks.
pub fn measure() {
    for entry in locked(&LIST).iter() {
        let Standing { state, restarts, .. } = *locked(&entry.standing);
        let runs = f64::from(u8::from(state == State::Running));
        metrics::counter!("watchword_task_restarts_total", "task" => entry.name.clone()).absolute(restarts);
        metrics::gauge!("watchword_task_running", "task" => entry.name.clone()).set(runs);
    }
}

/// Runs a task. Where a test can make it fail, that is at each of its steps, and it takes one from time to time.
async fn steps(point: &str, task: impl Future<Output = End>) -> End {
    if !fail::has_failpoints() {
        return task.await;
    }
    let mut task = pin!(task);
    let mut steps = tokio::time::interval(STEP);
    poll_fn(|context| {
        while steps.poll_tick(context).is_ready() {}
        may_fail(point);
        task.as_mut().poll(context)
    })
    .await
}

fn point(name: &str) -> String {
    format!("task-{name}")
}

fn may_fail(point: &str) {
    fail::fail_point!(point, |_| panic!("a test made it fail"));
    let _ = point;
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
