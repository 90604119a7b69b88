//! The command line: a file for each command, with its arguments and its code.
//!
//! The comments on each part are its help text. A new command is a file with a type of its name that implements [`Run`], and
//! a line in the list below. The list is a macro, in which `cargo fmt` does not find the files: `.ci/run` and `just tidy`
//! name them.

mod operator;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use domain::AppId;

use crate::config::{Config, ConfigError};
use crate::logging;

/// The action of a command.
pub trait Run {
    fn run(self, globals: &Globals) -> anyhow::Result<ExitCode>;
}

/// The commands, in the order in which the help shows them.
macro_rules! commands {
    ($($(#[$attribute:meta])* $visible:vis $file:ident::$Name:ident,)*) => {
        $($visible mod $file;)*

        #[derive(Debug, Subcommand)]
        pub enum Command {
            $($(#[$attribute])* $Name($file::$Name),)*
        }

        impl Run for Command {
            fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
                match self {
                    $(Self::$Name(command) => command.run(globals),)*
                }
            }
        }
    };
}

commands! {
    serve::Serve,
    demo::Demo,
    migrate::Migrate,
    pub doctor::Doctor,
    rebuild::Rebuild,
    export::Export,
    verify::Verify,
    import_history::ImportHistory,
    #[command(subcommand)]
    app::App,
    #[command(subcommand)]
    api_key::ApiKey,
    #[command(subcommand)]
    keys::Keys,
    #[command(subcommand)]
    user::User,
    #[command(subcommand)]
    users::Users,
    #[command(subcommand)]
    history::History,
    as_of::AsOf,
    replay_policy::ReplayPolicy,
    erase::Erase,
    #[command(subcommand)]
    person::Person,
    end_sessions::EndSessions,
    relay::Relay,
    witness::Witness,
    pub rotate_master_key::RotateMasterKey,
    cut_forged_tail::CutForgedTail,
    record_loss::RecordLoss,
    openapi::Openapi,
    asyncapi::Asyncapi,
    reference::Reference,
    schemas::Schemas,
    #[command(hide = true)]
    manual::Manual,
}

/// Watchword: logins, sessions and users as events in an append-only log.
///
/// `watchword demo` shows the whole idea in a temporary folder; `watchword serve` runs it.
///
/// Configuration is read from watchword.toml in the current folder (or the file given with --config), and each key
/// can be overridden by an environment variable: `listen` by WATCHWORD_LISTEN, `lockout.failures` by
/// WATCHWORD_LOCKOUT_FAILURES. `watchword doctor --keys` lists every key with its default. A secret, or an address that
/// holds one, can come from a file: WATCHWORD_MASTER_KEY_FILE names the file with the master key.
///
/// Exit codes: 0 done, 1 refused or found wrong, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "watchword", version, max_term_width = 110)]
pub struct Arguments {
    #[command(flatten)]
    pub globals: Globals,

    #[command(subcommand)]
    pub command: Command,
}

// Arguments of every command. Not a doc comment, which would replace the help text above.
#[derive(Debug, Args)]
pub struct Globals {
    /// The configuration file [default: watchword.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The data folder, instead of the configured one [default: ./data]
    #[arg(long, global = true, value_name = "FOLDER")]
    data: Option<PathBuf>,
}

impl Globals {
    /// The configuration that they select.
    fn config(&self) -> Result<Config, ConfigError> {
        Config::load(self.config.as_deref(), self.data.as_deref())
    }

    /// Runs a command on the configured stores. Its log shows only warnings.
    fn with_config(
        &self,
        command: impl AsyncFnOnce(Config) -> anyhow::Result<ExitCode>,
    ) -> anyhow::Result<ExitCode> {
        self.with_log(true, command)
    }

    fn with_log(
        &self,
        quiet: bool,
        command: impl AsyncFnOnce(Config) -> anyhow::Result<ExitCode>,
    ) -> anyhow::Result<ExitCode> {
        let config = self.config()?;
        logging::start(&config, quiet);
        #[cfg(target_os = "linux")]
        command_service::passwords::huge_pages::only_for_hashes();
        runtime()?.block_on(command(config))
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")
}

#[derive(Debug, Args)]
pub struct Output {
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

fn app_id(text: &str) -> Result<AppId, domain::app_id::InvalidAppId> {
    AppId::parse(text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Arguments;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
