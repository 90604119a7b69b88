//! A room with limited space for what waits: connections without a request, bodies that arrive slowly. Whoever comes
//! is let in; if the room is full, the one who has waited longest of those who brought the most has to leave. So neither
//! one client nor many can keep others out of it by waiting.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// After so long with room it is said again that there is none.
const CALM: Duration = Duration::from_mins(1);

/// The room.
pub struct Crowd {
    words: Words,
    room: usize,
    /// Numbers those who wait, in the order in which they began to.
    next: AtomicU64,
    state: Mutex<State>,
}

/// How a crowd is called.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// In the metrics.
    pub label: &'static str,
    /// What is in the room, in the log.
    pub what: &'static str,
    /// What to do if that happens, in the log.
    pub advice: &'static str,
}

#[derive(Default)]
struct State {
    len: usize,
    owners: HashMap<Owner, Owned>,
    /// The clients with someone who waits: how many each has, and since when the first waits. The last makes room first.
    /// Kept, as looking through all of them would take long where very many fill the room.
    order: BTreeSet<(usize, Reverse<u64>, u128)>,
    /// When it was full, if lately.
    was_full: Option<Instant>,
}

/// Whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A client, by the number of its address.
    Client(u128),
    /// A trusted proxy, which brings many clients: only its own ones make room for each other.
    Proxy(u128),
}

#[derive(Default)]
struct Owned {
    len: usize,
    /// Those who can perhaps be sent away, by the place that they had in the order when that was last asked.
    waiting: BTreeMap<u64, Arc<Told>>,
}

impl Owned {
    fn place(&self, owner: Owner) -> Option<(usize, Reverse<u64>, u128)> {
        match (owner, self.waiting.first_key_value()) {
            (Owner::Client(address), Some((since, _))) => Some((self.len, Reverse(*since), address)),
            _ => None,
        }
    }
}

/// What a member is told, and tells. It changes with each request and so without the lock of the room; who wants to send
/// someone away looks whether they are still idle, and gives those a new place who were busy meanwhile.
#[derive(Default)]
struct Told {
    leave: Notify,
    /// Its place in the order: since when it waits.
    since: AtomicU64,
    /// How often it is busy; with [`LEFT`] or [`ASIDE`].
    busy: AtomicUsize,
    /// Its key among those who wait. Changes only under the lock of the room.
    place: AtomicU64,
}

/// It has been sent away.
const LEFT: usize = 1 << (usize::BITS - 1);
/// It was busy when somebody looked, and is not among those who wait.
const ASIDE: usize = LEFT >> 1;

impl Told {
    fn has_left(&self) -> bool {
        self.busy.load(SeqCst) & LEFT != 0
    }
}

/// Someone in the room, until dropped.
pub struct Member {
    crowd: Arc<Crowd>,
    owner: Owner,
    told: Arc<Told>,
}

/// Nobody could be sent away.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl Crowd {
    /// An empty room for so many.
    pub fn new(room: usize, words: Words) -> Arc<Self> {
        Arc::new(Self { words, room: room.max(1), next: AtomicU64::new(0), state: Mutex::default() })
    }

    /// Enters. Someone else may have to leave for it.
    ///
    /// # Errors
    ///
    /// Everyone else is busy, or their owners have fewer than this one would have.
    pub fn enter(self: &Arc<Self>, owner: Owner) -> Result<Member, Full> {
        let mut state = self.state();
        if state.len >= self.room {
            let left = state.send_away(owner);
            let of = self.words.label;
            if left {
                metrics::counter!("watchword_ended_for_room_total", "of" => of).increment(1);
            } else {
                metrics::counter!("watchword_refused_for_room_total", "of" => of).increment(1);
            }
            let before = state.was_full.replace(Instant::now());
            let is_first = before.is_none_or(|before| before.elapsed() > CALM);
            if !left {
                drop(state);
                self.say(is_first);
                return Err(Full);
            }
            if is_first {
                drop(state);
                self.say(true);
                state = self.state();
            }
        }
        let told = Arc::new(Told::default());
        told.since.store(self.next(), SeqCst);
        state.len += 1;
        state.change(owner, |owned| owned.len += 1);
        state.wait(owner, &told);
        Ok(Member { crowd: Arc::clone(self), owner, told })
    }

    /// Sends the one away that has waited longest of those who have the most.
    pub fn end_one(&self) {
        if self.state().send_first_away(State::most) {
            metrics::counter!("watchword_ended_for_room_total", "of" => self.words.label).increment(1);
        }
    }

    /// How many are in the room.
    pub fn len(&self) -> usize {
        self.state().len
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Outside of the lock, as writing may take time.
    fn say(&self, is_first: bool) {
        if is_first {
            let Words { what, advice, .. } = self.words;
            tracing::warn!(
                "there is no room for more than {} {what}: for each new one, the one that has waited longest is ended, of the \
                 address that has the most. {advice}",
                self.room
            );
        }
    }

    fn next(&self) -> u64 {
        self.next.fetch_add(1, SeqCst)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Changes what an owner has, and its place in the order with it.
    fn change(&mut self, owner: Owner, change: impl FnOnce(&mut Owned)) {
        let has = self.owners.entry(owner).or_default();
        if let Some(place) = has.place(owner) {
            self.order.remove(&place);
        }
        change(has);
        self.order.extend(has.place(owner));
        if has.len == 0 {
            self.owners.remove(&owner);
        }
    }

    fn wait(&mut self, owner: Owner, told: &Arc<Told>) {
        let place = told.since.load(SeqCst);
        told.place.store(place, SeqCst);
        self.change(owner, |owned| {
            owned.waiting.insert(place, Arc::clone(told));
        });
    }

    /// The client that makes room first, if one has someone who waits.
    fn most(&self) -> Option<Owner> {
        self.order.last().map(|(_, _, address)| Owner::Client(*address))
    }

    /// Makes room for one more of an owner. Where nobody has more than it would have, that is the one that has waited
    /// longest: with an address for each connection, those who only wait would keep others out otherwise.
    fn send_away(&mut self, own: Owner) -> bool {
        let own_len = self.owners.get(&own).map_or(0, |owned| owned.len) + 1;
        self.send_first_away(|state| {
            let most = state.order.last().filter(|(len, ..)| *len >= own_len);
            let owner = most.map_or(own, |(_, _, address)| Owner::Client(*address));
            state.owners.get(&owner).is_some_and(|owned| !owned.waiting.is_empty()).then_some(owner)
        })
    }

    /// Sends the first away of the owner that is chosen. Each step changes the order, so it is chosen anew.
    fn send_first_away(&mut self, choose: impl Fn(&Self) -> Option<Owner>) -> bool {
        while let Some(owner) = choose(self) {
            let mut first = None;
            self.change(owner, |owned| first = owned.waiting.pop_first());
            let Some((place, told)) = first else { return false };
            if told.since.load(SeqCst) != place {
                self.wait(owner, &told);
            } else if told.busy.compare_exchange(0, LEFT, SeqCst, SeqCst).is_ok() {
                told.leave.notify_one();
                self.leave(owner);
                return true;
            } else {
                // It comes back by itself, unless it has just become idle.
                let busy = told.busy.fetch_or(ASIDE, SeqCst);
                if busy == 0 && told.busy.compare_exchange(ASIDE, 0, SeqCst, SeqCst).is_ok() {
                    self.wait(owner, &told);
                }
            }
        }
        false
    }

    fn leave(&mut self, owner: Owner) {
        self.len -= 1;
        self.change(owner, |owned| owned.len -= 1);
    }
}

impl Member {
    /// Ends when it has to leave. For one task at a time.
    pub async fn has_to_leave(&self) {
        self.told.leave.notified().await;
    }

    /// While this is held, it cannot be sent away.
    pub fn busy(self: &Arc<Self>) -> Busy {
        self.told.busy.fetch_add(1, SeqCst);
        Busy(Arc::clone(self))
    }

    /// It waits anew: something has come of its waiting.
    pub fn waits_anew(&self) {
        self.told.since.store(self.crowd.next(), SeqCst);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut state = self.crowd.state();
        if self.told.has_left() {
            return;
        }
        state.change(self.owner, |owned| {
            owned.waiting.remove(&self.told.place.load(SeqCst));
        });
        state.leave(self.owner);
    }
}

/// See [`Member::busy`].
pub struct Busy(Arc<Member>);

impl Drop for Busy {
    fn drop(&mut self) {
        let Member { crowd, owner, told } = &*self.0;
        told.since.store(crowd.next(), SeqCst);
        if told.busy.fetch_sub(1, SeqCst) == ASIDE + 1 {
            let mut state = crowd.state();
            // Unless another one has just taken it back in.
            if told.busy.fetch_and(!ASIDE, SeqCst) & ASIDE != 0 {
                state.wait(*owner, told);
            }
        }
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Member").field(&self.owner).finish()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn room(room: usize) -> Arc<Crowd> {
        Crowd::new(room, Words { label: "tests", what: "tests", advice: "It is a test." })
    }

    fn enter(crowd: &Arc<Crowd>, address: u128) -> Arc<Member> {
        Arc::new(crowd.enter(Owner::Client(address)).expect("room"))
    }

    fn leaves(member: &Arc<Member>) -> bool {
        member.has_to_leave().now_or_never().is_some()
    }

    #[test]
    fn the_oldest_of_who_has_the_most_makes_room() {
        let crowd = room(4);
        let flood: Vec<_> = (0..4).map(|_| enter(&crowd, 1)).collect();
        let other = enter(&crowd, 2);
        assert_eq!(flood.iter().map(leaves).collect::<Vec<_>>(), [true, false, false, false]);
        // The one with the most makes room for its own, too.
        let more = enter(&crowd, 1);
        assert_eq!(flood.iter().map(leaves).collect::<Vec<_>>(), [false, true, false, false]);
        assert!(!leaves(&other) && !leaves(&more));
        let third = enter(&crowd, 3);
        assert!(leaves(&flood[2]), "3 of 4 are its own");
        assert_eq!(crowd.len(), 4);
        drop((flood, other, more, third));
        assert!(crowd.is_empty() && crowd.state().owners.is_empty());
    }

    #[test]
    fn who_is_busy_stays() {
        let crowd = room(3);
        let members: Vec<_> = (0..3).map(|_| enter(&crowd, 1)).collect();
        let (first, second) = (members[0].busy(), members[0].busy());
        let busy = members[1].busy();
        drop(first);
        let other = enter(&crowd, 2);
        assert_eq!(members.iter().map(leaves).collect::<Vec<_>>(), [false, false, true]);
        let other_busy = other.busy();
        let third = crowd.enter(Owner::Client(3));
        assert_eq!(third.expect_err("all are busy"), Full);
        drop((second, other_busy));
        // It waits only from now on.
        drop(busy);
        let third = enter(&crowd, 3);
        assert_eq!(members.iter().map(leaves).collect::<Vec<_>>(), [true, false, false]);
        drop((members, other, third));
        assert!(crowd.is_empty() && crowd.state().owners.is_empty());
    }

    #[test]
    fn nobody_is_lost_who_becomes_busy_and_idle_while_others_come() {
        let crowd = room(8);
        let always: Vec<_> = (0..2).map(|_| enter(&crowd, 1)).collect();
        let busy: Vec<_> = always.iter().map(Member::busy).collect();
        let changing: Vec<_> = (0..4).map(|_| enter(&crowd, 1)).collect();
        std::thread::scope(|threads| {
            for member in &changing {
                threads.spawn(|| {
                    for _ in 0..5_000 {
                        drop(member.busy());
                    }
                });
            }
            for address in 2..4 {
                let crowd = &crowd;
                threads.spawn(move || {
                    for _ in 0..5_000 {
                        drop(crowd.enter(Owner::Client(address)));
                        crowd.end_one();
                    }
                });
            }
        });
        assert!(!always.iter().any(leaves), "they were busy all the time");
        let left = changing.iter().filter(|member| leaves(member)).count();
        assert_eq!(crowd.len(), always.len() + changing.len() - left);
        drop(busy);
        for _ in 0..crowd.len() {
            crowd.end_one();
        }
        assert!(crowd.is_empty(), "everyone who is left can be sent away");
        drop((always, changing));
        assert!(crowd.is_empty() && crowd.state().owners.is_empty() && crowd.state().order.is_empty());
    }

    #[test]
    fn a_proxy_makes_room_for_itself_alone() {
        let crowd = room(3);
        let pool: Vec<_> = (0..3).map(|_| Arc::new(crowd.enter(Owner::Proxy(9)).expect("room"))).collect();
        assert_eq!(crowd.enter(Owner::Client(1)).expect_err("they are the proxy's"), Full);
        let more = crowd.enter(Owner::Proxy(9)).expect("room");
        assert_eq!(pool.iter().map(leaves).collect::<Vec<_>>(), [true, false, false]);
        drop(more);
    }

    #[test]
    fn many_addresses_with_one_each_keep_nobody_out() {
        let crowd = room(3);
        let flood: Vec<_> = (0..3).map(|address| enter(&crowd, address)).collect();
        flood[0].waits_anew();
        let other = enter(&crowd, 99);
        assert_eq!(flood.iter().map(leaves).collect::<Vec<_>>(), [false, true, false], "the oldest");
        let busy = other.busy();
        let more: Vec<_> = (100..110).map(|address| enter(&crowd, address)).collect();
        assert!(!leaves(&other) && leaves(&flood[0]) && leaves(&flood[2]));
        drop((flood, other, busy, more));
        assert!(crowd.is_empty() && crowd.state().owners.is_empty() && crowd.state().order.is_empty());
    }

    #[test]
    fn a_flood_from_many_addresses_leaves_room_for_others() {
        let crowd = room(100);
        let mut flood = vec![];
        for address in 0..20 {
            flood.extend((0..50).map(|_| crowd.enter(Owner::Client(address))));
        }
        let own: Vec<_> = (0..4).map(|_| enter(&crowd, 99)).collect();
        for address in 0..20 {
            flood.extend((0..50).map(|_| crowd.enter(Owner::Client(address))));
        }
        assert!(!own.iter().any(leaves));
        assert!(crowd.len() <= 100);
    }
}
