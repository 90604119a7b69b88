//! Messages that this instance did not publish.

use super::*;

/// A message for a position, as an attacker with access to the stream may forge it.
pub(super) struct Forgery {
    event: RecordedEvent,
    /// The event before it, according to the message.
    previous: uuid::Uuid,
    mark: Option<String>,
    /// The published bytes, if they are not the event's.
    body: Option<String>,
}

/// The mark of such a message, made by a holder of the key.
fn mark(key: &MessageKey, event: &RecordedEvent, previous: uuid::Uuid) -> String {
    let (subject, body) = (event.subject(), event.to_canonical_json(&origin()));
    let (position, id) = (event.position, event.id);
    key.mark(&Marked { position, id, previous, subject: &subject, body: body.as_bytes() })
}

/// The event as it would be in somebody else's journal.
fn grant(position: u64, of: &RecordedEvent) -> RecordedEvent {
    let person = of.person.expect("a person");
    let data = format!(r#"{{"at":"{}","role":"admin","user_id":"{person}"}}"#, of.at);
    let name = "RoleGranted".to_owned();
    RecordedEvent { position, id: SystemClock.new_id(), version: 2, name, data, personal: None, ..of.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_believes_no_message_that_this_instance_did_not_publish_there() {
    let other = MessageKey::new(&InstanceKey::generate());
    for kind in [
        "none",
        "empty",
        "garbage",
        "cut",
        "another message",
        "another position",
        "another instance",
        "another body",
    ] {
        let world = World::new().await;
        append(&world.repository, 5).await;
        world.publish_all().await;
        let feed = Feed::start(world.repository.clone(), Some(world.bus()));
        until("there is a consumer", async || world.consumer().await.is_some()).await;
        let last = world.event(5).await;
        let forged = match kind {
            // The server would drop an id that it has seen.
            "another position" => RecordedEvent { position: 6, id: SystemClock.new_id(), ..last.clone() },
            _ => grant(6, &last),
        };
        let of_last = mark(&world.key(), &last, world.event(4).await.id);
        let mark = match kind {
            "none" => None,
            "empty" => Some(String::new()),
            "garbage" => Some("not base64 at all!".to_owned()),
            "cut" => Some(mark(&world.key(), &forged, last.id)[..22].to_owned()),
            "another message" | "another position" => Some(of_last),
            "another instance" => Some(mark(&other, &forged, last.id)),
            _ => {
                Some(mark(&world.key(), &RecordedEvent { data: "{}".to_owned(), ..forged.clone() }, last.id))
            }
        };
        let body = (kind == "another position").then(|| last.to_canonical_json(&origin()));
        let forgery = Forgery { event: forged.clone(), previous: last.id, mark, body };
        assert_eq!(world.publish(&forgery).await, 6);
        until("it is refused", async || {
            let status = feed.bus_status().expect("there is a bus");
            status.last_refused == Some(6) && status.forged + status.unmarked == 1
        })
        .await;
        assert_eq!(feed.bus_status().expect("a bus").unmarked, u64::from(kind == "none"), "{kind}");
        assert_eq!(*feed.head().borrow(), 5, "{kind}: nothing more is announced");
        append(&world.repository, 2).await;
        world.shows_the_journal(&feed).await;
        // After a restart, with the same durable consumer and without it.
        drop(feed);
        let feed = Feed::start(world.repository.clone(), Some(world.bus()));
        world.shows_the_journal(&feed).await;
        drop(feed);
        let fresh = Bus { consumer: "projections-fresh".to_owned(), ..world.bus() };
        world.shows_the_journal(&Feed::start(world.repository.clone(), Some(fresh))).await;
    }
}

/// A forgery in the middle of a run affects only that message.
#[tokio::test(flavor = "multi_thread")]
async fn a_feed_believes_what_is_around_a_forgery_in_the_middle_of_a_run() {
    let world = World::new().await;
    append(&world.repository, 5).await;
    world.publish_all().await;
    let config = jetstream::new(world.client.clone()).get_stream(bus::STREAM).await.expect("is there");
    let config = config.cached_info().config.clone();
    append(&world.repository, 20).await;
    // The stream is recreated by an attacker: event 12 is a grant, 15 has no mark, 18 repeats 17, all others are
    // genuine.
    let jetstream = jetstream::new(world.client.clone());
    jetstream.delete_stream(bus::STREAM).await.expect("is deleted");
    jetstream.create_stream(config).await.expect("is made");
    let mut previous = uuid::Uuid::nil();
    for position in 1..=25 {
        let genuine = world.event(position).await;
        let mut forgery = Forgery {
            event: genuine.clone(),
            previous,
            mark: Some(mark(&world.key(), &genuine, previous)),
            body: None,
        };
        match position {
            12 => forgery.event = grant(12, &genuine),
            15 => forgery.mark = None,
            18 => {
                let before = world.event(17).await;
                forgery.mark = Some(mark(&world.key(), &before, world.event(16).await.id));
                forgery.event = RecordedEvent { position: 18, ..before };
            }
            _ => {}
        }
        previous = genuine.id;
        // The server drops an id that it has seen.
        if position == 18 {
            forgery.event.id = SystemClock.new_id();
        }
        assert_eq!(world.publish(&forgery).await, position);
    }
    let jetstream = jetstream.get_stream(bus::STREAM).await.expect("is there");
    let config = pull::Config {
        durable_name: Some(CONSUMER.to_owned()),
        ack_policy: AckPolicy::All,
        ..pull::Config::default()
    };
    jetstream.create_consumer(config).await.expect("a consumer that begins at the first");
    let feed = Feed::start(world.repository.clone(), Some(world.bus()));
    world.until_brought(25).await;
    let status = feed.bus_status().expect("there is a bus");
    assert_eq!((status.forged, status.unmarked, status.unreadable), (2, 1, 0));
    assert_eq!(status.last_refused, Some(18));
    world.shows_the_journal(&feed).await;
}

/// After a restore from a backup, the stream continues another history with genuine marks.
#[tokio::test(flavor = "multi_thread")]
async fn a_feed_believes_no_message_of_a_history_that_the_journal_does_not_have() {
    let world = World::new().await;
    append(&world.repository, 10).await;
    world.publish_all().await;
    // The consumer is before the position where the two diverge.
    let stream = jetstream::new(world.client.clone()).get_stream(bus::STREAM).await.expect("is there");
    let config = pull::Config {
        durable_name: Some(CONSUMER.to_owned()),
        ack_policy: AckPolicy::All,
        ..pull::Config::default()
    };
    stream.create_consumer(config).await.expect("a consumer");
    let (mut previous, last) = (world.event(10).await.id, world.event(10).await);
    for position in 11..=15 {
        let event = grant(position, &last);
        let forgery =
            Forgery { mark: Some(mark(&world.key(), &event, previous)), previous, event, body: None };
        previous = forgery.event.id;
        assert_eq!(world.publish(&forgery).await, position);
    }
    let feed = Feed::start(world.repository.clone(), Some(world.bus()));
    until("they are refused", async || feed.bus_status().is_some_and(|status| status.forged > 0)).await;
    assert!(*feed.head().borrow() <= 10);
    // The new history is at least as long.
    append(&world.repository, 7).await;
    world.shows_the_journal(&feed).await;
    drop(feed);
    world.shows_the_journal(&Feed::start(world.repository.clone(), Some(world.bus()))).await;
}

impl World {
    pub(super) fn key(&self) -> MessageKey {
        MessageKey::new(self.sealer.keys().instance_key())
    }

    pub(super) async fn event(&self, position: u64) -> RecordedEvent {
        self.repository.journal().read_positions(&[position]).await.expect("reads").remove(0)
    }

    pub(super) async fn publish(&self, forgery: &Forgery) -> u64 {
        let Forgery { event, previous, mark, body } = forgery;
        let mut headers = HeaderMap::new();
        headers.insert(bus::MESSAGE_ID, event.id.to_string());
        headers.insert(bus::POSITION, event.position.to_string());
        headers.insert(bus::PREVIOUS_POSITION, (event.position - 1).to_string());
        headers.insert(bus::PREVIOUS_ID, previous.to_string());
        if let Some(mark) = mark {
            headers.insert(bus::MARK, mark.as_str());
        }
        let sent = jetstream::new(self.client.clone())
            .publish_with_headers(
                event.subject(),
                headers,
                body.clone().unwrap_or_else(|| event.to_canonical_json(&origin())).into(),
            )
            .await
            .expect("sent");
        sent.await.expect("stored").sequence
    }

    /// Stops the relay once it has published everything.
    pub(super) async fn publish_all(&self) {
        let (relay, head) = (self.relay(), self.head().await);
        until("the relay is done", async || relay.status().lag == 0 && relay.status().position == head).await;
        relay.shutdown().await;
    }

    /// What the projection node accepts and shows of events appended after the first of them was forged.
    pub(super) async fn shows_the_journal(&self, feed: &Feed) {
        let head = self.head().await;
        let events = read(feed, head).await;
        let recorded = self.repository.journal().read_all(0, usize::MAX).await.expect("reads");
        assert_eq!(events, recorded.iter().map(|event| (event.position, event.id)).collect::<Vec<_>>());
    }
}
