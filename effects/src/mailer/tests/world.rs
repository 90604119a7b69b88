//! A journal with one app, mailers that read it, and what became of the mails.

use std::collections::BTreeMap;
use std::path::PathBuf;

use domain::app::{AppCreated, AppEvent};
use domain::delivery::{Delivery, DeliveryEvent};
use domain::magic_link::{MagicLink, MagicLinkEvent, MagicLinkIssued};
use domain::personal::Personal;
use domain::redirect_uri::RedirectUri;
use domain::settings::{AppSettings, SentBy};
use domain::{AppId, Email, Event, EventId, MagicLinkId, Stream, StreamId, UserId};
use event_store::contract::macs;
use event_store::{Append, KeyStore, MasterKey, Sealer, SqliteJournal, SystemClock, Write};
use jiff::SignedDuration;
use schemas::envelope::{Actor, Metadata};
use serde_json::Value;
use tempfile::TempDir;
use test_services::Smtp;

use crate::mailer::*;

/// Short pauses for tests.
pub(super) const POLICY: DeliveryPolicy = DeliveryPolicy { attempts: 3, first_pause: 1, longest_pause: 1 };
pub(super) const PATIENCE: Patience =
    Patience { ready: Duration::from_secs(2), last_word: Duration::from_secs(2) };

pub(super) struct World {
    pub(super) folder: TempDir,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) keys: Arc<KeyStore>,
    pub(super) repository: Arc<Repository>,
    pub(super) app_id: AppId,
}

impl World {
    pub(super) async fn new(settings: Value) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = SqliteJournal::open(&folder.path().join("journal.db"), &macs()).await.expect("opens");
        Self::on(folder, Arc::new(journal), settings).await
    }

    pub(super) async fn on(folder: TempDir, journal: Arc<dyn Journal>, settings: Value) -> Self {
        let keys =
            KeyStore::open(&folder.path().join("keys.db"), &MasterKey::generate()).await.expect("opens");
        let keys = Arc::new(keys);
        let repository = repository(&journal, &keys);
        let app_id = AppId::parse("acme").expect("valid");
        let world = Self { folder, journal, keys, repository, app_id };
        let Value::Object(settings) = settings else { panic!("settings are an object") };
        let settings = AppSettings::default().patched(&settings).expect("valid");
        let created = AppCreated {
            app_id: world.app_id.clone(),
            name: "Acme".to_owned(),
            settings,
            at: SystemClock.now(),
        };
        world.append(StreamId::app(&world.app_id), AppEvent::AppCreated(created)).await;
        world
    }

    pub(super) async fn append(&self, stream: StreamId, event: impl Into<Event>) -> EventId {
        let id = SystemClock.new_id();
        let event = self.repository.encode(&event.into(), id).await.expect("encodes");
        let metadata = Metadata {
            app_id: self.app_id.clone(),
            actor: Actor::anonymous(),
            correlation_id: id,
            causation_id: None,
            request_id: None,
            traceparent: None,
        };
        let append = Append {
            writes: vec![Write { stream, expected: 0, events: vec![event] }],
            guards: vec![],
            taken: vec![],
            released: vec![],
            idempotency: None,
            metadata,
            at: SystemClock.now(),
        };
        self.journal.append(append).await.expect("appends");
        EventId(id)
    }

    /// Requests a magic link with this lifetime.
    pub(super) async fn ask(&self, to: &str, lasts: SignedDuration) -> EventId {
        let link_id = MagicLinkId(SystemClock.new_id());
        let at = SystemClock.now();
        let issued = MagicLinkIssued {
            link_id,
            user_id: UserId(SystemClock.new_id()),
            app_id: self.app_id.clone(),
            epoch: None,
            redirect_uri: RedirectUri::parse("https://app.example/in").expect("valid"),
            code_challenge: None,
            delivery: SentBy::Platform,
            expires_at: at + lasts,
            at,
            personal: Personal { email: Some(email(to)), ..Personal::default() },
        };
        self.append(MagicLink::stream(&link_id), MagicLinkEvent::MagicLinkIssued(issued)).await
    }

    pub(super) async fn ask_for(&self, to: &str) -> EventId {
        self.ask(to, SignedDuration::from_mins(10)).await
    }

    pub(super) fn mailer(&self, url: &str) -> Effect {
        mailer(repository(&self.journal, &self.keys), &self.keys, "a", url, MailerSettings::LEASE)
    }

    pub(super) fn outbox(&self) -> PathBuf {
        self.folder.path().join("outbox")
    }

    /// The outcomes of the mails of an event, in order.
    pub(super) async fn outcomes(&self, id: EventId) -> Vec<DeliveryEvent> {
        let recorded = self.journal.read_stream(&Delivery::stream(&id), 0).await.expect("reads");
        let mut outcomes = Vec::new();
        for event in recorded {
            match self.repository.decode(&event).await.expect("decodes") {
                Event::Delivery(event) => outcomes.push(event),
                other => panic!("{other:?} is no outcome"),
            }
        }
        outcomes
    }

    /// Waits until the outcomes of an event's mails satisfy the condition.
    pub(super) async fn until(
        &self,
        id: EventId,
        is_it: impl Fn(&[DeliveryEvent]) -> bool,
    ) -> Vec<DeliveryEvent> {
        for _ in 0..6000 {
            let outcomes = self.outcomes(id).await;
            if is_it(&outcomes) {
                return outcomes;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it stays {:?}", self.outcomes(id).await);
    }

    pub(super) async fn until_sent(&self, id: EventId) -> Vec<DeliveryEvent> {
        self.until(id, |outcomes| matches!(outcomes.last(), Some(DeliveryEvent::MailSent(_)))).await
    }

    pub(super) async fn listed(&self, list: &str) -> usize {
        self.journal.claims(list, "").await.expect("reads").len()
    }
}

pub(super) fn repository(journal: &Arc<dyn Journal>, keys: &Arc<KeyStore>) -> Arc<Repository> {
    Arc::new(Repository::new(Arc::clone(journal), Arc::new(Sealer::new(Arc::clone(keys))), 1000))
}

pub(super) fn mailer(
    repository: Arc<Repository>,
    keys: &Arc<KeyStore>,
    node: &str,
    url: &str,
    lease: Duration,
) -> Effect {
    let clock = Arc::new(SystemClock);
    let url: MailUrl = url.parse().expect("valid");
    start(MailerParts {
        dispatcher: Dispatcher::new(Arc::clone(&repository), clock.clone()),
        repository,
        clock,
        tokens: DerivedTokens::new(keys.instance_key()),
        access_tokens: Arc::new(AccessTokens::new(
            tokens::PublicUrl::parse("https://auth.example").expect("valid"),
        )),
        post: MailTransport::new(url, "auth.example", PATIENCE),
        settings: MailerSettings {
            node: node.to_owned(),
            lease,
            policy: POLICY,
            senders: Senders {
                own: email("no-reply@auth.example"),
                domains: "mueller.example".parse().expect("a domain"),
            },
        },
    })
}

pub(super) fn email(text: &str) -> Email {
    Email::parse(text).expect("valid")
}

/// Waits until it has started, so that it handles mails requested from now on.
pub(super) async fn begun(mailer: &Effect) {
    let mut status = mailer.status.clone();
    status.wait_for(|status| status.state == "running").await.expect("lives");
}

/// Ends it as a crash would, at any point.
pub(super) fn crash(mailer: &Effect) {
    mailer.task.lock().expect("not poisoned").take().expect("runs").abort();
}

/// The received mails, by `Message-ID`.
pub(super) fn by_id(smtp: &Smtp) -> BTreeMap<String, Vec<Value>> {
    let mut mails: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in smtp.mails() {
        let mail: Value = serde_json::from_str(&line).expect("JSON");
        let id = mail["headers"]["message-id"].as_str().expect("has an id").to_owned();
        mails.entry(id).or_default().push(mail);
    }
    mails
}

/// The token in the text of a mail.
pub(super) fn token(mail: &Value) -> String {
    let text = mail["text"].as_str().expect("a text");
    let (_, rest) = text.split_once("?token=").unwrap_or_else(|| panic!("a link in {text}"));
    rest.split_whitespace().next().expect("a token").to_owned()
}
