//! The role of the service, made by whoever may, on each version of the server: how a user comes to work as a role has changed
//! in version 16.

use event_store::contract::{append, stream};
use event_store::{Journal, KeyStore, MasterKey, OpenError, PostgresJournal, PostgresUrl};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Executor};
use test_services::Postgres;

use super::{settings, url};

/// A database of its own, and its owner: a login that is no superuser.
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

    /// Works, and says whom it works as.
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

/// In the order in which a server could come to them: the first of them makes no role, the next one does.
async fn on(server: &Postgres) {
    // An owner who may make no roles works alone, and as itself.
    let alone = Tenant::new(server, "alone", "");
    alone.works("alone", 0).await;
    assert!(!alone.role_may_read());
    // Another login is told who must do what.
    alone.psql("CREATE ROLE node LOGIN PASSWORD 'secret'");
    let told = alone.open("node").await.err().expect("is refused").to_string();
    assert!(
        told.contains("superuser")
            && told.contains("CREATE ROLE watchword_service NOLOGIN; GRANT watchword_service TO node;"),
        "{told}"
    );

    // One who may make roles makes it, and can work as it.
    let landlord = Tenant::new(server, "landlord", "CREATEROLE");
    landlord.works("landlord", 0).await;
    assert!(landlord.role_may_read());
    let options: PgConnectOptions = landlord.url().options().clone();
    let mut connection = options.connect().await.expect("connects");
    connection.execute("SET ROLE watchword_service").await.expect("may work as it");
    connection.execute("DELETE FROM watchword.events").await.expect_err("which may delete nothing");
    connection.execute("RESET ROLE; GRANT watchword_service TO node").await.expect("may grant it");
    landlord.works("node", 1).await;

    // What the landlord made is not the other owner's: the other one's events are not given to it.
    alone.works("alone", 1).await;
    assert!(!alone.role_may_read());
    // Once a superuser has run what the warning says, its tables are opened to the role.
    alone.psql("GRANT watchword_service TO alone");
    alone.works("alone", 2).await;
    assert!(alone.role_may_read());
    alone.works("node", 3).await;

    // A second owner who may make roles finds one that it may not use (from 16 on it may not grant itself those of others).
    let second = Tenant::new(server, "second", "CREATEROLE");
    second.works("second", 0).await;

    // Who may not even make a schema is told which right that is.
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
