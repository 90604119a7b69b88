//! Forged messages.

use super::*;

/// A message for a position, as an attacker with access to the stream may forge it.
struct Forgery {
    subject: String,
    headers: HeaderMap,
    body: String,
}

impl Forgery {
    /// Without a mark.
    fn of(event: &RecordedEvent) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(bus::MESSAGE_ID, event.id.to_string());
        headers.insert(bus::POSITION, event.position.to_string());
        headers.insert(bus::PREVIOUS_POSITION, (event.position - 1).to_string());
        Self { subject: event.subject(), headers, body: event.to_canonical_json(&origin()) }
    }

    fn marked(mut self, mark: &str, previous: Uuid) -> Self {
        self.headers.insert(bus::MARK, mark);
        self.headers.insert(bus::PREVIOUS_ID, previous.to_string());
        self
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_somebody_else_stops_the_relay_wherever_its_mark_comes_from() {
    let other = MessageKey::new(&InstanceKey::generate());
    for kind in ["nothing", "intruder", "no mark", "garbage", "another position", "another instance", "cut"] {
        let world = World::new().await;
        world.append(10).await;
        let relay = world.relay();
        world.assert_complete(&relay).await;
        let last = world.event(10).await;
        let next = RecordedEvent { position: 11, id: SystemClock.new_id(), ..last.clone() };
        let (subject, body) = (next.subject(), next.to_canonical_json(&origin()));
        let (position, id, previous) = (next.position, next.id, last.id);
        let marked = Marked { position, id, previous, subject: &subject, body: body.as_bytes() };
        let genuine = world.mark_of(10).await;
        let forgery = Forgery::of(&next);
        let forgery = match kind {
            "nothing" => Forgery { headers: HeaderMap::new(), ..forgery },
            "intruder" => {
                let mut headers = HeaderMap::new();
                headers.insert(bus::MESSAGE_ID, "intruder");
                Forgery { headers, body: "{}".to_owned(), ..forgery }
            }
            "garbage" => forgery.marked("garbage", previous),
            "another position" => {
                Forgery { body: last.to_canonical_json(&origin()), ..forgery }.marked(&genuine, previous)
            }
            "another instance" => forgery.marked(&other.mark(&marked), previous),
            "cut" => forgery.marked(&world.key.mark(&marked)[..40], previous),
            _ => forgery,
        };
        assert_eq!(world.forge(forgery).await, 11);
        let status = until(&relay, |status| status.state == "stopped").await;
        let error = status.error.expect("says why");
        assert!(error.contains("ends at 11, but the journal at 10"), "{kind}: {error}");
        assert!(error.contains("did not publish") && error.contains("relay --rebuild"), "{kind}: {error}");
        world.append(5).await;
        let status = until(&relay, |status| status.lag == 5).await;
        assert_eq!(status.state, "stopped", "{kind}");
        assert_eq!(world.state().await.last_sequence, 11, "{kind}");
        relay.shutdown().await;
        // Remembered across a restart, until an operator decides.
        let relay = world.relay();
        until(&relay, |status| status.state == "stopped").await;
        assert!(delete_stream(&world.client).await.expect("is deleted"));
        world.assert_complete(&relay).await;
        assert!(delete_stream(&world.client).await.expect("is deleted"));
        relay.shutdown().await;
        assert!(!delete_stream(&world.client).await.expect("there is none"));
        let filled = fill(
            world.client.clone(),
            world.journal.clone(),
            origin(),
            world.key.clone(),
            settings(),
            |position, head| assert!(position <= head),
        );
        assert_eq!(filled.await.expect("is filled"), 15);
        world.assert_stream_is_journal().await;
    }
}

/// The genuine event's id does not help if the body under it differs.
#[tokio::test(flavor = "multi_thread")]
async fn a_tail_with_the_right_id_and_another_body_is_not_the_journals() {
    let world = World::new().await;
    world.append(10).await;
    let relay = world.relay();
    world.assert_complete(&relay).await;
    relay.shutdown().await;
    world.append(1).await;
    let next = world.event(11).await;
    let forged = RecordedEvent { data: r#"{"role":"admin"}"#.to_owned(), ..next.clone() };
    assert_eq!(world.forge(Forgery::of(&forged)).await, 11);
    let relay = world.relay();
    let status = until(&relay, |status| status.state == "stopped").await;
    assert!(status.error.expect("says why").contains("no mark"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_may_makes_a_forged_stream_anew_but_not_again_and_again() {
    let world = World::new().await;
    world.append(10).await;
    let patient = RelaySettings { rebuild_interval: Some(Duration::from_hours(1)), ..settings() };
    let relay = world.relay_with(patient);
    world.assert_complete(&relay).await;
    let forgery = async || {
        let next = RecordedEvent { position: 11, id: SystemClock.new_id(), ..world.event(10).await };
        world.forge(Forgery::of(&next)).await
    };
    assert_eq!(forgery().await, 11);
    until_true(async || world.try_state().await.is_some_and(|state| state.last_sequence == 10)).await;
    world.assert_complete(&relay).await;
    assert_eq!(forgery().await, 11);
    until(&relay, |status| status.state == "stopped").await;
    assert_eq!(world.state().await.last_sequence, 11);
    relay.shutdown().await;

    // Messages published by the instance itself may be all that remains of a journal: they are left alone.
    let impatient = RelaySettings { rebuild_interval: Some(Duration::from_millis(1)), ..settings() };
    let relay = world.relay_with(impatient.clone());
    world.assert_complete(&relay).await;
    relay.shutdown().await;
    let next = RecordedEvent { position: 11, id: SystemClock.new_id(), ..world.event(10).await };
    let (subject, body, previous) =
        (next.subject(), next.to_canonical_json(&origin()), world.event(10).await.id);
    let marked = Marked { position: 11, id: next.id, previous, subject: &subject, body: body.as_bytes() };
    world.forge(Forgery::of(&next).marked(&world.key.mark(&marked), previous)).await;
    let relay = world.relay_with(impatient);
    let status = until(&relay, |status| status.state == "stopped").await;
    assert!(status.error.expect("says why").contains("it has lost events"));
    world.append(1).await;
    let status = until(&relay, |status| {
        status.error.as_ref().is_some_and(|error| error.contains("but event 11 of the journal is"))
    });
    assert_eq!(status.await.state, "stopped");
}

/// A version without marks has filled the stream: the relay continues after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_marks_that_is_the_journals_otherwise_is_gone_on_with() {
    let world = World::new().await;
    world.append(10).await;
    let relay = world.relay();
    world.assert_complete(&relay).await;
    let config = world.info().await.config;
    relay.shutdown().await;
    world.jetstream().delete_stream(bus::STREAM).await.expect("is deleted");
    world.jetstream().create_stream(config).await.expect("is made");
    for position in 1..=10 {
        let mut message = Forgery::of(&world.event(position).await);
        if position == 10 {
            // The envelope as that version wrote it.
            message.body = message.body.replace("\"datacontenttype\":\"application/json\",", "");
        }
        assert_eq!(world.forge(message).await, position);
    }
    world.append(5).await;
    let relay = world.relay();
    until(&relay, |status| status.state == "running" && status.position == 15).await;
    assert_eq!(world.state().await.messages, 15);
    world.mark_of(11).await;
}

impl World {
    async fn forge(&self, forgery: Forgery) -> u64 {
        let Forgery { subject, headers, body } = forgery;
        let sent = self.jetstream().publish_with_headers(subject, headers, body.into()).await;
        sent.expect("sent").await.expect("stored").sequence
    }

    async fn event(&self, position: u64) -> RecordedEvent {
        self.journal.read_positions(&[position]).await.expect("reads").remove(0)
    }

    /// The mark of a message in the stream.
    async fn mark_of(&self, position: u64) -> String {
        let stream = self.jetstream().get_stream(bus::STREAM).await.expect("the stream is there");
        let message = stream.get_raw_message(position).await.expect("it is there");
        message.headers.get(bus::MARK).expect("it has a mark").as_str().to_owned()
    }
}
