//! The generated documents as strict readers see them: members in the order of the text, and references only where every reader
//! follows them. JsonSchema.Net needs `$id` before `$defs`; NJsonSchema does not follow a reference inside a definition.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use domain::LogOrigin;
use schemas::event_schemas::{self, Document};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use crate::{goldens, pretty, samples};

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// JSON with its members in the order of the text; `Value` sorts them.
#[derive(Debug)]
enum Ordered {
    Object(Vec<(String, Ordered)>),
    Array(Vec<Ordered>),
    Text(String),
    Other,
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Ordered;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let mut members = vec![];
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Ordered::Object(members))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Ordered, A::Error> {
                let mut items = vec![];
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Ordered::Array(items))
            }

            fn visit_str<E>(self, text: &str) -> Result<Ordered, E> {
                Ok(Ordered::Text(text.to_owned()))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Ordered, E> {
                Ok(Ordered::Other)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Ordered, E> {
                Ok(Ordered::Other)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Ordered, E> {
                Ok(Ordered::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Ordered, E> {
                Ok(Ordered::Other)
            }

            fn visit_unit<E>(self) -> Result<Ordered, E> {
                Ok(Ordered::Other)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl Ordered {
    fn parse(text: &str) -> Self {
        serde_json::from_str(text).expect("JSON")
    }

    fn members(&self) -> &[(String, Self)] {
        match self {
            Self::Object(members) => members,
            _ => &[],
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    fn member(&self, name: &str) -> Option<&Self> {
        self.members().iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Each object at any depth, with the JSON Pointer to it.
    fn objects<'a>(&'a self, at: &str, found: &mut Vec<(String, &'a Self)>) {
        match self {
            Self::Object(members) => {
                found.push((at.to_owned(), self));
                for (name, value) in members {
                    value.objects(&format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), found);
                }
            }
            Self::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    item.objects(&format!("{at}/{index}"), found);
                }
            }
            Self::Text(_) | Self::Other => {}
        }
    }

    fn all_objects(&self) -> Vec<(String, &Self)> {
        let mut found = vec![];
        self.objects("", &mut found);
        found
    }
}

/// Repeated members: readers differ in which one counts.
fn twice(document: &Ordered) -> Vec<String> {
    let repeated = |(at, object): (String, &Ordered)| {
        let mut seen = BTreeSet::new();
        let names = object.members().iter().map(|(name, _)| name.as_str());
        names.filter(|name| !seen.insert(*name)).map(|name| format!("{at}/{name}: twice")).collect::<Vec<_>>()
    };
    document.all_objects().into_iter().flat_map(repeated).collect()
}

/// What a strict reader would refuse in the schema of an event.
fn faults(text: &str, id: &str) -> Vec<String> {
    let document = Ordered::parse(text);
    let mut faults = twice(&document);
    let start = document.members().iter().take(2).map(|(name, value)| (name.as_str(), value.text()));
    if start.collect::<Vec<_>>() != [("$schema", Some(DIALECT)), ("$id", Some(id))] {
        faults.push("it does not begin with $schema and $id".to_owned());
    }
    let mut used = BTreeSet::new();
    for (at, object) in document.all_objects() {
        for (name, value) in object.members() {
            match name.as_str() {
                "$ref" => {
                    let definition = value.text().and_then(|target| target.strip_prefix("#/$defs/"));
                    let known = |name| document.member("$defs").and_then(|all| all.member(name)).is_some();
                    if at.starts_with("/$defs/") {
                        faults.push(format!("{at}: a $ref inside a definition"));
                    }
                    match definition.filter(|name| known(name)) {
                        Some(name) => drop(used.insert(name)),
                        None => faults.push(format!("{at}: {value:?} leads nowhere")),
                    }
                }
                "$schema" | "$id" | "$defs" if !at.is_empty() => faults.push(format!("{at}: {name}")),
                "$anchor" | "$dynamicRef" | "$dynamicAnchor" | "definitions" => {
                    faults.push(format!("{at}: {name}"));
                }
                _ => {}
            }
        }
    }
    let defined = document.member("$defs").map(Ordered::members).unwrap_or_default();
    let unused = defined.iter().filter(|(name, _)| !used.contains(name.as_str()));
    faults.extend(unused.map(|(name, _)| format!("/$defs/{name}: nothing refers to it")));
    faults
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

#[test]
fn every_event_schema_loads_in_strict_readers() {
    let mut read = 0;
    let origin = LogOrigin::parse("https://login.example.com/auth").expect("an origin");
    for (path, schema) in event_schemas::all() {
        let committed = fs::read_to_string(folder().join(&path)).expect("committed");
        assert_eq!(faults(&committed, &format!("/schemas/{path}")), Vec::<String>::new(), "{path}");
        let served = serde_json::to_string(&Document::new(&schema, Some(&origin))).expect("JSON");
        assert_eq!(faults(&served, &format!("{origin}/schemas/{path}")), Vec::<String>::new(), "{path}");
        read += 1;
    }
    assert!(read >= 40, "{read}");
}

/// Each rule finds the fault it is for.
#[test]
fn a_planted_fault_is_found() {
    let id = "/schemas/events/user/X.v1.json";
    let start = format!(r#""$schema":"{DIALECT}","$id":"{id}""#);
    let defs = r#""$defs":{"A":{"type":"string"}}"#;
    let properties = r##""properties":{"a":{"$ref":"#/$defs/A"}}"##;
    assert_eq!(faults(&format!("{{{start},{defs},{properties}}}"), id), Vec::<String>::new());
    for (text, fault) in [
        (format!("{{{defs},{start},{properties}}}"), "it does not begin with $schema and $id"),
        (format!(r#"{{"$id":"{id}","$schema":"{DIALECT}"}}"#), "it does not begin with $schema and $id"),
        (
            format!(
                r##"{{{start},"$defs":{{"A":{{"items":{{"$ref":"#/$defs/B"}}}},"B":{{}}}},{properties}}}"##
            ),
            "/$defs/A/items: a $ref inside a definition",
        ),
        (format!("{{{start},{properties}}}"), r##"/properties/a: Text("#/$defs/A") leads nowhere"##),
        (format!("{{{start},{defs}}}"), "/$defs/A: nothing refers to it"),
        (format!(r#"{{{start},"properties":{{"a":{{"$id":"/b"}}}}}}"#), "/properties/a: $id"),
        (format!(r#"{{{start},"type":"object","type":"object"}}"#), "/type: twice"),
    ] {
        assert_eq!(faults(&text, id), [fault], "{text}");
    }
}

/// The longest chain of references from a schema. Fails on a cycle and on a reference without a target.
fn depth(root: &Value, schema: &Value, followed: &mut Vec<String>) -> usize {
    match schema {
        Value::Object(members) => {
            let own = members.get("$ref").and_then(Value::as_str).map_or(0, |target| {
                assert!(!followed.iter().any(|known| known == target), "a circle: {followed:?} {target}");
                let pointer = target.strip_prefix('#').unwrap_or_else(|| panic!("{target} is elsewhere"));
                let next = root.pointer(pointer).unwrap_or_else(|| panic!("{target} leads nowhere"));
                followed.push(target.to_owned());
                let deeper = depth(root, next, followed);
                followed.pop();
                1 + deeper
            });
            let inside = members.values().map(|value| depth(root, value, followed)).max();
            own.max(inside.unwrap_or_default())
        }
        Value::Array(items) => items.iter().map(|item| depth(root, item, followed)).max().unwrap_or_default(),
        _ => 0,
    }
}

/// The definitions of event schemas are components here, and contain no references either: a payload refers to its event, and
/// the event to its definitions.
#[test]
fn the_asyncapi_document_begins_with_its_version_and_refers_no_deeper_than_a_schema_does() {
    let text = fs::read_to_string(folder().join("asyncapi.json")).expect("committed");
    let ordered = Ordered::parse(&text);
    assert_eq!(ordered.members()[0].0, "asyncapi");
    assert_eq!(twice(&ordered), Vec::<String>::new());
    let misplaced = |(at, object): (String, &Ordered)| {
        let names = object.members().iter().map(|(name, _)| name.as_str());
        let misplaced = names.filter(|name| ["$id", "$schema", "$defs"].contains(name));
        misplaced.map(|name| format!("{at}/{name}")).collect::<Vec<_>>()
    };
    let misplaced = ordered.all_objects().into_iter().flat_map(misplaced).collect::<Vec<_>>();
    assert_eq!(misplaced, Vec::<String>::new());

    let document: Value = serde_json::from_str(&text).expect("JSON");
    let schemas = event_schemas::all();
    let definitions = schemas.values().flat_map(|schema| {
        schema["$defs"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect::<Vec<_>>()
    });
    for name in definitions.collect::<BTreeSet<_>>() {
        let definition = &document["components"]["schemas"][&name];
        assert!(definition.is_object() && depth(&document, definition, &mut vec![]) == 0, "{name}");
    }
    for (name, message) in document["components"]["messages"].as_object().expect("messages") {
        assert!(depth(&document, &message["payload"], &mut vec![]) <= 2, "{name}");
    }
}

#[test]
fn the_openapi_document_has_no_loose_or_circular_references() {
    let text = fs::read_to_string(folder().join("openapi.json")).expect("committed");
    let ordered = Ordered::parse(&text);
    assert!(ordered.member("openapi").is_some());
    assert_eq!(twice(&ordered), Vec::<String>::new());
    let document: Value = serde_json::from_str(&text).expect("JSON");
    // Pages refer to their items, and those to their parts.
    assert!(depth(&document, &document, &mut vec![]) <= 6);
}

/// An independent validator for the data of an event.
fn validator(schema: &Value) -> jsonschema::Validator {
    let options = jsonschema::draft202012::options().should_validate_formats(true);
    options.build(schema).unwrap_or_else(|error| panic!("{}: {error}", schema["$id"]))
}

#[test]
fn every_golden_is_what_its_schema_says() {
    let schemas = event_schemas::all();
    let mut refused = 0;
    for event in goldens::recorded() {
        let path = event_schemas::path(event.stream.aggregate(), &event.name, event.schema_version);
        // In the form that consumers load.
        let served =
            serde_json::to_value(Document::new(&schemas[&path], Some(&samples::origin()))).expect("JSON");
        assert!(jsonschema::draft202012::meta::is_valid(&served), "{path}");
        let validator = validator(&served);
        let data: Value = serde_json::from_str(&event.data).expect("JSON");
        let errors = validator.iter_errors(&data).map(|error| error.to_string()).collect::<Vec<_>>();
        assert_eq!(errors, Vec::<String>::new(), "{path}: {data}");

        // A schema that accepts anything would have passed, too.
        for name in served["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let mut without = data.clone();
            without.as_object_mut().expect("an object").remove(name);
            assert!(!validator.is_valid(&without), "{path} without {name}");
            let mut other = data.clone();
            other[name] = json!([[]]);
            assert!(!validator.is_valid(&other), "{path} with another {name}");
            refused += 1;
        }
    }
    assert!(refused > 100, "{refused}");
}

/// Every current event, with all its optional members.
#[test]
fn every_sample_is_what_its_schema_says() {
    let schemas = event_schemas::all();
    for (stream, event) in samples::all() {
        let encoded = schemas::encode(&event);
        let path = event_schemas::path(stream.aggregate(), encoded.name, encoded.schema_version);
        let data: Value = serde_json::from_str(&encoded.data).expect("JSON");
        let validator = validator(&schemas[&path]);
        let errors = validator.iter_errors(&data).map(|error| error.to_string()).collect::<Vec<_>>();
        assert_eq!(errors, Vec::<String>::new(), "{path}: {data}");
    }
}

/// Reordering members loses none of them.
#[test]
fn the_committed_form_is_read_back_whole() {
    for schema in event_schemas::all().values() {
        let text = pretty(&Document::new(schema, None));
        assert_eq!(&serde_json::from_str::<Value>(&text).expect("JSON"), schema);
    }
}
