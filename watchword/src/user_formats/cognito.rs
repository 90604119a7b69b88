//! Amazon Cognito: what `aws cognito-idp list-users` writes. Cognito gives nobody its password hashes.

use serde_json::Value;

use super::{Person, Wrong, full_name, text, time};

pub(super) fn person(row: &Value) -> Result<Person, Wrong> {
    let attributes = row["Attributes"].as_array().into_iter().flatten();
    let named: serde_json::Map<String, Value> =
        attributes.filter_map(|it| Some((it["Name"].as_str()?.to_owned(), it["Value"].clone()))).collect();
    let named = Value::Object(named);
    let mut person = Person::new(text(&named, "email"), named["email_verified"] == "true")?;
    person.set("external_id", text(&named, "sub").or_else(|| text(row, "Username")));
    let parts = full_name(&named, "given_name", "family_name");
    person.set("name", text(&named, "name").unwrap_or(&parts));
    person.set("phone", text(&named, "phone_number"));
    person.set("avatar_url", text(&named, "picture"));
    person.set("created_at", created_at(&row["UserCreateDate"]));
    person.ban_if(row["Enabled"] == false);
    let identities = text(&named, "identities").and_then(|text| serde_json::from_str::<Value>(text).ok());
    person.left_out = identities.and_then(|list| Some(list.as_array()?.len() as u64)).unwrap_or_default();
    Ok(person)
}

/// A text, or in older versions of the program seconds since 1970.
fn created_at(value: &Value) -> Option<Value> {
    match value.as_f64() {
        #[expect(clippy::cast_possible_truncation, reason = "whole seconds are enough")]
        Some(seconds) => Some(domain::Timestamp::from_second(seconds as i64).ok()?.to_string().into()),
        None => time(value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::user_formats::{Format, converted};

    #[test]
    fn a_list_of_the_command_line() {
        let file = json!({ "Users": [
            {
                "Username": "ada",
                "Attributes": [
                    { "Name": "sub", "Value": "eaad0219-2117-439f-8d46-4db20e59268f" },
                    { "Name": "email", "Value": "ada@example.com" },
                    { "Name": "email_verified", "Value": "true" },
                    { "Name": "given_name", "Value": "Ada" },
                    { "Name": "family_name", "Value": "Lovelace" },
                    { "Name": "phone_number", "Value": "+442079460000" },
                    { "Name": "identities", "Value": "[{\"userId\":\"1\",\"providerName\":\"Google\"}]" },
                ],
                "UserCreateDate": "2019-03-01T12:00:00.123000+00:00",
                "UserLastModifiedDate": "2019-03-01T12:00:00.123000+00:00",
                "Enabled": false,
                "UserStatus": "CONFIRMED",
            },
            {
                "Username": "grace",
                "Attributes": [{ "Name": "email", "Value": "grace@example.com" }],
                "UserCreateDate": 1_551_441_600.5,
                "Enabled": true,
            },
        ]});
        let lines = converted(Format::Cognito, &file.to_string());
        assert_eq!(
            lines[0],
            Ok(json!({
                "external_id": "eaad0219-2117-439f-8d46-4db20e59268f",
                "email": "ada@example.com",
                "email_verified": true,
                "name": "Ada Lovelace",
                "phone": "+442079460000",
                "created_at": "2019-03-01T12:00:00.123000+00:00",
                "banned": true,
            }))
        );
        assert_eq!(
            lines[1],
            Ok(json!({
                "external_id": "grace",
                "email": "grace@example.com",
                "email_verified": false,
                "created_at": "2019-03-01T12:00:00Z",
            }))
        );
    }
}
