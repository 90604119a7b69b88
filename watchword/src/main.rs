//! The one binary people run.

mod args;
mod bus;
mod channel;
mod config;
mod cut_forged_tail;
mod data_dir;
mod databases;
mod demo;
mod docs;
mod doctor;
mod documents;
mod end_sessions;
mod export;
mod init;
mod instance;
mod journal_check;
mod linger;
mod logging;
mod manual;
mod metrics;
mod migrate;
mod openapi;
mod operator;
mod problem_pages;
mod progress;
mod reference;
mod relay;
mod root;
mod rotate_master_key;
mod serve;
mod serving;
mod told;
mod traces;
mod waiting;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

use args::{Arguments, Command};
use config::Config;
use told::told;

/// A request is some hundred small allocations on one thread that end on another; the system's allocator spends a fifth
/// of the time on them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    #[cfg(feature = "fail-points")]
    let _armed = fail::FailScenario::setup();
    let arguments = Arguments::parse();
    let format = Config::log_format_asked(arguments.config.as_deref());
    logging::catch_panics(format);
    match run(arguments) {
        Ok(code) => code,
        // The reader of our output has gone, as `watchword export | head` does. That is no fault.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            logging::say_failure(format, &told(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Openapi => return runtime()?.block_on(documents::openapi()),
        Command::Asyncapi => return documents::asyncapi(),
        Command::Reference => return reference::run(),
        Command::Schemas { out } => return documents::schemas(out.as_deref()),
        Command::Manual { out } => return manual::run(&out),
        Command::Doctor(doctor) if doctor.keys => return doctor::list_keys(doctor.output.json),
        Command::Demo => return runtime()?.block_on(demo::run()),
        _ => {}
    }
    if let Command::ApiKey(command) = &arguments.command {
        command.check();
    }
    let config = Config::load(arguments.config.as_deref(), arguments.data.as_deref());
    if let Command::Doctor(doctor) = arguments.command {
        return runtime()?.block_on(doctor::run(config, doctor.output.json));
    }
    let config = config?;
    let quiet = !matches!(arguments.command, Command::Serve(_));
    logging::start(&config, quiet);
    #[cfg(target_os = "linux")]
    command_service::passwords::huge_pages::only_for_hashes();
    let runtime = runtime()?;
    match arguments.command {
        Command::Serve(serve) => runtime.block_on(serve::run(config, &serve)),
        Command::Migrate(output) => runtime.block_on(migrate::run(&config, output.json)),
        Command::Export(export) => runtime.block_on(export::run(&config, &export)),
        Command::App(command) => runtime.block_on(operator::app(config, command)),
        Command::ApiKey(command) => runtime.block_on(operator::api_key(config, command)),
        Command::User(command) => runtime.block_on(operator::user(config, command)),
        Command::RotateMasterKey { new_key_file, output } => {
            runtime.block_on(rotate_master_key::run(&config, new_key_file.as_deref(), output.json))
        }
        Command::Relay(relay) => runtime.block_on(relay::run(&config, &relay)),
        Command::CutForgedTail { yes, output } => {
            runtime.block_on(cut_forged_tail::run(&config, yes, output.json))
        }
        Command::EndSessions { all: _, output } => runtime.block_on(end_sessions::run(config, output.json)),
        Command::Openapi
        | Command::Asyncapi
        | Command::Reference
        | Command::Schemas { .. }
        | Command::Manual { .. }
        | Command::Doctor(_)
        | Command::Demo => {
            unreachable!("answered above")
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the system refuses to start threads")
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}
