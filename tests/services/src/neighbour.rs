//! What a hostile neighbour in the same PostgreSQL database plants, and whether anybody has run it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::Postgres;

/// Types that occur in statements.
const TYPES: [&str; 9] =
    ["bigint", "integer", "text", "name", "boolean", "interval", "timestamptz", "oid", "double precision"];
const OPERATORS: [&str; 14] = ["+", "-", "*", "/", "=", "<>", "<", ">", "<=", ">=", "||", "~~", "~", "%"];
/// Functions that statements of Watchword, or of the driver, call.
const FUNCTIONS: [&str; 44] = [
    "coalesce",
    "max",
    "min",
    "count",
    "current_setting",
    "set_config",
    "has_table_privilege",
    "has_schema_privilege",
    "has_database_privilege",
    "pg_has_role",
    "quote_ident",
    "format",
    "to_regclass",
    "pg_get_userbyid",
    "split_part",
    "pg_is_in_recovery",
    "clock_timestamp",
    "now",
    "pg_backend_pid",
    "unnest",
    "aclexplode",
    "pg_notify",
    "sha256",
    "substring",
    "int8send",
    "array_fill",
    "array_remove",
    "cardinality",
    "generate_series",
    "array_agg",
    "bool_and",
    "current_database",
    "pg_current_xact_id",
    "text",
    "int4",
    "int8",
    "starts_with",
    "lower",
    "length",
    "sum",
    "abs",
    "date_part",
    "extract",
    "version",
];

/// More of them, which have no plant of their own: only casts lead from them to one.
const CAST_TYPES: [&str; 6] = ["uuid", "bytea", "smallint", "jsonb", "text[]", "bigint[]"];
/// What our tables, functions and types are called, and what the catalog's are.
const RELATIONS: [&str; 15] = [
    "events",
    "format",
    "turn",
    "effects",
    "claims",
    "idempotency",
    "snapshots",
    "meta",
    "data_keys",
    "signing_keys",
    "checkpoints",
    "leases",
    "nodes",
    "pg_roles",
    "pg_class",
];
/// The body of a planted function: it leaves a word in the server's log.
const BODY: &str =
    "AS $f$ BEGIN RAISE LOG 'PLANTED by % as %', session_user, current_user; RETURN NULL; END $f$;\n";

/// An operator for each pair of types and a function for each name and one or two types, as far as there are none of that
/// kind in `pg_catalog`, where they would come first; casts of each type to one of the neighbour's own, and of that to each,
/// which belong to no schema; domains that are called as types are. Each leaves a word in the server's log.
pub fn plants() -> String {
    let mut sql = String::from("SET client_min_messages = error;\n");
    let body = BODY;
    for (left, one) in TYPES.iter().enumerate() {
        for (right, two) in TYPES.iter().enumerate() {
            let name = format!("planted_{left}_{right}");
            for (result, suffix) in [("boolean", "b"), (*one, "l"), (*two, "r")] {
                writeln!(
                    sql,
                    "CREATE FUNCTION public.{name}_{suffix}({one}, {two}) RETURNS {result} LANGUAGE plpgsql {body}"
                )
                .expect("writes");
            }
            for operator in OPERATORS {
                let suffix = match operator {
                    "+" | "-" | "/" | "%" => "l",
                    "*" | "||" => "r",
                    _ => "b",
                };
                writeln!(
                    sql,
                    "CREATE OPERATOR public.{operator} (LEFTARG = {one}, RIGHTARG = {two}, FUNCTION = public.{name}_{suffix});"
                )
                .expect("writes");
            }
        }
    }
    for name in FUNCTIONS {
        for one in TYPES {
            let call = format!("public.\"{name}\"({one})");
            write!(sql, "CREATE FUNCTION {call} RETURNS {one} LANGUAGE plpgsql {body}").expect("writes");
            for two in TYPES {
                let call = format!("public.\"{name}\"({one}, {two})");
                write!(sql, "CREATE FUNCTION {call} RETURNS {two} LANGUAGE plpgsql {body}").expect("writes");
            }
        }
        let call = format!("public.\"{name}\"(text, text, text)");
        write!(sql, "CREATE FUNCTION {call} RETURNS boolean LANGUAGE plpgsql {body}").expect("writes");
    }
    // Views of the names of our tables and of the catalog's.
    for table in RELATIONS {
        writeln!(
            sql,
            "CREATE VIEW public.{table} AS SELECT public.now(1::bigint) AS oid, 'x'::text AS rolname;"
        )
        .expect("writes");
    }
    sql.push_str(&casts());
    sql
}

fn casts() -> String {
    let mut sql = String::from("CREATE TYPE public.planted AS (it integer);\n");
    for (number, of) in TYPES.iter().chain(&CAST_TYPES).enumerate() {
        write!(
            sql,
            "CREATE FUNCTION public.to_{number}({of}) RETURNS public.planted LANGUAGE plpgsql {BODY}
             CREATE FUNCTION public.from_{number}(public.planted) RETURNS {of} LANGUAGE plpgsql {BODY}
             CREATE CAST ({of} AS public.planted) WITH FUNCTION public.to_{number}({of}) AS IMPLICIT;
             CREATE CAST (public.planted AS {of}) WITH FUNCTION public.from_{number}(public.planted) AS IMPLICIT;\n"
        )
        .expect("writes");
    }
    for name in FUNCTIONS {
        writeln!(
            sql,
            "CREATE FUNCTION public.\"{name}\"(public.planted) RETURNS public.planted LANGUAGE plpgsql {BODY}"
        )
        .expect("writes");
    }
    write!(
        sql,
        "CREATE FUNCTION public.both(public.planted, public.planted) RETURNS boolean LANGUAGE plpgsql {BODY}"
    )
    .expect("writes");
    for operator in OPERATORS {
        writeln!(
            sql,
            "CREATE OPERATOR public.{operator} (LEFTARG = public.planted, RIGHTARG = public.planted, FUNCTION = public.both);"
        )
        .expect("writes");
    }
    for of in ["text", "int4", "int8", "uuid", "bytea", "name", "regclass"] {
        write!(
            sql,
            "CREATE FUNCTION public.check_{of}(pg_catalog.{of}) RETURNS boolean LANGUAGE plpgsql {BODY}
             CREATE DOMAIN public.{of} AS pg_catalog.{of} CHECK (public.check_{of}(VALUE));\n"
        )
        .expect("writes");
    }
    sql
}

/// What somebody leaves in a session that others use afterwards: temporary tables of the names of ours and of the catalog's,
/// each with a trigger that leaves a word in the server's log.
pub fn temporary_plants() -> String {
    let mut sql = format!("CREATE FUNCTION pg_temp.trap() RETURNS trigger LANGUAGE plpgsql {BODY}");
    for table in RELATIONS {
        write!(
            sql,
            "CREATE TEMPORARY TABLE {table} (LIKE watchword.events, what text, one boolean, key text, rolname name);
             CREATE TRIGGER trap BEFORE INSERT OR UPDATE OR DELETE ON pg_temp.{table}
                 FOR EACH STATEMENT EXECUTE FUNCTION pg_temp.trap();\n"
        )
        .expect("writes");
    }
    sql
}

/// A watch over what runs on a server: all statements are in its log, with the program that sent them.
pub struct Watch<'s> {
    server: &'s Postgres,
    program: &'static str,
    before: usize,
}

impl<'s> Watch<'s> {
    /// Begins to watch a program, by the beginning of its `application_name`.
    pub fn begin(server: &'s Postgres, program: &'static str) -> Self {
        // Each on its own: psql would put them into one transaction.
        for sql in [
            "ALTER SYSTEM SET log_statement = 'all'",
            "ALTER SYSTEM SET log_line_prefix = '<%c|%d|%a> '",
            "SELECT pg_reload_conf()",
        ] {
            server.psql(&server.url("postgres"), sql);
        }
        Self { server, program, before: server.log().len() }
    }

    /// Checks that the program has run nothing that was planted, and that the first statement of each of its sessions
    /// with a database set the search path.
    pub fn assert_safe(&self, database: &str) {
        let log = self.server.log();
        let mut sessions: BTreeMap<&str, &str> = BTreeMap::new();
        let mut planted = Vec::new();
        for line in log[self.before..].lines() {
            let Some((prefix, said)) = line.strip_prefix('<').and_then(|line| line.split_once("> ")) else {
                continue;
            };
            let parts: Vec<&str> = prefix.split('|').collect();
            let &[session, of, program] = &parts[..] else { continue };
            if of != database || !program.starts_with(self.program) {
                continue;
            }
            if said.contains("PLANTED") {
                planted.push(line);
            }
            // In version 18 the lines before it differ: only statements count.
            let said = said.trim_start_matches("LOG:").trim_start();
            if said.starts_with("statement:") || said.starts_with("execute ") {
                sessions.entry(session).or_insert(said);
            }
        }
        assert!(planted.is_empty(), "{planted:#?}");
        assert!(sessions.len() > 5, "they are seen: {sessions:#?}");
        sessions.retain(|_, said| !said.starts_with("statement: SET search_path = "));
        assert!(sessions.is_empty(), "{sessions:#?}");
    }
}
