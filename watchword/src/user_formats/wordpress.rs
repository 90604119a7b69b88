//! WordPress: rows of `wp_users`, as `wp user list --format=json --fields=ID,user_email,display_name,user_registered,roles,user_pass`
//! writes them. It knows of no address whether it was verified, and everybody has a role, of which only its own meaning is known.

use serde_json::Value;

use super::{Person, Wrong, id, roles, text, time};

/// What a site gives those who register.
const OF_EVERYBODY: [&str; 2] = ["subscriber", "customer"];

pub(super) fn person(row: &Value) -> Result<Person, Wrong> {
    let mut person = Person::new(text(row, "user_email"), false)?;
    person.set("external_id", id(row, "ID"));
    person.set("name", text(row, "display_name").filter(|name| !name.contains('@')));
    // In UTC, without saying so.
    person.set("created_at", time(&row["user_registered"]));
    let given = roles(&row["roles"]);
    let is_own = |role: &&Value| !OF_EVERYBODY.iter().any(|it| *role == it);
    let own = given.as_array().into_iter().flatten().filter(is_own).cloned();
    person.set("roles", own.collect::<Vec<_>>());
    person.set("password_hash", text(row, "user_pass"));
    Ok(person)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::user_formats::{Format, converted};

    #[test]
    fn a_list_of_the_command_line() {
        let hash = "$wp$2y$06$aHrWZmz8eY6vkLLX8LBXF.fm/YULO/aViet1Uyu46/9mr0Vnw05KS";
        let file = json!([
            {
                "ID": 1, "user_login": "ada", "user_email": "ada@example.com", "display_name": "Ada Lovelace",
                "user_registered": "2019-03-01 12:00:00", "roles": "editor,customer", "user_pass": hash,
            },
            {
                "ID": "2", "user_email": "grace@example.com", "display_name": "grace@example.com",
                "user_registered": "0000-00-00 00:00:00", "roles": "subscriber",
            },
        ]);
        let lines = converted(Format::Wordpress, &file.to_string());
        assert_eq!(
            lines[0],
            Ok(json!({
                "external_id": "1",
                "email": "ada@example.com",
                "email_verified": false,
                "name": "Ada Lovelace",
                "created_at": "2019-03-01T12:00:00",
                "roles": ["editor"],
                "password_hash": hash,
            }))
        );
        let expected = json!({ "external_id": "2", "email": "grace@example.com", "email_verified": false });
        assert_eq!(lines[1], Ok(expected));
    }
}
