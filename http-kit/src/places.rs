//! Places for globally limited things: requests in progress, live streams, exports. No one can take them all: apps and
//! callers have shares, and some places are reserved for the platform and for who is known.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use domain::AppId;
use foldhash::quality::RandomState;

/// The number of places, and its shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// The total.
    pub total: usize,
    /// The most that one app can take.
    pub of_an_app: usize,
    /// The most that one caller can take: an address, an API key, a user.
    pub of_a_caller: usize,
    /// The number that is reserved: for the platform and for known applicants.
    pub reserve: usize,
}

impl Shares {
    /// The same shares of at most so many.
    #[must_use]
    pub fn at_most(self, total: usize) -> Self {
        if self.total <= total {
            return self;
        }
        let part = |number: usize| {
            let scaled = number as u128 * total as u128 / self.total as u128;
            usize::try_from(scaled).unwrap_or(usize::MAX)
        };
        Self {
            total,
            of_an_app: at_least_one(part(self.of_an_app)),
            of_a_caller: at_least_one(part(self.of_a_caller)),
            reserve: part(self.reserve),
        }
    }

    /// An app gets a quarter, a caller a sixteenth, and a sixteenth is kept for the platform.
    pub const fn of(total: usize) -> Self {
        Self {
            total,
            of_an_app: at_least_one(total / 4),
            of_a_caller: at_least_one(total / 16),
            reserve: total / 16,
        }
    }
}

const fn at_least_one(number: usize) -> usize {
    if number == 0 { 1 } else { number }
}

/// An applicant for a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applicant {
    /// The app, if any.
    pub app_id: Option<AppId>,
    /// The caller, as a unique number.
    pub caller: Option<u128>,
    /// Whether it is the platform, which is not limited to a share.
    pub is_platform: bool,
    /// Whether it may take what is reserved: for requests, clients that are no strangers.
    pub is_known: bool,
}

/// There is no place for the applicant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// All are taken.
    #[error("too many at the same time: try again later")]
    Total,
    /// The app has used its share.
    #[error("too many of this app at the same time: its share is {0}")]
    App(usize),
    /// The caller has used their share.
    #[error("too many of this caller at the same time: its share is {0}")]
    Caller(usize),
}

/// The places. Cheap to clone.
#[derive(Clone)]
pub struct Places(Arc<Inner>);

struct Inner {
    shares: Shares,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by: HashMap<Owner, usize, RandomState>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Owner {
    App(AppId),
    Caller(u128),
}

impl Places {
    /// Creates the places, all free.
    pub fn new(shares: Shares) -> Self {
        Self(Arc::new(Inner { shares, taken: Mutex::default() }))
    }

    /// Takes a place, which is released when dropped.
    ///
    /// # Errors
    ///
    /// Says whose share is used up.
    pub fn take(&self, applicant: Applicant) -> Result<Place, NoPlace> {
        let Applicant { app_id, caller, is_platform, is_known } = applicant;
        let Shares { total, of_an_app, of_a_caller, reserve } = self.0.shares;
        let mut taken = self.0.taken();
        let has = |owner: &Owner| taken.by.get(owner).copied().unwrap_or_default();
        let (app, caller) = (app_id.map(Owner::App), caller.map(Owner::Caller));
        if !is_platform {
            // The caller's own share first, which is more specific.
            if caller.as_ref().is_some_and(|caller| has(caller) >= of_a_caller) {
                return Err(NoPlace::Caller(of_a_caller));
            }
            if app.as_ref().is_some_and(|app| has(app) >= of_an_app) {
                return Err(NoPlace::App(of_an_app));
            }
        }
        let open = if is_platform || is_known { total } else { total.saturating_sub(reserve) };
        if taken.all >= open {
            return Err(NoPlace::Total);
        }
        let owners = if is_platform { [None, None] } else { [app, caller] };
        taken.all += 1;
        for owner in owners.iter().flatten() {
            *taken.by.entry(owner.clone()).or_default() += 1;
        }
        Ok(Place { inner: Arc::clone(&self.0), owners })
    }
}

impl Inner {
    fn taken(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place, for as long as it is held.
pub struct Place {
    inner: Arc<Inner>,
    owners: [Option<Owner>; 2],
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.inner.taken();
        taken.all -= 1;
        for owner in self.owners.iter().flatten() {
            if let Some(count) = taken.by.get_mut(owner) {
                *count -= 1;
                if *count == 0 {
                    taken.by.remove(owner);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(app: &str, caller: u128) -> Applicant {
        Applicant {
            app_id: AppId::parse(app).ok(),
            caller: Some(caller),
            is_platform: false,
            is_known: false,
        }
    }

    const PLATFORM: Applicant =
        Applicant { app_id: None, caller: Some(0), is_platform: true, is_known: false };

    #[test]
    fn nobody_takes_all() {
        let places = Places::new(Shares { total: 10, of_an_app: 4, of_a_caller: 2, reserve: 2 });
        let mut held = vec![];
        let mut take = |applicant| places.take(applicant).map(|place| held.push(place));
        assert_eq!([1, 1, 1].map(|n| take(of("a", n))), [Ok(()), Ok(()), Err(NoPlace::Caller(2))]);
        assert_eq!([2, 2, 3].map(|n| take(of("a", n))), [Ok(()), Ok(()), Err(NoPlace::App(4))]);
        assert_eq!([4, 4, 5, 5, 6].map(|n| take(of("b", n))).iter().filter(|it| it.is_ok()).count(), 4);
        assert_eq!(take(of("c", 7)), Err(NoPlace::Total), "the rest is reserved for the platform");
        assert_eq!(take(Applicant { app_id: None, ..of("c", 7) }), Err(NoPlace::Total));
        assert_eq!(take(Applicant { is_known: true, ..of("c", 7) }), Ok(()), "and for who is known");
        assert_eq!([PLATFORM; 2].map(&mut take), [Ok(()), Err(NoPlace::Total)]);
        held.clear();
        assert!(places.0.taken().by.is_empty() && places.0.taken().all == 0);
        assert!(places.take(of("c", 7)).is_ok());
    }

    #[test]
    fn fewer_places_have_the_same_shares() {
        let shares = Shares { total: 4096, of_an_app: 3072, of_a_caller: 256, reserve: 256 };
        assert_eq!(shares.at_most(10_000), shares);
        let fewer = Shares { total: 1024, of_an_app: 768, of_a_caller: 64, reserve: 64 };
        assert_eq!(shares.at_most(1024), fewer);
        assert_eq!(shares.at_most(2), Shares { total: 2, of_an_app: 1, of_a_caller: 1, reserve: 0 });
    }

    #[test]
    fn few_places_have_shares_as_well() {
        for total in 1..40 {
            let Shares { of_an_app, of_a_caller, reserve, .. } = Shares::of(total);
            assert!(of_an_app >= 1 && of_a_caller >= 1 && reserve < total, "{total}");
            assert!(Places::new(Shares::of(total)).take(of("a", 1)).is_ok(), "{total}");
        }
    }
}
