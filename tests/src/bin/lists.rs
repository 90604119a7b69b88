//! How long lists of users take in an app of many.
//!
//! ```text
//! cargo run --release -p tests --bin lists [-- USERS]
//! ```
//!
//! Imports `USERS` (1 000 000) people into an app of a server that this program starts, as `watchword users import` does: each is an
//! event of the journal, and the lists are what projectors make of it. Then it asks for pages, one at a time, over HTTP, and prints
//! the median and the 99th percentile of each kind of request in milliseconds. It fails if a 99th percentile is above 50 ms. The
//! first requests of a kind are not counted. `LISTS_REQUESTS` (300) is how many of each kind are. Generator and server share the
//! cores, and each page is also recorded as an access to personal data, as always.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::generator::{Failure, resident_mib, round};
use tests::{App, Server};

const USERS: u64 = 1_000_000;
const REQUESTS: usize = 300;
const NOT_COUNTED: usize = 20;
/// The most that a 99th percentile may be, in milliseconds.
const MOST: f64 = 50.0;
/// How many pages a walk by cursor has.
const PAGES: usize = 500;
/// 2027-01-01, in seconds.
const NEWEST: i64 = 1_798_761_600;

const SYLLABLES: [&str; 20] = [
    "an", "be", "car", "do", "el", "fri", "ga", "hen", "is", "jo", "ka", "lu", "mar", "ni", "ol", "pe", "ro",
    "sa", "ti", "vi",
];
/// One person in fifty has one of these.
const OTHERS: [&str; 6] = ["王小龙", "山田太郎", "김철수", "प्रकाश शर्मा", "Ὀδυσσεύς Ἰθάκης", "Zoë İnönü"];

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let count = env::args().nth(1).map_or(Ok(USERS), |it| it.parse())?;
    let requests = env::var("LISTS_REQUESTS").ok().and_then(|it| it.parse().ok()).unwrap_or(REQUESTS);
    let server = Server::start_with(&[("WATCHWORD_LOG", "warn")]).await;
    let app = server.create_app(json!({})).await;
    let begun = Instant::now();
    import(&server, &app.id, count)?;
    let imported = begun.elapsed();
    let key = server.platform_key();
    until_listed(&app, &key, count).await;
    let listed = begun.elapsed();
    eprintln!(
        "{count} people in {:.0} s, listed after {:.0} s",
        imported.as_secs_f64(),
        listed.as_secs_f64()
    );

    let mut figures = serde_json::Map::new();
    let mut too_slow = Vec::new();
    let kinds = kinds(count);
    for (name, paths) in &kinds {
        let mut times = Vec::with_capacity(requests);
        for n in 0..NOT_COUNTED + requests {
            let (time, _) = ask(&app, &key, &paths[n % paths.len()]).await?;
            if n >= NOT_COUNTED {
                times.push(time);
            }
        }
        report(name, times, &mut figures, &mut too_slow);
    }
    let (mut cursor, mut times) = (String::new(), Vec::new());
    for _ in 0..PAGES {
        let (time, page) = ask(&app, &key, &format!("limit=20{cursor}")).await?;
        times.push(time);
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    report("500 pages by cursor", times, &mut figures, &mut too_slow);
    let last = format!("limit=20{cursor}");
    let mut times = Vec::new();
    for _ in 0..requests {
        times.push(ask(&app, &key, &last).await?.0);
    }
    report("page 500 by cursor", times, &mut figures, &mut too_slow);

    let result = json!({
        "users": count, "requests_of_a_kind": requests, "most_ms": MOST,
        "people_per_second_imported": round(per_second(count, imported)),
        "people_per_second_listed": round(per_second(count, listed)),
        "memory_mib": resident_mib(server.pid()),
        "figures_ms": figures,
    });
    println!("{}", serde_json::to_string_pretty(&result)?);
    if too_slow.is_empty() { Ok(()) } else { Err(format!("above {MOST} ms: {}", too_slow.join(", ")).into()) }
}

/// What is asked for: several paths of one kind take turns.
fn kinds(count: u64) -> Vec<(&'static str, Vec<String>)> {
    let list = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    let names = |number: u64| name(number * 7919 % count.max(1));
    let rare = (0..20).map(|n| format!("query={}", last_of(&names(n)))).collect();
    let common = (0..20).map(|n| format!("query={}", &first_of(&names(n))[..3])).collect();
    let two = (0..20).map(|n| format!("query={}%20{}", first_of(&names(n)), last_of(&names(n)))).collect();
    let address = (0..20).map(|n| format!("query=person.{}%40example.org", n * 7919 % count)).collect();
    vec![
        ("first page", list(&["limit=20"])),
        ("200 users", list(&["limit=200"])),
        ("offset 10 000", list(&["limit=20&offset=10000"])),
        ("last changed first", list(&["sort=-updated_at"])),
        ("banned", list(&["status=banned"])),
        ("active and unverified", list(&["status=active&email_verified=false"])),
        ("role", list(&["role=support", "role=support&status=active", "role=nobody"])),
        ("prefix of a common word", common),
        ("word", rare),
        ("two words", two),
        ("one letter", list(&["query=a", "query=v", "query=x", "query=a%20s"])),
        (
            "other scripts",
            list(&[
                "query=%E5%A4%AA%E9%83%8E",
                "query=%EC%B2%A0%EC%88%98",
                "query=%E5%B0%8F",
                "query=%E0%A4%B6%E0%A4%B0",
                "query=%CE%9F%CE%94%CE%A5%CE%A3",
                "query=inonu",
            ]),
        ),
        ("word of everybody", list(&["query=example", "query=org&status=banned"])),
        ("words that never meet", list(&["query=person%20nobody", "query=x%20example"])),
        ("word, last changed first", list(&["query=mar&sort=-updated_at"])),
        ("address", address),
    ]
}

/// Spread over the syllables, so that some beginnings are common and whole names rare.
fn name(number: u64) -> String {
    if number % 50 == 7 {
        return OTHERS[usize::try_from(number / 50).unwrap_or_default() % OTHERS.len()].to_owned();
    }
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
    let syllable = |at: u32| SYLLABLES[usize::try_from(mixed / 20_u64.pow(at) % 20).unwrap_or_default()];
    format!("{}{} {}{}{}", syllable(0), syllable(1), syllable(2), syllable(3), syllable(4))
}

fn first_of(name: &str) -> String {
    let name = if name.is_ascii() { name } else { "mari solo" };
    name.split(' ').next().unwrap_or_default().to_owned()
}

fn last_of(name: &str) -> String {
    let name = if name.is_ascii() { name } else { "mari solo" };
    name.split(' ').next_back().unwrap_or_default().to_owned()
}

fn import(server: &Server, app: &str, count: u64) -> Result<(), Failure> {
    let path = server.data().with_file_name("people.ndjson");
    let mut lines = String::new();
    for number in 0..count {
        let at = NEWEST - i64::try_from((count - number) * 30)?;
        let line = json!({
            "external_id": number.to_string(), "email": format!("person.{number}@example.org"),
            "email_verified": !number.is_multiple_of(3), "name": name(number), "banned": number % 100 == 1,
            "roles": if number % 200 == 3 { vec!["support"] } else { vec![] },
            "created_at": jiff::Timestamp::from_second(at)?,
        });
        writeln!(lines, "{line}")?;
    }
    fs::write(&path, lines)?;
    let (file, base) = (path.display().to_string(), server.base());
    let arguments = ["users", "import", app, &file, "--url", &base, "--json"];
    let output = server.command(&arguments).stdin(Stdio::null()).output()?;
    fs::remove_file(&path)?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
}

async fn until_listed(app: &App<'_>, key: &str, count: u64) {
    loop {
        let page = app.get("admin/users?limit=1").bearer(key).await.expect(200).json();
        if page["total"].as_u64() >= Some(count) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn ask(app: &App<'_>, key: &str, query: &str) -> Result<(Duration, Value), Failure> {
    let begun = Instant::now();
    let answer = app.get(&format!("admin/users?{query}")).bearer(key).await;
    let time = begun.elapsed();
    if answer.status != 200 {
        return Err(format!("{query}: {} {}", answer.status, answer.text).into());
    }
    Ok((time, answer.json()))
}

fn report(
    name: &str,
    mut times: Vec<Duration>,
    figures: &mut serde_json::Map<String, Value>,
    too_slow: &mut Vec<String>,
) {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)].as_secs_f64() * 1000.0;
    let (median, high) = (at(50), at(99));
    eprintln!("{name}: p50 {median:.1} ms, p99 {high:.1} ms");
    figures.insert(name.to_owned(), json!({ "p50": round(median), "p99": round(high) }));
    if high > MOST {
        too_slow.push(name.to_owned());
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}
