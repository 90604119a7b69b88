//! ASP.NET Core Identity: rows of `AspNetUsers`, as `SELECT … FOR JSON PATH` or an Entity Framework query gives them, with a
//! member `Roles` where roles are wanted.

use serde_json::Value;

use super::{Person, Wrong, id, roles, text, truth};

pub(super) fn person(row: &Value) -> Result<Person, Wrong> {
    let mut person = Person::new(text(row, "Email"), truth(&row["EmailConfirmed"]))?;
    person.set("external_id", id(row, "Id"));
    // Most programs have the address as the name to log in with.
    person.set("name", text(row, "UserName").filter(|name| !name.contains('@')));
    person.set("phone", text(row, "PhoneNumber"));
    person.set("roles", roles(&row["Roles"]));
    person.set("password_hash", text(row, "PasswordHash"));
    Ok(person)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::user_formats::{Format, converted};

    #[test]
    fn rows_of_the_table() {
        let hash = "AQAAAAIAAYagAAAAEGtb3qchjOAn+DezQi2ufCJyNP0aiVKF2n3NeFfTvoSkNyNwrXwg/1DOF/J3Ay1qsQ==";
        let file = json!([
            {
                "Id": "b1c3f0e2-6d5a-4f7b-8c9d-0e1f2a3b4c5d",
                "UserName": "ada@example.com",
                "NormalizedUserName": "ADA@EXAMPLE.COM",
                "Email": "ada@example.com",
                "NormalizedEmail": "ADA@EXAMPLE.COM",
                "EmailConfirmed": true,
                "PasswordHash": hash,
                "SecurityStamp": "VVPCRDAS3MJWQD5CSW2GWPRADBXEZINA",
                "ConcurrencyStamp": "c8554266-b401-4519-9aeb-a9283053fc58",
                "PhoneNumber": "+44 20 7946 0000",
                "PhoneNumberConfirmed": false,
                "TwoFactorEnabled": false,
                "LockoutEnd": null,
                "LockoutEnabled": true,
                "AccessFailedCount": 0,
                "Roles": ["Orders.Read.All"],
            },
            { "Id": 7, "UserName": "grace", "Email": "grace@example.com", "EmailConfirmed": 0, "PasswordHash": null },
        ]);
        let lines = converted(Format::AspnetIdentity, &file.to_string());
        assert_eq!(
            lines[0],
            Ok(json!({
                "external_id": "b1c3f0e2-6d5a-4f7b-8c9d-0e1f2a3b4c5d",
                "email": "ada@example.com",
                "email_verified": true,
                "phone": "+44 20 7946 0000",
                "roles": ["Orders.Read.All"],
                "password_hash": hash,
            }))
        );
        assert_eq!(
            lines[1],
            Ok(json!({
                "external_id": "7", "email": "grace@example.com", "email_verified": false, "name": "grace",
            }))
        );
    }
}
