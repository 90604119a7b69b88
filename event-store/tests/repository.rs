//! What a repository caches, alone and when other nodes write to the journal too.

use std::sync::Arc;

use domain::lockout::{AccountUnlocked, Lockout, LockoutEvent};
use domain::{Event, Stream, UserId};
use event_store::contract::{Nodes, nothing};
use event_store::{
    Append, Clock, Journal, KeyStore, MasterKey, Repository, Sealer, SqliteJournal, SystemClock, Write,
};
use tempfile::TempDir;
use uuid::Uuid;

struct Fixture {
    _directory: TempDir,
    alone: Repository,
    /// The same journal, seen as one of many nodes.
    of_many: Repository,
    journal: Arc<Nodes>,
}

impl Fixture {
    async fn new() -> Self {
        let directory = TempDir::new().expect("makes a directory");
        let journal =
            SqliteJournal::open(&directory.path().join("journal.db"), &event_store::contract::macs())
                .await
                .expect("opens");
        let journal: Arc<dyn Journal> = Arc::new(journal);
        let keys = KeyStore::open(&directory.path().join("keys.db"), &MasterKey::generate()).await;
        let sealer = Arc::new(Sealer::new(Arc::new(keys.expect("opens"))));
        let shared = Arc::new(Nodes::new(vec![Arc::clone(&journal)]));
        Self {
            _directory: directory,
            alone: Repository::new(journal, Arc::clone(&sealer), 100),
            of_many: Repository::new(Arc::clone(&shared) as Arc<dyn Journal>, sealer, 100),
            journal: shared,
        }
    }

    /// An event that another node writes.
    async fn write(&self, user: UserId, expected: u64) {
        let at = SystemClock.now();
        let event = Event::from(LockoutEvent::AccountUnlocked(AccountUnlocked { user_id: user, at }));
        let event = self.alone.encode(&event, SystemClock.new_id()).await.expect("encodes");
        let write = Write { stream: Lockout::stream(&user), expected, events: vec![event] };
        self.alone.journal().append(Append { writes: vec![write], ..nothing() }).await.expect("appends");
    }

    fn asked(&self) -> (usize, usize) {
        (self.journal.versions_asked(), self.journal.events_read())
    }
}

fn user(number: u128) -> UserId {
    UserId(Uuid::from_u128(number))
}

#[tokio::test]
async fn alone_it_does_not_ask_the_journal() {
    let fixture = Fixture::new().await;
    fixture.write(user(1), 0).await;
    let repository = &fixture.alone;
    assert_eq!(repository.load::<Lockout>(&user(1)).await.expect("loads").version, 1);
    // Only this process writes, so it knows of every write.
    fixture.write(user(1), 1).await;
    assert_eq!(repository.load::<Lockout>(&user(1)).await.expect("loads").version, 1);
    assert_eq!(repository.moved(&[(Lockout::stream(&user(1)), 1)]).await, Ok(vec![]));
    let reads = repository.reads();
    reads.load::<Lockout>(&user(1)).await.expect("loads");
    assert_eq!(reads.are_current().await, Ok(true));
}

#[tokio::test]
async fn where_others_write_it_asks_and_reads_only_what_is_new() {
    let fixture = Fixture::new().await;
    let repository = &fixture.of_many;
    assert_eq!(repository.load::<Lockout>(&user(1)).await.expect("loads").version, 0);
    for version in 1..=3 {
        fixture.write(user(1), version - 1).await;
    }
    assert_eq!(repository.load::<Lockout>(&user(1)).await.expect("loads").version, 3);
    fixture.asked();
    assert_eq!(repository.load::<Lockout>(&user(1)).await.expect("loads").version, 3);
    assert_eq!(fixture.asked(), (1, 0));
    fixture.write(user(1), 3).await;
    assert_eq!(repository.load_at_hand::<Lockout>(&user(1)).await.expect("loads").version, 3);
    assert_eq!(fixture.asked(), (0, 0));
    assert_eq!(repository.load::<Lockout>(&user(1)).await.expect("loads").version, 4);
    assert_eq!(fixture.asked(), (1, 1));
}

#[tokio::test]
async fn several_reads_are_confirmed_by_one_question() {
    let fixture = Fixture::new().await;
    let repository = &fixture.of_many;
    for number in 1..=3 {
        fixture.write(user(number), 0).await;
        repository.load::<Lockout>(&user(number)).await.expect("loads");
    }
    fixture.asked();
    let reads = repository.reads();
    let load = async |number| reads.load::<Lockout>(&user(number)).await.expect("loads").version;
    assert_eq!((load(1).await, load(2).await), (1, 1));
    assert_eq!(reads.are_current().await, Ok(true));
    assert_eq!(fixture.asked(), (1, 0));

    // What was confirmed stays confirmed: it was current after this decision began. The third is new, and has moved.
    fixture.write(user(1), 1).await;
    fixture.write(user(3), 1).await;
    assert_eq!((load(1).await, load(3).await), (1, 1));
    assert_eq!(reads.are_current().await, Ok(false));
    assert_eq!((load(1).await, load(3).await), (1, 2));
    assert_eq!(reads.are_current().await, Ok(true));
    assert_eq!(fixture.asked(), (1, 1));

    // The next decision sees the first one's move.
    let reads = repository.reads();
    reads.load::<Lockout>(&user(1)).await.expect("loads");
    assert_eq!(reads.are_current().await, Ok(false));
    assert_eq!(reads.load::<Lockout>(&user(1)).await.expect("loads").version, 2);
}
