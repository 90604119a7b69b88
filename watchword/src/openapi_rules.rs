//! Rules for the API document, without which typed clients get names that nobody gave, or types of nothing but `null`s. Each is
//! shown to find a fault that is planted.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

mod types;

/// What operation ids begin with. A new verb is a decision: most operations need none.
const VERBS: &[&str] = &[
    "accept",
    "add",
    "ban",
    "change",
    "choose",
    "confirm",
    "create",
    "delete",
    "disable",
    "disown",
    "enable",
    "erase",
    "exchange",
    "export",
    "get",
    "grant",
    "import",
    "introspect",
    "issue",
    "list",
    "login",
    "logout",
    "rebuild",
    "recover",
    "redeem",
    "refresh",
    "register",
    "remove",
    "replay",
    "request",
    "resend",
    "reset",
    "retry",
    "revoke",
    "rotate",
    "set",
    "sign",
    "test",
    "unban",
    "unlock",
    "verify",
];

fn document() -> Value {
    serde_json::from_str(include_str!("../../schemas/openapi.json")).expect("the committed document is JSON")
}

/// All operations with a name for them: `POST /v1/apps`.
fn operations(document: &Value) -> impl Iterator<Item = (String, &Value)> {
    document["paths"].as_object().into_iter().flatten().flat_map(|(path, item)| {
        let methods = item.as_object().into_iter().flatten();
        methods.map(move |(method, operation)| (format!("{} {path}", method.to_uppercase()), operation))
    })
}

/// Operation ids are camelCase, because generators split at `_`; begin with a verb; and are unique whatever their tag, in any
/// case, because generators make files of them.
fn faults_of_ids(document: &Value) -> Vec<String> {
    let mut known = BTreeSet::new();
    let mut faults = Vec::new();
    for (name, operation) in operations(document) {
        let id = operation["operationId"].as_str().unwrap_or_default();
        let verb = id.split(|letter: char| !letter.is_ascii_lowercase()).next().unwrap_or_default();
        if !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) || !VERBS.contains(&verb) {
            faults.push(format!("{name}: the id `{id}` is not camelCase, beginning with a verb"));
        }
        if !known.insert(id.to_ascii_lowercase()) {
            faults.push(format!("{name}: another operation has the id `{id}`"));
        }
    }
    faults
}

fn is_json(media_type: &str) -> bool {
    media_type == "application/json" || media_type.ends_with("+json")
}

/// All successes of an operation have one schema, which has a name: generators make one type of them, or `InlineObject`.
fn faults_of_successes(document: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, operation) in operations(document) {
        // By media type; `None` for an answer without a body.
        let mut schemas: BTreeMap<Option<&str>, BTreeSet<String>> = BTreeMap::new();
        let responses = operation["responses"].as_object().into_iter().flatten();
        let mut successes = 0;
        for (_, response) in responses.filter(|(status, _)| status.starts_with('2')) {
            successes += 1;
            let content = response["content"].as_object().filter(|content| !content.is_empty());
            if content.is_none() {
                schemas.entry(None).or_default().insert("nothing".to_owned());
            }
            for (media_type, content) in content.into_iter().flatten() {
                let schema = &content["schema"];
                if is_json(media_type) && !is_reference(schema) {
                    faults.push(format!("{name}: the success {schema} is not a reference"));
                }
                schemas.entry(Some(media_type)).or_default().insert(schema.to_string());
            }
        }
        let has_one = schemas.values().all(|schemas| schemas.len() == 1);
        if !has_one || (schemas.contains_key(&None) && schemas.len() > 1) {
            faults.push(format!("{name}: {successes} successes have several schemas: {schemas:?}"));
        }
    }
    faults
}

fn is_reference(schema: &Value) -> bool {
    schema["$ref"].as_str().is_some_and(|target| target.starts_with("#/components/schemas/"))
}

/// Items, members and values that are objects, or choices, have a schema with a name: the same user is `User` everywhere, and
/// not `UserPageItemsInner`.
fn faults_of_items(document: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    find_inline(document, &mut String::new(), &mut faults);
    faults
}

/// Whether a generator has to invent a name for it.
fn needs_name(schema: &Value) -> bool {
    ["properties", "enum", "oneOf", "anyOf", "allOf"].iter().any(|keyword| !schema[keyword].is_null())
}

/// Whether it says nothing about an object but that it is one, or nothing at all.
fn is_open(schema: &Value) -> bool {
    let is_object = schema["type"] == "object" && schema["additionalProperties"].is_null();
    is_object || (schema["type"].is_null() && schema["$ref"].is_null())
}

fn find_inline(value: &Value, path: &mut String, faults: &mut Vec<String>) {
    let Some(members) = value.as_object() else {
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            below(path, &index.to_string(), |path| find_inline(item, path, faults));
        }
        return;
    };
    let is_schema = !path.ends_with("/properties");
    if is_schema {
        if let Some(items) = members.get("items")
            && (needs_name(items) || is_open(items))
        {
            faults.push(format!("{path}: its items need a schema with a name"));
        }
        let values = members.get("additionalProperties").filter(|values| needs_name(values));
        if values.is_some() {
            faults.push(format!("{path}: its values need a schema with a name"));
        }
        let own = members.get("properties").and_then(Value::as_object);
        let objects = own.into_iter().flatten().filter(|(_, schema)| schema["properties"].is_object());
        faults.extend(objects.map(|(name, _)| format!("{path}: `{name}` needs a schema with a name")));
    }
    for (name, member) in members {
        let is_data = matches!(name.as_str(), "example" | "examples" | "default" | "enum" | "const");
        if !(is_schema && is_data) {
            below(path, name, |path| find_inline(member, path, faults));
        }
    }
}

/// What is optional is absent and never `null`, and no body is `null`: generators give such a member two kinds of nothing, and
/// clients send the one for the other. Only what is always there can be `null`.
fn faults_of_nulls(document: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    find_nullable(document, document, &mut String::new(), &mut faults);
    for (name, operation) in operations(document) {
        let bodies = operation["requestBody"]["content"].as_object().into_iter().flatten();
        let bodies = bodies.filter(|(_, body)| may_be_null(document, &body["schema"]));
        faults.extend(bodies.map(|(kind, _)| format!("{name}: its body as {kind} can be null")));
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let parameters = parameters.filter(|parameter| may_be_null(document, &parameter["schema"]));
        faults.extend(parameters.map(|it| format!("{name}: its parameter {} can be null", it["name"])));
    }
    faults
}

fn may_be_null(document: &Value, schema: &Value) -> bool {
    if let Some(target) = schema["$ref"].as_str() {
        let target = document.pointer(target.trim_start_matches('#'));
        return target.is_some_and(|target| may_be_null(document, target));
    }
    let has_null = |values: &Value| values.as_array().is_some_and(|values| values.contains(&Value::Null));
    let is_type =
        |kind: &Value| kind == "null" || kind.as_array().is_some_and(|kinds| kinds.contains(&"null".into()));
    let choices = ["oneOf", "anyOf"].iter().filter_map(|word| schema[word].as_array()).flatten();
    is_type(&schema["type"])
        || schema["nullable"] == true
        || has_null(&schema["enum"])
        || schema.get("const").is_some_and(Value::is_null)
        || choices.into_iter().any(|choice| may_be_null(document, choice))
}

fn find_nullable(document: &Value, value: &Value, path: &mut String, faults: &mut Vec<String>) {
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        below(path, &index.to_string(), |path| find_nullable(document, item, path, faults));
    }
    let Some(members) = value.as_object() else { return };
    let required = members.get("required").and_then(Value::as_array);
    let is_required = |name: &String| required.is_some_and(|names| names.contains(&name.as_str().into()));
    let own = members.get("properties").and_then(Value::as_object).filter(|_| !path.ends_with("/properties"));
    for (name, schema) in own.into_iter().flatten() {
        if !is_required(name) && may_be_null(document, schema) {
            faults.push(format!("{path}: `{name}` is optional and can be null"));
        }
    }
    for (name, member) in members.iter().filter(|(name, _)| !matches!(name.as_str(), "example" | "examples"))
    {
        below(path, name, |path| find_nullable(document, member, path, faults));
    }
}

fn below(path: &mut String, name: &str, look: impl FnOnce(&mut String)) {
    let length = path.len();
    path.push('/');
    path.push_str(name);
    look(path);
    path.truncate(length);
}

#[test]
fn operation_ids_are_camel_case_with_the_verb_first_and_unique() {
    let document = document();
    assert_eq!(faults_of_ids(&document), Vec::<String>::new());
    assert!(operations(&document).count() > 60);
    for wrong in [
        "create_user",
        "CreateUser",
        "create-user",
        "users",
        "adminCreateUser",
        "usersCreate",
        "listUsers",
        "",
    ] {
        let mut document = document.clone();
        document["paths"]["/v1/apps/{app_id}/admin/users"]["post"]["operationId"] = wrong.into();
        let faults = faults_of_ids(&document);
        assert!(faults.len() == 1 && faults[0].contains(&format!("`{wrong}`")), "{wrong}: {faults:?}");
    }
}

#[test]
fn an_operation_has_one_success_schema() {
    let document = document();
    assert_eq!(faults_of_successes(&document), Vec::<String>::new());
    let register = &document["paths"]["/v1/apps/{app_id}/auth/register"]["post"]["responses"];
    for status in ["201", "202"] {
        let schema = &register[status]["content"]["application/json"]["schema"];
        assert_eq!(schema["$ref"], "#/components/schemas/Registration", "{status}");
    }
    let body = |schema: Value| json!({ "content": { "application/json": { "schema": schema } } });
    let user = json!({ "$ref": "#/components/schemas/User" });
    let tokens = json!({ "$ref": "#/components/schemas/Tokens" });
    for (wrong, what) in [
        (json!({ "201": body(user.clone()), "202": body(tokens.clone()) }), "several schemas"),
        (json!({ "200": body(user.clone()), "204": {} }), "several schemas"),
        (json!({ "200": body(json!({ "type": "object" })) }), "not a reference"),
        (json!({ "200": body(json!({ "oneOf": [user, tokens] })) }), "not a reference"),
    ] {
        let mut document = document.clone();
        document["paths"]["/v1/apps/{app_id}/admin/users"]["post"]["responses"] = wrong;
        let faults = faults_of_successes(&document);
        assert!(faults.len() == 1 && faults[0].contains(what), "{what}: {faults:?}");
    }
}

/// A client that logs in with the answer of a registration finds in it what the answer of a login has.
#[test]
fn a_registration_has_the_members_of_tokens_and_always_a_status() {
    let document = document();
    let schema = |name: &str| &document["components"]["schemas"][name];
    let members = |name: &str| schema(name)["properties"].as_object().cloned().expect("members");
    let mut expected: Map<_, _> = members("Tokens");
    let status = json!({ "$ref": "#/components/schemas/RegistrationStatus" });
    expected.insert("status".to_owned(), status);
    let mut own = members("Registration");
    own["status"].as_object_mut().expect("a schema").remove("description");
    assert_eq!(own, expected);
    assert_eq!(schema("Registration")["required"], json!(["status"]));
    assert_eq!(schema("RegistrationStatus")["enum"], json!(["registered", "verification_sent"]));
}

#[test]
fn no_item_is_inline() {
    let document = document();
    assert_eq!(faults_of_items(&document), Vec::<String>::new());
    let user = document["components"]["schemas"]["User"].clone();
    let reference = json!({ "$ref": "#/components/schemas/User" });
    let list = |items: Value| json!({ "type": "array", "items": items });
    let page = |items: Value| json!({ "type": "object", "properties": { "items": list(items) } });
    for (wrong, what) in [
        (page(user.clone()), "its items"),
        (page(json!({ "type": "object" })), "its items"),
        (page(json!({})), "its items"),
        (page(json!({ "type": "string", "enum": ["a", "b"] })), "its items"),
        (page(json!({ "oneOf": [reference, { "type": "null" }] })), "its items"),
        (json!({ "allOf": [reference, page(user.clone())] }), "its items"),
        (json!({ "type": "object", "additionalProperties": user }), "its values"),
        (json!({ "properties": { "owner": user } }), "`owner`"),
    ] {
        let mut document = document.clone();
        document["components"]["schemas"]["UserPage"] = wrong;
        let faults = faults_of_items(&document);
        let [fault] = faults.as_slice() else { panic!("{what}: {faults:?}") };
        assert!(fault.starts_with("/components/schemas/UserPage") && fault.contains(what), "{fault}");
    }
    let mut answered = document;
    answered["paths"]["/v1/apps/{app_id}/admin/users"]["get"]["responses"]["200"]["content"]["application/json"]
        ["schema"] = list(user);
    assert_eq!(faults_of_items(&answered).len(), 1);
}

#[test]
fn what_is_optional_is_never_null() {
    let document = document();
    assert_eq!(faults_of_nulls(&document), Vec::<String>::new());
    let text = json!({ "type": ["string", "null"] });
    let user = json!({ "oneOf": [{ "$ref": "#/components/schemas/User" }, { "type": "null" }] });
    let nullable = [
        text.clone(),
        user.clone(),
        json!({ "anyOf": [{ "type": "string" }, { "type": "null" }] }),
        json!({ "enum": ["a", null] }),
        json!({ "type": "null" }),
        json!({ "const": null }),
        json!({ "type": "string", "nullable": true }),
        json!({ "$ref": "#/components/schemas/Nothing" }),
    ];
    let planted = |place: &str, wrong: &Value| {
        let mut document = document.clone();
        document["components"]["schemas"]["Nothing"] = json!({ "type": "null" });
        *document.pointer_mut(place).expect(place) = wrong.clone();
        faults_of_nulls(&document)
    };
    // A member of a request, and one of an answer.
    for (schema, member) in
        [("CreateUserRequest", "phone"), ("AppPatch", "settings"), ("Introspection", "sub")]
    {
        for wrong in &nullable {
            let faults = planted(&format!("/components/schemas/{schema}/properties/{member}"), wrong);
            let [fault] = faults.as_slice() else { panic!("{schema} {wrong}: {faults:?}") };
            assert_eq!(
                *fault,
                format!("/components/schemas/{schema}: `{member}` is optional and can be null")
            );
        }
    }
    // What an answer always has may be null, until it is optional.
    assert_eq!(planted("/components/schemas/User/properties/name", &text), Vec::<String>::new());
    assert_eq!(planted("/components/schemas/User/required", &json!([])).len(), 4);
    let body = "/paths/~1v1~1apps~1{app_id}~1admin~1users~1{user_id}~1ban/post/requestBody/content/application~1json/schema";
    let inline = json!({ "type": "object", "properties": { "reason": text } });
    assert!(planted(body, &inline)[0].ends_with("`reason` is optional and can be null"));
    for wrong in &nullable {
        let faults = planted(body, wrong);
        assert!(faults.len() == 1 && faults[0].contains("its body"), "{wrong}: {faults:?}");
        let faults = planted("/paths/~1v1~1apps/get/parameters/0/schema", wrong);
        assert!(faults.len() == 1 && faults[0].contains("its parameter"), "{wrong}: {faults:?}");
    }
}
