//! The command line. What each part means is told by its help, which is generated from the comments here.
#![expect(clippy::doc_markdown, reason = "clap prints these comments as they are, back-ticks and all")]

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use domain::{AppId, Permission, Role};
use uuid::Uuid;

/// Watchword: logins, sessions and users as events in a log that nothing can change afterwards.
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
    /// The configuration file [default: watchword.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The data folder, instead of the configured one [default: ./data]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub data: Option<PathBuf>,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service: commands and projections in one process, or one role of several processes
    ///
    /// Prints the listen address, the address of the API's documentation and where the first platform key lies.
    /// SIGTERM and SIGINT stop taking new requests, finish those begun and exit within `shutdown_timeout`.
    Serve(Serve),
    /// Show what Watchword does, with real requests against an instance in a temporary folder
    ///
    /// Registers a person, logs in, refreshes, replays a stolen token, bans the person while a read model stands
    /// still, and reads the stats, the audit log and the event feed. Prints each request, the events it caused and
    /// what the read models say. Nothing is left behind. Exit code 1 if any step is not as it should be.
    Demo,
    /// Create or upgrade the stores named by the configuration
    ///
    /// Can be run again at any time: what is done already is left as it is.
    Migrate(Output),
    /// Check configuration, key files, stores and read models; say what to do about each fault
    ///
    /// Works on a stopped data folder, and says so when a running server holds it. Changes nothing.
    Doctor(Doctor),
    /// Write the history to stdout, oldest event first
    ///
    /// Personal data stays sealed. With a journal in SQLite the server must be stopped; from a running one read
    /// GET /v1/events instead. With PostgreSQL or KurrentDB nodes go on meanwhile.
    Export(Export),
    /// Apps: the tenants, each with its own users, keys and settings
    #[command(subcommand)]
    App(AppCommand),
    /// API keys for programs
    #[command(subcommand)]
    ApiKey(ApiKeyCommand),
    /// Users of an app
    #[command(subcommand)]
    User(UserCommand),
    /// End every session of everybody
    ///
    /// For after an older state of the journal was restored: it has forgotten which sessions were revoked since. With a
    /// journal in SQLite the server must be stopped; with PostgreSQL or KurrentDB it need not be, but after a restoration no
    /// node should run before this is done. Everybody has to log in again.
    EndSessions {
        /// Yes, all of them
        #[arg(long, required = true)]
        all: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Compare the stream on NATS with the journal, or make it anew
    ///
    /// Without --rebuild nothing is changed; exit code 1 if the stream's end is not the journal's.
    Relay(RelayCommand),
    /// Replace the master key by a new one
    ///
    /// Everything the instance has stays as it is, as the master key only wraps the key that all else comes from. Of
    /// master.key in the data folder a new one is made in its place, while the server is stopped. A master key that is
    /// configured is replaced by the one in --new-key-file: put it into the configuration of every node before its next
    /// start; with PostgreSQL, nodes that run go on meanwhile. Needs the owner of the database there. Can be run again
    /// after it was cut short: the stores open with one of the two keys at every moment.
    RotateMasterKey {
        /// The file with the new master key, readable by its owner only; made if there is none
        #[arg(long, value_name = "FILE")]
        new_key_file: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Cut off the end of the journal that nobody with the key of this instance wrote
    ///
    /// For after somebody has appended forged events to the store, which no node believes. Without --yes it lists them and
    /// changes nothing; exit code 1 says that there are some. What it cuts it prints: keep it. The server must be stopped;
    /// with PostgreSQL, every node, and it needs the owner of the database. A forged event with genuine ones behind it cannot
    /// be cut out: restore the journal from a backup then.
    CutForgedTail {
        /// Yes, cut it off
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Print the OpenAPI document
    Openapi,
    /// Print the AsyncAPI document of the events on NATS
    Asyncapi,
    /// Print a page with every setting, permission, event, problem and claim
    Reference,
    /// Print the JSON Schemas of all events, or write them to a folder
    Schemas {
        /// The folder to write the schemas to, one file each
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// Write pages for `man` and completions for shells to a folder
    #[command(hide = true)]
    Manual {
        /// The folder
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct Serve {
    /// One role only. Needs a journal that several processes can open, which SQLite is not
    pub role: Option<ServeRole>,
    /// Where to listen, instead of the configured address
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ServeRole {
    /// Only the routes that change something, and publishing to NATS
    Commands,
    /// Only the read models and their routes
    Projections,
}

#[derive(Debug, Args)]
pub struct RelayCommand {
    /// Delete the stream, whatever is in it, and fill it from the journal
    ///
    /// Its consumers go with it: they must be made again, behind the position they have handled. Servers may run
    /// meanwhile; one that holds an SQLite journal fills the stream itself.
    #[arg(long)]
    pub rebuild: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct Output {
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Doctor {
    /// List every configuration key with its default and meaning, and check nothing
    #[arg(long)]
    pub keys: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct Export {
    /// Only the events of this app
    #[arg(long, value_name = "APP", value_parser = app_id)]
    pub app: Option<AppId>,
    /// Only events after this position
    #[arg(long, value_name = "POSITION", default_value_t = 0)]
    pub after: u64,
    /// One CloudEvent a line, or a table
    #[arg(long, value_enum, default_value_t = ExportFormat::Ndjson)]
    pub format: ExportFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// One canonical CloudEvent a line: the bytes an auditor can hash
    Ndjson,
    /// A table for spreadsheets
    Csv,
}

/// Where a command is sent.
#[derive(Debug, Args)]
pub struct Target {
    /// A running server, such as `http://127.0.0.1:8080`. Without it the stores are opened directly: with SQLite the
    /// server must be stopped for that, with PostgreSQL or KurrentDB nodes go on meanwhile
    #[arg(long, value_name = "URL")]
    pub url: Option<url::Url>,
    /// The file with the platform key to use with --url [default: admin.key in the data folder]
    #[arg(long, value_name = "FILE", requires = "url")]
    pub admin_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Subcommand)]
pub enum AppCommand {
    /// Create an app
    Create {
        /// Its id: a-z, 0-9 and single hyphens, 1 to 40 characters
        #[arg(value_parser = app_id)]
        app: AppId,
        /// The name people see [default: the id]
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// List the apps
    List(Target),
}

#[derive(Debug, Subcommand)]
pub enum ApiKeyCommand {
    /// Create an API key and print it, the only time it is shown
    ///
    /// For the app `platform` it makes another platform key, which may do everything. Without --url that needs no other
    /// key: it is the way back when admin.key is lost or every platform key is revoked, for whoever can open the stores
    /// with the master key.
    Create {
        /// The app it is for; `platform` for a platform key
        #[arg(value_parser = app_id)]
        app: AppId,
        /// What it is used for
        #[arg(long)]
        name: String,
        /// What it may do; give it several times or separated by commas. A platform key needs none
        #[arg(long = "permission", value_name = "PERMISSION", value_delimiter = ',', value_parser = permission)]
        permissions: Vec<Permission>,
        /// Write the key to this file, which must not be there yet and which only its owner can read, instead of printing it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        target: Target,
    },
    /// List the API keys of an app that can be used, without their texts
    List {
        /// The app; `platform` for the platform's own keys
        #[arg(value_parser = app_id)]
        app: AppId,
        #[command(flatten)]
        target: Target,
    },
    /// Revoke an API key; it is refused from then on
    Revoke {
        /// The app it is for; `platform` for a platform key
        #[arg(value_parser = app_id)]
        app: AppId,
        /// The key's id, as the list of keys shows it
        key: Uuid,
        #[command(flatten)]
        target: Target,
    },
}

impl ApiKeyCommand {
    /// Ends the process as wrong usage does if the permissions do not fit the app.
    pub fn check(&self) {
        let Self::Create { app, permissions, .. } = self else { return };
        let problem = match (app.is_platform(), permissions.as_slice()) {
            (true, [] | [Permission::Platform | Permission::MetricsRead]) => return,
            (true, _) => {
                "a key of the platform may do everything: leave --permission out, or give metrics:read alone"
            }
            (false, []) => "an API key of an app needs at least one --permission",
            (false, permissions) if permissions.contains(&Permission::Platform) => {
                "only keys of the app `platform` have the permission `platform`"
            }
            (false, _) => return,
        };
        Arguments::command().error(ErrorKind::ValueValidation, problem).exit();
    }
}

/// A user, as people name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    Id(Uuid),
    /// Checked when it is looked up.
    Address(String),
}

impl FromStr for Who {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.parse().map_or_else(|_| Self::Address(text.to_owned()), Self::Id))
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Address(address) => f.write_str(address),
        }
    }
}

/// Which user.
#[derive(Debug, Args)]
pub struct UserTarget {
    /// The app
    #[arg(value_parser = app_id)]
    pub app: AppId,
    /// The user's id, or their address
    #[arg(value_name = "ID|ADDRESS")]
    pub user: Who,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Show a user
    Show(UserTarget),
    /// Ban a user: every session ends, and no login is let in
    Ban {
        #[command(flatten)]
        user: UserTarget,
        /// Why, for the audit log
        #[arg(long)]
        reason: String,
    },
    /// Lift a ban
    Unban(UserTarget),
    /// Forget a user's failed logins, so that the next try is let through
    Unlock(UserTarget),
    /// End all sessions of a user
    RevokeSessions(UserTarget),
    /// Give a user a role
    GrantRole {
        #[command(flatten)]
        user: UserTarget,
        /// The role; `admin` may use the app's admin routes
        #[arg(long, value_parser = role)]
        role: Role,
    },
    /// Take a role from a user
    RevokeRole {
        #[command(flatten)]
        user: UserTarget,
        /// The role
        #[arg(long, value_parser = role)]
        role: Role,
    },
}

fn app_id(text: &str) -> Result<AppId, domain::app_id::InvalidAppId> {
    AppId::parse(text)
}

fn role(text: &str) -> Result<Role, domain::role::InvalidRole> {
    Role::parse(text)
}

fn permission(text: &str) -> Result<Permission, String> {
    let all = || Permission::OF_AN_APP.into_iter().chain([Permission::MetricsRead, Permission::Platform]);
    all()
        .find(|permission| permission_name(*permission) == text)
        .ok_or_else(|| format!("give one of {}", all().map(permission_name).collect::<Vec<_>>().join(", ")))
}

/// A permission as the API spells it.
pub fn permission_name(permission: Permission) -> String {
    match serde_json::to_value(permission) {
        Ok(serde_json::Value::String(name)) => name,
        _ => unreachable!("a permission serializes as a string"),
    }
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
