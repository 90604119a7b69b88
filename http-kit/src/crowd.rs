//! A room with limited space for what waits: connections without a request, bodies that arrive slowly. Whoever comes
//! is let in; if the room is full, the one who has waited longest of those who brought the most has to leave. So one
//! client can fill the room, but not keep others out of it.

use std::collections::{BTreeMap, HashMap};
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
    /// Everyone else is busy, or their owners have fewer than this one.
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
        state.owners.entry(owner).or_default().len += 1;
        state.wait(owner, &told);
        Ok(Member { crowd: Arc::clone(self), owner, told })
    }

    /// Sends the one away that has waited longest of those who have the most.
    pub fn end_one(&self) {
        let mut state = self.state();
        let clients = state.owners.iter().filter(|(owner, _)| matches!(owner, Owner::Client(_)));
        let waiting = clients.filter(|(_, owned)| !owned.waiting.is_empty());
        let most = waiting.max_by_key(|(_, owned)| owned.len).map(|(owner, _)| *owner);
        if most.is_some_and(|owner| state.send_away(owner)) {
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
    fn wait(&mut self, owner: Owner, told: &Arc<Told>) {
        let since = self.next;
        self.next += 1;
        told.since.store(since, Relaxed);
        self.owners.entry(owner).or_default().waiting.insert(since, Arc::clone(told));
    }

    /// Makes room for one more of an owner.
    fn send_away(&mut self, own: Owner) -> bool {
        let own_len = self.owners.get(&own).map_or(0, |owned| owned.len) + 1;
        let may = |owner: &Owner, owned: &Owned| {
            let is_more = matches!(owner, Owner::Client(_)) && owned.len > own_len;
            !owned.waiting.is_empty() && (*owner == own || is_more)
        };
        let most = self.owners.iter().filter(|(owner, owned)| may(owner, owned));
        let Some((&owner, _)) = most.max_by_key(|(_, owned)| owned.len) else { return false };
        let oldest = self.owners.get_mut(&owner).and_then(|owned| owned.waiting.pop_first());
        let Some((_, told)) = oldest else { return false };
        told.has_left.store(true, Relaxed);
        told.leave.notify_one();
        self.leave(owner);
        true
    }

    fn leave(&mut self, owner: Owner) {
        self.len -= 1;
        if let Some(owned) = self.owners.get_mut(&owner) {
            owned.len -= 1;
            if owned.len == 0 {
                self.owners.remove(&owner);
            }
        }
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
        if self.told.busy.fetch_add(1, Relaxed) == 0
            && let Some(owned) = state.owners.get_mut(&self.owner)
        {
            owned.waiting.remove(&self.told.since.load(Relaxed));
        }
        drop(state);
        Busy(Arc::clone(self))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut state = self.crowd.state();
        if self.told.has_left.load(Relaxed) {
            return;
        }
        if let Some(owned) = state.owners.get_mut(&self.owner) {
            owned.waiting.remove(&self.told.since.load(Relaxed));
        }
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
        let third = crowd.enter(Owner::Client(3));
        assert_eq!(third.expect_err("all are busy, or their owners have no more"), Full);
        drop(second);
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
