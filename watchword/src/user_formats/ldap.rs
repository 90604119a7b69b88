//! LDAP: an LDIF file (RFC 2849), as `slapcat` and `ldapsearch -LLL` write it. Entries without an address are no people.

use std::io::{BufRead, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Entry, Person, Take, Wrong};

/// The longest entry, in bytes: photographs may be in it.
const MAX_ENTRY: usize = 4 << 20;

/// The attributes of an entry, with lower-case names.
type Attributes = Vec<(String, String)>;

pub(super) fn read(mut reader: impl BufRead, take: Take<'_>) -> anyhow::Result<()> {
    let (mut number, mut read) = (0, 0);
    let (mut entry, mut is_over) = (Vec::<Vec<u8>>::new(), false);
    while !is_over {
        let mut line = Vec::new();
        let taken = reader.by_ref().take(MAX_ENTRY as u64).read_until(b'\n', &mut line)?;
        (read, is_over) = (read + taken as u64, taken == 0);
        let content = line.trim_ascii_end();
        if !content.is_empty() {
            match (content[0], entry.last_mut()) {
                // A line that begins with a blank continues the one before.
                (b' ', Some(last)) => last.extend(&content[1..]),
                _ => entry.push(content.to_vec()),
            }
            if entry.iter().map(Vec::len).sum::<usize>() > MAX_ENTRY {
                anyhow::bail!("an entry has more than {MAX_ENTRY} bytes");
            }
            continue;
        }
        let attributes = attributes(&std::mem::take(&mut entry));
        if !attributes.iter().any(|(name, _)| name == "dn") || find(&attributes, "mail").is_none() {
            continue;
        }
        number += 1;
        let line = person(&attributes).map(Person::into_bytes);
        if take(Entry { number, line, left_out: 0, read }).is_break() {
            break;
        }
    }
    Ok(())
}

/// Those that are texts.
fn attributes(lines: &[Vec<u8>]) -> Attributes {
    let pairs = lines.iter().filter_map(|line| {
        let line = std::str::from_utf8(line).ok().filter(|line| !line.starts_with('#'))?;
        let (name, value) = line.split_once(':')?;
        // Options, as in `userPassword;lang-en`, are no part of the name.
        let name = name.split(';').next().unwrap_or_default().to_ascii_lowercase();
        let value = match value.strip_prefix(':') {
            Some(coded) => String::from_utf8(STANDARD.decode(coded.trim()).ok()?).ok()?,
            None => value.trim().to_owned(),
        };
        Some((name, value))
    });
    pairs.collect()
}

fn find<'a>(attributes: &'a Attributes, name: &str) -> Option<&'a str> {
    let value = attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    value.filter(|value| !value.is_empty())
}

fn person(attributes: &Attributes) -> Result<Person, Wrong> {
    let find = |name: &str| find(attributes, name);
    let mut person = Person::new(find("mail"), false)?;
    person.set("external_id", find("entryuuid").or_else(|| find("uid")));
    person.set("name", find("displayname").or_else(|| find("cn")));
    person.set("phone", find("telephonenumber").or_else(|| find("mobile")));
    person.set("created_at", find("createtimestamp").and_then(generalized_time));
    person.set("password_hash", find("userpassword").map(hash));
    Ok(person)
}

/// Without the scheme of a hash that says itself what it is.
fn hash(text: &str) -> &str {
    let schemes = ["{CRYPT}", "{ARGON2}", "{BCRYPT}"];
    let rest = schemes.iter().find_map(|scheme| {
        let (start, rest) = text.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    rest.unwrap_or(text)
}

/// `20190301120000Z` (RFC 4517 section 3.3.13) as RFC 3339.
fn generalized_time(text: &str) -> Option<String> {
    let digits = text.get(..14).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let part = |from: usize, to: usize| &digits[from..to];
    Some(format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4),
        part(4, 6),
        part(6, 8),
        part(8, 10),
        part(10, 12),
        part(12, 14)
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::user_formats::{Format, converted};

    #[test]
    fn entries_of_a_directory() {
        let file = "version: 1

# The root.
dn: dc=example,dc=com
objectClass: organization

dn: uid=ada,ou=people,dc=example,dc=com
objectClass: inetOrgPerson
uid: ada
cn:: QWRhIEzDtnZlbGFjZQ==
mail: ada@example.com
mail: second@example.com
telephoneNumber: +44 20 7946 0000
userPassword:: e1NTSEF9cGhVTlk5U0NRQlpteXNQakYvZStOZ0dLZTAwNTV4ekQ=
entryUUID: 4c5f3b1e-0d2a-103a-8e11-
 7d2c1f0a9b8c
createTimestamp: 20190301120000Z

dn: uid=grace,ou=people,dc=example,dc=com
uid: grace
mail: grace@example.com
userPassword: {crypt}$6$Vfw38hfZUoMj8Fdh$TRRt.e/GoJt9/TmRyOhXRyQy2CKt9IfcNBOAf2CsX
 ZA2D6Tm/tdI7HLqf3yKe1CHt2fJq0zeX4tTVXcqs8QqN/
jpegPhoto:: /9j/4AAQSkZJRg==
";
        let lines = converted(Format::Ldap, file);
        assert_eq!(
            lines,
            [
                Ok(json!({
                    "external_id": "4c5f3b1e-0d2a-103a-8e11-7d2c1f0a9b8c",
                    "email": "ada@example.com",
                    "email_verified": false,
                    "name": "Ada Lövelace",
                    "phone": "+44 20 7946 0000",
                    "created_at": "2019-03-01T12:00:00Z",
                    "password_hash": "{SSHA}phUNY9SCQBZmysPjF/e+NgGKe0055xzD",
                })),
                Ok(json!({
                    "external_id": "grace",
                    "email": "grace@example.com",
                    "email_verified": false,
                    "password_hash": "$6$Vfw38hfZUoMj8Fdh$TRRt.e/GoJt9/TmRyOhXRyQy2CKt9IfcNBOAf2CsXZA2D6Tm/tdI7HLqf3yKe1CHt2fJq0zeX4tTVXcqs8QqN/",
                })),
            ]
        );
    }
}
