//! Where log lines go: stderr, so that stdout stays for what was asked for.

use std::io::{self, Write};

use event_store::{Clock, SystemClock};
use serde_json::json;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

use crate::config::{Config, LogFormat};

/// Starts logging. A command that runs for a moment is quiet but for warnings, unless the log was configured.
pub fn start(config: &Config, quiet: bool) {
    let directives = if quiet && config.log == "info" { "warn" } else { config.log.as_str() };
    let filter = EnvFilter::try_new(directives).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_timer(SystemTime)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()));
    // A second subscriber can only come from a test in the same process, where the first serves as well.
    let _ = match config.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Says what a started service tells its operator, whatever is logged: on stdout, in the form of the log.
pub fn say(format: LogFormat, line: &str) -> io::Result<()> {
    let mut out = io::stdout();
    match format {
        LogFormat::Text => writeln!(out, "{line}")?,
        LogFormat::Json => writeln!(out, "{}", as_json("INFO", line))?,
    }
    out.flush()
}

/// Says why the process ends. It may be before the log was started.
pub fn say_failure(format: LogFormat, reason: &str) {
    let mut out = io::stderr();
    let _ = match format {
        LogFormat::Text => writeln!(out, "watchword: {reason}"),
        LogFormat::Json => writeln!(out, "{}", as_json("ERROR", reason)),
    };
}

/// Has panics told in the form of the log.
pub fn catch_panics(format: LogFormat) {
    if format == LogFormat::Json {
        std::panic::set_hook(Box::new(|panic| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("without a name");
            let _ = writeln!(io::stderr(), "{}", as_json("ERROR", &format!("thread {name}: {panic}")));
        }));
    }
}

/// A line as the subscriber writes it.
fn as_json(level: &str, message: &str) -> String {
    let timestamp = SystemClock.now().to_string();
    json!({ "timestamp": timestamp, "level": level, "message": message, "target": "watchword" }).to_string()
}
