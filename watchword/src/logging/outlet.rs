//! Writes the lines of a standard stream of the process from a thread of its own.
//!
//! Whoever has a line to write neither waits nor fails, whatever is at the other end: a full disk, a reader that is gone or
//! one that has stopped reading. Lines wait in a bounded queue. When that is full, new lines are dropped and counted, until
//! half of the queue has been written; a line then says how many were lost. Nothing here uses the locks of the standard
//! library's streams, which a blocked writer would hold.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use domain::Timestamp;
use event_store::{Clock, SystemClock};
use tasks::{End, Weight};

/// The pauses between attempts to write: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What a line takes besides its text, approximately.
const LINE: usize = size_of::<Vec<u8>>() + 16;

/// Opens the stream, apart from the standard library's own handle.
type Open = fn() -> io::Result<File>;

/// A stream and the lines that wait for it.
pub struct Outlet {
    /// The name of its task.
    name: &'static str,
    open: Open,
    state: Mutex<State>,
    /// Something changed that the thread waits for.
    work: Condvar,
    /// A line was written, or given up.
    done: Condvar,
}

struct State {
    lines: VecDeque<Vec<u8>>,
    /// Their size, with that of the line being written.
    bytes: usize,
    room: usize,
    /// How a line of our own looks.
    shape: fn(&str) -> String,
    /// Lines that were dropped and not reported yet.
    lost: Option<Lost>,
    lost_in_all: u64,
    /// Why the last attempt to write failed; none after one that did not.
    trouble: Option<String>,
    task: WriterTask,
    is_busy: bool,
    is_ending: bool,
}

/// What writes the lines.
#[derive(Clone, Copy, PartialEq)]
enum WriterTask {
    /// The first line starts it.
    None,
    Started,
    /// It has failed for good, and the process is about to end.
    Failed,
}

struct Lost {
    lines: u64,
    from: Timestamp,
    to: Timestamp,
    reason: String,
}

/// The state of an outlet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// How many lines were lost since the start.
    pub lost: u64,
    /// Why no lines are written now.
    pub trouble: Option<String>,
}

impl Outlet {
    /// An outlet with this much room for the lines that wait, in bytes.
    pub const fn new(name: &'static str, open: Open, room: usize) -> Self {
        let state = State {
            lines: VecDeque::new(),
            bytes: 0,
            room,
            shape: str::to_owned,
            lost: None,
            lost_in_all: 0,
            trouble: None,
            task: WriterTask::None,
            is_busy: false,
            is_ending: false,
        };
        Self { name, open, state: Mutex::new(state), work: Condvar::new(), done: Condvar::new() }
    }

    /// Sets the room, in bytes.
    pub fn set_room(&self, room: usize) {
        self.state().room = room;
    }

    /// Sets the shape of lines that tell of lost ones.
    pub fn set_shape(&self, shape: fn(&str) -> String) {
        self.state().shape = shape;
    }

    /// Takes a line, which ends in a line feed. Never waits.
    pub fn push(&'static self, line: Vec<u8>) {
        let mut state = self.state();
        let size = line.len() + LINE;
        // After a loss, more is lost until there is real room again: otherwise every second line would tell of another loss.
        if state.lost.is_some() || state.bytes + size > state.room {
            state.lose();
            // A line that is larger than the room is lost while nothing waits that could tell of it later.
            state.tell_of_lost();
        } else {
            state.bytes += size;
            state.lines.push_back(line);
        }
        self.work.notify_one();
        let is_first = state.task == WriterTask::None;
        if is_first {
            state.task = WriterTask::Started;
        }
        drop(state);
        // Whatever starts a task may have something to log.
        if is_first {
            let used = Used(self);
            // As a method, so that the task has all of it, and drops it.
            if tasks::start_thread(self.name, Weight::Usual, move || used.run()).is_err() {
                // Lines wait for the next one that tries.
                self.state().task = WriterTask::None;
            }
        }
    }

    /// How it is doing.
    pub fn standing(&self) -> Standing {
        let state = self.state();
        let losing = state.lost.as_ref().map(|lost| lost.reason.clone());
        Standing { lost: state.lost_in_all, trouble: state.trouble.clone().or(losing) }
    }

    /// Waits until all lines are written, but not longer than until then, nor for a stream that takes none.
    pub fn finish(&'static self, until: Instant) {
        let mut state = self.state();
        if state.task == WriterTask::None {
            return;
        }
        state.is_ending = true;
        if state.task == WriterTask::Failed {
            // Among them is why the process ends.
            state.is_busy = false;
            drop(state);
            if thread::Builder::new().spawn(|| self.write_all()).is_err() {
                return;
            }
            state = self.state();
        }
        self.work.notify_one();
        while state.is_busy || !state.lines.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.is_ending = false;
    }

    /// Writes one line after the other. After a panic it can run again, without the line in hand.
    fn run(&self) -> End {
        let mut file = None;
        {
            let mut state = self.state();
            if std::mem::take(&mut state.is_busy) {
                state.lose();
            }
            state.bytes = state.lines.iter().map(|line| line.len() + LINE).sum();
            state.tell_of_lost();
        }
        loop {
            // Before a line is in hand, which a failure here would lose.
            tasks::step(self.name);
            let line = self.next();
            self.write(&mut file, &line);
            self.is_done(&line);
        }
    }

    /// Writes the lines that are left.
    fn write_all(&self) {
        let mut file = None;
        loop {
            let Some(line) = self.state().take() else { return };
            self.write(&mut file, &line);
            self.is_done(&line);
        }
    }

    fn is_done(&self, line: &[u8]) {
        let mut state = self.state();
        state.is_busy = false;
        state.bytes = state.bytes.saturating_sub(line.len() + LINE);
        state.tell_of_lost();
        self.done.notify_all();
    }

    /// Waits for a line.
    fn next(&self) -> Vec<u8> {
        let mut state = self.state();
        loop {
            if let Some(line) = state.take() {
                return line;
            }
            let (woken, waited) =
                self.work.wait_timeout(state, tasks::longest_wait()).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if waited.timed_out() {
                drop(state);
                tasks::step(self.name);
                state = self.state();
            }
        }
    }

    /// Tries until the line is written: a disk may get room again, and a named pipe a new reader.
    fn write(&self, file: &mut Option<File>, line: &[u8]) {
        let (mut rest, mut pause) = (line, FIRST_PAUSE);
        while !rest.is_empty() {
            match write_some(file, self.open, rest) {
                Ok(written) => {
                    rest = &rest[written..];
                    pause = FIRST_PAUSE;
                    self.state().trouble = None;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let mut state = self.state();
                    // A stream set not to block is only full for a moment.
                    if error.kind() != ErrorKind::WouldBlock {
                        state.trouble = Some(error.to_string());
                    }
                    if state.is_ending {
                        // The process does not wait for a stream that takes nothing.
                        state.give_up();
                        return;
                    }
                    let _ = self.work.wait_timeout_while(state, pause, |state| !state.is_ending);
                    pause = (2 * pause).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An outlet with a task.
struct Used(&'static Outlet);

impl Used {
    fn run(&self) -> End {
        self.0.run()
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        self.0.state().task = WriterTask::Failed;
    }
}

impl State {
    /// Takes the line to be written next.
    fn take(&mut self) -> Option<Vec<u8>> {
        let line = self.lines.pop_front()?;
        self.is_busy = true;
        Some(line)
    }

    fn lose(&mut self) {
        let now = SystemClock.now();
        self.lost_in_all += 1;
        let lost = self.lost.get_or_insert_with(|| Lost {
            lines: 0,
            from: now,
            to: now,
            reason: "its reader is too slow".to_owned(),
        });
        lost.lines += 1;
        lost.to = now;
        if let Some(trouble) = &self.trouble {
            lost.reason.clone_from(trouble);
        }
    }

    /// Adds a line that tells of those that were lost after all that are still here.
    fn tell_of_lost(&mut self) {
        if self.bytes > self.room / 2 {
            return;
        }
        let Some(Lost { lines, from, to, reason }) = self.lost.take() else { return };
        let what = format!("{lines} lines were lost from {from} to {to}: {reason}");
        let line = format!("{}\n", (self.shape)(&what)).into_bytes();
        self.bytes += line.len() + LINE;
        self.lines.push_back(line);
    }

    /// Drops all that waits.
    fn give_up(&mut self) {
        for line in std::mem::take(&mut self.lines) {
            self.bytes -= line.len() + LINE;
            self.lost_in_all += 1;
        }
        self.lost = None;
    }
}

fn write_some(file: &mut Option<File>, open: Open, bytes: &[u8]) -> io::Result<usize> {
    let file = match file {
        Some(file) => file,
        None => file.insert(open()?),
    };
    match file.write(bytes)? {
        0 => Err(ErrorKind::WriteZero.into()),
        written => Ok(written),
    }
}

#[cfg(test)]
#[path = "outlet/tests.rs"]
mod tests;
