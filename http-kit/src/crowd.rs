//! A room with limited space for what waits: connections without a request, bodies that arrive slowly. Whoever comes
//! is let in; if the room is full, the one who has waited longest of those who brought the most has to leave. So neither
//! one client nor many can keep others out of it by waiting.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// After so long with room it is said again that there is none.
const CALM: Duration = Duration::from_mins(1);

/// The room.
pub struct Crowd {
    words: Words,
    room: usize,
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
    /// Numbers those who wait, in the order in which they began to.
    next: u64,
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
    /// Those who can be sent away.
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

/// All but `leave` changes only under the lock of the room.
#[derive(Default)]
struct Told {
    leave: Notify,
    has_left: AtomicBool,
    /// Since when it waits.
    since: AtomicU64,
    busy: AtomicUsize,
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
        Arc::new(Self { words, room: room.max(1), state: Mutex::default() })
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
        state.len += 1;
        state.change(owner, |owned| owned.len += 1);
        state.wait(owner, &told);
        Ok(Member { crowd: Arc::clone(self), owner, told })
    }

    /// Sends the one away that has waited longest of those who have the most.
    pub fn end_one(&self) {
        let mut state = self.state();
        let most = state.order.last().map(|(_, _, address)| Owner::Client(*address));
        if most.is_some_and(|owner| state.send_first_away(owner)) {
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
        let since = self.next;
        self.next += 1;
        told.since.store(since, Relaxed);
        self.change(owner, |owned| {
            owned.waiting.insert(since, Arc::clone(told));
        });
    }

    fn wait_no_more(&mut self, owner: Owner, told: &Told) {
        self.change(owner, |owned| {
            owned.waiting.remove(&told.since.load(Relaxed));
        });
    }

    /// Makes room for one more of an owner. Where nobody has more than it would have, that is the one that has waited
    /// longest: with an address for each connection, those who only wait would keep others out otherwise.
    fn send_away(&mut self, own: Owner) -> bool {
        let own_len = self.owners.get(&own).map_or(0, |owned| owned.len) + 1;
        let most = self.order.last().filter(|(len, ..)| *len >= own_len);
        let owner = most.map_or(own, |(_, _, address)| Owner::Client(*address));
        self.send_first_away(owner)
    }

    fn send_first_away(&mut self, owner: Owner) -> bool {
        if self.owners.get(&owner).is_none_or(|owned| owned.waiting.is_empty()) {
            return false;
        }
        let mut first = None;
        self.change(owner, |owned| first = owned.waiting.pop_first());
        if let Some((_, told)) = first {
            told.has_left.store(true, Relaxed);
            told.leave.notify_one();
        }
        self.leave(owner);
        true
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
        let mut state = self.crowd.state();
        if self.told.busy.fetch_add(1, Relaxed) == 0 && !self.told.has_left.load(Relaxed) {
            state.wait_no_more(self.owner, &self.told);
        }
        drop(state);
        Busy(Arc::clone(self))
    }

    /// It waits anew: something has come of its waiting.
    pub fn waits_anew(&self) {
        let mut state = self.crowd.state();
        if self.told.busy.load(Relaxed) == 0 && !self.told.has_left.load(Relaxed) {
            state.wait_no_more(self.owner, &self.told);
            state.wait(self.owner, &self.told);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut state = self.crowd.state();
        if self.told.has_left.load(Relaxed) {
            return;
        }
        state.wait_no_more(self.owner, &self.told);
        state.leave(self.owner);
    }
}

/// See [`Member::busy`].
pub struct Busy(Arc<Member>);

impl Drop for Busy {
    fn drop(&mut self) {
        let Member { crowd, owner, told } = &*self.0;
        let mut state = crowd.state();
        if told.busy.fetch_sub(1, Relaxed) == 1 && !told.has_left.load(Relaxed) {
            state.wait(*owner, told);
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
