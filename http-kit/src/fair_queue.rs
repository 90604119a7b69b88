//! A bounded queue that serves apps in turn, and within an app the client addresses. When it is full, the one with the
//! most entries makes room. So one app or address can neither make the others wait behind all of its entries, nor leave
//! them no place.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::request::Requester;
use domain::AppId;

/// The queue.
pub struct FairQueue<T> {
    room: usize,
    state: Mutex<State<T>>,
    more: Condvar,
}

struct State<T> {
    apps: Turns<Option<AppId>, Turns<u128, VecDeque<T>>>,
    is_closed: bool,
}

/// Named lists that are served in turn.
pub struct Turns<K, V> {
    lists: BTreeMap<K, V>,
    /// The names of `lists`, the next one first.
    order: VecDeque<K>,
    len: usize,
}

impl<K, V> Default for Turns<K, V> {
    fn default() -> Self {
        Self { lists: BTreeMap::new(), order: VecDeque::new(), len: 0 }
    }
}

/// Something that has items.
pub trait Items {
    /// The type of its items.
    type Item;

    /// The number of items.
    fn count(&self) -> usize;
    /// Takes the item whose turn it is.
    fn first(&mut self) -> Option<Self::Item>;
    /// Takes the newest item of the list with the most items.
    fn spare(&mut self) -> Option<Self::Item>;
}

impl<T> Items for VecDeque<T> {
    type Item = T;

    fn count(&self) -> usize {
        self.len()
    }

    fn first(&mut self) -> Option<T> {
        self.pop_front()
    }

    fn spare(&mut self) -> Option<T> {
        self.pop_back()
    }
}

impl<K: Ord + Clone, V: Items + Default> Turns<K, V> {
    /// Changes the list with this name. Returns whether it grew by one.
    pub fn add(&mut self, name: &K, add: impl FnOnce(&mut V) -> bool) -> bool {
        if !self.lists.contains_key(name) {
            self.order.push_back(name.clone());
        }
        let is_longer = add(self.lists.entry(name.clone()).or_default());
        self.len += usize::from(is_longer);
        is_longer
    }

    fn count_of(&self, name: &K) -> usize {
        self.lists.get(name).map_or(0, Items::count)
    }

    fn most(&self) -> Option<(&K, usize)> {
        self.lists.iter().map(|(name, list)| (name, list.count())).max_by_key(|(_, count)| *count)
    }

    fn forget_if_empty(&mut self, name: &K) {
        if self.count_of(name) == 0 {
            self.lists.remove(name);
            self.order.retain(|other| other != name);
        }
    }
}

impl<K: Ord + Clone, V: Items + Default> Items for Turns<K, V> {
    type Item = V::Item;

    fn count(&self) -> usize {
        self.len
    }

    fn first(&mut self) -> Option<V::Item> {
        let name = self.order.pop_front()?;
        let item = self.lists.get_mut(&name).and_then(Items::first);
        self.len -= usize::from(item.is_some());
        self.order.push_back(name.clone());
        self.forget_if_empty(&name);
        item
    }

    fn spare(&mut self) -> Option<V::Item> {
        let name = self.most()?.0.clone();
        let item = self.lists.get_mut(&name).and_then(Items::spare);
        self.len -= usize::from(item.is_some());
        self.forget_if_empty(&name);
        item
    }
}

/// There is no room, and no other requester has more entries.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl<T> FairQueue<T> {
    /// A queue with this much room.
    pub fn new(room: usize) -> Self {
        let state = State { apps: Turns::default(), is_closed: false };
        Self { room: room.max(1), state: Mutex::new(state), more: Condvar::new() }
    }

    /// Queues an item. If the queue is full, returns another item that had to make room.
    pub fn push(&self, requester: &Requester, item: T) -> Result<Option<T>, Full> {
        let Requester { app_id, address } = requester;
        let mut state = self.state();
        let apps = &mut state.apps;
        let mut spared = None;
        if apps.len >= self.room {
            let own_app = apps.lists.get(app_id);
            let (of_app, of_address) = own_app.map_or((0, 0), |app| (app.count(), app.count_of(address)));
            let most = apps.most().map_or(0, |(_, count)| count);
            spared = if of_app + 1 < most {
                apps.spare()
            } else if own_app.and_then(Turns::most).is_some_and(|(_, count)| of_address + 1 < count) {
                let spared = apps.lists.get_mut(app_id).and_then(Items::spare);
                apps.len -= usize::from(spared.is_some());
                spared
            } else {
                return Err(Full);
            };
        }
        apps.add(app_id, |app| {
            app.add(address, |list| {
                list.push_back(item);
                true
            })
        });
        drop(state);
        self.more.notify_one();
        Ok(spared)
    }

    /// The next item; waits for one. `None` once the queue is closed.
    pub fn pop(&self) -> Option<T> {
        let mut state = self.state();
        loop {
            if let Some(item) = state.apps.first() {
                return Some(item);
            }
            if state.is_closed {
                return None;
            }
            state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends all waits once the queue is empty.
    pub fn close(&self) {
        self.state().is_closed = true;
        self.more.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(app: &str, address: u128) -> Requester {
        Requester { app_id: AppId::parse(app).ok(), address }
    }

    fn drained(queue: &FairQueue<&'static str>) -> Vec<&'static str> {
        queue.close();
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn apps_take_turns_and_so_do_addresses() {
        let queue = FairQueue::new(100);
        for item in ["a1", "a1", "a1"] {
            queue.push(&of("a", 1), item).expect("room");
        }
        queue.push(&of("a", 2), "a2").expect("room");
        queue.push(&of("b", 1), "b1").expect("room");
        queue.push(&of("b", 1), "b1").expect("room");
        assert_eq!(drained(&queue), ["a1", "b1", "a2", "b1", "a1", "a1"]);
    }

    #[test]
    fn the_one_with_the_most_entries_makes_room() {
        let queue = FairQueue::new(4);
        for _ in 0..4 {
            assert_eq!(queue.push(&of("a", 1), "a1"), Ok(None));
        }
        assert_eq!(queue.push(&of("a", 1), "a1"), Err(Full), "not for its own entries");
        assert_eq!(queue.push(&of("b", 1), "b1"), Ok(Some("a1")), "for another app");
        assert_eq!(queue.push(&of("a", 2), "a2"), Ok(Some("a1")), "for another address");
        assert_eq!(queue.push(&of("b", 2), "b2"), Ok(Some("a1")));
        assert_eq!(queue.push(&of("b", 3), "b3"), Err(Full), "b has as much as a");
        assert_eq!(drained(&queue).len(), 4);
    }

    #[test]
    fn inv_j_a_flood_of_one_app_from_many_addresses_leaves_room_for_another() {
        let queue = FairQueue::new(64);
        for address in 0..10_000 {
            let _ = queue.push(&of("flood", address), "flood");
        }
        for _ in 0..32 {
            assert!(queue.push(&of("quiet", 1), "quiet").is_ok());
            for address in 0..10 {
                let _ = queue.push(&of("flood", address), "flood");
            }
        }
        let all = drained(&queue);
        assert_eq!(all.len(), 64);
        assert!(all.iter().filter(|item| **item == "quiet").count() >= 31);
        assert!(all[..4].contains(&"quiet"), "and is served in turns");
    }
}
