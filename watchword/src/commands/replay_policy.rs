//! `replay-policy`: the history decided again under another policy.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Write;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use clap::Args;
use domain::lockout::replay::{Difference, Replay};
use domain::lockout::{Lockout, LockoutEvent, LockoutPolicy};
use domain::session::{LoginMethod, SessionEvent};
use domain::{AppId, Event, Timestamp, UserId};
use event_store::{Repository, SystemClock};
use http_kit::{AsOf, Moment};
use schemas::RecordedEvent;
use serde_json::{Value, json};

use super::{Globals, Output, Run, app_id};
use crate::config::Config;
use crate::data_dir::{self, DataDirError, State};
use crate::instance::Stores;
use crate::progress::Progress;

/// How many events are read at a time.
const PAGE: usize = 1000;

/// Decide the history again under another policy, and print where it would have gone another way
///
/// Each attempt to log in that the log holds is decided again by the code that decided it. Nothing is written. Under the
/// policy that was in force, nothing differs. The log holds no attempt that was refused while an account was locked, so
/// a more lenient policy may have let more guesses in than are shown.
///
/// With a journal in SQLite the server must be stopped. With PostgreSQL or KurrentDB nodes keep running.
#[derive(Debug, Args)]
pub struct ReplayPolicy {
    /// The lockout: attempts=N,window=SECONDS, also first_lock=SECONDS and longest_lock=SECONDS; what is left out is as
    /// configured
    #[arg(long, value_name = "POLICY", required_unless_present = "mfa")]
    lockout: Option<OtherLockout>,
    /// Not available: there are no second factors yet
    #[arg(long, value_name = "POLICY")]
    mfa: Option<String>,
    /// What was decided after this time or position [default: from the beginning]
    #[arg(long, value_name = "TIME|POSITION", default_value = "0")]
    from: AsOf,
    /// Up to this time or position [default: up to now]
    #[arg(long, value_name = "TIME|POSITION")]
    until: Option<AsOf>,
    /// Only in this app
    #[arg(long, value_name = "APP", value_parser = app_id)]
    app: Option<AppId>,
    #[command(flatten)]
    output: Output,
}

/// The given parts of a lockout policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct OtherLockout {
    attempts: Option<u32>,
    window: Option<u32>,
    first_lock: Option<u32>,
    longest_lock: Option<u32>,
}

impl FromStr for OtherLockout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut policy = Self::default();
        for part in text.split(',') {
            let number = |text: &str| text.parse().ok().filter(|number: &u32| *number > 0);
            let (name, number) = match part.split_once('=') {
                Some((name, value)) => (name.trim(), number(value.trim())),
                None => (part, None),
            };
            let place = match name {
                "attempts" => &mut policy.attempts,
                "window" => &mut policy.window,
                "first_lock" => &mut policy.first_lock,
                "longest_lock" => &mut policy.longest_lock,
                _ => return Err(format!("{name} is none of attempts, window, first_lock, longest_lock")),
            };
            *place = Some(number.ok_or_else(|| format!("{name} needs a number above 0, as in {name}=5"))?);
        }
        Ok(policy)
    }
}

impl OtherLockout {
    fn over(self, configured: LockoutPolicy) -> LockoutPolicy {
        LockoutPolicy {
            failures: self.attempts.unwrap_or(configured.failures),
            window: self.window.unwrap_or(configured.window),
            first_lock: self.first_lock.unwrap_or(configured.first_lock),
            longest_lock: self.longest_lock.unwrap_or(configured.longest_lock),
        }
    }
}

impl Run for ReplayPolicy {
    fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        globals.with_config(async |config| Box::pin(run(config, self)).await)
    }
}

async fn run(config: Config, command: ReplayPolicy) -> anyhow::Result<ExitCode> {
    let ReplayPolicy { lockout, mfa, from, until, app, output } = command;
    if mfa.is_some() {
        bail!("--mfa cannot be replayed: accounts have no second factors yet");
    }
    if data_dir::inspect(&config)? == State::Fresh {
        return Err(DataDirError::Absent { path: config.data_dir }.into());
    }
    let stores = Stores::open_truth(&config).await?;
    let repository = stores.repository(&config);
    let policy = lockout.unwrap_or_default().over(config.lockout);
    let replayed =
        Replayed { repository, policy, in_force: config.lockout, app, accounts: HashMap::new(), attempts: 0 };
    let found = replayed.run(from, until, output.json).await;
    stores.close().await;
    let (attempts, differences) = found?;
    if output.json {
        let answer = json!({ "policy": policy, "attempts": attempts, "differences": differences });
        writeln!(std::io::stdout(), "{answer}")?;
    } else {
        let differing = differences.len();
        writeln!(
            std::io::stderr(),
            "{attempts} attempts decided again: {differing} would have gone another way"
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The history under the other policy, account by account.
struct Replayed {
    repository: Arc<Repository>,
    policy: LockoutPolicy,
    in_force: LockoutPolicy,
    app: Option<AppId>,
    accounts: HashMap<UserId, Replay>,
    attempts: u64,
}

impl Replayed {
    /// The number of attempts and the differences, which are printed as they are found unless they are for programs.
    async fn run(
        mut self,
        from: AsOf,
        until: Option<AsOf>,
        as_json: bool,
    ) -> anyhow::Result<(u64, Vec<Value>)> {
        let from = self.find(from, "--from").await?.position;
        let until = match until {
            Some(until) => self.find(until, "--until").await?.position,
            None => self.repository.journal().head().await?,
        };
        let progress = Progress::start(until.saturating_sub(from));
        let (mut after, mut differences) = (from, Vec::new());
        let mut together: Vec<(RecordedEvent, LockoutEvent)> = Vec::new();
        let mut note = |event: &RecordedEvent, user: UserId, difference: Difference| -> anyhow::Result<()> {
            let shown = shown(event, user, difference);
            if !as_json {
                let text = |member: &str| shown[member].as_str().unwrap_or_default().to_owned();
                let (time, what) = (text("time"), text("what"));
                let position = event.position;
                writeln!(
                    std::io::stdout(),
                    "{time}  {position}  user {user} of {}: {what}",
                    event.metadata.app_id
                )?;
            }
            differences.push(shown);
            Ok(())
        };
        while after < until {
            let events = self.repository.journal().read_all(after, PAGE).await?;
            if events.is_empty() {
                break;
            }
            for event in events {
                after = event.position;
                let is_before_the_end = event.position <= until;
                let decoded = match &*event.name {
                    _ if !is_before_the_end
                        || self.app.as_ref().is_some_and(|app| *app != event.metadata.app_id) =>
                    {
                        None
                    }
                    "LoginFailed" | "AccountLocked" | "AccountUnlocked" | "SessionStarted" => {
                        Some(self.repository.decode(&event).await?)
                    }
                    _ => None,
                };
                // What was written together was decided together.
                let goes_on = together.last().is_some_and(|(last, _)| {
                    last.stream == event.stream
                        && last.metadata.correlation_id == event.metadata.correlation_id
                        && last.at == event.at
                        && last.position + 1 == event.position
                });
                if !goes_on && let Some((event, user, difference)) = self.again(&mut together, from).await? {
                    note(&event, user, difference)?;
                }
                match decoded {
                    Some(Event::Lockout(lockout)) => together.push((event, lockout)),
                    Some(Event::Session(SessionEvent::SessionStarted(started)))
                        if started.method == LoginMethod::Password =>
                    {
                        self.attempts += 1;
                        let account = self.account(started.user_id, from).await?;
                        if let Some(difference) = account.login(started.at) {
                            note(&event, started.user_id, difference)?;
                        }
                    }
                    _ => {}
                }
            }
            progress.at(after.min(until) - from, after.min(until));
        }
        if let Some((event, user, difference)) = self.again(&mut together, from).await? {
            note(&event, user, difference)?;
        }
        progress.end();
        Ok((self.attempts, differences))
    }

    async fn find(&self, moment: AsOf, argument: &str) -> anyhow::Result<Moment> {
        moment.find(&self.repository, &SystemClock).await.map_err(|problem| match problem.errors().first() {
            Some(error) => anyhow!("{argument}: {}", error.detail),
            None => anyhow!("{argument}: {}", problem.code()),
        })
    }

    /// Decides again what led to these events.
    async fn again(
        &mut self,
        together: &mut Vec<(RecordedEvent, LockoutEvent)>,
        from: u64,
    ) -> anyhow::Result<Option<(RecordedEvent, UserId, Difference)>> {
        let (recorded, events): (Vec<_>, Vec<_>) = together.drain(..).unzip();
        let Some(first) = recorded.into_iter().next() else { return Ok(None) };
        let Some(user) = first.person else { return Ok(None) };
        if !matches!(events.first(), Some(LockoutEvent::AccountUnlocked(_))) {
            self.attempts += 1;
        }
        let difference = self.account(user, from).await?.again(&events);
        Ok(difference.map(|difference| (first, user, difference)))
    }

    /// An account as the other policy has it: at first as it was at the beginning.
    async fn account(&mut self, user: UserId, from: u64) -> anyhow::Result<&mut Replay> {
        Ok(match self.accounts.entry(user) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let before = self.repository.load_as_of::<Lockout>(&user, from).await?;
                new.insert(Replay::new(&before.state, self.policy, self.in_force))
            }
        })
    }
}

/// A difference for programs, with its words for people.
fn shown(event: &RecordedEvent, user: UserId, difference: Difference) -> Value {
    let (kind, until, what): (&str, Option<Timestamp>, String) = match difference {
        Difference::GuessRefused { until } => (
            "guess_refused",
            Some(until),
            format!("the guess would have been refused, as logins were locked until {until}"),
        ),
        Difference::Locked { until } => {
            ("locked", Some(until), format!("the guess would have locked logins until {until}"))
        }
        Difference::NotLocked => ("not_locked", None, "the guess would not have locked logins".to_owned()),
        Difference::LockedUntil { until } => {
            ("locked_until", Some(until), format!("the guess would have locked logins until {until} instead"))
        }
        Difference::LoginRefused { until } => (
            "login_refused",
            Some(until),
            format!(
                "the login would have been refused, as logins were locked until {until}, unless it came from a known device"
            ),
        ),
    };
    json!({
        "position": event.position,
        "time": event.at,
        "app_id": event.metadata.app_id,
        "user_id": user,
        "difference": kind,
        "until": until,
        "what": what,
    })
}
