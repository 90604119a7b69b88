//! argon2id (RFC 9106) on dedicated threads: hashing neither blocks the server's threads nor exhausts memory. When more
//! is requested than the threads can handle, the answer is a prompt 503, not a long queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use argon2::password_hash::phc;
use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use domain::password::{Password, PasswordHash};
use event_store::clock::random;
use http_kit::fair_queue::FairQueue;
use http_kit::problem::Problem;
use http_kit::request::Requester;
use http_kit::trace::Span;
use tasks::{End, Weight};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::passwords::imported::ImportedHash;

const SALT: usize = 16;
const OUTPUT: usize = 32;
/// 4 GiB: more than any reasonable choice, less than would bring the machine down.
const MAX_MEMORY: u32 = 4 * 1024 * 1024;
const QUEUE_PER_THREAD: usize = 64;

/// The configuration of password hashing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordHashingSettings {
    /// The parameters of new hashes: `m=<KiB>,t=<passes>,p=<lanes>`. Hashes with other parameters are still verified,
    /// and replaced at the next login.
    pub params: String,
    /// The number of hashing threads; one per core if absent.
    pub threads: Option<usize>,
    /// How many requests may wait; 64 per thread if absent. When the queue is full, the client with most requests in it
    /// loses one.
    pub queue: Option<usize>,
}

impl Default for PasswordHashingSettings {
    /// The second choice of RFC 9106 scaled down as OWASP recommends: 19 MiB, two passes, one lane.
    fn default() -> Self {
        Self { params: "m=19456,t=2,p=1".to_owned(), threads: None, queue: None }
    }
}

/// Invalid settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHashingSettings {
    /// The argon2 parameters are malformed.
    #[error(
        "{0:?} are not argon2 parameters: expected e.g. `m=19456,t=2,p=1`, with m in KiB, at least 8 p and at most 4194304"
    )]
    Params(String),
    /// The threads cannot be started.
    #[error("could not start a thread for hashing passwords")]
    Threads,
}

/// Why nothing was hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashingError {
    /// The queue is full.
    #[error("too many passwords are waiting to be hashed")]
    Overloaded,
    /// A stored hash is malformed.
    #[error("a stored password hash cannot be read")]
    Damaged,
    /// The password is longer than any account's.
    #[error("the password is too long")]
    TooLong,
}

impl From<HashingError> for Problem {
    fn from(error: HashingError) -> Self {
        match error {
            HashingError::Overloaded => Self::overloaded(error),
            HashingError::Damaged | HashingError::TooLong => Self::internal(error),
        }
    }
}

type Job = Box<dyn FnOnce(&mut Vec<Block>) + Send>;

/// Hashes and verifies. Cheap to clone.
#[derive(Clone)]
pub struct PasswordHashing {
    jobs: Arc<Jobs>,
    params: Params,
    dummy: Arc<PasswordHash>,
    imported: Arc<ImportedTime>,
}

/// How long a wrong password for an imported hash takes: rises at once to the longest time seen, and falls gradually.
#[derive(Default)]
struct ImportedTime(AtomicU64);

impl ImportedTime {
    fn took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let slowly = |former: u64| Some(micros.max(former - former / 8));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, slowly);
    }

    fn time(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// The queue; the threads end when its last sender is dropped.
struct Jobs(Arc<FairQueue<Job>>);

impl Drop for Jobs {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl PasswordHashing {
    /// Starts the threads.
    pub fn start(settings: &PasswordHashingSettings) -> Result<Self, InvalidHashingSettings> {
        let params = parse_params(&settings.params)
            .ok_or_else(|| InvalidHashingSettings::Params(settings.params.clone()))?;
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = settings.threads.unwrap_or(cores).max(1);
        let queue = Arc::new(FairQueue::new(settings.queue.unwrap_or(QUEUE_PER_THREAD * threads)));
        let jobs = Arc::new(Jobs(Arc::clone(&queue)));
        for number in 0..threads {
            let (queue, name) = (queue.clone(), format!("hashing_{number}"));
            tasks::start_thread(name.clone(), Weight::Usual, move || work(&queue, &name))
                .map_err(|_| InvalidHashingSettings::Threads)?;
        }
        // Verified if there is no hash: it takes the same time, and no password matches it, because its output is
        // random.
        let dummy = to_phc(&params, &random::<SALT>(), &random::<OUTPUT>());
        Ok(Self { jobs, params, dummy: Arc::new(dummy), imported: Arc::default() })
    }

    /// Hashes a new password.
    pub async fn hash(&self, password: &Password) -> Result<PasswordHash, HashingError> {
        let bytes = Zeroizing::new(password.bytes().ok_or(HashingError::TooLong)?.to_vec());
        let params = self.params.clone();
        self.run(move |memory| {
            let salt = random::<SALT>();
            let mut output = Zeroizing::new([0; OUTPUT]);
            argon2id(&params, &bytes, &salt, &mut *output, memory)?;
            Ok(to_phc(&params, &salt, &*output))
        })
        .await
    }

    /// Whether the password matches the hash, using the hash's own parameters. Without a hash, or with an overlong
    /// password, it takes as long and returns false.
    pub async fn verify(
        &self,
        password: &Password,
        hash: Option<&PasswordHash>,
    ) -> Result<bool, HashingError> {
        if let Some(imported) = hash.filter(|hash| !is_ours(hash)) {
            let imported = ImportedHash::parse(&imported.0).map_err(|_| HashingError::Damaged)?;
            return self.verify_imported(password, imported).await;
        }
        let possible = hash.is_some() && password.bytes().is_some();
        let bytes = Zeroizing::new(password.bytes().unwrap_or_default().to_vec());
        let hash =
            phc::PasswordHash::new(&hash.unwrap_or(&self.dummy).0).map_err(|_| HashingError::Damaged)?;
        let params = Params::try_from(&hash).map_err(|_| HashingError::Damaged)?;
        let (Some(salt), Some(expected)) = (hash.salt, hash.hash) else { return Err(HashingError::Damaged) };
        if hash.algorithm != Algorithm::Argon2id.ident() || hash.version != Some(Version::V0x13.into()) {
            return Err(HashingError::Damaged);
        }
        self.run(move |memory| {
            let mut output = Zeroizing::new(vec![0; expected.len()]);
            argon2id(&params, &bytes, &salt, &mut output, memory)?;
            let equal =
                aws_lc_rs::constant_time::verify_slices_are_equal(&output, expected.as_bytes()).is_ok();
            Ok(equal && possible)
        })
        .await
    }

    /// Tries the password both as typed and in NFC, because other systems do not normalize. A failure also computes an
    /// argon2id hash, as a success does when it replaces the imported one: otherwise fast hashes would show by their timing.
    async fn verify_imported(&self, password: &Password, hash: ImportedHash) -> Result<bool, HashingError> {
        let forms = password.forms().map(|form| Zeroizing::new(form.to_vec())).collect::<Vec<_>>();
        let (params, times) = (self.params.clone(), Arc::clone(&self.imported));
        self.run(move |memory| {
            let begun = Instant::now();
            let matches = forms.iter().fold(false, |matches, form| hash.matches(form) | matches);
            if !matches {
                let form = forms.first().map_or(&[][..], |form| form);
                argon2id(&params, form, &random::<SALT>(), &mut *Zeroizing::new([0; OUTPUT]), memory)?;
                times.took(begun.elapsed());
            }
            Ok(matches)
        })
        .await
    }

    /// How long a failed login must take at least. Verifying an imported hash may take much longer than argon2id; without
    /// this, the difference would reveal that an account exists. With a margin.
    pub fn imported_time(&self) -> Duration {
        let time = self.imported.time();
        time + time / 4
    }

    /// Whether a hash was made with other parameters than new ones get, or by another system.
    pub fn is_outdated(&self, hash: &PasswordHash) -> bool {
        if !is_ours(hash) {
            return true;
        }
        let params = phc::PasswordHash::new(&hash.0).ok().and_then(|hash| Params::try_from(&hash).ok());
        params.is_none_or(|params| costs(&params) != costs(&self.params))
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Vec<Block>) -> Result<T, HashingError> + Send + 'static,
    ) -> Result<T, HashingError> {
        let (answer, answered) = oneshot::channel();
        let (asked, place) = (Instant::now(), Place::take());
        let job: Job = Box::new(move |memory| {
            drop(place);
            // If the requester is gone, there is nothing to hash.
            if !answer.is_closed() {
                metrics::histogram!("watchword_password_hashing_wait_seconds").record(asked.elapsed());
                let begun = Instant::now();
                let done = job(memory);
                metrics::histogram!("watchword_password_hashing_seconds").record(begun.elapsed());
                let _ = answer.send(done);
            }
        });
        let refused = || metrics::counter!("watchword_password_hashing_refused_total").increment(1);
        let Ok(spared) = self.jobs.0.push(&Requester::current(), job) else {
            refused();
            return Err(HashingError::Overloaded);
        };
        if spared.is_some() {
            refused();
        }
        // Dropping it notifies the waiting requester.
        drop(spared);
        let span = Span::part("hash password");
        span.around(answered).await.map_err(|_| HashingError::Overloaded)?
    }
}

/// A held place in the queue.
struct Place;

impl Place {
    fn take() -> Self {
        metrics::gauge!("watchword_password_hashing_waiting").increment(1);
        Self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gauge!("watchword_password_hashing_waiting").decrement(1);
    }
}

/// Ends when every [`PasswordHashing`] is dropped.
fn work(queue: &FairQueue<Job>, name: &str) -> End {
    // Reused between jobs: allocating 19 MiB each time would cost a noticeable part of the hashing.
    let mut memory = Vec::new();
    while let Some(job) = queue.pop() {
        tasks::step(name);
        job(&mut memory);
    }
    End::Asked
}

fn argon2id(
    params: &Params,
    password: &[u8],
    salt: &[u8],
    output: &mut [u8],
    memory: &mut Vec<Block>,
) -> Result<(), HashingError> {
    let blocks = params.block_count();
    if memory.len() < blocks {
        let make = || memory.resize(blocks, Block::new());
        #[cfg(target_os = "linux")]
        crate::passwords::huge_pages::with(make);
        #[cfg(not(target_os = "linux"))]
        make();
    }
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
    argon2
        .hash_password_into_with_memory(password, salt, output, &mut memory[..blocks])
        .map_err(|_| HashingError::Damaged)
}

fn parse_params(text: &str) -> Option<Params> {
    let mut costs = [None; 3];
    for part in text.split(',') {
        let (name, value) = part.trim().split_once('=')?;
        let index = ["m", "t", "p"].iter().position(|known| *known == name)?;
        if costs[index].replace(value.parse::<u32>().ok()?).is_some() {
            return None;
        }
    }
    let [Some(memory), Some(time), Some(lanes)] = costs else { return None };
    if memory > MAX_MEMORY || lanes > 64 || time > 1000 {
        return None;
    }
    Params::new(memory, time, lanes, Some(OUTPUT)).ok()
}

/// Whether this is one of our own hashes.
fn is_ours(hash: &PasswordHash) -> bool {
    hash.0.starts_with("$argon2id$")
}

fn costs(params: &Params) -> (u32, u32, u32) {
    (params.m_cost(), params.t_cost(), params.p_cost())
}

fn to_phc(params: &Params, salt: &[u8], output: &[u8]) -> PasswordHash {
    let (memory, time, lanes) = costs(params);
    let (salt, output) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(output));
    PasswordHash(format!("$argon2id$v=19$m={memory},t={time},p={lanes}${salt}${output}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quick(params: &str) -> PasswordHashing {
        let settings =
            PasswordHashingSettings { params: params.to_owned(), threads: Some(1), queue: Some(1) };
        PasswordHashing::start(&settings).expect("valid")
    }

    #[tokio::test]
    async fn verifies_what_it_hashed_and_nothing_else() {
        let hashing = quick("m=64,t=1,p=1");
        let hash = hashing.hash(&Password::new("correct horse")).await.expect("hashed");
        assert!(hash.0.starts_with("$argon2id$v=19$m=64,t=1,p=1$"));
        assert!(hashing.verify(&Password::new("correct horse"), Some(&hash)).await.expect("verified"));
        assert!(!hashing.verify(&Password::new("correct horsf"), Some(&hash)).await.expect("verified"));
        assert!(!hashing.verify(&Password::new("correct horse"), None).await.expect("verified"));
        assert!(!hashing.verify(&Password::new(&"x".repeat(2000)), Some(&hash)).await.expect("verified"));
    }

    /// From the reference implementation: `echo -n password | argon2 somesalt -id -t 2 -k 65536 -p 1 -l 32`.
    #[tokio::test]
    async fn agrees_with_the_reference() {
        let hash = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let hash = PasswordHash(hash.to_owned());
        let hashing = quick("m=64,t=1,p=1");
        assert!(hashing.verify(&Password::new("password"), Some(&hash)).await.expect("verified"));
        assert!(hashing.is_outdated(&hash));
    }

    /// An imported hash may be of either form; our own is always of NFC.
    #[tokio::test]
    async fn an_imported_hash_is_tried_as_typed_and_in_nfc() {
        let (nfc, nfd) = ("p\u{e4}ssw\u{f6}rter-93", "pa\u{308}sswo\u{308}rter-93");
        let composed = PasswordHash("{SSHA}oejEBAErvA53yxmnngBw/XR9yEa6V+od".to_owned());
        let decomposed = PasswordHash("{SSHA}FIy9s7DFBwijZH9Wk/giLC72ColWam1t".to_owned());
        let hashing = quick("m=64,t=1,p=1");
        for (typed, hash, matches) in [
            (nfc, &composed, true),
            (nfd, &composed, true),
            (nfd, &decomposed, true),
            (nfc, &decomposed, false),
            ("passw\u{f6}rter-93", &decomposed, false),
        ] {
            let verified = hashing.verify(&Password::new(typed), Some(hash)).await.expect("verified");
            assert_eq!(verified, matches, "{typed:?}");
            assert!(hashing.is_outdated(hash));
        }
        let long = Password::new(&"x".repeat(2000));
        assert!(!hashing.verify(&long, Some(&composed)).await.expect("verified"));
        let none = PasswordHash("{MD5}x".to_owned());
        assert_eq!(hashing.verify(&long, Some(&none)).await, Err(HashingError::Damaged));
    }

    #[tokio::test]
    async fn failures_take_as_long_as_those_with_imported_hashes() {
        let hashing = quick("m=64,t=1,p=1");
        assert_eq!(hashing.imported_time(), Duration::ZERO);
        let slow = "AQAAAAIAAYagAAAAEGtb3qchjOAn+DezQi2ufCJyNP0aiVKF2n3NeFfTvoSkNyNwrXwg/1DOF/J3Ay1qsQ==";
        let verified = hashing.verify(&Password::new("x"), Some(&PasswordHash(slow.to_owned()))).await;
        assert_eq!(verified, Ok(false));
        let time = hashing.imported_time();
        assert!(time > Duration::from_millis(1), "{time:?}");
        // A fast one lowers it by an eighth.
        let quick = PasswordHash("{SSHA}oejEBAErvA53yxmnngBw/XR9yEa6V+od".to_owned());
        hashing.imported.took(Duration::from_secs(8));
        assert_eq!(hashing.imported_time(), Duration::from_secs(10));
        assert_eq!(hashing.verify(&Password::new("x"), Some(&quick)).await, Ok(false));
        assert!(hashing.imported_time() >= Duration::from_millis(8750));
    }

    #[tokio::test]
    async fn a_full_queue_is_refused() {
        let hashing = quick("m=262144,t=2,p=1");
        let calls = (0..8).map(|_| {
            let hashing = hashing.clone();
            tokio::spawn(async move { hashing.hash(&Password::new("x")).await })
        });
        let mut refused = 0;
        for call in calls.collect::<Vec<_>>() {
            refused += usize::from(call.await.expect("no panic") == Err(HashingError::Overloaded));
        }
        assert!(refused >= 5, "{refused}");
    }

    #[test]
    fn reads_its_parameters() {
        for text in [
            "",
            "m=1",
            "m=64,t=1",
            "m=64,t=0,p=1",
            "m=64,t=1,p=1,x=1",
            "m=64,m=64,t=1,p=1",
            "m=4294967295,t=1,p=1",
        ] {
            assert!(parse_params(text).is_none(), "{text}");
        }
        assert!(parse_params("m=19456, t=2, p=1").is_some());
    }
}
