//! Counts the logins of each app from Watchword's events on NATS JetStream, exactly once, and survives restarts.
//!
//! The counts and the position of the last event that is in them are one file, replaced as a whole, and the consumer is
//! placed behind that position at every start: the sequence of a message is the position of its event. Nothing is
//! acknowledged. A consumer that remembers acknowledgements hands out what comes *after* the messages of a client that
//! has just died, and those again only after a while: counting in the order of the events would not be possible.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use async_nats::ConnectOptions;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::{self, Context as JetStream, Message};
use clap::Parser;
use futures::StreamExt;
use futures::stream::ReadyChunks;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

const STREAM: &str = "WATCHWORD";
const BATCH: usize = 500;

/// Counts the logins of each app, exactly once.
#[derive(Parser)]
struct Arguments {
    /// Only this app's events; without it, those of all apps
    #[arg(long)]
    app: Option<String>,
    #[arg(long, default_value = "nats://127.0.0.1:4222")]
    server: String,
    /// The NATS user
    #[arg(long, requires = "password")]
    user: Option<String>,
    /// Its password
    #[arg(long, env = "NATS_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// `watchword` in an account of deploy/nats/accounts.conf
    #[arg(long, default_value = "$JS.API")]
    api_prefix: String,
    /// The file with the counts and the position
    #[arg(long, default_value = "logins.json")]
    state: PathBuf,
    /// Seconds to wait for messages
    #[arg(long, default_value_t = 5)]
    patience: u64,
    /// End when there is nothing more to read
    #[arg(long)]
    until_idle: bool,
}

/// The members of an event that counting needs. The others, and those still to come, are ignored.
#[derive(Deserialize)]
struct Event {
    position: u64,
    prevposition: u64,
    appid: String,
    #[serde(rename = "type")]
    name: String,
    data: serde_json::Value,
}

impl Event {
    /// A registration starts a session too, but is not a login.
    fn is_login(&self) -> bool {
        self.name == "SessionStarted" && self.data["method"] != "registration"
    }
}

/// The logins of each app, and the position up to which they are complete.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Counts {
    position: u64,
    logins: BTreeMap<String, u64>,
}

impl Counts {
    fn load(path: &Path) -> anyhow::Result<Self> {
        match fs::read(path) {
            Ok(text) => {
                serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Replaces the file as a whole, durably: a crash leaves the old one or the new one.
    fn save(&self, path: &Path) -> anyhow::Result<()> {
        let write = || {
            let new = path.with_extension("new");
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_all()?;
            fs::rename(&new, path)?;
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Counts an event unless it is counted already. `every_event`: whether no app's events are left out, so that each
    /// must follow the one before it.
    fn add(&mut self, event: &Event, every_event: bool) -> anyhow::Result<()> {
        if event.position <= self.position {
            return Ok(());
        }
        let follows = if every_event {
            event.prevposition == self.position
        } else {
            event.prevposition >= self.position
        };
        ensure!(
            follows,
            "event {} follows {}, but the counts end at {}: the stream keeps less than was missed (read it from GET \
             /v1/events), or the journal was restored from a backup",
            event.position,
            event.prevposition,
            self.position
        );
        self.position = event.position;
        if event.is_login() {
            *self.logins.entry(event.appid.clone()).or_default() += 1;
        }
        Ok(())
    }
}

/// What a durable consumer hands out: the events after a position, each once and in order.
struct Cursor {
    messages: ReadyChunks<pull::Stream>,
    delivered: u64,
}

impl Cursor {
    async fn place(jetstream: &JetStream, app: Option<&str>, position: u64) -> anyhow::Result<Self> {
        let name = format!("{}_analytics", app.unwrap_or("all"));
        // It does not matter whether there was one.
        let _ = jetstream.delete_consumer_from_stream(&name, STREAM).await;
        let config = pull::Config {
            name: Some(name.clone()),
            durable_name: Some(name),
            filter_subject: app.map_or("auth.v1.>".to_owned(), |app| format!("auth.v1.{app}.>")),
            ack_policy: AckPolicy::None,
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: position + 1 },
            ..pull::Config::default()
        };
        let consumer: PullConsumer = jetstream
            .create_consumer_on_stream(config, STREAM)
            .await
            .context("the consumer cannot be created")?;
        let messages = consumer.stream().max_messages_per_batch(BATCH).messages().await?;
        Ok(Self { messages: messages.ready_chunks(BATCH), delivered: 0 })
    }

    /// The next messages, at most [`BATCH`]; empty if none come in time. After an error the cursor must be placed
    /// again: the server is away or has lost the consumer, or messages were lost in transit.
    async fn next(&mut self, patience: Duration) -> anyhow::Result<Vec<Message>> {
        let Ok(next) = timeout(patience, self.messages.next()).await else { return Ok(vec![]) };
        let messages = next.context("the consumer has ended")?;
        let messages = messages.into_iter().collect::<Result<Vec<_>, _>>()?;
        for message in &messages {
            // The server counts what it has sent.
            let sent = message.info().map_err(anyhow::Error::msg)?.consumer_sequence;
            ensure!(sent == self.delivered + 1, "message {sent} came after {}", self.delivered);
            self.delivered = sent;
        }
        Ok(messages)
    }
}

/// The event in a message, whose sequence in the stream is its position.
fn event_of(message: &Message) -> anyhow::Result<Event> {
    let event: Event = serde_json::from_slice(&message.payload).context("a message is not an event")?;
    let sequence = message.info().map_err(anyhow::Error::msg)?.stream_sequence;
    ensure!(sequence == event.position, "message {sequence} is event {}", event.position);
    Ok(event)
}

/// Counts, with `--until-idle` only until there is nothing more to read. Only what a retry cannot fix is an error.
async fn follow(arguments: &Arguments, counts: &mut Counts) -> anyhow::Result<()> {
    let app = arguments.app.as_deref();
    let jetstream = connect(arguments).await?;
    loop {
        eprintln!("following from position {}", counts.position);
        let placed = Cursor::place(&jetstream, app, counts.position).await;
        let interrupted = match placed {
            Ok(mut cursor) => loop {
                match cursor.next(Duration::from_secs(arguments.patience)).await {
                    Ok(messages) if messages.is_empty() && arguments.until_idle => return Ok(()),
                    Ok(messages) => count(&messages, arguments, counts)?,
                    Err(error) => break error,
                }
            },
            Err(error) => error,
        };
        eprintln!("starting again: {interrupted:#}");
        sleep(Duration::from_secs(1)).await;
    }
}

/// All of the messages or none of them.
fn count(messages: &[Message], arguments: &Arguments, counts: &mut Counts) -> anyhow::Result<()> {
    let mut with_these = counts.clone();
    for message in messages {
        with_these.add(&event_of(message)?, arguments.app.is_none())?;
    }
    if with_these != *counts {
        with_these.save(&arguments.state)?;
        *counts = with_these;
    }
    Ok(())
}

async fn connect(arguments: &Arguments) -> anyhow::Result<JetStream> {
    let options = ConnectOptions::new();
    let options = match (&arguments.user, &arguments.password) {
        (Some(user), Some(password)) => options.user_and_password(user.clone(), password.clone()),
        _ => options,
    };
    let client = options.connect(&arguments.server).await.context("cannot connect to NATS")?;
    Ok(jetstream::with_prefix(client, &arguments.api_prefix))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut counts = Counts::load(&arguments.state)?;
    // Whenever it is stopped, the file has what was counted.
    let ended = tokio::select! {
        ended = follow(&arguments, &mut counts) => ended,
        stopped = tokio::signal::ctrl_c() => stopped.context("signals cannot be caught"),
    };
    println!("{}", serde_json::to_string(&Counts::load(&arguments.state)?)?);
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(position: u64, prevposition: u64) -> Event {
        let data = serde_json::json!({ "method": "password" });
        Event { position, prevposition, appid: "acme".to_owned(), name: "SessionStarted".to_owned(), data }
    }

    #[test]
    fn counts_once_whatever_is_delivered_again() {
        let mut counts = Counts::default();
        for position in [1, 2, 2, 1, 3] {
            counts.add(&event(position, position - 1), true).expect("in order");
        }
        assert_eq!(counts, Counts { position: 3, logins: BTreeMap::from([("acme".to_owned(), 3)]) });
    }

    #[test]
    fn a_gap_is_an_error_unless_other_apps_are_left_out() {
        let mut counts = Counts { position: 3, ..Counts::default() };
        assert!(counts.add(&event(6, 5), true).is_err());
        assert!(counts.add(&event(6, 2), false).is_err());
        assert!(counts.logins.is_empty());
        counts.add(&event(6, 5), false).expect("4 and 5 are of other apps");
        assert_eq!(counts.position, 6);
    }

    #[test]
    fn the_state_survives() {
        let path = std::env::temp_dir().join(format!("count-logins-{}.json", std::process::id()));
        let counts = Counts { position: 7, logins: BTreeMap::from([("acme".to_owned(), 2)]) };
        counts.save(&path).expect("writable");
        assert_eq!(Counts::load(&path).expect("readable"), counts);
        fs::remove_file(&path).expect("there");
        assert_eq!(Counts::load(&path).expect("nothing yet"), Counts::default());
    }
}
