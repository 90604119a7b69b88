//! What follows from the erasure of a person: their key is destroyed, and every node forgets them.
//!
//! `UserErased` decides it. Whoever appends the event destroys the key before answering; if that process dies in between,
//! another node does it within a second, or else the next start, before anything is shown. The same start destroys a key
//! that came back with an older key store.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use domain::claims::ClaimKind;
use domain::user::User;
use domain::{StreamId, UserId};
use tasks::{End, Weight};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::journal::StoreError;
use crate::repository::Repository;

/// The event.
const ERASED: &str = "UserErased";
/// How many keys are looked up at a time.
const PAGE: usize = 1000;
/// The pause between two looks at new events.
const PAUSE: Duration = Duration::from_millis(500);

/// Destroys the keys of all people whose erasure is in the log. Returns the position up to which they are.
///
/// A claim lists those people. It can be forged by anybody who can write to the store, and a destroyed key cannot be
/// restored, so a claim counts only if its owner's events record the erasure.
pub async fn finish(repository: &Repository) -> Result<u64, StoreError> {
    let (journal, keys) = (repository.journal(), repository.sealer().keys());
    let position = journal.head().await?;
    let claims = journal.claims(ClaimKind::Erased.as_str(), "").await?;
    let people: Vec<UserId> = claims.iter().filter_map(|(_, owner)| owner.uuid()).map(UserId).collect();
    for page in people.chunks(PAGE) {
        let erased = keys.erased_among(page).await?;
        for person in page.iter().filter(|person| !erased.contains(person)) {
            match repository.load::<User>(person).await {
                Ok(user) if user.state.erased => {
                    keys.erase_data_key(*person).await?;
                    tracing::warn!(user_id = %person, "the key of an erased person was still there: it is destroyed");
                }
                Ok(_) => {
                    tracing::error!(user_id = %person, "a claim says that a user was erased, but no event does: it is ignored");
                }
                Err(StoreError::Damaged(what)) => {
                    tracing::error!(user_id = %person, what, "cannot determine whether a user was erased");
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(position)
}

/// Does what [`finish`] does, and from then on follows the log: forgets everybody whose erasure it records, whichever node was
/// asked for it, and destroys their key if that node died first. Ends with the repository.
pub async fn start(repository: &Arc<Repository>) -> Result<(), StoreError> {
    let position = finish(repository).await?;
    let (repository, head) = (Arc::downgrade(repository), repository.journal().watch_head());
    tasks::start("erase", Weight::Usual, move || follow(Weak::clone(&repository), head.clone(), position));
    Ok(())
}

async fn follow(repository: Weak<Repository>, mut head: watch::Receiver<u64>, mut position: u64) -> End {
    loop {
        let until = *head.borrow_and_update();
        let Some(repository) = repository.upgrade() else { return End::Asked };
        match forget(&repository, position, until).await {
            Ok(()) => position = position.max(until),
            Err(error) => tracing::warn!(%error, "could not finish the erasure of people: trying again"),
        }
        drop(repository);
        sleep(PAUSE).await;
        if position >= *head.borrow() && head.changed().await.is_err() {
            return End::Asked;
        }
    }
}

/// Forgets the people whose erasure is recorded between two positions.
async fn forget(repository: &Repository, after: u64, until: u64) -> Result<(), StoreError> {
    let (journal, keys) = (repository.journal(), repository.sealer().keys());
    let mut people = HashSet::new();
    for position in journal.positions_of(ERASED, after, until).await? {
        match journal.read_positions(&[position]).await {
            Ok(events) => people.extend(events.iter().filter_map(|event| event.person)),
            // Others have reported it, and nothing rests on it.
            Err(StoreError::Damaged(what)) => tracing::error!(position, what, "an erasure cannot be read"),
            Err(error) => return Err(error),
        }
    }
    if people.is_empty() {
        return Ok(());
    }
    keys.forget(&people);
    repository.forget(&people);
    let list: Vec<UserId> = people.into_iter().collect();
    let erased = keys.erased_among(&list).await?;
    for person in list.into_iter().filter(|person| !erased.contains(person)) {
        keys.erase_data_key(person).await?;
        tracing::info!(user_id = %person, "the key of an erased person was destroyed for another node");
    }
    Ok(())
}

/// The position of the event that erased a person; `None` unless somebody did. It is the last of their stream.
pub async fn position(repository: &Repository, person: UserId) -> Result<Option<u64>, StoreError> {
    let user = repository.load::<User>(&person).await?;
    if !user.state.erased {
        return Ok(None);
    }
    let last = repository.journal().read_stream(&StreamId::user(person), user.version - 1).await?;
    Ok(last.last().filter(|event| event.name == ERASED).map(|event| event.position))
}
