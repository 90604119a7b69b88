//! The metrics of requests.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use metrics::{Counter, Histogram};

/// The metrics of each kind of request. They are kept, because finding one by its labels copies and hashes all of them.
///
/// The kinds are few: templates of routes, methods that are known, and statuses.
#[derive(Default)]
pub(crate) struct Measured(RwLock<HashMap<String, Vec<Kind>>>);

struct Kind {
    method: &'static str,
    status: u16,
    requests: Counter,
    durations: Histogram,
}

impl Measured {
    /// Counts a request that was answered after so long.
    pub fn add(&self, route: &str, method: &'static str, status: u16, elapsed: Duration) {
        if !self.add_to_known(route, method, status, elapsed) {
            let kind = Kind::new(route, method, status);
            kind.add(elapsed);
            let mut kinds = self.0.write().unwrap_or_else(PoisonError::into_inner);
            kinds.entry(route.to_owned()).or_default().push(kind);
        }
    }

    fn add_to_known(&self, route: &str, method: &str, status: u16, elapsed: Duration) -> bool {
        let kinds = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let of_route = kinds.get(route).map(Vec::as_slice).unwrap_or_default();
        let known = of_route.iter().find(|kind| kind.method == method && kind.status == status);
        known.inspect(|kind| kind.add(elapsed)).is_some()
    }
}

impl Kind {
    fn new(route: &str, method: &'static str, status: u16) -> Self {
        let labels =
            [("route", route.to_owned()), ("method", method.to_owned()), ("status", status.to_string())];
        Self {
            method,
            status,
            requests: metrics::counter!("http_requests_total", &labels),
            durations: metrics::histogram!("http_request_duration_seconds", &labels[..2]),
        }
    }

    fn add(&self, elapsed: Duration) {
        self.requests.increment(1);
        self.durations.record(elapsed.as_secs_f64());
    }
}
