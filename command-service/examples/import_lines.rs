//! How many lines of an import are read in a second, on one core: `cargo run --release -p command-service --example import_lines`.
//! Reading is parsing, checking every member, and comparing with all lines before; nothing is hashed or written.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Instant;

use command_service::ImportLines;
use domain::Timestamp;

const LINES: u32 = 200_000;

fn main() -> std::io::Result<()> {
    let mut body = String::new();
    for n in 0..LINES {
        let hash = "$2b$12$/8ydrnCvsfiPB1yL/GvSZ.lmrhaBM30HFrK3U.msbXqcfZS4MzWHa";
        writeln!(
            body,
            "{{\"external_id\":\"auth0|{n}\",\"email\":\"person.{n}@example.com\",\"email_verified\":true,\"name\":\"Person {n}\",\
             \"avatar_url\":\"https://app.example.com/people/{n}.png\",\"roles\":[\"editor\"],\
             \"created_at\":\"2019-03-01T12:00:00Z\",\"password_hash\":\"{hash}\"}}"
        )
        .expect("text");
    }
    let begun = Instant::now();
    let now = Timestamp::from_second(1_800_000_000).expect("in range");
    let read = ImportLines::new(body, 2_097_152, now).flatten().count();
    let seconds = begun.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = read as f64 / seconds;
    writeln!(std::io::stdout(), "{read} lines in {seconds:.2} s: {rate:.0} lines/s")
}
