//! Claims are written with the events they follow from, so both must match. The domain defines the effect of events on
//! claims, here as in appends.

use std::collections::{HashMap, HashSet};

use domain::claims::{ClaimChange, ClaimKind, Claimed, Holding};
use domain::{Event, StreamId, Timestamp, UserId};
use event_store::{Claim, Journal, LookupKey, StoreError};
use schemas::RecordedEvent;

use super::Report;
use super::mails::Mails;

/// The claims that follow from the events so far: those of each stream, and when it last took one.
#[derive(Default)]
pub(super) struct Claims(HashMap<StreamId, (Holding, u64)>);

/// A claim according to the events.
struct Expected<'a> {
    owner: &'a StreamId,
    claimed: &'a Claimed,
    /// When its owner last took a claim.
    since: u64,
    until: Option<Timestamp>,
}

impl Claims {
    pub(super) fn see(&mut self, recorded: &RecordedEvent, event: &Event) {
        let (mut holding, mut since) = self.0.remove(&recorded.stream).unwrap_or_default();
        let is_take =
            |change: &ClaimChange| matches!(change, ClaimChange::Take(_) | ClaimChange::TakeUntil(..));
        if holding.see(event).iter().any(is_take) {
            since = recorded.position;
        }
        if !holding.is_empty() {
            self.0.insert(recorded.stream.clone(), (holding, since));
        }
    }

    /// Compares them with those of the journal, whose streams have these versions up to this event. What others append
    /// meanwhile changes claims, too: streams that have gone on are left out.
    pub(super) async fn compare(
        &self,
        journal: &dyn Journal,
        lookup: &LookupKey,
        mails: &Mails,
        (versions, head): (&HashMap<StreamId, u64>, u64),
        now: Timestamp,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let mut found = Vec::new();
        for kind in ClaimKind::ALL {
            let claims = journal.claims(kind.as_str(), "").await?.into_iter();
            found.extend(claims.map(|(claim, owner)| (*kind, claim, owner)));
        }
        let gone_on = streams_after(journal, head).await?;
        let mut expected: HashMap<Claim, Expected> = HashMap::new();
        // Claims of erased persons, which can no longer be computed.
        let mut unreadable: HashSet<(ClaimKind, &StreamId)> = HashSet::new();
        for (owner, (holding, since)) in &self.0 {
            for held in holding.iter() {
                let Some(name) = lookup.claim(&held.claimed, |event, kind| mails.asked(event, kind)) else {
                    unreadable.insert((held.claimed.kind(), owner));
                    continue;
                };
                let this = Expected { owner, claimed: &held.claimed, since: *since, until: held.until };
                // A claim that passed between streams belongs to the last one.
                match expected.entry(name) {
                    std::collections::hash_map::Entry::Vacant(place) => drop(place.insert(this)),
                    std::collections::hash_map::Entry::Occupied(mut place)
                        if place.get().since < this.since =>
                    {
                        place.insert(this);
                    }
                    std::collections::hash_map::Entry::Occupied(_) => {}
                }
            }
        }
        for (kind, claim, owner) in found {
            let rightful = expected.remove(&claim);
            if gone_on.contains(&owner) || rightful.as_ref().is_some_and(|it| gone_on.contains(it.owner)) {
                continue;
            }
            if !versions.contains_key(&owner) {
                report
                    .fault(format!("the {kind} claim {} is held by {owner}, which has no event", claim.key));
            }
            if rightful.as_ref().is_some_and(|it| *it.owner == owner) || unreadable.contains(&(kind, &owner))
            {
                continue;
            }
            match rightful {
                Some(it) => report.fault(held_by_another(&claim, &owner, &it)),
                None if versions.contains_key(&owner) => {
                    report.fault(held_for_nothing(kind, &claim, &owner));
                }
                None => {}
            }
        }
        let mut missing: Vec<_> = expected.into_iter().collect();
        missing.sort_by_key(|(_, it)| it.since);
        for (claim, it) in missing.into_iter().filter(|(_, it)| !gone_on.contains(it.owner)) {
            // The next append may already have released it.
            if it.until.is_none_or(|until| now < until)
                && let Some(fault) = held_by_nobody(&claim, &it)
            {
                report.fault(fault);
            }
        }
        Ok(())
    }
}

/// The streams of the events that have come since this one.
async fn streams_after(journal: &dyn Journal, head: u64) -> Result<HashSet<StreamId>, StoreError> {
    let (mut streams, mut after, newest) = (HashSet::new(), head, journal.head().await?);
    while after < newest {
        let events = journal.read_all(after, 1000).await?;
        let Some(last) = events.last() else { break };
        after = last.position;
        streams.extend(events.into_iter().map(|event| event.stream));
    }
    Ok(streams)
}

fn user(stream: &StreamId) -> String {
    stream.uuid().map_or_else(|| stream.to_string(), |id| UserId(id).to_string())
}

fn held_by_another(claim: &Claim, owner: &StreamId, rightful: &Expected) -> String {
    let (Claim { kind, key }, by_events) = (claim, rightful.owner);
    if rightful.claimed.kind() == ClaimKind::Email {
        let user = user(by_events);
        return format!(
            "the email claim {key} is held by {owner}, but the address is that of user {user}: neither is found by it"
        );
    }
    format!("the {kind} claim {key} is held by {owner}, but the events say that {by_events} holds it")
}

fn held_for_nothing(kind: ClaimKind, claim: &Claim, owner: &StreamId) -> String {
    let key = &claim.key;
    let why = match kind {
        ClaimKind::App => "which is not that app",
        ClaimKind::Email => "which has a different address: the claimed one cannot be registered",
        ClaimKind::Erased => "but no event says so",
        ClaimKind::Journal => "which does not define the origin of events",
        ClaimKind::MagicLink => "which is not a link to that address",
        ClaimKind::Session => {
            return format!("the session claim {key} is still held, but the session was revoked");
        }
        ClaimKind::Slug => "which is no organization of that slug: no other can be given it",
        ClaimKind::Webhook => "which is not that webhook, or was deleted",
        ClaimKind::WebhookFailed => {
            return format!(
                "a claim lists {key} as an event that a webhook did not accept, but no event says so"
            );
        }
        ClaimKind::WebhookWaiting => {
            return format!(
                "a claim lists {key} as an event that a webhook is sent again, but no event says so"
            );
        }
        ClaimKind::MailFailed => {
            return format!("a claim lists {key} as a failed mail, but no event says so");
        }
        ClaimKind::MailWaiting => {
            return format!("a claim lists {key} as a waiting mail, but no event says so");
        }
    };
    format!("the {kind} claim {key} is held by {owner}, {why}")
}

/// `None` if an earlier version did not take the claim.
fn held_by_nobody(claim: &Claim, rightful: &Expected) -> Option<String> {
    let owner = rightful.owner;
    let position = || claim.key.split('/').nth(1).unwrap_or_default().trim_start_matches('0').to_owned();
    Some(match rightful.claimed {
        Claimed::App(_) => format!("no claim holds the id of {owner}: it can be taken again"),
        Claimed::Email { .. } => {
            let user = user(owner);
            format!("no claim holds the address of user {user}: it can be registered again")
        }
        Claimed::Erased(_) => {
            format!("no claim lists that {owner} was erased: a crash could leave their key")
        }
        // The earliest links took none.
        Claimed::MagicLink { .. } => return None,
        Claimed::MailFailed(_, kind) => format!(
            "the mail {} that event {} asked for was given up, but no claim lists it: it does not show up",
            kind.as_str(),
            position()
        ),
        Claimed::MailWaiting(_, kind) => format!(
            "the mail {} that event {} asked for is due for a retry, but no claim lists it: it is not retried",
            kind.as_str(),
            position()
        ),
        Claimed::Origin => format!("no claim holds the origin that {owner} defines: it can change"),
        Claimed::Session { .. } => {
            format!("no claim lists {owner}, so that revoking all sessions of its user would miss it")
        }
        Claimed::Slug { .. } => format!("no claim holds the slug of {owner}: another can be given it"),
        Claimed::WebhookFailed(id, position) => format!(
            "event {position} was not delivered to webhook {id}, but no claim lists it: it does not show up"
        ),
        Claimed::WebhookWaiting(id, position) => format!(
            "event {position} is to be sent to webhook {id} again, but no claim lists it: it is not sent"
        ),
        Claimed::Webhook { .. } => format!("no claim lists {owner}: nothing is sent to it"),
    })
}
