use std::collections::{BTreeMap, BTreeSet};

use domain::AppId;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::*;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Width {
    #[default]
    Day,
    #[serde(rename = "-hour")]
    Hour,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inner {
    name: String,
    size: Option<u32>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Thing {
    email: String,
    password: String,
    #[serde(default)]
    roles: BTreeSet<String>,
    #[serde(default)]
    exclude: bool,
    size: Option<u32>,
    width: Option<Width>,
    app_id: Option<AppId>,
    at: Option<Time>,
    #[serde(default)]
    settings: Map<String, Value>,
    inner: Option<Inner>,
}

/// The errors as `place code`.
fn refused<T: DeserializeOwned + std::fmt::Debug>(result: Result<T, Problem>) -> Vec<String> {
    let problem = result.expect_err("refused");
    assert_eq!(problem.code(), "malformed_request");
    let place = |it: &crate::problem::FieldProblem| {
        format!("{} {}", it.pointer.as_ref().or(it.parameter.as_ref()).expect("a place"), it.code)
    };
    problem.errors().iter().map(place).collect()
}

fn of(body: &Value) -> Result<Thing, Problem> {
    json(body.to_string().as_bytes(), Nulls::LeftOut)
}

fn of_query(query: &str) -> Result<Thing, Problem> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    super::query(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

#[test]
fn every_wrong_member_is_named_at_once() {
    let body = json!({
        "email": 7, "roles": ["a", 1, null, "b", {}], "exclude": "yes", "size": -1, "width": "week", "app_id": "A B",
        "at": "x", "settings": [], "inner": {"size": 1.5, "extra": 0}, "extra": 0, "a/b~c": 0,
    });
    assert_eq!(
        refused(of(&body)),
        [
            "/a~1b~0c unknown_member",
            "/extra unknown_member",
            "/app_id invalid",
            "/at invalid",
            "/email invalid_type",
            "/exclude invalid_type",
            "/inner/extra unknown_member",
            "/inner/size invalid_type",
            "/inner/name missing",
            "/roles/1 invalid_type",
            "/roles/2 invalid_type",
            "/roles/4 invalid_type",
            "/settings invalid_type",
            "/size out_of_range",
            "/width invalid",
            "/password missing",
        ]
        .map(str::to_owned)
    );
}

#[test]
fn repeated_members_are_named_wherever_they_are() {
    let body = br#"{"email": "a", "email": "b", "password": "c", "settings": {"x": [{"y": 1, "y": null}]}, "size": 1,
        "s\u0069ze": 2}"#;
    let found = refused(json::<Thing>(body, Nulls::LeftOut));
    assert_eq!(found, ["/email repeated", "/settings/x/0/y repeated", "/size repeated"]);
}

#[test]
fn null_is_no_member() {
    let nothing = json!({
        "email": "a", "password": "b", "roles": null, "exclude": null, "size": null, "width": null, "app_id": null,
        "at": null, "settings": null, "inner": null,
    });
    assert_eq!(of(&nothing).expect("read"), of(&json!({"email": "a", "password": "b"})).expect("read"));
    let settings =
        json!({"email": "null", "password": "b", "settings": {"a": null, "b": {"c": null, "d": [null]}}});
    let free = json!({"a": null, "b": {"c": null, "d": [null]}});
    assert_eq!(Value::Object(of(&settings).expect("read").settings), free, "its members are known elsewhere");
    assert_eq!(
        refused(of(&json!({"email": "a", "password": "b", "extra": null, "inner": {"x": null}}))),
        ["/extra unknown_member", "/inner/x unknown_member", "/inner/name missing"]
    );
    assert_eq!(
        refused(of(&json!({"email": null, "password": null}))),
        ["/email missing", "/password missing"]
    );
}

#[test]
fn null_is_kept_in_a_merge_patch() {
    let read = |body: &Value| json::<BTreeMap<String, Value>>(body.to_string().as_bytes(), Nulls::Remove);
    let body = json!({"a": null, "b": {"c": null}});
    assert_eq!(serde_json::to_value(read(&body).expect("read")).expect("JSON"), body);
    let thing = json!({"email": "a", "password": "b", "roles": null, "settings": {"a": null}});
    let found = refused(json::<Thing>(thing.to_string().as_bytes(), Nulls::Remove));
    assert_eq!(found, ["/roles invalid_type"]);
}

#[test]
fn parameters_are_read_from_text() {
    let thing = of_query("email=true&password=7&exclude=True&size=7&width=-HOUR&app_id=acme&at=2026-01-31")
        .expect("read");
    let expected = Thing {
        email: "true".to_owned(),
        password: "7".to_owned(),
        roles: BTreeSet::new(),
        exclude: true,
        size: Some(7),
        width: Some(Width::Hour),
        app_id: Some(AppId::parse("acme").expect("valid")),
        at: Some(Time("2026-01-31T00:00:00Z".parse().expect("a time"))),
        settings: Map::new(),
        inner: None,
    };
    assert_eq!(thing, expected);
    let found =
        refused(of_query("email=a&email=b&exclude=1&size=x&width=week&app_id=A&at=1&limt=1&colour=2"));
    assert_eq!(
        found,
        [
            "email repeated",
            "exclude invalid_type",
            "size invalid_type",
            "width invalid",
            "app_id invalid",
            "at invalid",
            "limt unknown_parameter",
            "colour unknown_parameter",
            "password missing",
        ]
    );
    assert_eq!(refused(of_query("email=a&password=b&size=99999999999")), ["size out_of_range"]);
}

#[test]
fn numbers_are_told_apart() {
    let told = |size: &str| {
        let body = format!(r#"{{"email":"a","password":"b","size":{size}}}"#);
        let problem = json::<Thing>(body.as_bytes(), Nulls::LeftOut).expect_err(size);
        let [error] = problem.errors() else { panic!("{problem:?}") };
        (error.code.clone(), error.detail.clone())
    };
    let range = "must be a whole number from 0 to 4294967295";
    for size in ["-1", "4294967296", "99999999999999999999999", "-99999999999999999999999", "1e300"] {
        assert_eq!(told(size), ("out_of_range".to_owned(), range.to_owned()), "{size}");
    }
    for size in ["1.5", "1.0", "1e2", "-0.0"] {
        let detail = "must be a whole number, without a point or an exponent";
        assert_eq!(told(size), ("invalid_type".to_owned(), detail.to_owned()), "{size}");
    }
    assert_eq!(told("\"7\"").1, "must be a whole number, not a string");
    assert!(json::<Thing>(br#"{"size":1e999}"#, Nulls::LeftOut).is_err());
    for size in ["99999999999999999999", "-99999999999999999999", "9223372036854775808"] {
        assert_eq!(
            refused(of_query(&format!("email=a&password=b&size={size}"))),
            ["size out_of_range"],
            "{size}"
        );
    }
    for size in ["", "-", "1.0", "0x1", "NaN", "١"] {
        assert_eq!(
            refused(of_query(&format!("email=a&password=b&size={size}"))),
            ["size invalid_type"],
            "{size}"
        );
    }
}

/// A body with some members, each of them right or wrong; the same for the same seed.
fn some_body(seed: u64) -> Value {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |end: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % end as u64).expect("small")
    };
    let right = [
        ("email", json!("a")),
        ("password", json!("b")),
        ("roles", json!(["x", "y"])),
        ("exclude", json!(true)),
        ("size", json!(7)),
        ("width", json!("-hour")),
        ("app_id", json!("acme")),
        ("at", json!("2026-01-31")),
        ("settings", json!({"x": [1, null, {"y": 1.5}]})),
        ("inner", json!({"name": "n", "size": 4_294_967_295_u32})),
        ("colour", json!("red")),
    ];
    let any =
        [json!(null), json!(""), json!(-1), json!(1.5), json!(u64::MAX), json!([]), json!([7]), json!({})];
    let mut body = Map::new();
    for (at, (name, value)) in right.iter().enumerate() {
        // The first two must be there, and the last may not.
        let is_given =
            if at < 2 { below(8) > 0 } else { at + 1 < right.len() && below(2) > 0 || below(8) == 0 };
        if is_given {
            let value = if below(12) == 0 { any[below(any.len())].clone() } else { value.clone() };
            body.insert((*name).to_owned(), value);
        }
    }
    Value::Object(body)
}

#[test]
fn the_reader_and_the_parser_alone_agree() {
    let mut accepted = 0;
    for seed in 0..20_000 {
        let body = some_body(seed);
        let bytes = body.to_string();
        let alone = strict_json::parse::<Thing>(bytes.as_bytes()).ok();
        let tree = serde_json::from_str(&bytes).expect("JSON");
        let read = read::<Thing>(tree, Vec::new(), Source::Body);
        accepted += usize::from(read.is_ok());
        match read {
            Ok(thing) => assert_eq!(Some(thing), alone, "seed {seed}: {body}"),
            Err(problem) => {
                assert!(alone.is_none(), "seed {seed}: {body}: {problem:?}");
                assert!((1..=MAX_ERRORS).contains(&problem.errors().len()), "seed {seed}: {body}");
            }
        }
    }
    assert!((2_000..18_000).contains(&accepted), "{accepted} of 20000 were accepted");
}

#[test]
fn values_are_repeated_nowhere() {
    let secret = "violet-Kettle-93";
    let wrong = [
        json!({"email": [secret], "password": {"x": secret}, "app_id": secret, "at": secret, "width": secret}),
        json!({"email": "a", "password": "b", "size": secret, "roles": secret, "inner": secret, "exclude": secret}),
        json!({"email": "a", "password": "b", "settings": secret}),
        json!(secret),
    ];
    for body in wrong {
        let problem = of(&body).expect_err("refused");
        assert!(!format!("{problem:?}").contains(secret), "{problem:?}");
    }
    let problem =
        of_query(&format!("at={secret}&size={secret}&width={secret}&app_id={secret}")).expect_err("refused");
    assert!(!format!("{problem:?}").contains(secret), "{problem:?}");
}

#[test]
fn an_answer_has_its_bounds() {
    let many = |member: &str| -> Vec<u8> {
        let members = (0..5_000).map(|n| member.replace('#', &n.to_string())).collect::<Vec<_>>();
        format!("{{{}}}", members.join(",")).into_bytes()
    };
    let items = format!(r#"{{"email":"a","password":"b","roles":[{}1]}}"#, "1,".repeat(30_000)).into_bytes();
    let long = format!(r#"{{"{}":1}}"#, "n".repeat(60_000)).into_bytes();
    for body in [many(r#""m#":1"#), many(r#""m#":1,"m#":2"#), items] {
        let problem = json::<Thing>(&body, Nulls::LeftOut).expect_err("refused");
        assert_eq!(problem.errors().len(), MAX_ERRORS);
        assert!(format!("{problem:?}").contains("and more"), "{problem:?}");
    }
    let problem = json::<Thing>(&long, Nulls::LeftOut).expect_err("refused");
    assert_eq!(problem.errors()[0].pointer.as_ref().map(String::len), Some(MAX_NAME + 1));
}

#[test]
fn what_is_no_json_is_refused_as_a_whole() {
    let deep = format!("{}{}", r#"{"settings":"#.repeat(20_000), "[".repeat(20_000));
    for body in ["", " ", "{", "[]", "7", "null", "{} x", "\u{feff}{}", &deep] {
        let problem = json::<Thing>(body.as_bytes(), Nulls::LeftOut).expect_err(body);
        let [error] = problem.errors() else { panic!("{body}: {problem:?}") };
        assert_eq!((problem.code(), error.pointer.as_deref()), ("malformed_request", Some("")), "{body}");
    }
}
