//! Compares read models, row by row, with ones rebuilt from the journal: write access to their tables is enough to show
//! what never happened.
//!
//! Changes neither the compared models nor the journal; other nodes may keep writing meanwhile. Both sides are read in
//! pages, in the order of their keys, so that memory does not depend on the number of rows.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use domain::{LogOrigin, Personal, UserId};
use event_store::postgres::connecting::Session;
use event_store::postgres::role::MAY_SET;
use event_store::sqlite::file::looking;
use event_store::{Location, LookupKey, Repository, StoreError};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, SqliteConnection};
use tokio::time::timeout;
use uuid::Uuid;

use crate::build::Build;
use crate::checkpoint::{Checkpoint, JournalError};
use crate::database::{ALL_CHECKPOINTS, Database, SCHEMA, bounded, silent};
use crate::filling::{FillError, Pace, complete, fill};
use crate::leases::Lease;
use crate::places;
use crate::projector::key;
use crate::rows;
use crate::sql::{Query, Row, Value, on_postgres, on_sqlite};
use crate::store::ReadModels;

/// How many events are applied at a time.
const BATCH: usize = 500;
/// How many rows are read at a time.
const PAGE: usize = 500;
/// How many differences of a read model are listed: more of them usually have one cause.
const TOLD: usize = 3;
/// The tables whose rows are only traces of personal data.
const TRACES: [&str; 2] = ["login_checks_v1", "user_words_v2"];
/// The personal columns of other tables.
const PERSONAL: [&str; 4] = ["sealed", "email", "ip", "words"];

/// How one read model compares with the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The read model and the version of its tables.
    pub projector: String,
    /// The position up to which they were compared.
    pub position: u64,
    /// How many rows it should have.
    pub rows: u64,
    /// The first few differences.
    pub differences: Vec<String>,
    /// How many more differences there are.
    pub more: u64,
}

/// Why read models could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// They cannot be opened, or there is no room to rebuild them.
    #[error(transparent)]
    Open(#[from] crate::OpenError),
    /// Their tables cannot be read.
    #[error("their tables cannot be read: {0}")]
    Tables(#[from] sqlx::Error),
    /// The journal cannot be read.
    #[error("the journal cannot be read: {0}")]
    Journal(#[from] StoreError),
    /// An event could not be applied.
    #[error("they cannot be rebuilt: {0}")]
    Build(FillError),
}

impl From<FillError> for CompareError {
    fn from(error: FillError) -> Self {
        match error {
            FillError::Journal(error) => Self::Journal(error),
            error @ FillError::Apply { .. } => Self::Build(error),
        }
    }
}

/// Rebuilds read models in a folder, up to the checkpoints of those at `location`, and compares them: only those that
/// say that they belong to this journal ([`Checkpoint::check_journal`]), and of these the named ones, if any are named. `at`
/// receives the progress of the rebuild: the number of events and the position.
pub async fn compare(
    location: &Location,
    folder: &Path,
    repository: &Arc<Repository>,
    origin: &LogOrigin,
    names: &[&str],
    mut at: impl FnMut(u64, u64),
) -> Result<Vec<Comparison>, CompareError> {
    let lookup = Arc::new(LookupKey::new(repository.sealer().keys().instance_key()));
    let beside = Location::File(folder.join("read-models.db"));
    let models = ReadModels::open(&beside, Arc::clone(repository.sealer()), lookup).await?;
    models.know_origin(origin);
    // Most of the work comes before the snapshot of the tables, for which PostgreSQL must keep what is deleted
    // meanwhile.
    let mut begun = Vec::new();
    for checkpoint in ReadModels::look(location).await? {
        match checkpoint.check_journal(&**repository.journal()).await {
            Ok(()) => begun.push(checkpoint),
            // It belongs to another journal: nothing in it can match.
            Err(JournalError::Other { .. }) => {}
            Err(JournalError::Journal(error)) => return Err(error.into()),
        }
    }
    let mut builds = Vec::new();
    for projector in models.projectors() {
        let key = key(&*projector);
        let is_named = names.is_empty() || names.contains(&projector.name());
        if is_named && begun.iter().any(|checkpoint| checkpoint.projector == key) {
            let database = Arc::new(Database::building(&folder.join(format!("{key}.db"))).await?);
            let (marks, lease) = (models.build_key.clone(), Lease::UNSHARED);
            let build = Build { projector, database, key, marks, aside: None, lease, position: 0 };
            build.register().await?;
            build.create().await?;
            builds.push(build);
        }
    }
    let mut pace = Pace::new(None);
    let mut told = |positions: &[u64]| {
        let done = positions.iter().min().copied().unwrap_or_default();
        at(done, done);
    };
    builds = fill(repository, builds, |build| target(build, &begun), true, &mut pace, &mut told).await?;
    builds = complete(builds).await?;
    let mut live = Live::begin(location).await?;
    let mut checkpoints = live.checkpoints().await?.unwrap_or_else(|| begun.clone());
    checkpoints.retain(|checkpoint| begun.iter().any(|it| it.projector == checkpoint.projector));
    builds =
        fill(repository, builds, |build| target(build, &checkpoints), false, &mut pace, &mut told).await?;
    let mut comparisons = Vec::new();
    for build in &builds {
        let position = build.position;
        let mut comparison = Comparison { projector: build.key.clone(), position, ..Comparison::default() };
        if target(build, &checkpoints) < position {
            // It has just been reset.
            comparison.differences.push("it was reset meanwhile: run this again".to_owned());
        } else {
            live.turn_to(build.projector.name());
            let mut sides =
                Sides { database: &build.database, live: &mut live, repository, pending: None, position };
            for table in build.projector.tables() {
                sides.compare(table, &mut comparison).await?;
            }
        }
        comparisons.push(comparison);
    }
    live.close().await?;
    for build in &builds {
        build.database.close().await;
    }
    models.close().await;
    Ok(comparisons)
}

/// Up to where a build is to be filled, according to these checkpoints.
fn target(build: &Build, checkpoints: &[Checkpoint]) -> u64 {
    let found = checkpoints.iter().find(|checkpoint| checkpoint.projector == build.key);
    found.map_or(0, |checkpoint| checkpoint.position)
}

/// How long a server may take for a page, or to count the rows of a table. No request waits for it.
const LONGEST_READ: Duration = Duration::from_mins(1);

/// A snapshot of the compared tables.
pub(crate) enum Live {
    Sqlite {
        /// By read model; those without a file of their own share one.
        files: BTreeMap<Option<String>, SqliteConnection>,
        /// The one to read from.
        model: Option<String>,
    },
    Postgres(PgConnection),
}

impl Live {
    pub(crate) async fn begin(location: &Location) -> Result<Self, sqlx::Error> {
        Ok(match location {
            // No process writes the file meanwhile.
            Location::File(path) => {
                let mut files = BTreeMap::new();
                for (model, path) in places::files(path).await? {
                    files.insert(model, looking(&path).connect().await?);
                }
                Self::Sqlite { files, model: None }
            }
            Location::Postgres(url) => {
                let session = Session::within(SCHEMA);
                // As a node, if the user may.
                let become_owner = format!(
                    "SELECT set_config('role', rolname, false) FROM pg_roles WHERE {MAY_SET}
                     AND oid = (SELECT nspowner FROM pg_namespace WHERE nspname = '{SCHEMA}')"
                );
                let begun = bounded(url, async {
                    let mut connection = session.connect(url.options(), url.answer()).await?;
                    connection.execute(AssertSqlSafe(become_owner)).await?;
                    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
                    Ok(connection)
                });
                Self::Postgres(begun.await?)
            }
        })
    }

    /// Reads the tables of this read model from now on.
    pub(crate) fn turn_to(&mut self, name: &str) {
        if let Self::Sqlite { files, model } = self {
            let own = Some(name.to_owned());
            *model = own.filter(|own| files.contains_key(&Some(own.clone())));
        }
    }

    pub(crate) async fn read(&mut self, query: &Query) -> Result<Vec<Row>, sqlx::Error> {
        match self {
            Self::Sqlite { files, model } => {
                let connection = files.get_mut(model).ok_or(sqlx::Error::RowNotFound)?;
                on_sqlite(connection, query).await
            }
            Self::Postgres(connection) => {
                let read = timeout(LONGEST_READ, on_postgres(connection, query)).await;
                read.unwrap_or_else(|_| Err(silent()))
            }
        }
    }

    /// The current checkpoints; `None` for a file, where they cannot change.
    async fn checkpoints(&mut self) -> Result<Option<Vec<Checkpoint>>, sqlx::Error> {
        if let Self::Sqlite { .. } = self {
            return Ok(None);
        }
        self.read(&Query::new(ALL_CHECKPOINTS))
            .await?
            .iter()
            .map(Checkpoint::read)
            .collect::<Result<_, _>>()
            .map(Some)
    }

    pub(crate) async fn close(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite { files, .. } => {
                for connection in files.into_values() {
                    connection.close().await?;
                }
                Ok(())
            }
            Self::Postgres(connection) => connection.close().await,
        }
    }
}

/// Both sides of a comparison.
struct Sides<'a> {
    database: &'a Database,
    live: &'a mut Live,
    repository: &'a Repository,
    position: u64,
    /// Persons whose erasure the read model has not reached yet. Read on first use.
    pending: Option<HashSet<Uuid>>,
}

impl Sides<'_> {
    async fn compare(&mut self, table: &'static str, to: &mut Comparison) -> Result<(), CompareError> {
        let mut ours = Pages::of(table, self.database).await?;
        let mut theirs = Pages { rows: VecDeque::new(), after: None, read: 0, ..ours.clone() };
        loop {
            if ours.rows.is_empty() {
                let query = ours.next();
                ours.take(&self.database.read(query).await?)?;
            }
            if theirs.rows.is_empty() {
                let query = theirs.next();
                theirs.take(&self.live.read(&query).await?)?;
            }
            let (should, is) = (ours.rows.front(), theirs.rows.front());
            let order = match (should, is) {
                (None, None) => break,
                (Some(should), Some(is)) => ours.key(should).cmp(ours.key(is)),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
            };
            let should = if order.is_le() { ours.rows.pop_front() } else { None };
            let is = if order.is_ge() { theirs.rows.pop_front() } else { None };
            to.rows += u64::from(should.is_some());
            if let Some(what) = self.difference(&ours, should.as_deref(), is.as_deref()).await? {
                if to.differences.len() < TOLD {
                    to.differences.push(what);
                } else {
                    to.more += 1;
                }
            }
        }
        // The key's uniqueness constraint may have been removed: then a page that begins after a key skips its
        // duplicates.
        let count = Query::new(format!("SELECT count(*) FROM {table}"));
        let all: i64 = self.live.read(&count).await?.first().ok_or(sqlx::Error::RowNotFound)?.get(0)?;
        if all.cast_unsigned() != theirs.read {
            to.differences.push(format!("{table} has rows with the same key, or without one"));
        }
        Ok(())
    }

    async fn difference(
        &mut self,
        columns: &Pages,
        should: Option<&[Value]>,
        is: Option<&[Value]>,
    ) -> Result<Option<String>, CompareError> {
        let table = columns.table;
        let Some(row) = should.or(is) else { return Ok(None) };
        let owner = columns.owner(row);
        let which = columns.tell_key(row);
        let position = self.position;
        let (Some(should), Some(is)) = (should, is) else {
            if TRACES.contains(&table) && self.is_being_erased(owner).await? {
                return Ok(None);
            }
            return Ok(Some(if should.is_some() {
                format!("{table} has no row with {which}, which the events up to {position} make")
            } else {
                format!("{table} has a row with {which}, which no event up to {position} makes")
            }));
        };
        for (number, name) in columns.names.iter().enumerate() {
            let (should, is) = (&should[number], &is[number]);
            if should == is || (name == "sealed" && self.opens_alike(columns, row, should, is).await?) {
                continue;
            }
            if PERSONAL.contains(&name.as_str())
                && (self.is_being_erased(owner).await? || self.is_being_erased(columns.actor(row)).await?)
            {
                continue;
            }
            let which = format!("{table}, row with {which}: {name}");
            return Ok(Some(if PERSONAL.contains(&name.as_str()) {
                format!("{which} differs from what the events up to {position} make it")
            } else {
                let (should, is) = (should.tell(), is.tell());
                format!("{which} is {is}, but the events up to {position} make it {should}")
            }));
        }
        Ok(None)
    }

    /// Whether two sealed members of a row have the same content: sealing is random.
    async fn opens_alike(
        &self,
        columns: &Pages,
        row: &[Value],
        should: &Value,
        is: &Value,
    ) -> Result<bool, CompareError> {
        let (Value::Bytes(should), Value::Bytes(is)) = (should, is) else { return Ok(false) };
        let (Some(Value::Bytes(Some(id))), Some(owner)) = (row.first(), columns.owner(row)) else {
            return Ok(false);
        };
        let id = rows::id(id)?;
        let mut opened: [Personal; 2] = Default::default();
        for (opened, sealed) in opened.iter_mut().zip([should, is]) {
            let sealer = self.repository.sealer();
            *opened = match rows::open(sealer, columns.table, id, UserId(owner), sealed.as_deref()).await {
                Ok(personal) => personal,
                Err(StoreError::Damaged(_)) => return Ok(false),
                Err(error) => return Err(error.into()),
            };
        }
        Ok(opened[0] == opened[1])
    }

    /// Whether the person's key is erased, but the read model still has what was made with it, because the erasure
    /// comes after its checkpoint.
    async fn is_being_erased(&mut self, owner: Option<Uuid>) -> Result<bool, CompareError> {
        let Some(owner) = owner else { return Ok(false) };
        let pending = match &mut self.pending {
            Some(pending) => pending,
            pending => {
                let mut found = HashSet::new();
                let journal = self.repository.journal();
                let mut after = self.position;
                loop {
                    let events = journal.read_all(after, BATCH).await?;
                    let Some(last) = events.last() else { break };
                    after = last.position;
                    let erasures = events.iter().filter(|event| event.name == "UserErased");
                    found.extend(erasures.filter_map(|event| event.stream.uuid()));
                }
                pending.insert(found)
            }
        };
        Ok(pending.contains(&owner))
    }
}

/// The rows of a table in the order of their keys.
#[derive(Clone)]
struct Pages {
    table: &'static str,
    /// All columns, those of the key first.
    names: Vec<String>,
    /// How many columns the key has.
    keys: usize,
    rows: VecDeque<Vec<Value>>,
    /// The key of the last row read.
    after: Option<Vec<Value>>,
    /// How many rows were read.
    read: u64,
}

impl Pages {
    /// The pages of a table, with the columns that this program creates.
    async fn of(table: &'static str, database: &Database) -> Result<Self, sqlx::Error> {
        let query = format!("SELECT name, pk FROM pragma_table_info('{table}') ORDER BY pk = 0, pk, cid");
        let (mut names, mut keys) = (Vec::new(), 0);
        for row in database.read(Query::new(query)).await? {
            names.push(row.get("name")?);
            keys += usize::from(row.get::<i64>("pk")? > 0);
        }
        Ok(Self { table, names, keys, rows: VecDeque::new(), after: None, read: 0 })
    }

    /// The query for the next rows.
    fn next(&self) -> Query {
        let key = self.names[..self.keys].join(", ");
        let mut query = Query::new(format!("SELECT {} FROM {}", self.names.join(", "), self.table));
        if let Some(after) = &self.after {
            query.push(&format!(" WHERE ({key}) > ("));
            for (number, value) in after.iter().enumerate() {
                query.push(if number == 0 { "" } else { ", " }).push_bind(value.clone());
            }
            query.push(")");
        }
        query.push(&format!(" ORDER BY {key} LIMIT {PAGE}"));
        query
    }

    fn take(&mut self, found: &[Row]) -> Result<(), sqlx::Error> {
        for row in found {
            self.rows.push_back(row.cells()?.into_iter().map(|(_, value)| value).collect());
        }
        self.read += found.len() as u64;
        if let Some(last) = self.rows.back() {
            self.after = Some(self.key(last).to_vec());
        }
        Ok(())
    }

    fn key<'r>(&self, row: &'r [Value]) -> &'r [Value] {
        &row[..self.keys]
    }

    fn tell_key(&self, row: &[Value]) -> String {
        let cells =
            self.names.iter().zip(self.key(row)).map(|(name, value)| format!("{name} {}", value.tell()));
        cells.collect::<Vec<_>>().join(", ")
    }

    /// The person that the row belongs to.
    fn owner(&self, row: &[Value]) -> Option<Uuid> {
        let number =
            self.names.iter().position(|name| ["user_id", "person", "owner_id"].contains(&name.as_str()))?;
        match row.get(number)? {
            Value::Bytes(Some(id)) => Uuid::from_slice(id).ok(),
            _ => None,
        }
    }

    /// Who acted, if the row is of an event: the address that it came from is sealed with their key too.
    fn actor(&self, row: &[Value]) -> Option<Uuid> {
        let number = self.names.iter().position(|name| name == "actor_id")?;
        if let Value::Text(Some(id)) = row.get(number)? { id.parse().ok() } else { None }
    }
}

impl Value {
    /// The value for messages, with ids in their usual form.
    fn tell(&self) -> String {
        match self {
            Self::Int(Some(number)) => number.to_string(),
            Self::Text(Some(text)) => text.clone(),
            Self::Bytes(Some(bytes)) => {
                Uuid::from_slice(bytes).map_or_else(|_| tell_bytes(bytes), |id| id.to_string())
            }
            Self::Int(None) | Self::Text(None) | Self::Bytes(None) => "nothing".to_owned(),
        }
    }
}

/// Bytes in hexadecimal; of many, such as the hashes of a tile, the first and their number.
fn tell_bytes(bytes: &[u8]) -> String {
    match bytes.get(..32) {
        Some(first) if bytes.len() > 64 => format!("{}… ({} bytes)", hex::encode(first), bytes.len()),
        _ => hex::encode(bytes),
    }
}
