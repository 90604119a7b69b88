//! Rules for schemas, without which generated types do not compile, are too small for their values, or are none.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{below, document, operations};

fn schemas(document: &Value) -> impl Iterator<Item = (&String, &Value)> {
    document["components"]["schemas"].as_object().into_iter().flatten()
}

/// In Go, `NewUser` is the function that makes a `User`, and `NullableUser` one or none.
fn faults_of_names(document: &Value) -> Vec<String> {
    let is_known = |name: &str| document["components"]["schemas"].get(name).is_some();
    let of_another =
        |name: &str| ["New", "Nullable"].iter().any(|it| name.strip_prefix(it).is_some_and(is_known));
    let wrong = schemas(document).map(|(name, _)| name).filter(|name| of_another(name));
    wrong.map(|name| format!("Go derives `{name}` from another schema: give it another name")).collect()
}

/// In Go, the values of all enumerations are constants of the same package.
fn faults_of_constants(document: &Value) -> Vec<String> {
    let mut known = BTreeMap::new();
    let mut faults = Vec::new();
    for (name, schema) in schemas(document) {
        let constants = schema["x-enum-varnames"].as_array().or_else(|| schema["enum"].as_array());
        for constant in constants.into_iter().flatten().filter_map(Value::as_str) {
            let written =
                constant.to_ascii_uppercase().replace(|letter: char| !letter.is_ascii_alphanumeric(), "_");
            if let Some(other) = known.insert(written, name) {
                faults.push(format!(
                    "`{other}` and `{name}` both have `{constant}`: name it in openapi::CONSTANTS"
                ));
            }
        }
    }
    faults
}

/// The faults of all schemas, each with its path.
fn visit(document: &Value, rule: fn(&Value) -> Option<&'static str>) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, schema) in schemas(document) {
        visit_schema(schema, rule, &mut name.clone(), &mut faults);
    }
    for (name, operation) in operations(document) {
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let mut path = format!("{name}: {}", parameter["name"]);
            visit_schema(&parameter["schema"], rule, &mut path, &mut faults);
        }
    }
    faults
}

fn visit_schema(
    schema: &Value,
    rule: fn(&Value) -> Option<&'static str>,
    path: &mut String,
    faults: &mut Vec<String>,
) {
    faults.extend(rule(schema).map(|fault| format!("`{path}` {fault}")));
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        below(path, name, |path| visit_schema(member, rule, path, faults));
    }
    for word in ["items", "additionalProperties"] {
        if schema[word].is_object() {
            below(path, word, |path| visit_schema(&schema[word], rule, path, faults));
        }
    }
    for choice in ["oneOf", "anyOf", "allOf"].iter().filter_map(|word| schema[word].as_array()).flatten() {
        visit_schema(choice, rule, path, faults);
    }
}

fn has_type(schema: &Value, name: &str) -> bool {
    schema["type"] == name
        || schema["type"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == name))
}

/// For generators, an integer is one of 32 bits unless its format says otherwise.
fn sizeless(schema: &Value) -> Option<&'static str> {
    let has_size = schema["format"] == "int32" || schema["format"] == "int64";
    (has_type(schema, "integer") && !has_size).then_some("is an integer without a format: int32 or int64")
}

/// For generators, a constant may be anything.
fn untyped(schema: &Value) -> Option<&'static str> {
    let says = ["type", "$ref", "oneOf", "anyOf", "allOf"].iter().any(|word| !schema[word].is_null());
    (!says).then_some("has no type")
}

fn with(name: &str, schema: Value) -> Value {
    let mut document = document();
    document["components"]["schemas"][name] = schema;
    document
}

fn assert_faults(faults: &[String], expected: &[&str]) {
    let all =
        faults.len() == expected.len() && faults.iter().zip(expected).all(|(fault, it)| fault.contains(it));
    assert!(all, "{faults:#?} instead of {expected:?}");
}

#[test]
fn names_of_schemas_and_their_values_compile_in_go() {
    assert_faults(&faults_of_names(&document()), &[]);
    assert_faults(&faults_of_constants(&document()), &[]);
    for wrong in ["NewUser", "NullableUser"] {
        assert_faults(&faults_of_names(&with(wrong, json!({ "type": "object" }))), &[wrong]);
    }
    let right = with("NewsLetter", json!({ "type": "object" }));
    assert_faults(&faults_of_names(&right), &[]);
    for (values, wrong) in [
        (json!({ "enum": ["users:read"] }), &["`users:read`"][..]),
        (json!({ "enum": ["Users.Read", "other"] }), &["`Users.Read`"]),
        (json!({ "enum": ["users:read"], "x-enum-varnames": ["THING_USERS_READ"] }), &[]),
        (json!({ "enum": ["new"], "x-enum-varnames": ["USERS_READ"] }), &["`USERS_READ`"]),
    ] {
        assert_faults(&faults_of_constants(&with("Thing", values)), wrong);
    }
    // Each value of an enumeration with names has one.
    for (name, schema) in schemas(&document()) {
        if let Some(constants) = schema["x-enum-varnames"].as_array() {
            assert_eq!(Some(constants.len()), schema["enum"].as_array().map(Vec::len), "{name}");
        }
    }
}

#[test]
fn integers_have_a_size_and_everything_has_a_type() {
    assert_faults(&visit(&document(), sizeless), &[]);
    assert_faults(&visit(&document(), untyped), &[]);
    let thing = |schema: Value| with("Thing", json!({ "type": "object", "properties": { "part": schema } }));
    for wrong in [json!({ "type": "integer" }), json!({ "type": ["integer", "null"], "format": "uint64" })] {
        assert_faults(&visit(&thing(wrong), sizeless), &["Thing/part"]);
    }
    for wrong in [json!({ "const": "1.0" }), json!({}), json!({ "description": "Anything." })] {
        assert_faults(&visit(&thing(wrong.clone()), untyped), &["Thing/part"]);
        assert_faults(
            &visit(&thing(json!({ "type": "array", "items": wrong })), untyped),
            &["Thing/part/items"],
        );
    }
    let mut parameter = document();
    parameter["paths"]["/v1/apps/{app_id}/admin/users"]["get"]["parameters"] =
        json!([{ "name": "size", "in": "query", "schema": { "type": "integer" } }]);
    assert_faults(&visit(&parameter, sizeless), &["\"size\""]);
    // What a log of events counts.
    for member in ["position", "prevposition", "streamversion"] {
        assert_eq!(
            document()["components"]["schemas"]["CloudEvent"]["properties"][member]["format"],
            "int64"
        );
    }
}
