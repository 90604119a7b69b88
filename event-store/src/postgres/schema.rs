//! Creates, upgrades or refuses one of our schemas in a PostgreSQL database.

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::time::timeout;

use super::PostgresUrl;
use super::blocked::while_at_work;
use super::connecting;
use super::owners;
use super::pooler;
use super::role::{self, ROLE, RoleName, is_forbidden};
use super::session::{PostgresSettings, not_opened, timed_out};
use crate::journal::OpenError;

/// A schema and its migrations.
pub(crate) struct Schema {
    /// Its name for people.
    pub(crate) what: &'static str,
    /// Its name in the database.
    pub(crate) name: &'static str,
    /// Its migrations, in order: the first makes format 1. A published migration never changes.
    pub(crate) migrations: &'static [&'static str],
}

/// The result of preparing a store: its format, and how to work with it.
pub(crate) struct Prepared {
    pub(crate) migrated: Migrated,
    /// The role that connections work as; `None` if they work as the owner of the tables.
    pub(crate) role: Option<RoleName>,
}

/// The migration that was done before a store was opened, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// Its format before; 0 if there was no store.
    pub from: u32,
    /// Its format now.
    pub to: u32,
}

impl Schema {
    /// The newest format.
    fn known(&self) -> u32 {
        u32::try_from(self.migrations.len()).expect("a handful")
    }

    /// Brings the schema to the newest format. Refuses one that is not ours or newer, and one that is older or absent
    /// if the user may not change it. `place` names the database in messages.
    pub(crate) async fn prepare(
        &self,
        url: &PostgresUrl,
        settings: &PostgresSettings,
        place: &str,
    ) -> Result<Prepared, OpenError> {
        // Another node may be at work on a large journal, or somebody may have locked it.
        let prepared = self.prepare_now(url, settings, place);
        while_at_work(url, |error| failed(place, &error), prepared).await
    }

    async fn prepare_now(
        &self,
        url: &PostgresUrl,
        settings: &PostgresSettings,
        place: &str,
    ) -> Result<Prepared, OpenError> {
        let role = url.role();
        let mut connection = connect(url.options(), settings, place).await?;
        let error = |error: sqlx::Error| failed(place, &error);
        owners::check(&mut connection, self.name, role).await.map_err(error)?;
        let mut migrated = self.read_format(&mut connection, place).await?;
        if migrated.from < migrated.to {
            migrated = match self.migrate(&mut connection, place, role).await {
                Err(Refusal::Forbidden(because)) => {
                    let grant = self.missing_right(&mut connection, migrated).await;
                    return Err(OpenError::Outdated {
                        path: place.to_owned(),
                        what: self.what,
                        found: migrated.from,
                        known: migrated.to,
                        because: format!("{because}{}", grant.unwrap_or_default()),
                    });
                }
                Err(Refusal::Other(error)) => return Err(error),
                Ok(migrated) => migrated,
            };
        }
        let has_role = self.choose_role(&mut connection, place, role).await?;
        // The connection has done its work; a failure to close it makes no difference.
        let _ = connection.close().await;
        Ok(Prepared { migrated, role: has_role.then(|| role.clone()) })
    }

    /// Whether later connections can work as the role: better to find out now. If they cannot, the owner of the tables
    /// works as itself.
    async fn choose_role(
        &self,
        connection: &mut PgConnection,
        place: &str,
        role: &RoleName,
    ) -> Result<bool, OpenError> {
        let failed = |error: sqlx::Error| failed(place, &error);
        let is_owner = self.is_owner(connection).await.map_err(failed)?;
        let mut may_set = role::may_set(&mut *connection, role).await.map_err(failed)?;
        // The tables may have come from a dump, without the role.
        if is_owner && !may_set {
            role::make(connection, role).await.map_err(failed)?;
            may_set = role::may_set(&mut *connection, role).await.map_err(failed)?;
        }
        if may_set {
            // A node's user cannot fix this, and would get an error for each table that it may not read.
            if !is_owner && !self.has_rights(connection, role.as_str()).await.map_err(failed)? {
                return Err(role::without_rights(place, role));
            }
            // The tables may have been made before the role existed, or for the shared default role.
            if is_owner {
                self.grant(connection, role).await.map_err(failed)?;
                if !role.is_default() {
                    self.part_from_shared_role(connection, role).await.map_err(failed)?;
                }
            }
            return Ok(true);
        }
        let statement = role::statement(&mut *connection, role).await.map_err(failed)?;
        if !is_owner {
            return Err(role::missing(place, role, &statement));
        }
        tracing::warn!(
            store = self.what,
            "the service works as the owner of its tables, as its user may neither create nor use the role {role}: anyone with \
             that user's password can change past events. Have a superuser run this, then start again: {statement}"
        );
        Ok(false)
    }

    async fn is_owner(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar(
            "SELECT pg_has_role(current_user, c.relowner, 'USAGE') FROM pg_class c JOIN pg_namespace n
                 ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = 'format'",
        )
        .bind(self.name)
        .fetch_one(connection)
        .await
    }

    /// Grants the role what the migrations grant, unless it has rights already. A dump may have been restored without any
    /// rights, so everybody else gets and loses theirs too.
    async fn grant(&self, connection: &mut PgConnection, role: &RoleName) -> Result<(), sqlx::Error> {
        if self.has_rights(connection, role.as_str()).await? && self.is_usable(connection, role).await? {
            return Ok(());
        }
        let rights: String = self.migrations.iter().flat_map(|migration| rights_in(migration)).collect();
        let rights = rights.replace(ROLE, role.as_str());
        let name = self.name;
        let everybody = self.for_everybody();
        let statements =
            format!("BEGIN; SET LOCAL search_path = {name}, pg_temp; {everybody} {rights} COMMIT;");
        connection.execute(sqlx::raw_sql(AssertSqlSafe(statements))).await.map(drop)
    }

    /// Whether the role may look anything up in the schema.
    async fn is_usable(&self, connection: &mut PgConnection, role: &RoleName) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar("SELECT has_schema_privilege($1, $2, 'USAGE')")
            .bind(role.as_str())
            .bind(self.name)
            .fetch_one(connection)
            .await
    }

    async fn has_rights(&self, connection: &mut PgConnection, role: &str) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) a
                 WHERE n.nspname = $1 AND a.grantee = (SELECT oid FROM pg_roles WHERE rolname = $2))",
        )
        .bind(self.name)
        .bind(role)
        .fetch_one(connection)
        .await
    }

    /// Revokes the shared role's rights in this schema, now that the instance has a role of its own.
    async fn part_from_shared_role(
        &self,
        connection: &mut PgConnection,
        role: &RoleName,
    ) -> Result<(), sqlx::Error> {
        if !self.has_rights(connection, ROLE).await? {
            return Ok(());
        }
        let name = self.name;
        let statements = format!(
            "BEGIN; REVOKE ALL ON ALL TABLES IN SCHEMA {name} FROM {ROLE}; REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {name} FROM {ROLE};
             COMMIT;"
        );
        connection.execute(sqlx::raw_sql(AssertSqlSafe(statements))).await?;
        tracing::warn!(
            store = self.what,
            "the role {ROLE} no longer has rights here: nodes must log in as users that were granted {role}"
        );
        Ok(())
    }

    /// The statement that would let the user create the schema, for messages.
    async fn missing_right(&self, connection: &mut PgConnection, migrated: Migrated) -> Option<String> {
        if migrated.from > 0 {
            return None;
        }
        let (user, database): (String, String) =
            sqlx::query_as("SELECT quote_ident(current_user), quote_ident(current_database())")
                .fetch_one(connection)
                .await
                .ok()?;
        Some(format!("; GRANT CREATE ON DATABASE {database} TO {user} allows it"))
    }

    /// The schema's format and the newest one. Changes nothing, and refuses what is not ours or newer.
    pub(crate) async fn look(
        &self,
        url: &PostgresUrl,
        settings: &PostgresSettings,
        place: &str,
    ) -> Result<Migrated, OpenError> {
        let silent = || failed(place, &timed_out("the database does not answer"));
        let looked = timeout(settings.answer, async {
            let mut connection = connect(url.options(), settings, place).await?;
            let found = self.read_format(&mut connection, place).await;
            let _ = connection.close().await;
            found
        });
        let looked = async { looked.await.unwrap_or_else(|_| Err(silent())) };
        while_at_work(url, |error| failed(place, &error), looked).await
    }

    async fn read_format(&self, connection: &mut PgConnection, place: &str) -> Result<Migrated, OpenError> {
        let failed = |error: sqlx::Error| failed(place, &error);
        let (exists, is_ours): (bool, bool) = sqlx::query_as(
            "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1),
                 EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                     WHERE n.nspname = $1 AND c.relname = 'format')",
        )
        .bind(self.name)
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
        let to = self.known();
        if !exists {
            return Ok(Migrated { from: 0, to });
        }
        let foreign =
            |found: String| OpenError::Foreign { path: place.to_owned(), expected: self.what, found };
        if !is_ours {
            return Err(foreign(format!("its schema {} holds something else", self.name)));
        }
        let query = format!("SELECT what, version FROM {}.format", self.name);
        let row: Option<(String, i32)> =
            sqlx::query_as(AssertSqlSafe(query)).fetch_optional(connection).await.map_err(failed)?;
        let version =
            row.filter(|(what, _)| what == self.what).and_then(|(_, version)| version.try_into().ok());
        let found: u32 =
            version.ok_or_else(|| foreign(format!("its schema {} says that it is none", self.name)))?;
        if found > to {
            return Err(OpenError::Newer { path: place.to_owned(), found, known: to });
        }
        Ok(Migrated { from: found, to })
    }

    async fn migrate(
        &self,
        connection: &mut PgConnection,
        place: &str,
        role: &RoleName,
    ) -> Result<Migrated, Refusal> {
        if let Some(made) = self.make_new(connection, place, role).await? {
            return Ok(made);
        }
        let sql = |error: sqlx::Error| refusal(place, &error);
        let mut transaction = connection.begin().await.map_err(sql)?;
        // One migration at a time. Anybody who may connect could hold an advisory lock; this one needs rights on the table.
        let lock = format!("LOCK TABLE {}.format IN SHARE UPDATE EXCLUSIVE MODE", self.name);
        transaction.execute(AssertSqlSafe(lock)).await.map_err(sql)?;
        // Another node may have migrated while this one waited.
        let before = self.read_format(&mut transaction, place).await.map_err(Refusal::Other)?;
        self.run_migrations(&mut transaction, before, role).await.map_err(sql)?;
        transaction.commit().await.map_err(sql)?;
        Ok(before)
    }

    /// Makes the schema with all its tables. `None` if it is there, maybe because another node has just made it: that is
    /// waited for.
    async fn make_new(
        &self,
        connection: &mut PgConnection,
        place: &str,
        role: &RoleName,
    ) -> Result<Option<Migrated>, Refusal> {
        let sql = |error: sqlx::Error| refusal(place, &error);
        let before = self.read_format(connection, place).await.map_err(Refusal::Other)?;
        if before.from > 0 {
            return Ok(None);
        }
        let mut transaction = connection.begin().await.map_err(sql)?;
        role::make(&mut transaction, role).await.map_err(sql)?;
        match transaction.execute(AssertSqlSafe(self.make())).await {
            Err(error) if is_duplicate(&error) => {
                transaction.rollback().await.map_err(sql)?;
                return Ok(None);
            }
            made => made.map_err(sql)?,
        };
        self.run_migrations(&mut transaction, before, role).await.map_err(sql)?;
        transaction.commit().await.map_err(sql)?;
        Ok(Some(before))
    }

    async fn run_migrations(
        &self,
        transaction: &mut PgConnection,
        before: Migrated,
        role: &RoleName,
    ) -> Result<(), sqlx::Error> {
        let name = self.name;
        let path = format!("SET LOCAL search_path = {name}, pg_temp");
        transaction.execute(AssertSqlSafe(path)).await?;
        // A role that the user cannot use may belong to another party: it gets no rights.
        let may_set = role::may_set(&mut *transaction, role).await?;
        let grantee = if may_set { role.as_str() } else { "CURRENT_USER" };
        let done = usize::try_from(before.from).expect("a handful");
        for migration in &self.migrations[done..] {
            let migration = migration.replace(ROLE, grantee);
            transaction.execute(sqlx::raw_sql(AssertSqlSafe(migration))).await?;
        }
        let to = i32::try_from(before.to).expect("a handful");
        let update = format!("UPDATE {name}.format SET version = $1");
        sqlx::query(AssertSqlSafe(update)).bind(to).execute(transaction).await.map(drop)
    }

    fn make(&self) -> String {
        let Self { name, what, .. } = self;
        let everybody = self.for_everybody();
        format!(
            "CREATE SCHEMA {name};
             CREATE TABLE {name}.format (what text NOT NULL, version integer NOT NULL);
             INSERT INTO {name}.format VALUES ('{what}', 0);
             {everybody}"
        )
    }

    /// Everybody may read its format, but only the service its content.
    fn for_everybody(&self) -> String {
        let name = self.name;
        format!("GRANT USAGE ON SCHEMA {name} TO PUBLIC; GRANT SELECT ON {name}.format TO PUBLIC;")
    }
}

/// The statements of a migration that grant rights to the role, and take those from everybody else that new functions give.
fn rights_in(migration: &str) -> impl Iterator<Item = &str> {
    let begins = |at: &usize| {
        let starts_line = *at == 0 || migration.as_bytes()[at - 1] == b'\n';
        starts_line && ["GRANT ", "REVOKE "].iter().any(|word| migration[*at..].starts_with(word))
    };
    let starts = migration.char_indices().map(|(at, _)| at).filter(begins).collect::<Vec<_>>();
    let statement = |at: usize| migration[at..].split_inclusive(';').next();
    starts.into_iter().filter_map(statement)
}

enum Refusal {
    /// The user may not do this; the database says why.
    Forbidden(String),
    Other(OpenError),
}

fn refusal(place: &str, error: &sqlx::Error) -> Refusal {
    match error.as_database_error() {
        Some(said) if is_forbidden(error) => Refusal::Forbidden(said.message().to_owned()),
        _ => Refusal::Other(failed(place, error)),
    }
}

async fn connect(
    options: &PgConnectOptions,
    settings: &PostgresSettings,
    place: &str,
) -> Result<PgConnection, OpenError> {
    let error = |error: sqlx::Error| failed(place, &error);
    let mut connection = connecting::connect(options, settings.connect_timeout).await.map_err(error)?;
    pooler::check(&mut connection, options, settings.connect_timeout).await.map_err(error)?;
    owners::check_encoding(&mut connection).await.map_err(error)?;
    Ok(connection)
}

/// Whether an error says that a schema is there already, or has just been made by somebody else.
fn is_duplicate(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code == "42P06" || code == "23505")
}

fn failed(place: &str, error: &sqlx::Error) -> OpenError {
    not_opened(place, error)
}
