//! The end of a person's key.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use domain::UserId;

use super::KeyStore;
use crate::journal::StoreError;

impl KeyStore {
    /// Erases a person's key for good: what it sealed can never be read again.
    pub async fn erase_data_key(&self, person: UserId) -> Result<(), StoreError> {
        fail::fail_point!("before-key-erased", |_| std::process::abort());
        let erased = self.keys.erase_data_key(person).await;
        fail::fail_point!("after-key-erased", |_| std::process::abort());
        self.forget(&HashSet::from([person]));
        erased
    }

    /// Forgets the cached keys of these people, whose keys may have been erased by another node.
    pub fn forget(&self, people: &HashSet<UserId>) {
        // Before the removal: whoever has read a key and caches it later sees that it changed.
        self.erasures.fetch_add(1, Ordering::SeqCst);
        for person in people {
            self.cached.remove(person);
        }
    }

    /// Whether a person's key was erased: false if there never was one.
    pub async fn is_erased(&self, person: UserId) -> Result<bool, StoreError> {
        Ok(self.keys.data_key(person).await? == Some(None))
    }

    /// Those of these people whose keys were erased.
    pub async fn erased_among(&self, people: &[UserId]) -> Result<HashSet<UserId>, StoreError> {
        Ok(self.keys.erased_among(people).await?.into_iter().collect())
    }
}
