//! Requests whose bodies arrive. A request takes one of the places for requests in progress once all of it is there: what
//! only waits for its client costs a connection and its memory, for which there is room of its own ([`crate::crowd`]).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use futures::StreamExt;
use http::Method;
use schemas::{field_codes, problems};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::crowd::{Crowd, Full, Member, Owner, Words};
use crate::places::{Applicant, NoPlace, Place, Places, Shares};
use crate::problem::Problem;

/// How long a body may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyTime {
    /// In all.
    pub longest: Duration,
    /// In bytes per second: what is slower has half of the time.
    pub rate: u64,
}

impl Default for BodyTime {
    fn default() -> Self {
        Self { longest: Duration::from_secs(20), rate: 500 }
    }
}

impl BodyTime {
    /// How long it may take, if so much has come.
    fn for_bytes(self, received: usize) -> Duration {
        let by_rate = u64::try_from(received).unwrap_or(u64::MAX).saturating_mul(1000) / self.rate.max(1);
        (self.longest / 2).saturating_add(Duration::from_millis(by_rate)).min(self.longest)
    }
}

/// No body takes longer, whatever was configured.
const LONGEST: Duration = Duration::from_hours(1);

/// How the room for bodies is called.
const BODIES: Words = Words {
    label: "bodies",
    what: "requests whose bodies are arriving",
    advice: "If these are not attacks, raise limits.in_flight (WATCHWORD_LIMITS_IN_FLIGHT).",
};

/// The room for requests: for those whose bodies arrive, and places for those that are whole.
pub(crate) struct Room {
    places: Places,
    bodies: Arc<Crowd>,
    time: BodyTime,
}

impl Room {
    /// Room for so many of both.
    pub fn new(shares: Shares, time: BodyTime) -> Self {
        Self { places: Places::new(shares), bodies: Crowd::new(shares.total, BODIES), time }
    }

    /// A request that began just now, and why it cannot be answered, if so. Only one whose handler waits for its body
    /// takes its place later.
    pub fn enter(
        &self,
        applicant: Applicant,
        began: Instant,
        waits_for_body: bool,
    ) -> (Arriving, Option<Problem>) {
        let address = applicant.caller.unwrap_or_default();
        let arriving = Arriving {
            places: self.places.clone(),
            applicant,
            time: self.time,
            began,
            is_there: Notify::new(),
            state: Mutex::default(),
        };
        let refusal = if waits_for_body {
            match self.bodies.enter(Owner::Client(address)) {
                Ok(member) => {
                    arriving.state().member = Some(member);
                    None
                }
                Err(Full) => Some(overloaded(NoPlace::Total)),
            }
        } else {
            arriving.is_whole(began).err()
        };
        (arriving, refusal)
    }
}

/// A request from its head on.
pub(crate) struct Arriving {
    places: Places,
    applicant: Applicant,
    time: BodyTime,
    began: Instant,
    /// Notified when it is whole.
    is_there: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Until the body is there.
    member: Option<Member>,
    /// From then on.
    place: Option<Place>,
    whole_since: Option<Instant>,
}

impl Arriving {
    /// Whether handlers wait for the body of such a request.
    pub fn waits(method: &Method, has_body: bool) -> bool {
        has_body && ![Method::GET, Method::HEAD, Method::OPTIONS].contains(method)
    }

    /// A whole body of at most so many bytes; takes the place of the request then. The layer around requests handles the
    /// rest of a larger one.
    pub async fn body(&self, body: Body, most: usize) -> Result<Vec<u8>, Problem> {
        let (began, mut bytes, mut chunks) = (Instant::now(), Vec::new(), body.into_data_stream());
        let member = self.state().member.take();
        let sent_away = async || match &member {
            Some(member) => member.has_to_leave().await,
            None => std::future::pending().await,
        };
        loop {
            let chunk = tokio::select! {
                biased;
                chunk = chunks.next() => chunk,
                () = sent_away() => {
                    return Err(overloaded_by("the body took too long, and others need its room: try again later"));
                }
                () = tokio::time::sleep_until(began + self.time.for_bytes(bytes.len())) => {
                    return Err(Problem::malformed(field_codes::INVALID, "the body took too long to arrive"));
                }
            };
            let Some(chunk) = chunk else { break };
            // The connection broke: the client does not get the answer.
            let chunk =
                chunk.map_err(|_| Problem::malformed(field_codes::INVALID, "the body is incomplete"))?;
            if bytes.len() + chunk.len() > most {
                return Err(Problem::new(problems::PAYLOAD_TOO_LARGE)
                    .detail(format!("the body has more than {most} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        drop(member);
        self.is_whole(Instant::now())?;
        Ok(bytes)
    }

    /// Takes a place, unless it has one.
    fn is_whole(&self, now: Instant) -> Result<(), Problem> {
        let mut state = self.state();
        state.whole_since.get_or_insert(now);
        self.is_there.notify_one();
        if state.place.is_none() {
            state.place = Some(self.places.take(self.applicant.clone()).map_err(overloaded)?);
        }
        Ok(())
    }

    /// Completes when the request has been whole for so long, or nobody can still be waiting for its body.
    pub async fn is_overdue(&self, limit: Duration) {
        let never_read = self.began + self.time.longest.min(LONGEST);
        // Most requests are whole at once, and get by with one timer.
        let whole_since = self.state().whole_since;
        let since = match whole_since {
            Some(since) => since,
            None => tokio::time::timeout_at(never_read + limit, self.whole()).await.unwrap_or(never_read),
        };
        tokio::time::sleep_until(since.min(never_read) + limit).await;
    }

    /// Since when it is whole, once it is.
    async fn whole(&self) -> Instant {
        loop {
            let whole_since = self.state().whole_since;
            if let Some(since) = whole_since {
                return since;
            }
            self.is_there.notified().await;
        }
    }

    /// Gives its place back.
    pub fn is_answered(&self) {
        *self.state() = State::default();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn overloaded(why: NoPlace) -> Problem {
    overloaded_by(why.to_string())
}

fn overloaded_by(why: impl Into<String>) -> Problem {
    Problem::new(problems::OVERLOADED).detail(why.into()).retry_after(1)
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use futures::stream;

    use super::*;

    #[test]
    fn a_slow_body_has_half_of_the_time() {
        let time = BodyTime { longest: Duration::from_secs(20), rate: 500 };
        for (bytes, seconds) in [(0, 10), (1, 10), (500, 11), (4_500, 19), (5_000, 20), (64 * 1024, 20)] {
            assert_eq!(time.for_bytes(bytes).as_secs(), seconds, "{bytes}");
        }
        let odd = BodyTime { longest: Duration::MAX, rate: 0 };
        assert!(odd.for_bytes(usize::MAX) > Duration::from_secs(1));
    }

    fn from(address: u128) -> Applicant {
        Applicant { app_id: None, caller: Some(address), is_platform: false, is_known: false }
    }

    /// Of a body. Those that are whole do not wait for it.
    const LONGEST: Duration = Duration::from_secs(2);

    struct Server(Room);

    impl Server {
        fn new(bodies: usize, places: usize) -> Self {
            let shares = Shares { total: places, of_an_app: places, of_a_caller: places, reserve: 0 };
            let time = BodyTime { longest: LONGEST, rate: 500 };
            Self(Room { bodies: Crowd::new(bodies, BODIES), ..Room::new(shares, time) })
        }

        fn ask(&self, address: u128, waits: bool) -> Result<Arc<Arriving>, Problem> {
            match self.0.enter(from(address), Instant::now(), waits) {
                (_, Some(problem)) => Err(problem),
                (arriving, None) => Ok(Arc::new(arriving)),
            }
        }
    }

    fn endless() -> Body {
        Body::from_stream(stream::pending::<Result<Bytes, std::convert::Infallible>>())
    }

    #[tokio::test]
    async fn only_a_whole_request_takes_a_place() {
        let server = Server::new(100, 1);
        let slow: Vec<_> = (0..50).map(|_| server.ask(1, true).expect("room")).collect();
        let quick = server.ask(2, true).expect("room");
        assert_eq!(quick.body(Body::from("all"), 9).await.expect("a place"), b"all");
        // Now the place is taken.
        assert_eq!(server.ask(3, false).err().expect("no place").kind(), problems::OVERLOADED);
        let late = server.ask(3, true).expect("room");
        assert_eq!(late.body(Body::from("x"), 9).await.expect_err("no place").kind(), problems::OVERLOADED);
        quick.is_answered();
        assert!(server.ask(3, false).is_ok());
        assert_eq!(
            slow[0].body(Body::from("0123456789"), 9).await.expect_err("too large").kind(),
            problems::PAYLOAD_TOO_LARGE
        );
        drop((slow, quick, late));
        assert!(server.0.bodies.is_empty());
    }

    #[tokio::test]
    async fn a_request_is_overdue_so_long_after_it_was_whole() {
        let server = Server::new(9, 9);
        let limit = Duration::from_millis(100);
        let overdue = async |request: Arc<Arriving>| {
            let began = Instant::now();
            request.is_overdue(limit).await;
            began.elapsed()
        };
        assert!(overdue(server.ask(1, false).expect("room")).await >= limit);
        let slow = server.ask(1, true).expect("room");
        let late = Duration::from_millis(300);
        let body = async {
            tokio::time::sleep(late).await;
            slow.body(Body::from("x"), 9).await
        };
        assert!(tokio::join!(overdue(Arc::clone(&slow)), body).0 >= late + limit);
        // Nobody reads its body.
        assert!(overdue(server.ask(1, true).expect("room")).await >= LONGEST + limit);
    }

    #[tokio::test]
    async fn slow_bodies_make_room_for_others() {
        let server = Server::new(2, 2);
        let (one, two) = (server.ask(1, true).expect("room"), server.ask(1, true).expect("room"));
        let slow = tokio::spawn(async move { one.body(endless(), 9).await });
        let other = server.ask(2, true).expect("room");
        let ended = slow.await.expect("no panic").expect_err("it is sent away");
        assert_eq!(ended.kind(), problems::OVERLOADED);
        assert!(other.body(Body::from("x"), 9).await.is_ok());
        let began = Instant::now();
        assert_eq!(two.body(endless(), 9).await.expect_err("slow").kind(), problems::MALFORMED_REQUEST);
        assert!(began.elapsed() >= LONGEST / 2);
    }
}
