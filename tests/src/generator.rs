//! The load generator and its measurements. It shares the machine with the servers, so it parses no more of an answer
//! than necessary.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::{PASSWORD, email};

/// The number of concurrent connections.
pub const CONCURRENCY: usize = 32;

const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;

/// Any error that ends a load program.
pub type Failure = Box<dyn Error + Send + Sync>;

/// The servers' password hashing parameters, in the format of `WATCHWORD_ARGON2`.
pub fn argon2_cost() -> String {
    format!("m={MEMORY_KIB},t={PASSES},p=1")
}

/// Rounds to three decimals.
pub fn round(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}

/// A count since `start`, per second.
pub fn per_second(count: u64, start: Instant) -> f64 {
    let count = u32::try_from(count).expect("a few seconds' count");
    f64::from(count) / start.elapsed().as_secs_f64()
}

/// The median, the 99th percentile and the maximum of these times, in milliseconds.
pub fn quantiles(mut times: Vec<Duration>) -> Value {
    times.sort_unstable();
    let Some(last) = times.len().checked_sub(1) else { return Value::Null };
    let at = |percent: usize| round(times[last * percent / 100].as_secs_f64() * 1000.0);
    json!({"p50_ms": at(50), "p99_ms": at(99), "max_ms": at(100)})
}

/// Hashes per second on all cores, each reusing its memory.
pub fn raw_hashes(length: Duration) -> f64 {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let (done, start) = (AtomicU64::new(0), Instant::now());
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let params = Params::new(MEMORY_KIB, PASSES, 1, None).expect("the parameters are valid");
                let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
                let mut memory = vec![Block::default(); params.block_count()];
                let mut hash = [0; 32];
                while start.elapsed() < length {
                    hasher
                        .hash_password_into_with_memory(
                            PASSWORD.as_bytes(),
                            b"sixteen-byte-slt",
                            &mut hash,
                            &mut memory,
                        )
                        .expect("the password can be hashed");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    per_second(done.into_inner(), start)
}

/// A logged-in user.
pub struct Registered {
    /// The email address.
    pub email: String,
    /// The access token.
    pub access: String,
    /// The newest refresh token.
    pub refresh: String,
    /// The session's id.
    pub session: String,
}

/// Registers this many users.
pub async fn users(address: &str, count: usize) -> Result<Vec<Registered>, Failure> {
    let mut client = Client::connect(address).await?;
    let mut users = vec![];
    for _ in 0..count {
        let email = email("load");
        let body = client.send(&Method::POST, "register", "", &credentials(&email)).await?;
        let answer: Value = serde_json::from_slice(&body)?;
        let text = |name: &str| answer[name].as_str().map(str::to_owned).ok_or("no tokens");
        let (access, refresh) = (text("access_token")?, text("refresh_token")?);
        users.push(Registered { email, access, refresh, session: text("session_id")? });
    }
    Ok(users)
}

fn credentials(email: &str) -> String {
    json!({"email": email, "password": PASSWORD}).to_string()
}

/// What a connection does repeatedly.
pub enum Work {
    /// Registers a new user.
    Register,
    /// Logs in with this address.
    Login(String),
    /// Refreshes, beginning with this token.
    Refresh(String),
    /// Gets the current user, with this access token.
    Me(String),
}

/// Runs [`CONCURRENCY`] connections, distributed over the servers, each sending one request after the other. Returns
/// the requests per second and their times.
pub async fn run(
    addresses: &[Arc<str>],
    length: Duration,
    work: impl Fn(usize) -> Work,
) -> Result<Value, Failure> {
    run_with(CONCURRENCY, addresses, length, work).await
}

/// As [`run`], with this many connections.
pub async fn run_with(
    connections: usize,
    addresses: &[Arc<str>],
    length: Duration,
    work: impl Fn(usize) -> Work,
) -> Result<Value, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let start = Instant::now();
    let mut workers = vec![];
    for index in 0..connections {
        let address = Arc::clone(&addresses[index % addresses.len()]);
        let (stop, mut work) = (stop.clone(), work(index));
        workers.push(tokio::spawn(async move {
            let mut client = Client::connect(&address).await?;
            let mut times = vec![];
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                client.work(&mut work).await?;
                times.push(begun.elapsed());
            }
            Ok::<_, Failure>(times)
        }));
    }
    tokio::time::sleep(length).await;
    stop.store(true, Ordering::Relaxed);
    let mut times = vec![];
    for worker in workers {
        times.extend(worker.await??);
    }
    let (rate, requests) = (per_second(times.len() as u64, start), times.len());
    let mut figure = quantiles(times);
    figure["per_second"] = round(rate).into();
    figure["requests"] = requests.into();
    Ok(figure)
}

/// A kept-alive connection.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Client {
    /// Connects to `host:port`.
    pub async fn connect(address: &str) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, host: address.to_owned() })
    }

    /// Does the work once.
    pub async fn work(&mut self, work: &mut Work) -> Result<(), Failure> {
        match work {
            Work::Register => {
                self.send(&Method::POST, "register", "", &credentials(&email("load"))).await?;
            }
            Work::Login(email) => {
                self.send(&Method::POST, "login", "", &credentials(email)).await?;
            }
            Work::Refresh(token) => self.refresh(token).await?,
            Work::Me(token) => {
                self.send(&Method::GET, "me", token, "").await?;
            }
        }
        Ok(())
    }

    /// Refreshes, and replaces the token by the new one.
    pub async fn refresh(&mut self, token: &mut String) -> Result<(), Failure> {
        let body = format!(r#"{{"refresh_token":"{token}"}}"#);
        let answer = self.send(&Method::POST, "refresh", "", &body).await?;
        *token = refresh_token(&answer).ok_or("no refresh token")?;
        Ok(())
    }

    async fn send(
        &mut self,
        method: &Method,
        route: &str,
        token: &str,
        body: &str,
    ) -> Result<Bytes, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/v1/apps/default/auth/{route}"))
            .header(header::HOST, &self.host);
        if !token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        self.sender.ready().await?;
        let response = self.sender.send_request(request.body(Full::from(body.to_owned()))?).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            return Err(format!("{route}: {status} {}", String::from_utf8_lossy(&body)).into());
        }
        Ok(body)
    }
}

/// The refresh token of an answer, found without parsing all of it: the generator shares its cores with the server.
fn refresh_token(answer: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(answer).ok()?;
    let rest = &text[text.find("\"wwr_")? + 1..];
    Some(rest[..rest.find('"')?].to_owned())
}

/// Resident memory of a process, in MiB (Linux).
pub fn resident_mib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib / 1024)
}
