//! The JSON Schemas (draft 2020-12) of event payloads: what consumers can rely on in the member `data`.
//!
//! They are generated from the payload types and committed. A schema holds for every event of its version ever
//! written, so it can only grow by optional members; [`breaking_changes`] finds what would break a consumer.

use std::collections::{BTreeMap, BTreeSet};

use domain::event::EventKind;
use domain::{Event, LogOrigin};
use schemars::generate::SchemaSettings;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value, json};

/// Schemas of former versions as they were committed, `(path, text)`: the types they came from are gone, but the
/// journal still holds events of those versions.
const FORMER: &[(&str, &str)] = &[
    ("events/app/SigningKeyActivated.v1.json", include_str!("../events/app/SigningKeyActivated.v1.json")),
    ("events/user/UserBanned.v1.json", include_str!("../events/user/UserBanned.v1.json")),
];

/// Every schema by its path, such as `events/user/UserRegistered.v1.json`.
pub fn all() -> BTreeMap<String, Value> {
    let former = FORMER.iter().map(|(path, text)| {
        let mut schema = serde_json::from_str(text).expect("a committed schema is JSON");
        inline_definitions(&mut schema);
        ((*path).to_owned(), schema)
    });
    let present =
        Event::KINDS.iter().flat_map(|(aggregate, kinds)| kinds.iter().map(|kind| schema(aggregate, kind)));
    former.chain(present).collect()
}

/// A schema as a document: `$schema` and then `$id` come first, as strict readers want it. With an origin, `$id` is
/// absolute; that is how it is served and what events name. Without one it is a path.
pub struct Document<'a> {
    schema: &'a Value,
    origin: Option<&'a LogOrigin>,
}

impl<'a> Document<'a> {
    /// Wraps a schema from [`all`].
    pub fn new(schema: &'a Value, origin: Option<&'a LogOrigin>) -> Self {
        Self { schema, origin }
    }
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let none = Map::new();
        let members = self.schema.as_object().unwrap_or(&none);
        let mut document = serializer.serialize_map(Some(members.len()))?;
        if let Some(dialect) = members.get("$schema") {
            document.serialize_entry("$schema", dialect)?;
        }
        if let Some(id) = members.get("$id").and_then(Value::as_str) {
            let origin = self.origin.map_or("", LogOrigin::as_str);
            document.serialize_entry("$id", &format!("{origin}{id}"))?;
        }
        for (name, value) in members.iter().filter(|(name, _)| !matches!(name.as_str(), "$schema" | "$id")) {
            document.serialize_entry(name, value)?;
        }
        document.end()
    }
}

/// The path of an event's schema: its key in [`all`]. Prefixed with the origin and `/schemas/`, it is the envelope's
/// `dataschema`.
pub fn path(aggregate: &str, name: &str, schema_version: u16) -> String {
    format!("events/{aggregate}/{name}.v{schema_version}.json")
}

fn schema(aggregate: &str, kind: &EventKind) -> (String, Value) {
    let path = path(aggregate, kind.name, kind.version);
    let mut schema = (kind.schema)(SchemaSettings::draft2020_12().into_generator()).to_value();
    schema["$id"] = format!("/schemas/{path}").into();
    schema["title"] = kind.name.into();
    // The personal part travels sealed in the envelope, so it is not part of the data.
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.remove("personal");
    }
    inline_definitions(&mut schema);
    drop_unused_definitions(&mut schema);
    tolerate_unknown_members(&mut schema);
    (path, schema)
}

/// Inlines definitions that others refer to, because some readers do not resolve a reference inside a definition.
fn inline_definitions(schema: &mut Value) {
    fn inline(value: &mut Value, definitions: &Map<String, Value>, depth: usize) {
        assert!(depth < 64, "a definition refers to itself");
        let target = reference(value).and_then(|target| target.strip_prefix("#/$defs/"));
        if let Some(target) = target {
            let mut whole = definitions.get(target).cloned().unwrap_or_default();
            // Keywords beside a reference, such as a better description, take precedence.
            if let (Some(whole), Some(beside)) = (whole.as_object_mut(), value.as_object()) {
                let beside = beside.iter().filter(|(name, _)| *name != "$ref");
                whole.extend(beside.map(|(name, value)| (name.clone(), value.clone())));
            }
            *value = whole;
        }
        match value {
            Value::Object(members) => {
                members.values_mut().for_each(|value| inline(value, definitions, depth + 1));
            }
            Value::Array(values) => values.iter_mut().for_each(|value| inline(value, definitions, depth + 1)),
            _ => {}
        }
    }
    let Some(definitions) = schema.get("$defs").and_then(Value::as_object).cloned() else { return };
    for definition in schema["$defs"].as_object_mut().into_iter().flat_map(Map::values_mut) {
        inline(definition, &definitions, 0);
    }
}

fn drop_unused_definitions(schema: &mut Value) {
    let Some(definitions) = schema.as_object_mut().and_then(|schema| schema.remove("$defs")) else { return };
    let mut used = BTreeSet::new();
    let mut to_visit = vec![&*schema];
    while let Some(value) = to_visit.pop() {
        for name in references(value) {
            if used.insert(name.clone()) {
                to_visit.extend(definitions.get(&name));
            }
        }
    }
    let kept = definitions.as_object().into_iter().flatten().filter(|(name, _)| used.contains(*name));
    let kept = kept.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>();
    if !kept.is_empty() {
        schema["$defs"] = Value::Object(kept);
    }
}

/// The names of the definitions that a schema refers to.
fn references(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Object(members) => members
            .iter()
            .flat_map(|(name, value)| match (name.as_str(), value) {
                ("$ref", Value::String(target)) => {
                    target.strip_prefix("#/$defs/").map(str::to_owned).into_iter().collect()
                }
                _ => references(value),
            })
            .collect(),
        Value::Array(values) => values.iter().flat_map(references).collect(),
        _ => BTreeSet::new(),
    }
}

/// Commands refuse unknown members; consumers of events must ignore them, or an event could never get a new one.
fn tolerate_unknown_members(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if members.get("additionalProperties") == Some(&json!(false)) {
                members.remove("additionalProperties");
            }
            members.values_mut().for_each(tolerate_unknown_members);
        }
        Value::Array(values) => values.iter_mut().for_each(tolerate_unknown_members),
        _ => {}
    }
}

/// What in `new` would break a consumer written for `old`, or does not hold for events written under `old`: a member
/// removed, its type changed, a member newly required or no longer guaranteed, an enumeration value removed. Each
/// finding starts with the JSON Pointer of the member. Limits such as `maxLength` are not compared: consumers cannot
/// depend on them.
pub fn breaking_changes(old: &Value, new: &Value) -> Vec<String> {
    let mut comparison =
        Comparison { old_root: old, new_root: new, compared: BTreeSet::new(), findings: vec![] };
    comparison.compare(old, new, "");
    comparison.findings
}

struct Comparison<'a> {
    old_root: &'a Value,
    new_root: &'a Value,
    /// Pairs of references that were followed, as a schema may refer to itself.
    compared: BTreeSet<(&'a str, &'a str)>,
    findings: Vec<String>,
}

impl<'a> Comparison<'a> {
    fn compare(&mut self, old: &'a Value, new: &'a Value, at: &str) {
        if let (Some(old), Some(new)) = (reference(old), reference(new))
            && !self.compared.insert((old, new))
        {
            return;
        }
        let (old, new) = (resolve(self.old_root, old), resolve(self.new_root, new));
        for keyword in ["type", "format", "const"] {
            if old.get(keyword) != new.get(keyword) {
                let show =
                    |schema: &Value| schema.get(keyword).map_or("nothing".to_owned(), Value::to_string);
                self.find(at, &format!("`{keyword}` was {} and is {}", show(old), show(new)));
            }
        }
        self.compare_members(old, new, at);
        for (keyword, segment) in [("items", "*"), ("additionalProperties", "*")] {
            match (old.get(keyword), new.get(keyword)) {
                (Some(old), Some(new)) => self.compare(old, new, &format!("{at}/{segment}")),
                (None, None) => {}
                _ => self.find(at, &format!("`{keyword}` came or went")),
            }
        }
        let (old_values, new_values) = (strings(old.get("enum")), strings(new.get("enum")));
        if old_values.is_empty() != new_values.is_empty() {
            self.find(at, "`enum` came or went");
        }
        for value in old_values.difference(&new_values) {
            self.find(at, &format!("the value {value} was removed"));
        }
        for keyword in ["oneOf", "anyOf", "allOf"] {
            self.compare_alternatives(list(old, keyword), list(new, keyword), at);
        }
    }

    fn compare_members(&mut self, old: &'a Value, new: &'a Value, at: &str) {
        let members = |schema: &'a Value| schema.get("properties").and_then(Value::as_object);
        let (old_required, new_required) = (strings(old.get("required")), strings(new.get("required")));
        for (name, old) in members(old).into_iter().flatten() {
            match members(new).and_then(|members| members.get(name)) {
                Some(new) => self.compare(old, new, &format!("{at}/{name}")),
                None => self.find(&format!("{at}/{name}"), "was removed"),
            }
        }
        for name in new_required.difference(&old_required) {
            self.find(&format!("{at}/{name}"), "is newly required");
        }
        for name in old_required.difference(&new_required) {
            self.find(&format!("{at}/{name}"), "was always there and no longer is");
        }
    }

    fn compare_alternatives(&mut self, old: &'a [Value], new: &'a [Value], at: &str) {
        let fits = |this: &Self, old: &'a Value, new: &'a Value| {
            let mut comparison = Comparison {
                old_root: this.old_root,
                new_root: this.new_root,
                compared: this.compared.clone(),
                findings: vec![],
            };
            comparison.compare(old, new, at);
            comparison.findings.is_empty()
        };
        for alternative in old {
            if !new.iter().any(|new| fits(self, alternative, new)) {
                self.find(at, &format!("the alternative {} was removed", short(alternative)));
            }
        }
        for alternative in new {
            // A new enumeration value is not a change of type: the document asks consumers to expect them.
            let is_value = alternative.get("const").is_some() && !old.is_empty();
            if !is_value && !old.iter().any(|old| fits(self, old, alternative)) {
                self.find(at, &format!("the alternative {} is new", short(alternative)));
            }
        }
    }

    fn find(&mut self, at: &str, what: &str) {
        self.findings.push(format!("{}: {what}", if at.is_empty() { "/" } else { at }));
    }
}

fn reference(schema: &Value) -> Option<&str> {
    schema.get("$ref").and_then(Value::as_str)
}

fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    reference(schema)
        .and_then(|target| root.pointer(target.strip_prefix('#').unwrap_or_default()))
        .unwrap_or(schema)
}

fn list<'a>(schema: &'a Value, keyword: &str) -> &'a [Value] {
    schema.get(keyword).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn strings(values: Option<&Value>) -> BTreeSet<String> {
    let values = values.and_then(Value::as_array).into_iter().flatten();
    values.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect()
}

fn short(alternative: &Value) -> String {
    let shown = ["const", "$ref", "type"].iter().find_map(|keyword| alternative.get(keyword));
    shown.unwrap_or(alternative).to_string()
}
