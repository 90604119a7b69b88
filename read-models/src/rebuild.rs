//! Rebuilds read models while they serve: a new build is filled beside the live tables and takes their place.
//!
//! A build has a checkpoint of its own, so one that was interrupted goes on where it was. When it takes the live tables'
//! place it has at least the events that these have, and nobody can write them: in PostgreSQL their checkpoint is locked,
//! in a file there is one writer. So no query goes back in position, and none fails.

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use event_store::{Journal, Location, Repository, StoreError};

use crate::aside::Aside;
use crate::build::Build;
use crate::checkpoint::JournalError;
use crate::database::{Database, look};
use crate::filling::{FillError, Pace, complete, fill};
use crate::leases::{self, Lease};
use crate::places::{self, OwnFile};
use crate::projector::{ApplyError, Projector, key};
use crate::sql::Query;
use crate::store::{ReadModels, lock_checkpoint};

/// A build that is no further behind makes its indexes, and one that is no further behind takes its place.
const NEAR: u64 = 5000;

/// A lease is renewed this often during its duration.
const RENEWALS: u32 = 4;

/// How to rebuild.
#[derive(Clone, Debug)]
pub struct RebuildSettings {
    /// Who does it: nobody else does while it lasts.
    pub node: String,
    /// For how long others wait for it if it falls silent.
    pub lease: Duration,
    /// How many events it applies in a second at most.
    pub events_per_second: Option<NonZeroU32>,
}

/// How far a rebuild is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RebuildProgress {
    /// The read model.
    pub name: &'static str,
    /// The last event that the new build has.
    pub position: u64,
    /// The end of the journal.
    pub head: u64,
}

/// A new build of a read model that has not taken the place of the live tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildStanding {
    /// The read model.
    pub name: &'static str,
    /// The last event that it has.
    pub position: u64,
    /// Whether somebody fills it. In files this is not known: only the process that has them could.
    pub is_active: bool,
}

/// Why read models were not rebuilt. The live ones are as they were.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// Another process is doing it.
    #[error("{0} is being rebuilt by another process")]
    Elsewhere(&'static str),
    /// The new builds cannot be filled.
    #[error(transparent)]
    Fill(#[from] FillError),
    /// The new build was made of another journal, or of a newer copy of this one.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The new build cannot take the place of the live tables.
    #[error("{model} cannot be replaced: {source}")]
    Replace {
        /// The read model.
        model: &'static str,
        /// The cause.
        source: ApplyError,
    },
    /// The tables cannot be read or written.
    #[error("the read models cannot be read or written: {0}")]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for RebuildError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl ReadModels {
    /// Fills new builds of read models from the journal and has them take the place of the live ones, which serve meanwhile.
    /// What an interrupted one has done is kept. `at` receives the progress. Returns the position of each.
    pub async fn rebuild(
        &self,
        repository: &Arc<Repository>,
        projectors: &[Arc<dyn Projector>],
        settings: &RebuildSettings,
        at: impl FnMut(&[RebuildProgress]),
    ) -> Result<Vec<(&'static str, u64)>, RebuildError> {
        let leases = Held::default();
        let work = Box::pin(self.rebuild_under(&leases, repository, projectors, settings, at));
        let done = tokio::select! {
            done = work => done,
            never = leases.keep(settings.lease) => match never {},
        };
        if done.is_err() {
            leases.give_up().await;
        }
        done
    }

    /// The builds that have not taken the place of the live tables: those that are filled by other processes, and those that
    /// were interrupted. Those in files with one of the given names are left out.
    pub async fn builds(&self, without: &[&str]) -> Result<Vec<BuildStanding>, StoreError> {
        let mut builds = Vec::new();
        let standings = match self.leases() {
            Some(leases) => leases.standings().await?,
            None => vec![],
        };
        for projector in self.projectors() {
            let name = projector.name();
            let file =
                self.places.next_file(name).filter(|file| !without.contains(&name) && file.path.exists());
            if let Some(file) = file {
                let key = key(&*projector);
                // One that cannot be read is begun anew.
                let found = look(&Location::File(file.path)).await.unwrap_or_default();
                let found = found.into_iter().find(|it| it.projector == key);
                builds.extend(found.map(|it| BuildStanding {
                    name,
                    position: it.position,
                    is_active: false,
                }));
            }
            let key = Aside::key(&*projector);
            let found = standings.iter().find(|it| it.key == key);
            builds.extend(found.map(|it| BuildStanding {
                name,
                position: it.position,
                is_active: it.holder.is_some(),
            }));
        }
        Ok(builds)
    }

    /// Releases what a rebuild holds that was interrupted.
    pub async fn leave_rebuild(&self, projector: &dyn Projector, node: &str) -> Result<(), StoreError> {
        match self.places.patient().await? {
            Some(database) => leases::release(&database, &Aside::key(projector), node).await,
            None => Ok(()),
        }
    }

    async fn rebuild_under(
        &self,
        leases: &Held,
        repository: &Arc<Repository>,
        projectors: &[Arc<dyn Projector>],
        settings: &RebuildSettings,
        mut at: impl FnMut(&[RebuildProgress]),
    ) -> Result<Vec<(&'static str, u64)>, RebuildError> {
        let journal = &**repository.journal();
        let mut builds = Vec::new();
        for projector in projectors {
            builds.push(self.begin_build(projector, journal, settings, leases).await?);
        }
        let names: Vec<&'static str> = projectors.iter().map(|projector| projector.name()).collect();
        let mut pace = Pace::new(settings.events_per_second);
        for in_bulk in [true, false] {
            loop {
                let head = journal.head().await?;
                let mut at = |positions: &[u64]| {
                    let all = names.iter().zip(positions);
                    let all = all.map(|(name, position)| RebuildProgress { name, position: *position, head });
                    at(&all.collect::<Vec<_>>());
                };
                builds = fill(repository, builds, |_| head, in_bulk, &mut pace, &mut at).await?;
                if journal.head().await? <= head + NEAR {
                    break;
                }
            }
            if in_bulk {
                builds = complete(builds).await?;
            }
        }
        let mut rebuilt = Vec::new();
        for build in builds {
            let name = build.projector.name();
            fail::fail_point!("before-swap", |_| std::process::abort());
            rebuilt.push((name, self.finish_build(build, repository).await?));
            fail::fail_point!("after-swap", |_| std::process::abort());
        }
        Ok(rebuilt)
    }

    /// Begins a build, or continues one.
    async fn begin_build(
        &self,
        projector: &Arc<dyn Projector>,
        journal: &dyn Journal,
        settings: &RebuildSettings,
        leases: &Held,
    ) -> Result<Build, RebuildError> {
        let name = projector.name();
        let projector = Arc::clone(projector);
        let (database, key, aside) = match (self.places.patient().await?, self.places.next_file(name)) {
            (Some(patient), _) => (patient, Aside::key(&*projector), Some(Arc::new(Aside::of(&*projector)))),
            (None, Some(file)) => (open_build(&file).await?, key(&*projector), None),
            (None, None) => return Err(RebuildError::Elsewhere(name)),
        };
        let marks = self.build_key.clone();
        let mut build = Build { projector, database, key, marks, aside, lease: Lease::UNSHARED, position: 0 };
        build.register().await?;
        if build.aside.is_some() {
            // What this one held before it failed.
            leases::release(&build.database, &build.key, &settings.node).await?;
            let taken = leases::take(&build.database, &build.key, &settings.node, settings.lease).await?;
            build.lease = taken.ok_or(RebuildError::Elsewhere(name))?;
            leases.add(&build);
        }
        match (build.known(journal).await?, self.places.next_file(name)) {
            (Some(position), _) => build.position = position,
            // Whatever is there may have been put there by others.
            (None, None) => build.discard().await?,
            (None, Some(file)) => {
                build.database.close().await;
                places::remove(&file.path);
                build.database = open_build(&file).await?;
                build.register().await?;
            }
        }
        build.create().await?;
        Ok(build)
    }

    /// Has a build take the place of the live tables. Returns its position.
    async fn finish_build(
        &self,
        mut build: Build,
        repository: &Arc<Repository>,
    ) -> Result<u64, RebuildError> {
        let model = build.projector.name();
        match build.checkpoint().await? {
            Some(checkpoint) => checkpoint.check_journal(&**repository.journal()).await?,
            None => return Err(RebuildError::Elsewhere(model)),
        }
        if let Some(file) = self.places.next_file(model) {
            return self.replace_file(build, &file, repository).await;
        }
        let replaced = self.replace_tables(&mut build, repository).await;
        replaced.map_err(|source| RebuildError::Replace { model, source })?;
        Ok(build.position)
    }

    async fn replace_file(
        &self,
        mut build: Build,
        file: &OwnFile,
        repository: &Arc<Repository>,
    ) -> Result<u64, RebuildError> {
        let projector = Arc::clone(&build.projector);
        let turn = self.places.turn(projector.name()).await;
        let live = self.checkpoint(&*projector).await?;
        build.catch_up(repository, live).await?;
        let position = build.position;
        let mut tx = build.database.begin().await?;
        build.unmark(&mut tx).await?;
        tx.commit().await?;
        // Opened anew, with the memory of one that is read.
        build.database.close().await;
        let location = Location::File(file.path.clone());
        let database = Database::open(&location).await.map_err(|error| {
            StoreError::Unavailable(format!("{} cannot be opened: {error}", file.path.display()).into())
        })?;
        self.places.replace(projector.name(), &build.key, file, Arc::new(database), turn).await?;
        Ok(position)
    }

    /// In one transaction, which locks the checkpoint that a write of the live tables would lock first.
    async fn replace_tables(
        &self,
        build: &mut Build,
        repository: &Arc<Repository>,
    ) -> Result<(), ApplyError> {
        let mut tx = self.places.shared().begin_ddl().await?;
        let live = key(&*build.projector);
        let query = "SELECT position FROM checkpoints WHERE projector = $1 FOR UPDATE";
        let found = tx.run(Query::new(query).bind(live.as_str())).await?;
        let position = found.first().ok_or(sqlx::Error::RowNotFound)?.position(0)?;
        match build.catch_up(repository, position).await {
            Ok(()) => {}
            Err(FillError::Apply { source, .. }) => return Err(source),
            Err(FillError::Journal(error)) => return Err(crate::ProjectError::Seal(error).into()),
        }
        lock_checkpoint(&mut tx, &build.key, build.lease).await?;
        tx.make(Aside::take_place(&*build.projector)).await?;
        let update =
            "UPDATE checkpoints SET position = built.position, event = built.event FROM checkpoints built
             WHERE checkpoints.projector = $1 AND built.projector = $2";
        tx.run(Query::new(update).bind(live).bind(build.key.as_str())).await?;
        build.unmark(&mut tx).await?;
        let delete = "DELETE FROM checkpoints WHERE projector = $1";
        tx.run(Query::new(delete).bind(build.key.as_str())).await?;
        Ok(tx.commit().await?)
    }
}

/// Opens the file of a build. One that cannot be opened holds nothing of use.
async fn open_build(file: &OwnFile) -> Result<Arc<Database>, StoreError> {
    let opened = match Database::building(&file.path).await {
        Err(_) if file.path.exists() => {
            places::remove(&file.path);
            Database::building(&file.path).await
        }
        opened => opened,
    };
    opened.map(Arc::new)
}

/// The leases of the builds under way. A build may wait long for others: for a slower one, or for its indexes.
#[derive(Default)]
struct Held(Mutex<Vec<(Arc<Database>, String, Lease)>>);

impl Held {
    fn add(&self, build: &Build) {
        let held = (Arc::clone(&build.database), build.key.clone(), build.lease);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(held);
    }

    fn all(&self) -> Vec<(Arc<Database>, String, Lease)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Renews them, for as long as this is polled.
    async fn keep(&self, lasts: Duration) -> Infallible {
        loop {
            tokio::time::sleep(lasts / RENEWALS).await;
            for (database, key, lease) in self.all() {
                // What the build writes next tells whether it still has it.
                if let Err(error) = leases::keep(&database, &key, lease).await {
                    tracing::warn!(%error, build = key, "the lease of a rebuild could not be renewed");
                }
            }
        }
    }

    /// Releases them, so that the next rebuild need not wait until they end.
    async fn give_up(&self) {
        for (database, key, lease) in self.all() {
            if let Err(error) = leases::give_up(&database, &key, lease).await {
                tracing::warn!(%error, build = key, "the lease of a rebuild could not be released: it will expire");
            }
        }
    }
}
