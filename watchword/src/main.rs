//! The one binary people run.

mod bus;
mod channel;
#[expect(clippy::doc_markdown, reason = "clap prints these comments as they are, back-ticks and all")]
mod commands;
mod comparing;
mod config;
mod connections;
mod data_dir;
mod databases;
mod descriptors;
mod docs;
mod documents;
mod init;
mod instance;
mod journal_check;
mod linger;
mod logging;
mod metrics;
mod openapi;
mod openapi_examples;
#[cfg(test)]
mod openapi_rules;
mod problem_pages;
mod progress;
#[cfg(test)]
mod proxy_rules;
mod rebuilding;
mod root;
mod serving;
mod signals;
mod told;
mod traces;
mod user_formats;
mod verify;
mod waiting;
mod witness;

use std::process::ExitCode;

use clap::Parser;

use commands::{Arguments, Command, Run as _};
use config::Config;
use told::told;

/// A request makes some hundred small allocations on one thread that are freed on another; the system's allocator takes
/// a fifth of the time for them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    #[cfg(feature = "fail-points")]
    let _armed = fail::FailScenario::setup();
    let Arguments { globals, command } = Arguments::parse();
    let format = Config::log_format_asked(globals.config.as_deref());
    logging::catch_panics(format);
    // A server has no reader without whom it is of no use.
    let serves = matches!(command, Command::Serve(_) | Command::Witness(_));
    let code = match command.run(&globals) {
        Ok(code) => code,
        // The reader of our output is gone, as in `watchword export | head`. That is not a fault.
        Err(error) if !serves && is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            logging::say_failure(format, &told(&error));
            ExitCode::FAILURE
        }
    };
    logging::finish();
    code
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}
