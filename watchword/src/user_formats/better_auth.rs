//! better-auth: its tables `user` and `account` as one JSON object. The password is in the account `credential`, so both are
//! read as a whole.

use std::collections::HashMap;
use std::io::BufRead;

use anyhow::Context;
use serde_json::Value;

use super::{Entry, Person, Take, Wrong, roles, text, time, truth};

pub(super) fn read(reader: impl BufRead, take: Take<'_>) -> anyhow::Result<()> {
    let tables: Value = serde_json::from_reader(reader)?;
    let table = |name: &str| tables[name].as_array().with_context(|| format!("there is no array {name}"));
    let (users, accounts) = (table("user")?, table("account")?);
    let mut passwords = HashMap::new();
    let mut social: HashMap<&str, u64> = HashMap::new();
    for account in accounts {
        let Some(user) = text(account, "userId") else { continue };
        match text(account, "password") {
            Some(password) if account["providerId"] == "credential" => {
                passwords.insert(user, password);
            }
            _ => *social.entry(user).or_default() += 1,
        }
    }
    for (user, number) in users.iter().zip(1..) {
        let id = text(user, "id").unwrap_or_default();
        let left_out = social.get(id).copied().unwrap_or_default();
        let line = person(user, passwords.get(id).copied()).map(Person::into_bytes);
        if take(Entry { number, line, left_out, read: 0 }).is_break() {
            break;
        }
    }
    Ok(())
}

fn person(row: &Value, password: Option<&str>) -> Result<Person, Wrong> {
    let mut person = Person::new(text(row, "email"), truth(&row["emailVerified"]))?;
    person.set("external_id", text(row, "id"));
    person.set("name", text(row, "name"));
    person.set("avatar_url", text(row, "image"));
    person.set("phone", text(row, "phoneNumber"));
    person.set("created_at", time(&row["createdAt"]));
    // Everybody has the role `user` there.
    let given = roles(&row["role"]);
    let own = given.as_array().into_iter().flatten().filter(|role| *role != "user").cloned();
    person.set("roles", own.collect::<Vec<_>>());
    person.set("password_hash", password);
    person.ban_if(truth(&row["banned"]));
    Ok(person)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::user_formats::{Format, converted};

    const HASH: &str = "419ba91c661e18dbcb26b4c35692c101:192b49b7daa90e8c7fcbf4d362f50425549931d2be9b5118f1cd71f932e19b17cbe2adf302b03f166dce7fb5be42d02c512ab268887eed6ad0d07b0abb9a905b";

    #[test]
    fn both_tables() {
        let file = json!({
            "user": [
                {
                    "id": "dK2vQ3uYpZ", "name": "Ada Lovelace", "email": "ada@example.com", "emailVerified": true,
                    "image": "https://app.example.com/ada.png", "createdAt": "2019-03-01T12:00:00.000Z",
                    "updatedAt": "2019-03-01T12:00:00.000Z", "role": "user,editor", "banned": 1,
                },
                { "id": "2", "name": "", "email": "grace@example.com", "emailVerified": 0 },
            ],
            "account": [
                { "id": "a", "userId": "dK2vQ3uYpZ", "accountId": "dK2vQ3uYpZ", "providerId": "credential", "password": HASH },
                { "id": "b", "userId": "2", "accountId": "1", "providerId": "google", "password": null },
            ],
        });
        let lines = converted(Format::BetterAuth, &file.to_string());
        assert_eq!(
            lines[0],
            Ok(json!({
                "external_id": "dK2vQ3uYpZ",
                "email": "ada@example.com",
                "email_verified": true,
                "name": "Ada Lovelace",
                "avatar_url": "https://app.example.com/ada.png",
                "created_at": "2019-03-01T12:00:00.000Z",
                "roles": ["editor"],
                "password_hash": HASH,
                "banned": true,
            }))
        );
        let expected = json!({ "external_id": "2", "email": "grace@example.com", "email_verified": false });
        assert_eq!(lines[1], Ok(expected));
    }
}
