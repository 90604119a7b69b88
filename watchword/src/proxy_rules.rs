//! Writes the rules of the proxies of `deploy/`, and checks them against the routes: those of projection-service go to
//! projection nodes, all others to command nodes. Compose and Kubernetes use the same two files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use http_kit::aliases::names_of;
use regex::Regex;
use schemas::problems::problem_type;
use serde_json::Value;

/// What a proxy sends to projection nodes: `METHOD path`.
struct Rules {
    proxy: &'static str,
    queries: Vec<Regex>,
}

impl Rules {
    fn sends_to_projections(&self, method: &str, path: &str) -> bool {
        self.queries.iter().any(|rule| rule.is_match(&format!("{method} {path}")))
    }
}

fn path_of(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/proxy").join(file)
}

fn deployed(file: &str) -> String {
    std::fs::read_to_string(path_of(file)).expect("the file is there")
}

fn nginx() -> Rules {
    let text = deployed("nginx.conf");
    let lines = text.lines().filter_map(|line| line.trim().strip_suffix("\" watchword_projections;"));
    let rules = lines.map(|line| line.strip_prefix("\"~").expect("a regular expression"));
    Rules { proxy: "nginx", queries: rules.map(|rule| Regex::new(rule).expect(rule)).collect() }
}

fn caddy() -> Rules {
    let text = deployed("Caddyfile");
    let rule = |(name, _): &(&str, &str)| {
        let (_, block) = text.split_once(&matcher(name)).expect("the matcher");
        let (block, _) = block.split_once('}').expect("its end is not the first brace of the expression");
        let after = |word: &str| {
            let line = block.lines().find_map(|line| line.trim().strip_prefix(word));
            line.expect(word).trim().to_owned()
        };
        let (methods, path) = (after("method ").replace(' ', "|"), after("path_regexp "));
        let path = path.strip_prefix('^').expect("it is about the whole path");
        Regex::new(&format!("^({methods}) {path}")).expect("a regular expression")
    };
    Rules { proxy: "Caddy", queries: CADDY.iter().map(rule).collect() }
}

/// Caddy's matchers, and the method of their routes.
const CADDY: [(&str, &str); 2] = [("queries", "GET"), ("posted", "POST")];

fn matcher(name: &str) -> String {
    format!("\t@{name} {{\n")
}

/// The text with other paths for this matcher.
fn with_paths(text: &str, name: &str, rule: &str) -> String {
    let (before, block) = text.split_once(&matcher(name)).expect("the matcher");
    let (block, after) = block.split_once("\t}\n").expect("its end");
    let line =
        |line: &str| if line.trim().starts_with("path_regexp ") { rule.to_owned() } else { line.to_owned() };
    let block: String = block.lines().map(|it| line(it) + "\n").collect();
    format!("{before}{}{block}\t}}\n{after}", matcher(name))
}

fn operations(paths: &Value) -> BTreeSet<(String, String)> {
    let items = paths.as_object().expect("paths");
    let of = |(path, item): (&String, &Value)| {
        let methods = item.as_object().expect("an item").keys().filter(|it| *it != "parameters");
        methods.map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
    };
    items.iter().flat_map(of).collect()
}

/// The routes of projection-service.
fn queries() -> BTreeSet<(String, String)> {
    let queries = projection_service::routes().into_openapi();
    operations(&serde_json::to_value(&queries.paths.paths).expect("JSON"))
}

/// The text with other lines in the place of those that a proxy has for queries.
fn with_lines(text: &str, is_rule: impl Fn(&str) -> bool, lines: &[String]) -> String {
    let old: Vec<_> = text.lines().collect();
    let first = old.iter().position(|line| is_rule(line)).expect("a rule to replace");
    let rest = old[first..].iter().skip_while(|line| is_rule(line)).copied();
    let new = old[..first].iter().copied().chain(lines.iter().map(String::as_str)).chain(rest);
    new.flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn the_committed_rules_are_the_generated_ones() {
    let mut paths = BTreeSet::new();
    for (method, path) in queries() {
        assert!(
            CADDY.iter().any(|(_, known)| *known == method),
            "{method} {path}: the proxies pass no such query on"
        );
        paths.extend(names_of(&path).iter().map(|name| {
            // The number of a tile may have several segments.
            let segment = |it| match it {
                "{number}" => ".+",
                it if it.starts_with('{') => "[^/]+",
                it => it,
            };
            let segments = name.split('/').map(segment);
            (method.clone(), segments.collect::<Vec<_>>().join("/"))
        }));
    }
    let prefix = "(/[a-zA-Z0-9._~-]+)*";
    let rule = |(method, path): &(String, String)| {
        let methods = if method == "GET" { "(GET|HEAD)" } else { method };
        format!(r#"        "~^{methods} {prefix}{path}$" watchword_projections;"#)
    };
    let of_nginx: Vec<_> = paths.iter().map(rule).collect();
    let (nginx, caddy) = (deployed("nginx.conf"), deployed("Caddyfile"));
    let mut of_caddy = caddy.clone();
    for (name, method) in CADDY {
        let all = paths.iter().filter(|(of, _)| of == method).map(|(_, path)| path.as_str());
        let all = all.collect::<Vec<_>>().join("|");
        of_caddy = with_paths(&of_caddy, name, &format!("\t\tpath_regexp ^{prefix}({all})$"));
    }
    for (file, old, new) in [
        ("nginx.conf", &nginx, with_lines(&nginx, |it| it.ends_with("\" watchword_projections;"), &of_nginx)),
        ("Caddyfile", &caddy, of_caddy),
    ] {
        if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
            std::fs::write(path_of(file), new).expect("writable");
        } else {
            assert!(
                *old == new,
                "deploy/proxy/{file} is out of date: run `UPDATE=1 cargo test -p watchword committed` and commit it"
            );
        }
    }
}

#[test]
fn each_route_goes_to_the_service_that_answers_it() {
    let queries = queries();
    assert!(queries.len() > 8, "{queries:?}");
    let document: Value = serde_json::from_str(include_str!("../../schemas/openapi.json")).expect("JSON");
    let all = operations(&document["paths"]);
    assert!(queries.is_subset(&all), "{queries:?}");
    let rules = [nginx(), caddy()];
    for (method, path) in &all {
        let is_query = queries.contains(&(method.clone(), path.clone()));
        for name in names_of(path) {
            let segments = name.split('/').map(|it| if it.starts_with('{') { "x-1" } else { it });
            let name = segments.collect::<Vec<_>>().join("/");
            // The path of the public URL precedes each.
            for prefix in ["", "/auth", "/id/v2"] {
                for rules in &rules {
                    let path = format!("{prefix}{name}");
                    let said = rules.sends_to_projections(method, &path);
                    assert_eq!(said, is_query, "{}: {method} {path}", rules.proxy);
                    if method == "GET" {
                        assert_eq!(rules.sends_to_projections("HEAD", &path), is_query, "HEAD {path}");
                    }
                }
            }
        }
    }
}

#[test]
fn what_a_proxy_refuses_by_itself_is_a_problem_as_the_service_tells_it() {
    let (nginx, caddy) = (deployed("nginx.conf"), deployed("Caddyfile"));
    let bodies = nginx.lines().filter_map(|line| line.split_once("return ")?.1.split_once(" '"));
    let by_nginx = bodies.map(|(status, body)| {
        let body = body.trim_end_matches("';").replace('$', "");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        let text = |member: &str| body[member].as_str().expect(member).to_owned();
        assert_eq!(body["status"].to_string(), status);
        assert_eq!(text("type"), format!("/problems/{}", text("code")));
        (text("code"), status.to_owned(), text("title"))
    });
    let imports = caddy.lines().filter_map(|line| line.trim().strip_prefix("import problem "));
    let by_caddy = imports.map(|arguments| {
        let (code, rest) = arguments.split_once(' ').expect("a code");
        let (status, rest) = rest.split_once(' ').expect("a status");
        (code.to_owned(), status.to_owned(), rest.split('"').nth(1).expect("a title").to_owned())
    });
    let mut count = 0;
    for (code, status, title) in by_nginx.chain(by_caddy) {
        let kind = problem_type(&code).unwrap_or_else(|| panic!("there is no problem {code}"));
        assert_eq!((kind.status.to_string(), kind.title), (status, title.as_str()), "{code}");
        count += 1;
    }
    assert!(count >= 10, "{count}");
}
