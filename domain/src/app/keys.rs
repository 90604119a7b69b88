//! The rotation of an app's signing keys.
//!
//! A key is published before it signs, for as long as verifiers may use a key set that they have: `key_propagation` seconds. A
//! switch to a key that is not known for as long is an event of now about a moment to come. Which key signs follows from the
//! events and the time alone: nothing has to happen at that moment, on whichever node, and whether or not one runs.

use jiff::{SignedDuration, Timestamp};

use super::App;
use super::events::{AppEvent, SigningKeyActivated, SigningKeyCreated, SigningKeyRetired};
use crate::signing_key::{KeyStatus, LONGEST_TOKEN, MAX_PREVIOUS, PublicJwk, SigningKey, TokenAlgorithm};
use crate::time::after;

/// How far the clocks of nodes may be apart: a key may have signed if it is to sign within this time.
const CLOCKS: SignedDuration = SignedDuration::from_secs(60);

impl App {
    /// The key that signs at this time: of those that were to sign by then, the last. The first of all, if there was none by
    /// then: after an emergency, for a token that is made again.
    pub fn signing_key(&self, at: Timestamp) -> Option<&PublicJwk> {
        let mut begun = self.activated().filter(|key| key.signs_from.is_none_or(|from| from <= at));
        begun.next_back().or_else(|| self.activated().next()).map(|key| &key.public)
    }

    /// Where a key stands at this time.
    pub fn status_of(&self, key: &SigningKey, at: Timestamp) -> KeyStatus {
        let signs = self.signing_key(at).is_some_and(|signing| signing.kid == key.public.kid);
        match key.status {
            _ if signs => KeyStatus::Current,
            KeyStatus::Next => KeyStatus::Next,
            KeyStatus::Current | KeyStatus::Previous if key.is_ahead(at) => KeyStatus::Next,
            KeyStatus::Current | KeyStatus::Previous => KeyStatus::Previous,
        }
    }

    /// The next key that is to sign by itself, if any.
    pub fn scheduled_key(&self, at: Timestamp) -> Option<&SigningKey> {
        self.activated().find(|key| key.is_ahead(at) && self.status_of(key, at) == KeyStatus::Next)
    }

    /// How many new keys [`super::AppCommand::Change`] needs for this algorithm.
    pub fn keys_needed_for(&self, algorithm: TokenAlgorithm, at: Timestamp) -> usize {
        let Some(last) = self.activated().next_back() else { return 0 };
        if last.public.alg == algorithm {
            return 0;
        }
        let stays = self.activated().rfind(|key| !key.is_revocable(at));
        if stays.is_some_and(|key| key.public.alg == algorithm) { 1 } else { 2 }
    }

    /// The events of a change to another algorithm, given as many keys as [`App::keys_needed_for`] says.
    pub(super) fn change_algorithm(
        &self,
        keys: Vec<PublicJwk>,
        propagation: u32,
        at: Timestamp,
    ) -> Vec<AppEvent> {
        let mut keys = keys.into_iter();
        let Some(first) = keys.next() else { return vec![] };
        // These never signed, and are for another algorithm.
        let unused =
            self.signing_keys.iter().filter(|key| key.status == KeyStatus::Next || key.is_revocable(at));
        let mut events: Vec<_> = unused.map(|key| retired(&key.public.kid)).collect();
        let Some(second) = keys.next() else {
            events.push(created(first, at));
            return events;
        };
        events.extend(self.to_retire(at).map(|key| retired(&key.public.kid)));
        let (kid, from) = (first.kid.clone(), self.known_from(Some(at), propagation, at));
        events.extend([created(first, at), activated(kid, at, from), created(second, at)]);
        events
    }

    /// The events of a rotation. While a switch is scheduled, another rotation is that one.
    pub(super) fn rotate(&self, new: PublicJwk, at: Timestamp) -> Vec<AppEvent> {
        if self.scheduled_key(at).is_some() {
            return vec![];
        }
        let mut events: Vec<_> = self.to_retire(at).map(|key| retired(&key.public.kid)).collect();
        if let Some(next) = self.prepared().next() {
            let from = self.known_from(next.published_at, self.settings.key_propagation, at);
            events.push(activated(next.public.kid.clone(), at, from));
        }
        events.push(created(new, at));
        events
    }

    /// The events of an emergency rotation: every key that has signed is retired, and the one that was published first of the
    /// others signs at once.
    pub(super) fn replace(&self, new: PublicJwk, at: Timestamp) -> Vec<AppEvent> {
        let heir = self.activated().find(|key| key.is_ahead(at)).or_else(|| self.prepared().next());
        let others = self.activated().filter(|key| heir.is_none_or(|heir| heir.public.kid != key.public.kid));
        let mut retired: Vec<_> = others.map(|key| retired(&key.public.kid)).collect();
        let Some(heir) = heir else {
            let kid = new.kid.clone();
            let mut events = vec![created(new, at), activated(kid, at, at)];
            events.append(&mut retired);
            return events;
        };
        let mut events = vec![activated(heir.public.kid.clone(), at, at)];
        events.append(&mut retired);
        if self.prepared().all(|key| key.public.kid == heir.public.kid) {
            events.push(created(new, at));
        }
        events
    }

    /// The keys that sign, signed, or are to sign at a moment that is set, in this order.
    fn activated(&self) -> impl DoubleEndedIterator<Item = &SigningKey> {
        self.signing_keys.iter().filter(|key| key.status != KeyStatus::Next)
    }

    /// The keys that are published for a later rotation.
    fn prepared(&self) -> impl Iterator<Item = &SigningKey> {
        self.signing_keys.iter().filter(|key| key.status == KeyStatus::Next)
    }

    /// When a key can sign: once verifiers know it, no earlier than the one before it, and not while the key that it
    /// supersedes would be one too many whose tokens may still be valid.
    fn known_from(&self, published_at: Option<Timestamp>, propagation: u32, at: Timestamp) -> Timestamp {
        let known =
            published_at.map(|published| after(published, SignedDuration::from_secs(propagation.into())));
        let last =
            self.activated().filter(|key| !key.is_revocable(at)).filter_map(|key| key.signs_from).max();
        let from = [Some(at), known, last].into_iter().flatten().max().unwrap_or(at);
        let mut lasting: Vec<Timestamp> = self.activated().filter_map(|key| key.superseded_at).collect();
        // One that a key was to supersede that is withdrawn now is the one that this key supersedes.
        lasting.retain(|since| *since <= after(at, CLOCKS) && after(*since, longest()) >= from);
        lasting.sort_unstable();
        let too_many = (lasting.len() + 1).saturating_sub(MAX_PREVIOUS);
        let room = too_many
            .checked_sub(1)
            .map(|oldest| after(lasting[oldest], longest() + SignedDuration::from_secs(1)));
        room.map_or(from, |room| from.max(room))
    }

    /// The keys to retire by a rotation: those whose tokens have all expired and, if there are too many, the oldest of those
    /// from before the end of a key was recorded.
    fn to_retire(&self, at: Timestamp) -> impl Iterator<Item = &SigningKey> {
        let previous = || self.signing_keys.iter().filter(|key| key.status == KeyStatus::Previous);
        let lasting = previous().filter(|key| !key.is_spent(at)).count();
        let too_many = (lasting + 1).saturating_sub(MAX_PREVIOUS);
        let unknown = previous().filter(|key| key.superseded_at.is_none()).take(too_many);
        previous().filter(move |key| key.is_spent(at)).chain(unknown)
    }

    /// What an event does to the keys.
    pub(super) fn apply_to_keys(&mut self, event: AppEvent) {
        match event {
            AppEvent::SigningKeyCreated(SigningKeyCreated { public, at }) => {
                let status = KeyStatus::Next;
                let key =
                    SigningKey { public, status, published_at: at, signs_from: None, superseded_at: None };
                self.signing_keys.push(key);
            }
            AppEvent::SigningKeyActivated(SigningKeyActivated { kid, at, signs_from }) => {
                let from = signs_from.or(at);
                for key in &mut self.signing_keys {
                    if key.public.kid == kid {
                        (key.status, key.signs_from, key.superseded_at) = (KeyStatus::Current, from, None);
                    } else if key.status == KeyStatus::Current {
                        (key.status, key.superseded_at) = (KeyStatus::Previous, from);
                    }
                }
            }
            AppEvent::SigningKeyRetired(SigningKeyRetired { kid }) => {
                // No rule needs it any longer, and an app rotates its keys for as long as it exists.
                self.signing_keys.retain(|key| key.public.kid != kid);
                // One that was to sign, and now is not to: the one before it goes on.
                if self.activated().all(|key| key.status == KeyStatus::Previous)
                    && let Some(last) =
                        self.signing_keys.iter_mut().rfind(|key| key.status == KeyStatus::Previous)
                {
                    (last.status, last.superseded_at) = (KeyStatus::Current, None);
                }
            }
            _ => {}
        }
    }
}

impl SigningKey {
    /// Whether it is to sign later.
    fn is_ahead(&self, at: Timestamp) -> bool {
        self.signs_from.is_some_and(|from| from > at)
    }

    /// Whether it is to sign, and so much later that no node has signed with it yet.
    fn is_revocable(&self, at: Timestamp) -> bool {
        self.status != KeyStatus::Next && self.signs_from.is_some_and(|from| from > after(at, CLOCKS))
    }
}

fn longest() -> SignedDuration {
    SignedDuration::from_secs(LONGEST_TOKEN.into())
}

pub(super) fn created(public: PublicJwk, at: Timestamp) -> AppEvent {
    AppEvent::SigningKeyCreated(SigningKeyCreated { public, at: Some(at) })
}

pub(super) fn activated(kid: String, at: Timestamp, from: Timestamp) -> AppEvent {
    AppEvent::SigningKeyActivated(SigningKeyActivated { kid, at: Some(at), signs_from: Some(from) })
}

pub(super) fn retired(kid: &str) -> AppEvent {
    AppEvent::SigningKeyRetired(SigningKeyRetired { kid: kid.to_owned() })
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
