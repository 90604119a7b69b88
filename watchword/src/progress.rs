//! Progress of long operations: a bar on a terminal, an occasional line elsewhere. Both go to stderr, because stdout
//! carries results.

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const LINE_EVERY: u64 = 100_000;

/// A file of this size takes long enough to read that progress is shown.
const BIG: u64 = 256 << 20;

/// The progress of reading events.
pub struct Progress {
    bar: ProgressBar,
    is_terminal: bool,
    begun: Instant,
    total: u64,
    next_line: Cell<u64>,
}

impl Progress {
    /// Starts, with this many events to read.
    pub fn start(total: u64) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let target = if is_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let style = ProgressStyle::with_template(
            "{bar:40} position {msg}, {pos}/{len} events, {per_sec}, {eta} left",
        );
        bar.set_style(style.expect("the template is valid"));
        Self { bar, is_terminal, begun: Instant::now(), total, next_line: LINE_EVERY.into() }
    }

    /// Starts, with a file of this many bytes to read.
    pub fn of_bytes(total: u64) -> Self {
        let progress = Self::start(total);
        let style = ProgressStyle::with_template("{bar:40} {msg}, {bytes} of {total_bytes}, {eta} left");
        progress.bar.set_style(style.expect("the template is valid"));
        progress
    }

    /// Reports this many bytes as read, with this many events, the last at this position.
    pub fn at_byte(&self, bytes: u64, events: u64, position: u64) {
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let (rate, left) = {
            let elapsed = self.begun.elapsed().as_secs_f64();
            let left = self.total.saturating_sub(bytes) as f64 * elapsed / bytes as f64;
            (events as f64 / elapsed, left)
        };
        if self.is_terminal {
            self.bar.set_message(format!("position {position}, {rate:.0} events/s"));
            self.bar.set_position(bytes);
        } else {
            self.line(events, position, rate, left);
        }
    }

    /// Reports this many bytes as read, with this many people.
    pub fn at_person(&self, bytes: u64, people: u64) {
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = people as f64 / self.begun.elapsed().as_secs_f64();
        if self.is_terminal {
            self.bar.set_message(format!("{people} entries, {rate:.0}/s"));
            self.bar.set_position(bytes);
        } else if people >= self.next_line.get() {
            self.next_line.set(people + LINE_EVERY);
            let _ = writeln!(std::io::stderr(), "{people} entries, {rate:.0}/s");
        }
    }

    fn line(&self, events: u64, position: u64, rate: f64, left: f64) {
        if events >= self.next_line.get() {
            self.next_line.set(events + LINE_EVERY);
            let _ = writeln!(std::io::stderr(), "position {position}, {rate:.0} events/s, {left:.0} s left");
        }
    }

    /// Reports this many events as done, the last at this position.
    pub fn at(&self, done: u64, position: u64) {
        if self.is_terminal {
            self.bar.set_message(position.to_string());
            self.bar.set_position(done);
        } else {
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            let (rate, left) = {
                let rate = done as f64 / self.begun.elapsed().as_secs_f64();
                (rate, self.total.saturating_sub(done) as f64 / rate)
            };
            self.line(done, position, rate, left);
        }
    }

    /// Removes the bar.
    pub fn end(self) {
        self.bar.finish_and_clear();
    }
}

/// Reports that a whole file is being read, if that takes a while; finish the returned bar when done.
pub fn reading(path: &Path) -> ProgressBar {
    if std::fs::metadata(path).map_or(0, |file| file.len()) < BIG {
        return ProgressBar::hidden();
    }
    let message = format!("reading all of {}", path.display());
    if std::io::stderr().is_terminal() {
        let spinner = ProgressBar::new_spinner().with_message(message);
        spinner.enable_steady_tick(std::time::Duration::from_millis(100));
        return spinner;
    }
    let _ = writeln!(std::io::stderr(), "{message}");
    ProgressBar::hidden()
}
