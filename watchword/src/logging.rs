//! Log output: to stderr, because stdout carries results.

use std::io::{self, Write};

use event_store::{Clock, SystemClock};
use serde_json::json;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

use crate::config::{Config, LogFormat};

/// Starts logging. Short commands log only warnings, unless the log was configured.
pub fn start(config: &Config, quiet: bool) {
    let directives = if quiet && config.log == "info" { "warn" } else { config.log.as_str() };
    let filter = EnvFilter::try_new(directives).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_timer(SystemTime)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()));
    // A second subscriber can only come from a test in the same process; the first one serves it as well.
    let _ = match config.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Prints a startup message for the operator on stdout, whatever the log level, in the log's format.
pub fn say(format: LogFormat, line: &str) -> io::Result<()> {
    let mut out = io::stdout();
    match format {
        LogFormat::Text => writeln!(out, "{line}")?,
        LogFormat::Json => writeln!(out, "{}", as_json("INFO", line))?,
    }
    out.flush()
}

/// Prints why the process ends, possibly before logging was started.
pub fn say_failure(format: LogFormat, reason: &str) {
    let mut out = io::stderr();
    let _ = match format {
        LogFormat::Text => writeln!(out, "watchword: {reason}"),
        LogFormat::Json => writeln!(out, "{}", as_json("ERROR", reason)),
    };
}

/// Logs panics in the log's format.
pub fn catch_panics(format: LogFormat) {
    if format == LogFormat::Json {
        std::panic::set_hook(Box::new(|panic| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("without a name");
            let _ = writeln!(io::stderr(), "{}", as_json("ERROR", &format!("thread {name}: {panic}")));
        }));
    }
}

/// A line as the subscriber formats it.
fn as_json(level: &str, message: &str) -> String {
    let timestamp = SystemClock.now().to_string();
    json!({ "timestamp": timestamp, "level": level, "message": message, "target": "watchword" }).to_string()
}
