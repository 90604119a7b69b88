//! How fast the server is, next to the limits of the machine it runs on, measured in the same run.
//!
//! ```text
//! cargo run --release -p tests --bin load
//! ```
//!
//! Raw batched append, then register and login between two measurements of raw argon2id, then refresh and me: at
//! concurrency 32 against a server that this program starts; generator and server share the cores. Prints one JSON
//! object: figures per second, and their ratios to the limits. `LOAD_SECONDS` (5) is the length of each measurement.

use std::env;
use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection as _, QueryBuilder, Sqlite, SqliteConnection};
use tests::{PASSWORD, Server, email};
use tokio::net::TcpStream;

const CONCURRENCY: usize = 32;
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
/// Rows of one raw commit: about as many as a group commit has at this concurrency.
const ROWS: usize = 100;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let seconds = env::var("LOAD_SECONDS").ok().and_then(|it| it.parse().ok()).unwrap_or(5);
    let length = Duration::from_secs(seconds);

    let rows = raw_append(length).await?;
    eprintln!("raw batched append: {rows:.0} rows/s");

    let cost = format!("m={MEMORY_KIB},t={PASSES},p=1");
    let server = Server::start_with(&[("WATCHWORD_ARGON2", &cost), ("WATCHWORD_LOG", "warn")]).await;
    let address: Arc<str> = server.base().trim_start_matches("http://").into();
    let users = users(&address).await?;

    // The limit before and after, as a machine's speed drifts.
    let before = raw_hashes(length);
    let register = run(&address, length, |_| Work::Register).await?;
    eprintln!("register: {register}");
    let login = run(&address, length, |index| Work::Login(users[index].email.clone())).await?;
    eprintln!("login: {login}");
    let hashes = f64::midpoint(before, raw_hashes(length));
    eprintln!("raw argon2id: {hashes:.1}/s");
    let refresh = run(&address, length, |index| Work::Refresh(users[index].refresh.clone())).await?;
    eprintln!("refresh: {refresh}");
    let me = run(&address, length, |index| Work::Me(users[index].access.clone())).await?;
    eprintln!("me: {me}");

    let rate = |figure: &Value| figure["per_second"].as_f64().unwrap_or(0.0);
    let result = json!({
        "settings": {"concurrency": CONCURRENCY, "seconds": seconds, "argon2": cost,
            "cores": thread::available_parallelism()?.get(), "memory_mib": resident_mib(server.pid())},
        "figures": {"raw_argon2id_per_second": round(hashes), "raw_append_rows_per_second": round(rows),
            "register": register, "login": login, "refresh": refresh, "me": me},
        "ratios": {"login_to_argon2id": round(rate(&login) / hashes), "register_to_argon2id": round(rate(&register) / hashes),
            "refresh_to_append": round(rate(&refresh) / rows)},
    });
    println!("{}", serde_json::to_string_pretty(&result)?);
    Ok(())
}

fn round(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}

/// Hashes per second on all cores, each with memory that it uses again.
fn raw_hashes(length: Duration) -> f64 {
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

/// Rows per second into a table like the journal's, durable, [`ROWS`] a commit.
async fn raw_append(length: Duration) -> Result<f64, Failure> {
    let directory = tempfile::tempdir()?;
    let options = SqliteConnectOptions::new()
        .filename(directory.path().join("raw.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut connection = SqliteConnection::connect_with(&options).await?;
    sqlx::query("CREATE TABLE events (position INTEGER PRIMARY KEY, stream TEXT, version INTEGER, data TEXT, UNIQUE (stream, version))")
        .execute(&mut connection)
        .await?;
    let data = "x".repeat(400);
    let (mut position, start) = (0_i64, Instant::now());
    while start.elapsed() < length {
        let first = position + 1;
        position += i64::try_from(ROWS)?;
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO events (position, stream, version, data) ");
        insert.push_values(first..=position, |mut row, at| {
            row.push_bind(at).push_bind(format!("session-{at:036}")).push_bind(1).push_bind(&data);
        });
        insert.build().execute(&mut connection).await?;
    }
    connection.close().await?;
    Ok(per_second(position.cast_unsigned(), start))
}

fn per_second(count: u64, start: Instant) -> f64 {
    let count = u32::try_from(count).expect("a few seconds' count");
    f64::from(count) / start.elapsed().as_secs_f64()
}

struct Registered {
    email: String,
    access: String,
    refresh: String,
}

/// One user for each connection.
async fn users(address: &str) -> Result<Vec<Registered>, Failure> {
    let mut client = Client::connect(address).await?;
    let mut users = vec![];
    for _ in 0..CONCURRENCY {
        let email = email("load");
        let body = client.send(&Method::POST, "register", "", &credentials(&email)).await?;
        let answer: Value = serde_json::from_slice(&body)?;
        let text = |name: &str| answer[name].as_str().map(str::to_owned).ok_or("no tokens");
        users.push(Registered { email, access: text("access_token")?, refresh: text("refresh_token")? });
    }
    Ok(users)
}

fn credentials(email: &str) -> String {
    json!({"email": email, "password": PASSWORD}).to_string()
}

enum Work {
    Register,
    Login(String),
    Refresh(String),
    Me(String),
}

/// [`CONCURRENCY`] connections doing their work one request after the other: how many requests a second, and how long
/// they took.
async fn run(address: &Arc<str>, length: Duration, work: impl Fn(usize) -> Work) -> Result<Value, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let times = Arc::new(Mutex::new(Vec::new()));
    let start = Instant::now();
    let mut workers = vec![];
    for index in 0..CONCURRENCY {
        let (address, stop, times, work) = (address.clone(), stop.clone(), times.clone(), work(index));
        workers.push(tokio::spawn(async move {
            let mut client = Client::connect(&address).await?;
            let mut work = work;
            let mut own = vec![];
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                client.work(&mut work).await?;
                own.push(begun.elapsed());
            }
            times.lock().expect("no worker panics").extend(own);
            Ok::<_, Failure>(())
        }));
    }
    tokio::time::sleep(length).await;
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await??;
    }
    let mut times = times.lock().expect("no worker panics").clone();
    times.sort_unstable();
    let rate = per_second(times.len() as u64, start);
    let quantile = |percent: usize| round(times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0);
    Ok(
        json!({"per_second": round(rate), "p50_ms": quantile(50), "p99_ms": quantile(99), "requests": times.len()}),
    )
}

/// One connection that is kept alive.
struct Client {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Client {
    async fn connect(address: &str) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, host: address.to_owned() })
    }

    async fn work(&mut self, work: &mut Work) -> Result<(), Failure> {
        match work {
            Work::Register => {
                self.send(&Method::POST, "register", "", &credentials(&email("load"))).await?;
            }
            Work::Login(email) => {
                self.send(&Method::POST, "login", "", &credentials(email)).await?;
            }
            Work::Refresh(token) => {
                let body = format!(r#"{{"refresh_token":"{token}"}}"#);
                let answer = self.send(&Method::POST, "refresh", "", &body).await?;
                *token = refresh_token(&answer).ok_or("no refresh token")?;
            }
            Work::Me(token) => {
                self.send(&Method::GET, "me", token, "").await?;
            }
        }
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

/// Resident memory of the server (Linux).
fn resident_mib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib / 1024)
}
