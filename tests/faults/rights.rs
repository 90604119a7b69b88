//! What the service's role may do on a whole instance's database: what ARCHITECTURE.md says, and no more.

use test_services::Postgres;
use tests::Bus;

use crate::postgres::node;

/// The rights of the role and of everybody on schemas, tables, columns and functions of ours and on the database, what the
/// role owns, what it is, and what other roles it is a member of.
const RIGHTS: &str = "
    WITH ours AS (SELECT oid, nspname, nspowner, nspacl FROM pg_namespace WHERE nspname LIKE 'watchword%'),
    rights AS (
        SELECT 'schema ' || nspname AS what, (aclexplode(coalesce(nspacl, acldefault('n', nspowner)))).* FROM ours
        UNION ALL
        SELECT nspname || '.' || relname, (aclexplode(coalesce(relacl, acldefault('r', relowner)))).*
        FROM pg_class JOIN ours ON ours.oid = relnamespace WHERE relkind IN ('r', 'v', 'S', 'p', 'm', 'f')
        UNION ALL
        SELECT nspname || '.' || relname || '.' || attname, (aclexplode(attacl)).*
        FROM pg_attribute JOIN pg_class c ON c.oid = attrelid JOIN ours ON ours.oid = relnamespace
        UNION ALL
        SELECT nspname || '.' || proname || '()', (aclexplode(coalesce(proacl, acldefault('f', proowner)))).*
        FROM pg_proc JOIN ours ON ours.oid = pronamespace WHERE prorettype <> 'trigger'::regtype
        UNION ALL
        SELECT 'the database', (aclexplode(datacl)).* FROM pg_database WHERE datname = current_database()
    ),
    lines AS (
        SELECT CASE grantee WHEN 0 THEN 'everybody' ELSE 'the role' END || ': ' || what || ': '
            || string_agg(lower(privilege_type), ', ' ORDER BY privilege_type)
            || CASE WHEN bool_or(is_grantable) THEN ', and may grant it' ELSE '' END AS line
        FROM rights
        WHERE grantee = 0 OR grantee = 'watchword_service'::regrole AND what NOT LIKE '%watchword_read%'
        GROUP BY grantee, what
        UNION ALL
        SELECT 'the role: owns ' || string_agg(DISTINCT owned, ', ')
        FROM (
            SELECT 'schema ' || nspname AS owned FROM pg_namespace WHERE nspowner = 'watchword_service'::regrole
            UNION ALL
            SELECT 'relations of ' || relnamespace::regnamespace FROM pg_class
            WHERE relowner = 'watchword_service'::regrole AND relnamespace::regnamespace::text <> 'pg_toast'
            UNION ALL
            SELECT 'function ' || oid::regprocedure FROM pg_proc WHERE proowner = 'watchword_service'::regrole
            UNION ALL
            SELECT 'database ' || datname FROM pg_database WHERE datdba = 'watchword_service'::regrole
        ) owned
        UNION ALL
        SELECT 'the role: is ' || CASE WHEN rolsuper OR rolcreaterole OR rolcreatedb OR rolcanlogin OR rolreplication
            OR rolbypassrls THEN 'more than a name' ELSE 'no login and nothing else' END
        FROM pg_roles WHERE rolname = 'watchword_service'
        UNION ALL
        SELECT 'the role: is a member of ' || roleid::regrole FROM pg_auth_members
        WHERE member = 'watchword_service'::regrole
    )
    SELECT line FROM lines ORDER BY line COLLATE \"C\"";

#[tokio::test(flavor = "multi_thread")]
async fn the_role_may_do_what_is_documented_and_no_more() {
    let (postgres, bus) = (Postgres::start(), Bus::start());
    let database = postgres.database();
    let _server = node(&database, &bus).await;
    insta::assert_snapshot!(postgres.psql(&database, RIGHTS), @r"
    everybody: schema watchword: usage
    everybody: schema watchword_keys: usage
    everybody: schema watchword_read: usage
    everybody: watchword.format: select
    everybody: watchword_keys.format: select
    everybody: watchword_read.checkpoints: select
    everybody: watchword_read.nodes: select
    the role: is no login and nothing else
    the role: owns relations of watchword_read, schema watchword_read
    the role: watchword.append(): execute
    the role: watchword.claims: select
    the role: watchword.effects: insert, select, update
    the role: watchword.events: select
    the role: watchword.forget_idempotency(): execute
    the role: watchword.idempotency: select
    the role: watchword.keep_snapshot(): execute
    the role: watchword.snapshots: select
    the role: watchword_keys.checkpoints: insert, select, update
    the role: watchword_keys.cosignatures: insert, select, update
    the role: watchword_keys.data_keys: insert, select, update
    the role: watchword_keys.meta: insert, select
    the role: watchword_keys.signing_keys: insert, select, update
    ");
}

/// Commits that do not wait for the synchronous replica are acknowledged all the same: `doctor` says what that risks.
#[tokio::test(flavor = "multi_thread")]
async fn doctor_warns_of_commits_that_do_not_wait() {
    let (primary, bus) = (Postgres::start(), Bus::start());
    let _replica = primary.synchronous_replica();
    let database = primary.database();
    let server = node(&database, &bus).await;
    let doctor = || {
        let output = server.command(&["doctor"]).output().expect("it runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let warning = "commits do not wait for it (synchronous_commit = local)";
    assert!(!doctor().contains(warning));
    let name = database.rsplit('/').next().expect("a name");
    primary.psql(&database, &format!("ALTER DATABASE {name} SET synchronous_commit = local"));
    let said = doctor();
    assert!(said.contains(warning), "{said}");
}
