//! Which node runs which projector, if several nodes share the read models.
//!
//! A lease is a row with an end and an epoch. If its holder falls silent, it ends by the database's clock, and another
//! node takes it under the next epoch. [`crate::ReadModels::apply`] compares the epoch in the transaction that writes
//! the rows: a node that resumes after any suspension writes nothing.

use std::sync::Arc;
use std::time::Duration;

use event_store::StoreError;
use sqlx::PgConnection;

use crate::aside::Aside;
use crate::database::Database;
use crate::projector::{Projector, key};
use crate::sql::{Query, Row, Value, on_postgres};

/// No lease lasts longer. An end further off was written by somebody else, or by a clock that was set back since: it is not
/// waited for, nor is a node counted that says to be there for longer.
pub const LONGEST_LEASE: Duration = Duration::from_mins(5);

/// The right to write one read model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Counts the holders so far.
    pub epoch: u64,
    /// How long it lasts from each write or renewal of its holder.
    pub lasts: Duration,
}

impl Lease {
    /// The lease of a projector that is never shared: in a file, which one process has open, or before any node has
    /// leased it.
    pub const UNSHARED: Self = Self { epoch: 0, lasts: Duration::ZERO };
}

/// What a projector is doing, according to its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProjectorState {
    /// It follows the journal.
    Running,
    /// An operator paused it.
    Paused,
    /// It cannot process an event. It retries from time to time.
    Failed {
        /// The position of the event.
        position: u64,
        /// What is wrong, without personal data.
        error: String,
    },
}

impl ProjectorState {
    /// `running`, `paused` or `failed`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Failed { .. } => "failed",
        }
    }
}

/// The standing of a projector, as every node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its read model and the version of its tables: `users_v2`.
    pub key: String,
    /// The position of the last event that it applied.
    pub position: u64,
    /// The node that it runs on, if that is still active.
    pub holder: Option<String>,
    /// Counts its holders so far.
    pub epoch: u64,
    /// Whether it was paused.
    pub paused: bool,
    /// What its last holder reported.
    pub state: ProjectorState,
}

impl Standing {
    /// Whether it is one of a new build, which takes the place of the live tables once it is filled.
    pub fn is_rebuild(&self) -> bool {
        Aside::is_key(&self.key)
    }
}

/// A node that runs projectors, or once did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Whether it announced itself in time.
    pub is_there: bool,
}

/// The query of [`Leases::standings`].
const STANDINGS: &str =
    "SELECT projector, position,
    CASE WHEN until BETWEEN clock_timestamp() AND clock_timestamp() + interval '5 minutes' THEN holder END AS holder, epoch,
    paused, state, failed_position, error FROM watchword_read.checkpoints ORDER BY projector";

/// The standings of all projectors, and all nodes. Changes nothing; the tables must exist.
pub(crate) async fn look(connection: &mut PgConnection) -> Result<(Vec<Standing>, Vec<Node>), sqlx::Error> {
    let rows = on_postgres(&mut *connection, &Query::new(STANDINGS)).await?;
    let standings = rows.iter().map(standing).collect::<Result<_, _>>()?;
    let query =
        "SELECT node, until BETWEEN clock_timestamp() AND clock_timestamp() + interval '5 minutes' AS there
         FROM watchword_read.nodes ORDER BY node";
    let rows = on_postgres(connection, &Query::new(query)).await?;
    let node = |row: &Row| Ok(Node { name: row.get("node")?, is_there: row.get("there")? });
    Ok((standings, rows.iter().map(node).collect::<Result<_, sqlx::Error>>()?))
}

/// The leases of all projectors. No two processes may use the same node name.
pub struct Leases {
    database: Arc<Database>,
}

impl Leases {
    pub(crate) fn new(database: Arc<Database>) -> Self {
        Self { database }
    }

    /// Announces that a node is active, for as long as a lease lasts, and counts the active nodes.
    pub async fn announce(&self, node: &str, lasts: Duration) -> Result<u64, StoreError> {
        self.database.write(
            Query::new(
                "INSERT INTO nodes (node, until) VALUES ($1, clock_timestamp() + $2 * interval '1 millisecond')
                 ON CONFLICT (node) DO UPDATE SET until = excluded.until",
            )
            .bind(node)
            .bind(milliseconds(lasts)),
        )
        .await?;
        self.database
            .write(Query::new(
                "DELETE FROM nodes WHERE node IN
               (SELECT node FROM nodes WHERE until NOT BETWEEN clock_timestamp() AND clock_timestamp() + interval '5 minutes'
                FOR UPDATE SKIP LOCKED)",
            ))
            .await?;
        let nodes = self.database.read_number(Query::new("SELECT count(*) FROM nodes")).await?;
        Ok(nodes.cast_unsigned())
    }

    /// How many other nodes are active.
    pub async fn others(&self, node: &str) -> Result<u64, StoreError> {
        let query = Query::new(
            "SELECT count(*) FROM nodes WHERE node <> $1
               AND until BETWEEN clock_timestamp() AND clock_timestamp() + interval '5 minutes'",
        );
        Ok(self.database.read_number(query.bind(node)).await?.cast_unsigned())
    }

    /// Takes a projector that is free, or whose holder fell silent. False if another node has it.
    pub async fn take(
        &self,
        projector: &dyn Projector,
        node: &str,
        lasts: Duration,
    ) -> Result<bool, StoreError> {
        Ok(take(&self.database, &key(projector), node, lasts).await?.is_some())
    }

    /// Renews the lease of a projector, if no other node has taken it, and publishes its state to all nodes.
    pub async fn renew(
        &self,
        projector: &dyn Projector,
        node: &str,
        lasts: Duration,
        state: &ProjectorState,
    ) -> Result<(), StoreError> {
        let (position, error) = match state {
            ProjectorState::Failed { position, error } => {
                (Some(position.cast_signed()), Some(error.as_str()))
            }
            ProjectorState::Running | ProjectorState::Paused => (None, None),
        };
        // A locked row is being written under the lease, which renews it too, or was taken by another node.
        let query = Query::new(
            "UPDATE checkpoints SET until = clock_timestamp() + $3 * interval '1 millisecond', state = $4,
               failed_position = $5, error = $6
             WHERE projector = (SELECT projector FROM checkpoints WHERE projector = $1 AND holder = $2
               FOR UPDATE SKIP LOCKED)",
        );
        let query = query.bind(key(projector)).bind(node).bind(milliseconds(lasts));
        self.database.write(query.bind(state.name()).bind(Value::Int(position)).bind(error)).await?;
        Ok(())
    }

    /// Releases a projector for other nodes.
    pub async fn release(&self, projector: &dyn Projector, node: &str) -> Result<(), StoreError> {
        release(&self.database, &key(projector), node).await
    }

    /// Announces that a node leaves, so that the others need not wait for it.
    pub async fn leave(&self, node: &str) -> Result<(), StoreError> {
        self.database.write(Query::new("DELETE FROM nodes WHERE node = $1").bind(node)).await?;
        Ok(())
    }

    /// Pauses or resumes a projector, on whichever node it runs.
    pub async fn pause(&self, projector: &dyn Projector, paused: bool) -> Result<(), StoreError> {
        self.database
            .write(
                Query::new("UPDATE checkpoints SET paused = ($2 <> 0) WHERE projector = $1")
                    .bind(key(projector))
                    .bind(paused),
            )
            .await?;
        Ok(())
    }

    /// The standings of all projectors.
    pub async fn standings(&self) -> Result<Vec<Standing>, StoreError> {
        self.database.read(Query::new(STANDINGS)).await?.iter().map(|row| Ok(standing(row)?)).collect()
    }
}

/// Takes the lease with this key if it is free, or its holder fell silent.
pub(crate) async fn take(
    database: &Database,
    key: &str,
    node: &str,
    lasts: Duration,
) -> Result<Option<Lease>, StoreError> {
    // A locked row is being written by its holder, or taken by another node.
    let query = Query::new(
        "UPDATE checkpoints SET epoch = CASE WHEN epoch < 9223372036854775807 THEN epoch + 1 ELSE 1 END, holder = $2,
           until = clock_timestamp() + $3 * interval '1 millisecond'
         WHERE projector = (SELECT projector FROM checkpoints WHERE projector = $1
           AND (holder IS NULL OR until NOT BETWEEN clock_timestamp() AND clock_timestamp() + interval '5 minutes')
           FOR UPDATE SKIP LOCKED)
         RETURNING epoch",
    );
    let taken = database.write(query.bind(key).bind(node).bind(milliseconds(lasts))).await?;
    let Some(row) = taken.first() else { return Ok(None) };
    Ok(Some(Lease { epoch: row.get::<i64>("epoch")?.cast_unsigned(), lasts }))
}

/// Releases the lease with this key, if this node has it.
pub(crate) async fn release(database: &Database, key: &str, node: &str) -> Result<(), StoreError> {
    let query = Query::new("UPDATE checkpoints SET holder = NULL WHERE projector = $1 AND holder = $2");
    database.write(query.bind(key).bind(node)).await?;
    Ok(())
}

/// Renews the lease with this key, if nobody else has taken it since.
pub(crate) async fn keep(database: &Database, key: &str, lease: Lease) -> Result<(), StoreError> {
    // A locked row is being written under the lease, which renews it too, or was taken by another node.
    let query = Query::new(
        "UPDATE checkpoints SET until = clock_timestamp() + $3 * interval '1 millisecond'
         WHERE projector = (SELECT projector FROM checkpoints WHERE projector = $1 AND epoch = $2
           FOR UPDATE SKIP LOCKED)",
    );
    database.write(query.bind(key).bind(lease.epoch).bind(milliseconds(lease.lasts))).await?;
    Ok(())
}

/// Releases the lease with this key, if nobody else has taken it since.
pub(crate) async fn give_up(database: &Database, key: &str, lease: Lease) -> Result<(), StoreError> {
    let query = Query::new("UPDATE checkpoints SET holder = NULL WHERE projector = $1 AND epoch = $2");
    database.write(query.bind(key).bind(lease.epoch)).await?;
    Ok(())
}

fn standing(row: &Row) -> Result<Standing, sqlx::Error> {
    let state: String = row.get("state")?;
    Ok(Standing {
        key: row.get("projector")?,
        position: row.position("position")?,
        holder: row.get("holder")?,
        epoch: row.get::<i64>("epoch")?.cast_unsigned(),
        paused: row.get("paused")?,
        state: match state.as_str() {
            "failed" => ProjectorState::Failed {
                position: row.position("failed_position").unwrap_or_default(),
                error: row.get::<Option<String>>("error")?.unwrap_or_default(),
            },
            "paused" => ProjectorState::Paused,
            _ => ProjectorState::Running,
        },
    })
}

/// A duration for the statements here.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    duration.min(LONGEST_LEASE).as_millis().try_into().unwrap_or(u64::MAX)
}
