//! The API document's schemas of types that are not described where they are used: app settings, permissions, keys, events and
//! problem codes. They are generated from the types, like the event schemas.

use domain::signing_key::{KeyStatus, PublicJwk, TokenAlgorithm};
use domain::{AppSettings, Permission};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use schemas::problems::REGISTRY;
use serde_json::{Map, Value, json};

/// Adds them to a document.
pub fn add_types(document: &mut Value) {
    let Some(components) = document["components"]["schemas"].as_object_mut() else { return };
    add(components, "AppSettings", schema::<AppSettings>(Direction::Out));
    add(components, "AppSettingsPatch", schema::<AppSettings>(Direction::In));
    add(components, "Permission", schema::<Permission>(Direction::Out));
    add(components, "Jwk", schema::<PublicJwk>(Direction::Out));
    add(components, "TokenAlgorithm", schema::<TokenAlgorithm>(Direction::Out));
    add(components, "KeyStatus", schema::<KeyStatus>(Direction::Out));
    let codes: Vec<_> = REGISTRY.iter().map(|kind| kind.code).collect();
    let text = "The machine-readable code of a problem, explained at `/problems/<code>`.";
    components
        .insert("ProblemCode".to_owned(), json!({ "type": "string", "enum": codes, "description": text }));
    components.insert("CloudEvent".to_owned(), schemas::asyncapi::envelope());
    rename(document);
    name_constants(document);
    leave_out_nulls(document);
}

/// Names of the values of an enumeration, for languages that have the constants of all enumerations in one namespace (Go).
const CONSTANTS: &[(&str, &[&str])] = &[
    ("RetentionGranularity", &["BY_WEEK_OF_REGISTRATION", "BY_MONTH_OF_REGISTRATION"]),
    ("MailDelivery", &["PLATFORM_DELIVERS", "APP_DELIVERS"]),
    ("WebhookDeliveryStatus", &["DELIVERY_WAITING", "DELIVERY_FAILED"]),
];

fn name_constants(document: &mut Value) {
    for (name, constants) in CONSTANTS {
        document["components"]["schemas"][*name]["x-enum-varnames"] = json!(constants);
    }
}

/// Optional members, bodies and parameters are not `null` but absent, in requests as in answers: typed clients then omit what
/// is not set.
fn leave_out_nulls(document: &mut Value) {
    leave_out_null_deep(document);
    let paths = document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    for operation in paths.filter_map(Value::as_object_mut).flat_map(|item| item.values_mut()) {
        let content = operation.pointer_mut("/requestBody/content").and_then(Value::as_object_mut);
        let bodies = content.into_iter().flat_map(|content| content.values_mut());
        bodies.filter_map(|body| body["schema"].as_object_mut()).for_each(not_null);
        let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
        let parameters = parameters.into_iter().flatten();
        parameters.filter_map(|parameter| parameter["schema"].as_object_mut()).for_each(not_null);
    }
}

fn leave_out_null_deep(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.values_mut().for_each(leave_out_null_deep);
            leave_out_null(members);
        }
        Value::Array(items) => items.iter_mut().for_each(leave_out_null_deep),
        _ => {}
    }
}

/// Schemas whose type names are clear to us, but not to readers of the document.
const NAMES: &[(&str, &str)] = &[
    ("Registration", "RegistrationPolicy"),
    ("Registered", "Registration"),
    ("Delivery", "MailDelivery"),
    ("Links", "MailLinks"),
    // A Go client would have a function of this name, which makes a `User`.
    ("NewOrganization", "CreateOrganizationRequest"),
    ("NewAppOrganization", "CreateAppOrganizationRequest"),
    ("NewInvitation", "CreateInvitationRequest"),
    ("AcceptedInvitation", "AcceptInvitationRequest"),
    ("NewOrganizationKey", "IssueOrganizationApiKeyRequest"),
    ("NewUser", "CreateUserRequest"),
    ("NewApp", "CreateAppRequest"),
    ("NewApiKey", "IssueApiKeyRequest"),
    ("NewAccessToken", "CreateAccessTokenRequest"),
    ("NewWebhook", "CreateWebhookRequest"),
];

fn rename(document: &mut Value) {
    if let Some(components) = document["components"]["schemas"].as_object_mut() {
        for (ours, theirs) in NAMES {
            if let Some(schema) = components.remove(*ours) {
                let known = components.insert((*theirs).to_owned(), schema);
                assert!(known.is_none(), "two schemas are called {theirs}");
            }
        }
    }
    rename_references(document);
}

fn rename_references(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(target)) = members.get_mut("$ref")
                && let Some(name) = target.strip_prefix("#/components/schemas/")
                && let Some((_, theirs)) = NAMES.iter().find(|(ours, _)| *ours == name)
            {
                *target = format!("#/components/schemas/{theirs}");
            }
            members.values_mut().for_each(rename_references);
        }
        Value::Array(items) => items.iter_mut().for_each(rename_references),
        _ => {}
    }
}

/// Whether a value is sent to the service, where defaults replace missing members, or comes from it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    In,
    Out,
}

/// A schema, and the definitions it refers to.
pub fn schema_with_parts<T: JsonSchema>(direction: Direction) -> (Value, Value) {
    let mut parts = Map::new();
    add(&mut parts, "", schema::<T>(direction));
    let own = parts.remove("").unwrap_or_default();
    (own, Value::Object(parts))
}

fn schema<T: JsonSchema>(direction: Direction) -> Value {
    let settings = SchemaSettings::draft2020_12();
    let settings = match direction {
        Direction::In => settings.for_deserialize(),
        Direction::Out => settings.for_serialize(),
    };
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// Adds a schema with its definitions.
fn add(components: &mut Map<String, Value>, name: &str, mut schema: Value) {
    let Some(members) = schema.as_object_mut() else { return };
    members.remove("$schema");
    members.remove("title");
    let parts = members.remove("$defs");
    for (part, mut schema) in parts.as_ref().and_then(Value::as_object).cloned().unwrap_or_default() {
        simplify(&mut schema);
        // Both directions share their definitions: all of their members are optional.
        let known = components.insert(part.clone(), schema.clone());
        assert!(known.is_none_or(|known| known == schema), "two schemas are called {part}");
    }
    simplify(&mut schema);
    components.insert(name.to_owned(), schema);
}

/// Rewrites a schema in keywords that typed generators understand.
fn simplify(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.values_mut().for_each(simplify);
            if let Some(Value::String(target)) = members.get_mut("$ref") {
                *target = target.replace("#/$defs/", "#/components/schemas/");
            }
            // Rust-specific formats, for which generators would invent types.
            if members.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint"))
            {
                members.insert("format".to_owned(), "int64".into());
            }
            tell_default(members);
            name_values(members);
            leave_out_null(members);
        }
        Value::Array(items) => items.iter_mut().for_each(simplify),
        _ => {}
    }
}

/// As text, because generators assume that a member with a default is always present, in requests too.
fn tell_default(members: &mut Map<String, Value>) {
    let Some(default) =
        members.remove("default").filter(|default| !default.is_null() && !default.is_object())
    else {
        return;
    };
    let own = members.get("description").and_then(Value::as_str).unwrap_or_default();
    members.insert("description".to_owned(), format!("{own} Default: `{default}`.").trim().into());
}

/// Named constants become one enumeration, with their descriptions as a list.
fn name_values(members: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = members.get("oneOf") else { return };
    let (mut values, mut lines) = (Vec::new(), Vec::new());
    for choice in choices {
        match (choice.get("const"), choice.get("enum")) {
            (Some(value), _) => {
                values.push(value.clone());
                if let (Some(text), Some(value)) = (choice["description"].as_str(), value.as_str()) {
                    lines.push(format!("- `{value}`: {text}"));
                }
            }
            (None, Some(Value::Array(several))) => values.extend(several.iter().cloned()),
            _ => return,
        }
    }
    members.remove("oneOf");
    members.insert("type".to_owned(), "string".into());
    members.insert("enum".to_owned(), values.into());
    if !lines.is_empty() {
        let own = members.get("description").and_then(Value::as_str).unwrap_or_default();
        members.insert("description".to_owned(), format!("{own}\n\n{}", lines.join("\n")).into());
    }
}

/// For an optional member `null` means absent, so only required members can be null.
fn leave_out_null(members: &mut Map<String, Value>) {
    let required = members.get("required").cloned().unwrap_or_default();
    let is_required = |name: &str| required.as_array().is_some_and(|names| names.iter().any(|it| it == name));
    let Some(Value::Object(properties)) = members.get_mut("properties") else { return };
    for (_, property) in properties.iter_mut().filter(|(name, _)| !is_required(name)) {
        if let Some(property) = property.as_object_mut() {
            not_null(property);
        }
    }
}

/// The same schema without `null`.
fn not_null(schema: &mut Map<String, Value>) {
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
    if let Some(Value::Array(kinds)) = schema.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [kind] = kinds.as_slice() {
            let kind = kind.clone();
            schema.insert("type".to_owned(), kind);
        }
    }
    for word in ["anyOf", "oneOf"] {
        if let Some(Value::Array(choices)) = schema.get_mut(word) {
            choices.retain(|choice| choice["type"] != "null");
            if let [Value::Object(choice)] = choices.as_slice() {
                let choice = choice.clone();
                schema.remove(word);
                schema.extend(choice);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use schemas::problems::problem_type;

    use super::*;

    fn document() -> Value {
        serde_json::from_str(include_str!("../../schemas/openapi.json"))
            .expect("the committed document is JSON")
    }

    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(found.len() > 50);
        for reference in found {
            let pointer = reference.strip_prefix('#').expect("all are in here");
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn every_operation_has_what_generators_and_readers_need() {
        let document = document();
        let tags: BTreeSet<_> =
            document["tags"].as_array().expect("tags").iter().map(|tag| tag["name"].as_str()).collect();
        let order = document["tags"].as_array().expect("tags").iter().filter_map(|tag| tag["name"].as_str());
        assert_eq!(
            order.collect::<Vec<_>>(),
            [
                "auth",
                "magic links",
                "me",
                "sessions",
                "organizations",
                "admin",
                "audit",
                "webhooks",
                "keys",
                "platform"
            ],
            "what people look for first comes first"
        );
        for (path, item) in document["paths"].as_object().expect("paths") {
            assert!(
                path.starts_with("/v1/") || !path.starts_with("/auth/"),
                "{path}: the default app's route is described in text"
            );
            for (method, operation) in item.as_object().expect("an item") {
                assert!(operation["security"].is_array(), "{method} {path}");
                let has_text = |member: &str| operation[member].as_str().is_some_and(|text| !text.is_empty());
                assert!(has_text("summary") && has_text("description"), "{method} {path}");
                assert!(
                    tags.contains(&operation["tags"][0].as_str()),
                    "{method} {path}: a tag without a description"
                );
                for (status, response) in operation["responses"].as_object().expect("responses") {
                    let examples = &response["content"]["application/problem+json"]["examples"];
                    for example in examples.as_object().into_iter().flatten().map(|(_, example)| example) {
                        assert_eq!(example["value"]["status"].to_string(), *status, "{method} {path}");
                    }
                }
            }
        }
        assert!(
            document["servers"][0]["url"].is_string()
                && document["info"]["license"]["identifier"].is_string()
        );
    }

    /// Names in descriptions are text, which the compiler does not check.
    #[test]
    fn refusals_name_problems_that_there_are() {
        let document = document();
        let mut named = BTreeSet::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("an item") {
                for (status, response) in operation["responses"].as_object().expect("responses") {
                    let text = response["description"].as_str().filter(|_| status.starts_with(['4', '5']));
                    for word in text.unwrap_or_default().split('`').skip(1).step_by(2) {
                        let is_code = word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
                        // A role, a setting, and a member of an answer.
                        if is_code && !["admin", "admin_role", "checks"].contains(&word) {
                            let kind = problem_type(word);
                            assert!(kind.is_some(), "{method} {path}: {status} names `{word}`");
                            named.insert(word);
                        }
                    }
                }
            }
        }
        assert!(named.len() > 10, "{named:?}");
    }

    #[test]
    fn schemas_have_names_that_a_client_would_give_them() {
        let document = document();
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        for (name, schema) in schemas {
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric()), "{name}: not a valid type name");
            assert!(!name.ends_with("Body"), "{name}: name what it is, not where it is sent");
            if name.ends_with("Page") {
                assert!(schema["properties"]["items"]["items"]["$ref"].is_string(), "{name}");
            }
        }
        for name in
            ["User", "UserPage", "App", "AppPage", "Session", "SessionPage", "ApiKeyPage", "AuditEventPage"]
        {
            assert!(schemas.contains_key(name), "{name}");
        }
    }

    #[test]
    fn what_was_any_object_has_a_type() {
        let document = document();
        let schema = |name: &str| &document["components"]["schemas"][name];
        let all = schema("AppSettings");
        let names: BTreeSet<_> =
            all["properties"].as_object().expect("members").keys().map(String::as_str).collect();
        let required = all["required"].as_array().expect("a list").iter().filter_map(Value::as_str);
        assert_eq!(required.collect::<BTreeSet<_>>(), names, "an answer shows all of them");
        let defaults = serde_json::to_value(AppSettings::default()).expect("JSON");
        assert!(defaults.as_object().expect("an object").keys().all(|name| names.contains(name.as_str())));
        let patch = schema("AppSettingsPatch");
        assert!(
            patch["required"].is_null() && patch["properties"]["redirect_uris"]["items"]["$ref"].is_string()
        );
        assert_eq!(
            schema("AppPatch")["properties"]["settings"]["$ref"],
            "#/components/schemas/AppSettingsPatch"
        );
        assert_eq!(schema("App")["properties"]["settings"]["$ref"], "#/components/schemas/AppSettings");
        let permissions = schema("Permission")["enum"].as_array().expect("values").len();
        // Plus the two that only the platform grants: everything, and metrics.
        assert_eq!(permissions, Permission::OF_AN_APP.len() + 2);
        assert_eq!(schema("ProblemCode")["enum"].as_array().map(Vec::len), Some(REGISTRY.len()));
        assert_eq!(schema("Problem")["properties"]["code"]["$ref"], "#/components/schemas/ProblemCode");
        assert_eq!(
            schema("EventPage")["properties"]["items"]["items"]["$ref"],
            "#/components/schemas/CloudEvent"
        );
        assert_eq!(schema("JwkSet")["properties"]["keys"]["items"]["$ref"], "#/components/schemas/Jwk");
        let detail = schema("Problem")["required"].as_array().expect("a list");
        assert!(detail.iter().any(|name| name == "detail") && detail.iter().any(|name| name == "request_id"));
    }

    #[test]
    fn a_default_is_told_and_null_is_left_out() {
        let mut schema = json!({
            "properties": {
                "a": { "type": ["string", "null"], "default": null },
                "b": { "anyOf": [{ "$ref": "#/$defs/B" }, { "type": "null" }], "description": "It." },
                "c": { "type": "integer", "format": "uint32", "default": 7, "description": "How many." },
                "d": { "type": ["string", "null"] },
                "e": { "oneOf": [{ "const": "x", "description": "One." }, { "enum": ["y", "z"] }], "description": "Which." },
            },
            "required": ["d"],
        });
        simplify(&mut schema);
        assert_eq!(
            schema["properties"],
            json!({
                "a": { "type": "string" },
                "b": { "$ref": "#/components/schemas/B", "description": "It." },
                "c": { "type": "integer", "format": "int64", "description": "How many. Default: `7`." },
                "d": { "type": ["string", "null"] },
                "e": { "type": "string", "enum": ["x", "y", "z"], "description": "Which.\n\n- `x`: One." },
            })
        );
    }
}
