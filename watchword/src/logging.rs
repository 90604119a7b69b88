//! What the process prints: its log on stderr, because stdout carries results, and the messages of a start.
//!
//! A server writes to both streams through an [`Outlet`] alone, so that no request, no task and no shutdown depends on who
//! reads them. Commands that print results on stdout end when nobody reads those.

mod line;
mod outlet;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fs::File;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use event_store::{Clock, SystemClock};
use serde_json::json;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

use self::outlet::Outlet;
pub use self::outlet::Standing;
use crate::config::{Config, LogFormat};

/// The room for lines that wait, until the configuration says it.
const ROOM: usize = 4 << 20;

/// How long the end of the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

static STDOUT: Outlet = Outlet::new("log_stdout", open_stdout, ROOM);
static STDERR: Outlet = Outlet::new("log_stderr", open_stderr, ROOM);

/// Starts logging. Short commands log only warnings, unless the log was configured.
pub fn start(config: &Config, quiet: bool) {
    let room = usize::try_from(config.log_buffer).unwrap_or(usize::MAX);
    for outlet in [&STDOUT, &STDERR] {
        outlet.set_room(room);
    }
    use_format(config.log_format);
    let directives = if quiet && config.log == "info" { "warn" } else { config.log.as_str() };
    let filter = EnvFilter::try_new(directives).unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = io::IsTerminal::is_terminal(&io::stderr());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Lines { colours })
        .with_timer(SystemTime)
        // The library would print them itself, and panic where that fails.
        .log_internal_errors(false)
        .with_ansi(colours);
    // A second subscriber can only come from a test in the same process; the first one serves it as well.
    let _ = match config.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Prints a startup message for the operator on stdout, whatever the log level, in the log's format.
pub fn say(format: LogFormat, line: &str) {
    let line = match format {
        LogFormat::Text => line.to_owned(),
        LogFormat::Json => as_json("INFO", line),
    };
    STDOUT.push(format!("{line}\n").into_bytes());
}

/// Prints why the process ends, possibly before logging was started.
pub fn say_failure(format: LogFormat, reason: &str) {
    let line = match format {
        LogFormat::Text => line::indented(&format!("watchword: {reason}")),
        LogFormat::Json => as_json("ERROR", reason),
    };
    STDERR.push(format!("{line}\n").into_bytes());
}

/// Logs panics in the log's format. The standard library's own message would wait for whoever reads stderr.
pub fn catch_panics(format: LogFormat) {
    use_format(format);
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("without a name");
        let mut text = format!("thread {name}: {panic}");
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            text = format!("{text}\n{backtrace}");
        }
        say_failure(format, &text);
    }));
}

/// Writes the last lines, if that does not take long. To be called last.
pub fn finish() {
    let until = Instant::now() + LAST_LINES;
    for outlet in [&STDOUT, &STDERR] {
        outlet.finish(until);
    }
}

/// How both streams are doing.
pub fn standing() -> Standing {
    let (out, err) = (STDOUT.standing(), STDERR.standing());
    Standing { lost: out.lost + err.lost, trouble: err.trouble.or(out.trouble) }
}

/// One event of the log after the other, each written at once.
struct Lines {
    colours: bool,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        STDERR.push(line::one(line, self.colours));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn use_format(format: LogFormat) {
    let shape = match format {
        LogFormat::Text => |text: &str| format!("{} WARN watchword: {text}", SystemClock.now()),
        LogFormat::Json => |text: &str| as_json("WARN", text),
    };
    for outlet in [&STDOUT, &STDERR] {
        outlet.set_shape(shape);
    }
}

/// A line as the subscriber formats it.
fn as_json(level: &str, message: &str) -> String {
    let timestamp = SystemClock.now().to_string();
    json!({ "timestamp": timestamp, "level": level, "message": message, "target": "watchword" }).to_string()
}

#[cfg(unix)]
fn open_stdout() -> io::Result<File> {
    use std::os::fd::AsFd;
    io::stdout().as_fd().try_clone_to_owned().map(File::from)
}

#[cfg(unix)]
fn open_stderr() -> io::Result<File> {
    use std::os::fd::AsFd;
    io::stderr().as_fd().try_clone_to_owned().map(File::from)
}

#[cfg(windows)]
fn open_stdout() -> io::Result<File> {
    use std::os::windows::io::AsHandle;
    io::stdout().as_handle().try_clone_to_owned().map(File::from)
}

#[cfg(windows)]
fn open_stderr() -> io::Result<File> {
    use std::os::windows::io::AsHandle;
    io::stderr().as_handle().try_clone_to_owned().map(File::from)
}
