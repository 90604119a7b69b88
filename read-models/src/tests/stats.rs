//! Random histories: what the stats answer equals a recount of the events, one by one, with the calendar of the zone.

use std::collections::{BTreeMap, BTreeSet};

use domain::lockout::{AccountLocked, LockoutEvent, LoginFailed};
use domain::organization::{
    InvitationAccepted, InvitationId, MemberAdded, MemberRemoved, OrganizationDeleted, OrganizationEvent,
    RemovalReason,
};
use domain::session::{LoginMethod, SessionEvent, SessionStarted};
use domain::user::UserEvent;
use domain::{AppId, Event, OrganizationId, Role, SessionId, TimeZoneName, Timestamp, UserId};
use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan as _};
use proptest::prelude::*;
use uuid::Uuid;

use super::world::*;
use crate::stats::{Bucket, Cohort, Funnel, Granularity, spans};
use crate::{Lease, ReadModels};

const ZONES: &[&str] = &[
    "UTC",
    "Europe/Zurich",
    "America/New_York",
    "America/St_Johns",
    "Asia/Kathmandu",
    "Pacific/Chatham",
    "Africa/Cairo",
    "Australia/Lord_Howe",
];
const GRANULARITIES: [Granularity; 4] =
    [Granularity::Hour, Granularity::Day, Granularity::Week, Granularity::Month];

/// What happens next, to whom, and after how many seconds.
#[derive(Clone, Debug)]
struct Step {
    what: u8,
    user: u128,
    other: u128,
    after: i64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let after = prop_oneof![0..120_i64, 600..4000_i64, 20_000..100_000_i64, 200_000..2_000_000_i64];
    let step = (0..18_u8, 1..5_u128, 0..3_u128, after);
    let step = step.prop_map(|(what, user, other, after)| Step { what, user, other, after });
    proptest::collection::vec(step, 1..60)
}

/// What is asked: a zone, a granularity, where the period begins and how long it is, and when.
#[derive(Clone, Debug)]
struct Question {
    zone: &'static str,
    granularity: Granularity,
    from: prop::sample::Index,
    hours: i64,
    later: i64,
}

fn questions() -> impl Strategy<Value = Vec<Question>> {
    let zone = prop::sample::select(ZONES);
    let granularity = prop::sample::select(&GRANULARITIES);
    let one = (zone, granularity, any::<prop::sample::Index>(), 1..900_i64, 0..100_000_i64);
    let one = one.prop_map(|(zone, granularity, from, hours, later)| Question {
        zone,
        granularity,
        from,
        hours,
        later,
    });
    proptest::collection::vec(one, 6)
}

fn organization(n: u128) -> OrganizationId {
    OrganizationId(Uuid::from_u128(0x0e9_0000 + n))
}

/// The events of a history and their times, each valid at its point.
fn history(steps: &[Step]) -> Vec<(Event, i64)> {
    let (mut seconds, mut events) = (0, Vec::new());
    let mut registered_users = BTreeSet::new();
    let mut gone = BTreeSet::new();
    let mut sessions: BTreeMap<u128, Option<u32>> = BTreeMap::new();
    let mut members: BTreeMap<u128, BTreeSet<u128>> = BTreeMap::new();
    let mut deleted = BTreeSet::new();
    for step in steps {
        seconds += step.after;
        let (n, at) = (step.user, at(seconds));
        let (user_id, organization_id) = (user(n), organization(step.other));
        let id = n * 10 + step.other;
        let removed = |reason, user_id| {
            let removed = MemberRemoved { organization_id, user_id, reason, at };
            Event::Organization(OrganizationEvent::MemberRemoved(removed))
        };
        if registered_users.insert(n) {
            events.push((registered(n, &format!("user{n}@example.com"), "Somebody", seconds), seconds));
            continue;
        }
        if gone.contains(&n) {
            // What was on its way.
            if sessions.get(&id).is_some_and(Option::is_some) {
                events.push((revoked(id, n, seconds), seconds));
                sessions.insert(id, None);
            }
            if members.get_mut(&step.other).is_some_and(|members| members.remove(&n)) {
                events.push((removed(RemovalReason::Erased, user_id), seconds));
            }
            continue;
        }
        let event = match step.what {
            0..=4 => match sessions.get(&id).copied() {
                None => {
                    sessions.insert(id, Some(0));
                    let Event::Session(SessionEvent::SessionStarted(begun)) = started(id, n, seconds) else {
                        unreachable!("it is a start")
                    };
                    let methods = [
                        LoginMethod::Password,
                        LoginMethod::Registration,
                        LoginMethod::Admin,
                        LoginMethod::MagicLink,
                    ];
                    let method = methods[usize::from(step.what) % 4];
                    Event::Session(SessionEvent::SessionStarted(SessionStarted { method, ..begun }))
                }
                Some(Some(generation)) => {
                    sessions.insert(id, Some(generation + 1));
                    refreshed(id, n, generation + 1, seconds)
                }
                Some(None) => continue,
            },
            5 | 6 if sessions.get(&id).is_some_and(Option::is_some) => {
                sessions.insert(id, None);
                revoked(id, n, seconds)
            }
            7 => verified(n, &format!("user{n}@example.com"), false, seconds),
            8 => {
                gone.insert(n);
                erased(n, seconds)
            }
            9..=11 if !deleted.contains(&step.other) && members.entry(step.other).or_default().insert(n) => {
                let role = Role::parse("member").expect("valid");
                if step.what == 9 {
                    let invitation_id = InvitationId(Uuid::from_u128(1));
                    let accepted = InvitationAccepted { organization_id, invitation_id, user_id, role, at };
                    let accepted = OrganizationEvent::InvitationAccepted(accepted);
                    events.push((Event::Organization(accepted), seconds));
                    continue;
                }
                let added = MemberAdded { organization_id, user_id, role, at };
                Event::Organization(OrganizationEvent::MemberAdded(added))
            }
            12 if members.get_mut(&step.other).is_some_and(|members| members.remove(&n)) => {
                removed(RemovalReason::Left, user_id)
            }
            13 if n == 1 && deleted.insert(step.other) => {
                members.remove(&step.other);
                let deleted = OrganizationDeleted { organization_id, at };
                Event::Organization(OrganizationEvent::OrganizationDeleted(deleted))
            }
            14 => {
                let locked = AccountLocked { user_id, device_id: None, until: at, at };
                Event::Lockout(LockoutEvent::AccountLocked(locked))
            }
            _ => Event::Lockout(LockoutEvent::LoginFailed(LoginFailed {
                user_id,
                failures: 1,
                device_id: None,
                at,
            })),
        };
        events.push((event, seconds));
    }
    events
}

/// The hour, day, week or month that a moment is in, by the clock on the wall.
fn period(zone: &TimeZone, granularity: Granularity, at: Timestamp) -> (Date, i8, i32) {
    let local = at.to_zoned(zone.clone());
    match granularity {
        Granularity::Hour => (local.date(), local.hour(), local.offset().seconds()),
        Granularity::Day => (local.date(), 0, 0),
        Granularity::Week => {
            let since_monday = i64::from(local.date().weekday().since(Weekday::Monday));
            (local.date().checked_sub(since_monday.days()).expect("in range"), 0, 0)
        }
        Granularity::Month => (local.date().first_of_month(), 0, 0),
    }
}

type Counts = BTreeMap<String, BTreeMap<String, u64>>;

/// What the events of a history are, one after another.
#[derive(Default)]
struct Recount {
    /// Everything that is counted: who of which organizations did what, when.
    counted: Vec<(Timestamp, BTreeSet<OrganizationId>, (&'static str, String))>,
    active: Vec<(Timestamp, BTreeSet<OrganizationId>, UserId)>,
    registered: BTreeMap<UserId, Timestamp>,
    verified: BTreeSet<UserId>,
    logged_in: BTreeSet<UserId>,
    members: BTreeMap<OrganizationId, BTreeSet<UserId>>,
    /// The owners of the sessions that were not ended, and until when these last.
    live: BTreeMap<SessionId, (UserId, Timestamp, Timestamp)>,
}

fn name(value: impl serde::Serialize) -> String {
    serde_json::to_value(value).expect("JSON").as_str().expect("a text").to_owned()
}

impl Recount {
    fn of(history: &[(Event, i64)]) -> Self {
        let mut all = Self::default();
        for (event, seconds) in history {
            all.add(event, at(*seconds));
        }
        all
    }

    fn add(&mut self, event: &Event, at: Timestamp) {
        let person = event.person();
        let of = |members: &BTreeMap<OrganizationId, BTreeSet<UserId>>| -> BTreeSet<OrganizationId> {
            let is_in = |it: &(&OrganizationId, &BTreeSet<UserId>)| {
                person.is_some_and(|person| it.1.contains(&person))
            };
            members.iter().filter(is_in).map(|(organization, _)| *organization).collect()
        };
        let mut count = |what: &'static str, how: String| {
            self.counted.push((at, of(&self.members), (what, how)));
        };
        match event {
            Event::User(UserEvent::UserRegistered(event)) => {
                self.counted.push((at, BTreeSet::new(), ("registrations", name(event.method))));
                self.registered.insert(event.user_id, at);
            }
            Event::User(UserEvent::EmailChanged(event)) => {
                self.verified.insert(event.user_id);
            }
            Event::User(UserEvent::EmailVerified(event)) => {
                self.verified.insert(event.user_id);
            }
            Event::User(UserEvent::UserErased(event)) => {
                for members in self.members.values_mut() {
                    members.remove(&event.user_id);
                }
                self.live.retain(|_, (owner, ..)| *owner != event.user_id);
            }
            Event::Session(SessionEvent::SessionStarted(event)) => {
                count("logins", name(event.method));
                if event.method != LoginMethod::Admin {
                    self.active.push((at, of(&self.members), event.user_id));
                }
                if matches!(event.method, LoginMethod::Password | LoginMethod::MagicLink) {
                    self.logged_in.insert(event.user_id);
                }
                let session = (event.user_id, event.expires_at, event.idle_expires_at);
                self.live.insert(event.session_id, session);
            }
            Event::Session(SessionEvent::SessionRefreshed(event)) => {
                count("refreshes", String::new());
                self.active.push((at, of(&self.members), event.user_id));
                if let Some(session) = self.live.get_mut(&event.session_id) {
                    session.2 = event.idle_expires_at;
                }
            }
            Event::Session(SessionEvent::SessionRevoked(event)) => {
                count("revocations", name(event.reason));
                self.live.remove(&event.session_id);
            }
            Event::Lockout(LockoutEvent::LoginFailed(_)) => count("failures", "password".to_owned()),
            Event::Lockout(LockoutEvent::AccountLocked(_)) => count("lockouts", String::new()),
            Event::Organization(OrganizationEvent::MemberAdded(event)) => {
                self.members.entry(event.organization_id).or_default().insert(event.user_id);
            }
            Event::Organization(OrganizationEvent::InvitationAccepted(event)) => {
                self.members.entry(event.organization_id).or_default().insert(event.user_id);
            }
            Event::Organization(OrganizationEvent::MemberRemoved(event)) => {
                self.members.entry(event.organization_id).or_default().remove(&event.user_id);
            }
            Event::Organization(OrganizationEvent::OrganizationDeleted(event)) => {
                self.members.remove(&event.organization_id);
            }
            other => unreachable!("no history has {other:?}"),
        }
    }

    /// The counts and the number of active users of each hour, day, week or month that has a part between two times.
    fn buckets(
        &self,
        scope: Option<OrganizationId>,
        (zone, granularity): (&TimeZone, Granularity),
        (from, to): (Timestamp, Timestamp),
    ) -> BTreeMap<(Date, i8, i32), (Counts, u64)> {
        let last = to.checked_sub(SignedDuration::from_nanos(1)).expect("in range");
        let of = |at: Timestamp| period(zone, granularity, at);
        let counts = |at: Timestamp, of_whom: &BTreeSet<OrganizationId>| {
            let in_time = (from <= at && at < to) || of(at) == of(from) || of(at) == of(last);
            in_time && scope.is_none_or(|scope| of_whom.contains(&scope))
        };
        let mut buckets: BTreeMap<_, (Counts, BTreeSet<UserId>)> = BTreeMap::new();
        for (at, of_whom, (metric, method)) in &self.counted {
            if counts(*at, of_whom) {
                let bucket = buckets.entry(of(*at)).or_default();
                *bucket.0.entry((*metric).to_owned()).or_default().entry(method.clone()).or_default() += 1;
            }
        }
        for (at, of_whom, person) in &self.active {
            if counts(*at, of_whom) {
                buckets.entry(of(*at)).or_default().1.insert(*person);
            }
        }
        buckets.into_iter().map(|(of, (counts, active))| (of, (counts, active.len() as u64))).collect()
    }

    fn funnel(&self, from: Timestamp, to: Timestamp) -> Funnel {
        let new: Vec<_> = self.registered.iter().filter(|(_, at)| from <= **at && **at < to).collect();
        let among =
            |some: &BTreeSet<UserId>| new.iter().filter(|(person, _)| some.contains(person)).count() as u64;
        Funnel {
            registered: new.len() as u64,
            verified: among(&self.verified),
            logged_in: among(&self.logged_in),
        }
    }

    /// The first day, the size and the later activity of each cohort.
    fn cohorts(
        &self,
        zone: &TimeZone,
        granularity: Granularity,
        at: Timestamp,
    ) -> Vec<(Date, u64, Vec<u64>)> {
        let day = |at: Timestamp| period(zone, granularity, at).0;
        let step = if granularity == Granularity::Week { 1.week() } else { 1.month() };
        let first = (1..12).fold(day(at), |first, _| first.checked_sub(step).expect("in range"));
        let days: Vec<Date> = first.series(step).take(12).collect();
        let cohort = |(n, start): (usize, &Date)| {
            let its: BTreeSet<UserId> = self
                .registered
                .iter()
                .filter(|(_, at)| day(**at) == *start)
                .map(|(person, _)| *person)
                .collect();
            let active = |start: &Date| {
                let then = self.active.iter().filter(|(at, ..)| day(*at) == *start);
                then.map(|(_, _, person)| *person)
                    .filter(|person| its.contains(person))
                    .collect::<BTreeSet<_>>()
                    .len()
            };
            let active = days[n..].iter().map(|start| active(start) as u64).collect();
            (*start, its.len() as u64, active)
        };
        days.iter().enumerate().map(cohort).collect()
    }

    fn live(&self, scope: Option<OrganizationId>, at: Timestamp) -> u64 {
        let none = BTreeSet::new();
        let members = scope.map(|scope| self.members.get(&scope).unwrap_or(&none));
        let counts = |(owner, end, idle): &&(UserId, Timestamp, Timestamp)| {
            *end > at && *idle > at && members.is_none_or(|members| members.contains(owner))
        };
        self.live.values().filter(counts).count() as u64
    }
}

async fn compare(models: &ReadModels, recount: &Recount, times: &[i64], question: &Question) {
    let (app, granularity) = (AppId::default_app(), question.granularity);
    let zone = TimeZoneName::try_from(question.zone.to_owned()).expect("a name").find().expect("a zone");
    let from = at(*question.from.get(times) - 1000);
    let to = from.checked_add(SignedDuration::from_hours(question.hours)).expect("in range");
    let now = at(times.last().expect("a history has events") + question.later);
    let stats = models.stats();
    let spans = spans(&zone, granularity, (from, to), 1000).expect("not too many");
    for scope in (0..3).map(organization).map(Some).chain([None]) {
        let found = stats.buckets(&app, scope, &spans).await.expect("counts");
        let found: BTreeMap<_, _> = found
            .into_iter()
            .map(|Bucket { start, counts, active_users, .. }| {
                (period(&zone, granularity, start), (counts, active_users))
            })
            .collect();
        assert_eq!(found, recount.buckets(scope, (&zone, granularity), (from, to)), "{scope:?}");
        let members = match scope {
            Some(scope) => Some(stats.members(scope).await.expect("lists")),
            None => None,
        };
        let live = models.sessions().count_live(&app, members.as_deref(), now).await.expect("counts");
        assert_eq!(live, recount.live(scope, now), "{scope:?}");
    }
    assert_eq!(stats.funnel(&app, from, to).await.expect("counts"), recount.funnel(from, to));
    for granularity in [Granularity::Week, Granularity::Month] {
        let found = stats.retention(&app, &zone, granularity, (now, 12)).await.expect("counts");
        let found = found.expect("the calendar goes so far").into_iter();
        let found: Vec<_> = found
            .map(|Cohort { start, size, active }| (start.to_zoned(zone.clone()).date(), size, active))
            .collect();
        assert_eq!(found, recount.cohorts(&zone, granularity, now));
    }
}

async fn equals_a_recount(on: On, steps: Vec<Step>, batch: usize, questions: Vec<Question>) {
    let world = World::new(on).await;
    let history = history(&steps);
    for (event, seconds) in &history {
        world.append(event, *seconds).await;
        if let Event::User(UserEvent::UserErased(erased)) = event {
            world.sealer.keys().erase_data_key(erased.user_id).await.expect("erases");
        }
    }
    let other = world.open(&world.other("other.db")).await;
    for (models, batch) in [(&world.models, batch), (&other, 1000)] {
        for name in ["sessions", "stats"] {
            let projector = projector(models, name);
            for batch in world.events(0).await.chunks(batch) {
                models.apply(&*projector, batch, Lease::UNSHARED).await.expect("applies");
            }
        }
    }
    let rows = dump(&other, "stats").await;
    assert_eq!(dump(&world.models, "stats").await, rows, "it depends on the batches");
    for (event, _) in &history {
        if let Event::User(UserEvent::UserErased(erased)) = event {
            assert!(!rows.contains(&hex::encode(erased.user_id.0.as_bytes())), "a row names who was erased");
        }
    }
    let (recount, times) =
        (Recount::of(&history), history.iter().map(|(_, seconds)| *seconds).collect::<Vec<_>>());
    for question in &questions {
        compare(&world.models, &recount, &times, question).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn stats_equal_a_recount(steps in steps(), batch in 1..20_usize, questions in questions()) {
        let runtime = tokio::runtime::Runtime::new().expect("starts");
        runtime.block_on(equals_a_recount(On::Sqlite, steps, batch, questions));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn stats_equal_a_recount_in_postgres(steps in steps(), batch in 1..20_usize, questions in questions()) {
        let runtime = tokio::runtime::Runtime::new().expect("starts");
        runtime.block_on(equals_a_recount(On::Postgres, steps, batch, questions));
    }
}
