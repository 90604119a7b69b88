//! What the server answers, held against the document that it serves: typed clients refuse an answer that differs.

use std::sync::LazyLock;

use serde_json::{Map, Value};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../schemas/openapi.json")).expect("the committed document is JSON")
});

/// How the JSON of a success differs from its schema: what is `null`, absent or of another type though it may not be. Nothing
/// for what the document does not describe.
pub(crate) fn differences(method: &str, path: &str, status: u16, body: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(schema) = schema_of(method, path, status) {
        compare(schema, body, &mut String::new(), &mut found);
    }
    found
}

fn schema_of(method: &str, path: &str, status: u16) -> Option<&'static Value> {
    let paths = DOCUMENT["paths"].as_object()?;
    let fits = |template: &str| {
        let (mut wanted, mut given) = (template.split('/'), path.split('/'));
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return true,
                (Some(wanted), Some(given)) if wanted == given || wanted.starts_with('{') => {}
                _ => return false,
            }
        }
    };
    // Of two that fit, the one with fewer parameters.
    let item = paths
        .iter()
        .filter(|(template, _)| fits(template))
        .min_by_key(|(template, _)| template.matches('{').count());
    let answer = &item?.1[method.to_ascii_lowercase()]["responses"][status.to_string()];
    answer["content"]["application/json"].get("schema")
}

fn compare(schema: &'static Value, value: &Value, path: &mut String, found: &mut Vec<String>) {
    if let Some(target) = schema["$ref"].as_str() {
        let target = DOCUMENT.pointer(target.trim_start_matches('#')).expect("references lead somewhere");
        return compare(target, value, path, found);
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        compare(part, value, path, found);
    }
    let choices: Vec<_> =
        ["oneOf", "anyOf"].iter().filter_map(|word| schema[word].as_array()).flatten().collect();
    if !choices.is_empty() {
        let fits = |choice: &'static Value| {
            let mut found = Vec::new();
            compare(choice, value, &mut String::new(), &mut found);
            found.is_empty()
        };
        if !choices.into_iter().any(fits) {
            found.push(format!("{path}: {value} is none of the choices"));
        }
    }
    let kinds = match &schema["type"] {
        Value::String(kind) => vec![kind.as_str()],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !kinds.is_empty() && !kinds.iter().any(|kind| is_of(kind, value)) {
        found.push(format!("{path}: {value} is not of type {}", kinds.join(" or ")));
    }
    if let Value::Object(members) = value {
        compare_members(schema, members, path, found);
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        if let Some(schema) = schema.get("items") {
            below(path, &index.to_string(), |path| compare(schema, item, path, found));
        }
    }
}

fn compare_members(
    schema: &'static Value,
    members: &Map<String, Value>,
    path: &mut String,
    found: &mut Vec<String>,
) {
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    found.extend(
        required
            .filter(|name| !members.contains_key(*name))
            .map(|name| format!("{path}: `{name}` is absent")),
    );
    for (name, member) in members {
        if let Some(schema) = schema["properties"].get(name) {
            below(path, name, |path| compare(schema, member, path, found));
        }
    }
}

fn below(path: &mut String, name: &str, look: impl FnOnce(&mut String)) {
    let length = path.len();
    path.push('/');
    path.push_str(name);
    look(path);
    path.truncate(length);
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::differences;

    #[test]
    fn an_answer_that_differs_is_found() {
        let page = |user| json!({"items": [user], "total": 1, "next_cursor": null});
        let path = "/v1/apps/acme/admin/api-keys";
        let key = json!({"id": "x", "name": "k", "permissions": [], "created_at": "t", "expires_at": null});
        let of = |body| differences("GET", path, 200, &body);
        assert_eq!(of(page(key.clone())), Vec::<String>::new());
        let with = |name: &str, value| {
            let mut key = key.clone();
            key[name] = value;
            of(page(key))
        };
        assert_eq!(with("name", json!(null)), ["/items/0/name: null is not of type string"]);
        assert_eq!(with("name", json!(7)), ["/items/0/name: 7 is not of type string"]);
        let mut short = key.clone();
        short.as_object_mut().expect("an object").remove("name");
        assert_eq!(of(page(short)), ["/items/0: `name` is absent"]);
        assert_eq!(of(json!({"items": [], "total": 0})), [": `next_cursor` is absent"]);
        assert_eq!(differences("GET", "/nowhere", 200, &json!(7)), Vec::<String>::new());
    }
}
