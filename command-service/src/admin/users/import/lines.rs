//! The lines of an import: NDJSON, a person a line. Each is read by itself, and all that is wrong with it is named.

use std::collections::{BTreeSet, HashMap};

use domain::password::PasswordHash;
use domain::user::{MAX_ROLES, Origin, Profile};
use domain::{Email, Role, Timestamp, UserId};
use http_kit::problem::{Problem, both, each};
use http_kit::reader::{self, Time};
use schemas::field_codes;
use serde::Deserialize;
use uuid::Uuid;

use super::hash::{FirebaseConfig, Hash};
use super::memberships::{Membership, ReceivedMembership, memberships};
use crate::admin::users::create::unwelcome_hash;
use crate::admin::users::roles::parse_role;
use crate::api::fields;
use crate::imports::LineError;
use crate::passwords::imported::ImportedHash;

/// The longest line, in bytes.
pub const MAX_LINE: usize = 64 * 1024;
const MAX_EXTERNAL_ID: usize = 255;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A line as it came.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Received {
    #[serde(default)]
    id: Option<Uuid>,
    #[serde(default)]
    external_id: Option<String>,
    email: String,
    email_verified: bool,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    phone: Option<String>,
    #[serde(default)]
    avatar_url: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    created_at: Option<Time>,
    #[serde(default)]
    password_hash: Option<Hash>,
    #[serde(default)]
    banned: bool,
    #[serde(default)]
    orgs: Vec<ReceivedMembership>,
    #[serde(default)]
    identities: Vec<Identity>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read so that it is checked")]
struct Identity {
    provider: String,
    subject: String,
}

/// A first line that is about no person.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstLine {
    firebase_hash_config: FirebaseConfig,
}

/// A person who may be imported.
#[cfg_attr(test, derive(Debug))]
pub struct ImportLine {
    /// The number of the line.
    pub(crate) number: u64,
    pub(crate) id: Option<UserId>,
    pub(crate) email: Email,
    pub(crate) email_verified: bool,
    pub(crate) profile: Profile,
    pub(crate) origin: Origin,
    pub(crate) roles: BTreeSet<Role>,
    pub(crate) password_hash: Option<PasswordHash>,
    pub(crate) banned: bool,
    pub(crate) memberships: Vec<Membership>,
}

/// Reads the lines of a body. Blank ones are left out.
pub struct ImportLines<B> {
    bytes: B,
    /// Where the next line begins, and its number.
    next: usize,
    number: u64,
    most_cost: u64,
    now: Timestamp,
    firebase: Option<FirebaseConfig>,
    /// Whose each address and id is: the line that had it first.
    seen: HashMap<String, u64>,
}

impl<B: AsRef<[u8]>> ImportLines<B> {
    /// Begins at the first line. No hash may cost more than `most_cost`, and no account may be younger than `now`.
    pub fn new(bytes: B, most_cost: u64, now: Timestamp) -> Self {
        let next = if bytes.as_ref().starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        Self { bytes, next, number: 0, most_cost, now, firebase: None, seen: HashMap::new() }
    }

    fn read(&mut self, line: &[u8]) -> Result<Option<ImportLine>, Problem> {
        if line.len() > MAX_LINE {
            let detail = format!("the line has more than {MAX_LINE} bytes");
            return Err(Problem::invalid("", field_codes::TOO_LONG, detail));
        }
        if let Err(error) = std::str::from_utf8(line) {
            let detail = format!("byte {} of the line is not UTF-8", error.valid_up_to() + 1);
            return Err(Problem::malformed(field_codes::INVALID, detail));
        }
        if self.number == 1 && line.windows(22).any(|part| part == b"\"firebase_hash_config\"") {
            self.firebase = Some(reader::line::<FirstLine>(line)?.firebase_hash_config);
            return Ok(None);
        }
        let person = self.person(reader::line(line)?)?;
        self.require_new(&person)?;
        Ok(Some(person))
    }

    fn person(&self, received: Received) -> Result<ImportLine, Problem> {
        let Received { id, external_id, email, email_verified, name, phone, avatar_url, .. } = received;
        let roles = received.roles.iter().enumerate();
        let roles = each::<_, BTreeSet<_>>(roles.map(|(at, role)| parse_role(role, &format!("/roles/{at}"))));
        let roles = roles.and_then(|roles| {
            let detail = || format!("a user can have at most {MAX_ROLES} roles");
            let fits = roles.len() <= MAX_ROLES;
            if fits { Ok(roles) } else { Err(Problem::invalid("/roles", field_codes::TOO_LONG, detail())) }
        });
        let hash = received.password_hash.map(|hash| {
            let text = hash.text(self.firebase.as_ref())?;
            ImportedHash::accept(&text, self.most_cost).map_err(unwelcome_hash)
        });
        let registered_at = received.created_at.map(|Time(at)| self.over(at)).transpose();
        let later = both(memberships(&received.orgs), none_of("/identities", &received.identities));
        let ids = both(id.map(|id| self.user_id(id)).transpose(), external_id.map(named).transpose());
        let about = both(fields::new_email(&email, "/email"), fields::profile(name, phone, avatar_url));
        let (
            ((id, external_id), (email, profile)),
            ((roles, password_hash), (registered_at, (memberships, ()))),
        ) = both(both(ids, about), both(both(roles, hash.transpose()), both(registered_at, later)))?;
        Ok(ImportLine {
            number: self.number,
            id,
            email,
            email_verified,
            profile,
            origin: Origin { external_id, registered_at },
            roles,
            password_hash,
            banned: received.banned,
            memberships,
        })
    }

    /// Ids are in the order of time, which shows a key store that is older than the journal.
    fn user_id(&self, id: Uuid) -> Result<UserId, Problem> {
        let made_at = id.get_timestamp().filter(|_| id.get_version_num() == 7).map(|at| at.to_unix().0);
        if made_at
            .is_some_and(|second| i64::try_from(second).is_ok_and(|second| second <= self.now.as_second()))
        {
            return Ok(UserId(id));
        }
        let detail = "must be a UUID of version 7 whose time is over: send another one as `external_id`";
        Err(Problem::invalid("/id", field_codes::INVALID, detail))
    }

    fn over(&self, at: Timestamp) -> Result<Timestamp, Problem> {
        let whole = Timestamp::from_microsecond(at.as_microsecond()).ok().filter(|at| *at <= self.now);
        whole.ok_or_else(|| Problem::invalid("/created_at", field_codes::OUT_OF_RANGE, "must be over"))
    }

    /// Refuses a line whose person an earlier line has named.
    fn require_new(&mut self, person: &ImportLine) -> Result<(), Problem> {
        let ids = [
            ("/email", Some(format!("email {}", person.email.as_str()))),
            ("/id", person.id.map(|id| format!("id {id}"))),
            ("/external_id", person.origin.external_id.as_ref().map(|id| format!("external {id}"))),
        ];
        let ids = ids.into_iter().filter_map(|(pointer, id)| Some((pointer, id?)));
        let mut refusal: Option<Problem> = None;
        for (pointer, id) in ids {
            if let Some(first) = self.seen.get(&id) {
                let detail = format!("line {first} has the same");
                let problem = Problem::invalid(pointer, field_codes::REPEATED, detail);
                refusal = Some(match refusal {
                    Some(other) => other.and(problem),
                    None => problem,
                });
            } else {
                self.seen.insert(id, person.number);
            }
        }
        refusal.map_or(Ok(()), Err)
    }
}

impl<B: AsRef<[u8]>> Iterator for ImportLines<B> {
    type Item = Result<ImportLine, Vec<LineError>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.bytes.as_ref().get(self.next..).filter(|rest| !rest.is_empty())?;
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            let range = self.next..self.next + end;
            self.next += end + 1;
            self.number += 1;
            let line = self.bytes.as_ref()[range.clone()].trim_ascii();
            if line.is_empty() {
                continue;
            }
            // A copy of what is about to be read, which the reader may then change itself while reading.
            let line = line.to_vec();
            match self.read(&line) {
                Ok(None) => {}
                Ok(Some(person)) => return Some(Ok(person)),
                Err(problem) => return Some(Err(errors_of(self.number, &problem))),
            }
        }
    }
}

/// What a refusal says of a line.
pub(super) fn errors_of(line: u64, problem: &Problem) -> Vec<LineError> {
    if problem.errors().is_empty() {
        let (code, detail) = (problem.code().to_owned(), problem.text());
        return vec![LineError { line, pointer: String::new(), code, detail }];
    }
    let errors = problem.errors().iter().map(|error| LineError {
        line,
        pointer: error.pointer.clone().unwrap_or_default(),
        code: error.code.clone(),
        // A parser counts lines within what it is given.
        detail: error.detail.replace(" at line 1 column ", " at column "),
    });
    errors.collect()
}

fn none_of<T>(pointer: &str, list: &[T]) -> Result<(), Problem> {
    if list.is_empty() {
        return Ok(());
    }
    let detail = "is not supported yet: leave it out, or send an empty list";
    Err(Problem::invalid(pointer, field_codes::NOT_SUPPORTED, detail))
}

fn named(text: String) -> Result<String, Problem> {
    let is_plain = !text.is_empty() && text.len() <= MAX_EXTERNAL_ID && !text.chars().any(char::is_control);
    let detail = || format!("must be a text of 1 to {MAX_EXTERNAL_ID} bytes without control characters");
    if is_plain { Ok(text) } else { Err(Problem::invalid("/external_id", field_codes::INVALID, detail())) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn read(body: impl AsRef<[u8]>) -> Vec<Result<ImportLine, Vec<LineError>>> {
        let now = Timestamp::from_second(NOW).expect("in range");
        ImportLines::new(body, 2_097_152, now).collect()
    }

    fn read_one(line: &Value) -> Result<ImportLine, Vec<LineError>> {
        let mut lines = read(line.to_string());
        assert_eq!(lines.len(), 1);
        lines.remove(0)
    }

    /// The pointers and codes of the errors of a line.
    fn wrong(line: &Value) -> Vec<(String, String)> {
        let errors = read_one(line).expect_err("refused");
        errors.into_iter().map(|error| (error.pointer, error.code)).collect()
    }

    fn ada() -> Value {
        json!({ "email": "ada@example.com", "email_verified": true })
    }

    fn ada_with(member: &str, value: impl Into<Value>) -> Value {
        let mut line = ada();
        line[member] = value.into();
        line
    }

    #[test]
    fn reads_a_person() {
        let line = json!({
            "id": "01900000-0000-7000-8000-000000000001",
            "external_id": "auth0|5f7c8ec7c33c6c004bbafe82",
            "email": "Ada@Example.com",
            "email_verified": false,
            "name": "Ada Lovelace",
            "phone": "+44 20 7946 0000",
            "avatar_url": "https://app.example.com/ada.png",
            "roles": ["editor", "reader"],
            "created_at": "2019-03-01T12:00:00.123456789+01:00",
            "password_hash": { "algorithm": "bcrypt", "hash": "$2b$04$TY0CPoW8fvFSXaEFQfZSN.nitpquoWoGGeitu3N11rV/6PkD.Qvey" },
            "banned": true,
            "orgs": [{ "slug": "engines", "role": "admin" }, { "slug": "looms", "role": "member" }],
            "identities": null,
        });
        let person = read_one(&line).expect("a person");
        assert_eq!(person.email.as_str(), "ada@example.com");
        assert_eq!(person.origin.external_id.as_deref(), Some("auth0|5f7c8ec7c33c6c004bbafe82"));
        assert_eq!(
            person.origin.registered_at.map(|at| at.to_string()).as_deref(),
            Some("2019-03-01T11:00:00.123456Z")
        );
        assert!(person.banned && !person.email_verified && person.roles.len() == 2 && person.id.is_some());
        let memberships: Vec<_> =
            person.memberships.iter().map(|it| (it.slug.as_str(), it.role.as_str())).collect();
        assert_eq!(memberships, [("engines", "admin"), ("looms", "member")]);
        assert!(person.password_hash.is_some_and(|hash| hash.0.starts_with("$2b$04$")));
    }

    #[test]
    fn names_all_that_is_wrong_with_a_line() {
        let line = json!({
            "id": "9f0e9b3c-4e0e-4b0e-8b0e-3c4e0e4b0e8b",
            "external_id": "",
            "email": "ada",
            "email_verified": true,
            "name": "a\nb",
            "avatar_url": "javascript:x",
            "roles": ["editor", "no role"],
            "created_at": "2100-01-01T00:00:00Z",
            "password_hash": "$2b$31$TY0CPoW8fvFSXaEFQfZSN.nitpquoWoGGeitu3N11rV/6PkD.Qvey",
            "orgs": [
                { "slug": "Acme", "role": "member" },
                { "slug": "acme", "role": "" },
                { "slug": "looms", "role": "member" },
                { "slug": "looms", "role": "owner" },
            ],
            "identities": [{ "provider": "google", "subject": "1" }],
        });
        let expected = [
            ("/id", "invalid"),
            ("/external_id", "invalid"),
            ("/email", "invalid_email"),
            ("/name", "invalid"),
            ("/avatar_url", "invalid"),
            ("/roles/1", "invalid"),
            ("/password_hash", "out_of_range"),
            ("/created_at", "out_of_range"),
            ("/orgs/0/slug", "invalid"),
            ("/orgs/1/role", "invalid"),
            ("/orgs/3/slug", "repeated"),
            ("/identities", "not_supported"),
        ];
        assert_eq!(wrong(&line), expected.map(|(pointer, code)| (pointer.to_owned(), code.to_owned())));
        let shape = json!({ "email": 1, "emial": "x", "roles": [1], "password_hash": 5 });
        let found: BTreeSet<_> = wrong(&shape).into_iter().collect();
        let expected = [
            ("/email", "invalid_type"),
            ("/email_verified", "missing"),
            ("/emial", "unknown_member"),
            ("/password_hash", "invalid_type"),
            ("/roles/0", "invalid_type"),
        ];
        assert_eq!(found, expected.map(|(pointer, code)| (pointer.to_owned(), code.to_owned())).into());
    }

    /// None of these is read further than it must be, and none stops those behind it.
    #[test]
    fn hostile_lines_are_reported_one_by_one() {
        let mut body = b"\xef\xbb\xbf".to_vec();
        let good =
            |n: u32| json!({ "email": format!("ada{n}@example.com"), "email_verified": true }).to_string();
        for line in [
            good(1).into_bytes(),
            b"{\"email\": \"a\xffda@example.com\", \"email_verified\": true}".to_vec(),
            b"".to_vec(),
            b"  \t ".to_vec(),
            vec![b'x'; 10 << 20],
            b"[1]".to_vec(),
            b"{\"email\": \"ada@example.com\", ".to_vec(),
            b"null".to_vec(),
            br#"{"email": "a@example.com", "email": "b@example.com", "email_verified": true}"#.to_vec(),
            "[".repeat(60_000).into_bytes(),
            good(1).into_bytes(),
            br#"{"email": "ADA1@EXAMPLE.COM", "email_verified": true}"#.to_vec(),
            [good(2).as_bytes(), b"\r"].concat(),
        ] {
            body.extend(line);
            body.push(b'\n');
        }
        let lines = read(body);
        let good: Vec<u64> = lines.iter().flatten().map(|person| person.number).collect();
        assert_eq!(good, [1, 13]);
        let bad: Vec<(u64, &str, &str)> = lines
            .iter()
            .filter_map(|line| line.as_ref().err())
            .flatten()
            .map(|error| (error.line, error.pointer.as_str(), error.code.as_str()))
            .collect();
        let expected = [
            (2, "", "invalid"),
            (5, "", "too_long"),
            (6, "", "invalid_type"),
            (7, "", "invalid"),
            (8, "", "invalid_type"),
            (9, "/email", "repeated"),
            (10, "", "invalid"),
            (11, "/email", "repeated"),
            (12, "/email", "repeated"),
        ];
        assert_eq!(bad, expected);
        for error in lines.iter().filter_map(|line| line.as_ref().err()).flatten() {
            assert!(!error.detail.contains("line 1 column"), "{error:?}");
            assert!(!error.detail.contains("ada"), "nothing of the line is repeated: {error:?}");
        }
    }

    #[test]
    fn ids_are_given_once() {
        let with = |n: u32, member: &str, value: &str| {
            json!({ "email": format!("ada{n}@example.com"), "email_verified": true, member: value })
                .to_string()
        };
        let body = [
            with(1, "id", "01900000-0000-7000-8000-000000000001"),
            with(2, "id", "01900000-0000-7000-8000-000000000001"),
            with(3, "external_id", "7"),
            with(4, "external_id", "7"),
        ];
        let lines = read(body.join("\n"));
        let errors: Vec<_> = lines.iter().filter_map(|line| line.as_ref().err()).flatten().collect();
        let told: Vec<_> =
            errors.iter().map(|it| (it.line, it.pointer.as_str(), it.detail.as_str())).collect();
        assert_eq!(told, [(2, "/id", "line 1 has the same"), (4, "/external_id", "line 3 has the same")]);
    }

    /// The order of ids must stay that of time: one of the future, or one without a time, would be the newest for ever.
    #[test]
    fn an_id_of_no_past_moment_is_refused() {
        for id in [
            "9f0e9b3c-4e0e-4b0e-8b0e-3c4e0e4b0e8b",
            "ffffffff-ffff-7fff-bfff-ffffffffffff",
            "01ffffff-ffff-7fff-bfff-ffffffffffff",
        ] {
            assert_eq!(wrong(&ada_with("id", id)), [("/id".to_owned(), "invalid".to_owned())], "{id}");
        }
    }

    #[test]
    fn the_first_line_may_hold_firebase_parameters() {
        let config = json!({ "firebase_hash_config": {
            "signer_key": "jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA==",
            "salt_separator": "Bw==",
            "rounds": 8,
            "mem_cost": 14,
        }});
        let hash = json!({ "algorithm": "firebase-scrypt", "salt": "42xEC-ixf3L2lw==",
            "hash": "lSrfV15cpx95_sZS2W9c9Kp6i_LVgQNDNC_qzrCnh1SAyZvqmZqAjTdn3aoItz-VHjoZilo78198JAdRuid5lQ==" });
        let person = ada_with("password_hash", hash);
        let lines = read(format!("{config}\n{person}\n"));
        let [Ok(person)] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(person.number, 2);
        let stored = person.password_hash.as_ref().expect("a hash");
        let parsed = ImportedHash::parse(&stored.0).expect("a hash");
        assert!(parsed.matches(b"user1password") && !parsed.matches(b"user2password"));

        let lines = read(format!("{}\n{config}\n", ada()));
        assert_eq!(lines.iter().filter(|line| line.is_err()).count(), 1, "not on a later line");
        let lines = read(r#"{"firebase_hash_config": {"rounds": 8}}"#);
        assert!(matches!(&lines[..], [Err(errors)] if errors.len() == 3), "{lines:?}");
    }
}
