//! The service's role, created by different users, on each version of the server: version 16 changed how a user comes
//! to work as a role.

use event_store::contract::{append, stream};
use event_store::postgres::EventRights;
use event_store::postgres::role::RoleName;
use event_store::{Journal, KeyStore, MasterKey, OpenError, PostgresJournal, PostgresUrl};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};
use test_services::Postgres;

use super::{settings, url};

/// A database and its owner, a login that is not a superuser.
struct Tenant<'s> {
    server: &'s Postgres,
    admin: String,
    name: &'static str,
}

impl<'s> Tenant<'s> {
    fn new(server: &'s Postgres, name: &'static str, rights: &str) -> Self {
        let admin = server.database();
        let database = admin.rsplit('/').next().expect("a name");
        server.psql(&admin, &format!("CREATE ROLE {name} LOGIN PASSWORD 'secret' {rights}"));
        server.psql(&admin, &format!("ALTER DATABASE {database} OWNER TO {name}"));
        Self { server, admin, name }
    }

    fn url_of(&self, user: &str) -> PostgresUrl {
        let (_, rest) = self.admin.split_once('@').expect("a user");
        url(&format!("postgres://{user}:secret@{rest}"))
    }

    fn url(&self) -> PostgresUrl {
        self.url_of(self.name)
    }

    fn psql(&self, sql: &str) -> String {
        self.server.psql(&self.admin, sql)
    }

    async fn open(&self, user: &str) -> Result<PostgresJournal, OpenError> {
        let (url, key) = (self.url_of(user), MasterKey::from_base64(KEY).expect("a key"));
        KeyStore::open_postgres(&url, settings(), &key).await?.close().await;
        PostgresJournal::open(&url, settings(), &event_store::contract::macs()).await
    }

    /// Opens the journal as this user, appends and reads.
    async fn works(&self, user: &str, version: u64) {
        let journal = self.open(user).await.expect("opens");
        journal.append(append(&stream("a"), version, 1)).await.expect("appends");
        assert_eq!(journal.read_all(0, 9).await.expect("reads").len() as u64, version + 1);
        journal.close().await;
    }

    fn role_may_read(&self) -> bool {
        self.psql(
            "SELECT count(*) FROM information_schema.role_table_grants WHERE grantee = 'watchword_service'
             AND table_name = 'events'",
        )
        .trim()
            != "0"
    }
}

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// In an order that a server could see: the first owner creates no role, the next one does.
async fn on(server: &Postgres) {
    // An owner who may not create roles works alone, and as itself.
    let alone = Tenant::new(server, "alone", "");
    alone.works("alone", 0).await;
    assert!(!alone.role_may_read());
    // The error for another login says who must do what.
    alone.psql("CREATE ROLE node LOGIN PASSWORD 'secret'");
    let told = alone.open("node").await.err().expect("is refused").to_string();
    assert!(
        told.contains("superuser")
            && told.contains("CREATE ROLE watchword_service NOLOGIN; GRANT watchword_service TO node;"),
        "{told}"
    );

    // An owner who may create roles creates it, and can work as it.
    let landlord = Tenant::new(server, "landlord", "CREATEROLE");
    landlord.works("landlord", 0).await;
    assert!(landlord.role_may_read());
    let options: PgConnectOptions = landlord.url().options().clone();
    let mut connection = options.connect().await.expect("connects");
    connection.execute("SET ROLE watchword_service").await.expect("may work as it");
    connection.execute("DELETE FROM watchword.events").await.expect_err("which may delete nothing");
    connection.execute("RESET ROLE; GRANT watchword_service TO node").await.expect("may grant it");
    landlord.works("node", 1).await;

    // The role that the landlord created gets no rights on the other owner's events.
    alone.works("alone", 1).await;
    assert!(!alone.role_may_read());
    // Once a superuser has run what the warning says, the role gets rights on its tables.
    alone.psql("GRANT watchword_service TO alone");
    alone.works("alone", 2).await;
    assert!(alone.role_may_read());
    alone.works("node", 3).await;

    // A second owner who may create roles finds one that it may not use (since version 16 it may not grant itself
    // others' roles).
    let second = Tenant::new(server, "second", "CREATEROLE");
    second.works("second", 0).await;

    // The error for a user who may not even create a schema names the missing right.
    let clerk = Tenant::new(server, "clerk", "");
    clerk.psql(&format!(
        "ALTER DATABASE {} OWNER TO postgres",
        clerk.admin.rsplit('/').next().expect("a name")
    ));
    let told = clerk.open("clerk").await.err().expect("is refused").to_string();
    assert!(
        told.contains("permission denied for database") && told.contains("GRANT CREATE ON DATABASE"),
        "{told}"
    );
}

/// Two instances on one server, each with its own role, from the start or later.
async fn apart_on(server: &Postgres) {
    let open = async |url: &PostgresUrl| {
        let key = MasterKey::from_base64(KEY).expect("a key");
        KeyStore::open_postgres(url, settings(), &key).await?.close().await;
        PostgresJournal::open(url, settings(), &event_store::contract::macs()).await
    };
    let named = |url: PostgresUrl, role: &str| url.with_role(RoleName::parse(role).expect("a name"));
    let (one, two) = (Tenant::new(server, "one", "CREATEROLE"), Tenant::new(server, "two", "CREATEROLE"));
    for tenant in [&one, &two] {
        tenant.psql(&format!("CREATE ROLE node_of_{} LOGIN PASSWORD 'secret'", tenant.name));
    }
    // As before: the owner of the first creates the shared role, which was granted to its node.
    let journal = open(&one.url()).await.expect("opens");
    journal.append(append(&stream("a"), 0, 1)).await.expect("appends");
    journal.close().await;
    one.psql("GRANT watchword_service TO node_of_one");
    one.works("node_of_one", 1).await;
    // The second has its own role from the start.
    let second = named(two.url(), "watchword_two");
    open(&second).await.expect("opens").close().await;
    two.psql("GRANT watchword_two TO node_of_two");
    open(&named(two.url_of("node_of_two"), "watchword_two")).await.expect("opens").close().await;
    let rights = EventRights::look(&second, &settings()).await.expect("looks");
    assert_eq!((rights.shared_with, rights.of_role), (vec![], vec![]));

    // Neither node can reach the other's data.
    for (tenant, node) in [(&one, "node_of_two"), (&two, "node_of_one")] {
        let mut connection = tenant.url_of(node).options().connect().await.expect("connects");
        for role in ["watchword_service", "watchword_two", node] {
            let _ = connection.execute(AssertSqlSafe(format!("RESET ROLE; SET ROLE {role}"))).await;
            let refused = connection.execute("SELECT count(*) FROM watchword.events").await;
            assert!(refused.is_err(), "{node} as {role}");
        }
    }

    // The first gets its own role later: the shared role then has no rights there.
    let first = named(one.url(), "watchword_one");
    open(&first).await.expect("opens").close().await;
    assert!(!one.role_may_read());
    let refused = one.open("node_of_one").await.err().expect("its node still uses the other role");
    assert!(refused.to_string().contains("Set postgres.role"), "{refused}");
    let node = named(one.url_of("node_of_one"), "watchword_one");
    let refused = open(&node).await.err().expect("its node was not granted that role yet");
    assert!(refused.to_string().contains("GRANT watchword_one TO node_of_one"), "{refused}");
    one.psql("GRANT watchword_one TO node_of_one");
    let journal = open(&node).await.expect("opens");
    journal.append(append(&stream("a"), 2, 1)).await.expect("appends");
    assert_eq!(journal.read_all(0, 9).await.expect("reads").len(), 3);
    journal.close().await;
    let mut connection = node.options().connect().await.expect("connects");
    connection.execute("SET ROLE watchword_one").await.expect("may work as it");
    connection.execute("DELETE FROM watchword.events").await.expect_err("which may delete nothing");
}

/// A role that is shared without restricting connections is reported.
async fn sharing_is_reported_on(server: &Postgres) {
    let (one, two) = (Tenant::new(server, "east", ""), Tenant::new(server, "west", ""));
    one.psql("CREATE ROLE watchword_service NOLOGIN; GRANT watchword_service TO east, west");
    for tenant in [&one, &two] {
        tenant.works(tenant.name, 0).await;
    }
    let name = |tenant: &Tenant<'_>| tenant.admin.rsplit('/').next().expect("a name").to_owned();
    let shared = async |tenant: &Tenant<'_>| {
        EventRights::look(&tenant.url(), &settings()).await.expect("looks").shared_with
    };
    assert_eq!(shared(&one).await, [name(&two)]);
    assert_eq!(shared(&two).await, [name(&one)]);
    for tenant in [&one, &two] {
        tenant.psql(&format!("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", name(tenant)));
    }
    assert_eq!(shared(&one).await, [""; 0]);
    assert_eq!(shared(&two).await, [""; 0]);
    // One user for both.
    one.psql(&format!("GRANT CONNECT ON DATABASE {} TO west", name(&one)));
    assert_eq!(shared(&two).await, [name(&one)]);
}

async fn apart(server: &Postgres) {
    apart_on(server).await;
    server.psql(&server.url("postgres"), "ALTER ROLE watchword_service RENAME TO renamed");
    sharing_is_reported_on(server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_apart_on_the_version_of_the_system() {
    apart(&Postgres::start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_apart_on_version_17() {
    apart(&Postgres::start_version(17)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_apart_on_version_18() {
    apart(&Postgres::start_version(18)).await;
}

#[test]
fn a_role_has_a_name_that_needs_no_quotes() {
    for name in ["watchword_service", "_", "a1", &"a".repeat(63)] {
        assert!(RoleName::parse(name).is_some(), "{name}");
    }
    for name in
        ["", "A", "1a", "a b", "a-b", "a;b", "a'", "pg_monitor", "none", "public", &"a".repeat(64), "é"]
    {
        assert!(RoleName::parse(name).is_none(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_on_the_version_of_the_system() {
    on(&Postgres::start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_on_version_17() {
    on(&Postgres::start_version(17)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_on_version_18() {
    on(&Postgres::start_version(18)).await;
}
