//! Which database each read model is in.
//!
//! In PostgreSQL all are in one. Of files there is one that has them all at first, and that says which read models have
//! a file of their own by now: those that were rebuilt. So a new build takes the place of the old one by one row, however
//! large both are, and no two builds write to the same file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use event_store::{Location, StoreError};
use tokio::sync::{Mutex as Turn, OnceCell, OwnedMutexGuard, RwLock as Replacing};

use crate::aside::Aside;
use crate::checkpoint::Checkpoint;
use crate::database::{Database, OpenError, look, look_at_places};
use crate::sql::Query;

/// For how long a file that was replaced is kept for those who are reading it.
const LONGEST_READ: Duration = Duration::from_mins(1);

/// The databases of all read models.
pub(crate) struct Places {
    location: Location,
    shared: Arc<Database>,
    /// The read models with a file of their own.
    own: Arc<RwLock<BTreeMap<String, Own>>>,
    /// Held to write while a file takes another's place: until then the former has the checkpoint.
    replacing: Arc<Replacing<()>>,
    /// Who writes a read model in a file has the turn. In PostgreSQL the checkpoint is locked.
    turns: Mutex<BTreeMap<String, Arc<Turn<()>>>>,
    /// Connections to PostgreSQL whose statements may take long.
    patient: OnceCell<Arc<Database>>,
}

#[derive(Clone)]
struct Own {
    generation: u64,
    database: Arc<Database>,
}

/// The file of a read model's build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnFile {
    pub generation: u64,
    pub path: PathBuf,
}

impl Places {
    pub async fn open(location: &Location) -> Result<Self, OpenError> {
        let is_new = location.file().is_some_and(|path| !path.exists());
        let shared = Arc::new(Database::open(location).await?);
        let mut own = BTreeMap::new();
        if let Location::File(path) = location {
            let failed = |source| OpenError::failed(location, source);
            let mut known = BTreeMap::new();
            for (model, generation) in shared.places().await.map_err(failed)? {
                let file = own_file(path, &model, generation);
                if file.exists() {
                    let database = Arc::new(Database::open(&Location::File(file)).await?);
                    own.insert(model.clone(), Own { generation, database });
                    known.insert(model, generation);
                } else {
                    tracing::warn!(
                        model,
                        "the file of a read model is gone: it is filled anew from the journal"
                    );
                    let forget = Query::new("DELETE FROM places WHERE model = $1").bind(model.as_str());
                    shared.write(forget).await.map_err(failed)?;
                }
            }
            for (model, OwnFile { generation, path }) in own_files(path) {
                // The next one is a build that was interrupted.
                let current = known.get(&model).copied().unwrap_or_default();
                if is_new || (generation != current && generation != current + 1) {
                    remove(&path);
                }
            }
        }
        let (location, own) = (location.clone(), Arc::new(RwLock::new(own)));
        let (replacing, turns, patient) = (Arc::default(), Mutex::default(), OnceCell::new());
        Ok(Self { location, shared, own, replacing, turns, patient })
    }

    /// The database that all read models are in which have no file of their own.
    pub fn shared(&self) -> &Arc<Database> {
        &self.shared
    }

    /// Where a read model is.
    pub fn of(&self, model: &str) -> Arc<Database> {
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(own.get(model).map_or(&self.shared, |own| &own.database))
    }

    /// Whether a read model has a file of its own.
    pub fn is_apart(&self, model: &str) -> bool {
        self.own.read().unwrap_or_else(PoisonError::into_inner).contains_key(model)
    }

    /// All databases.
    pub fn all(&self) -> Vec<Arc<Database>> {
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
        std::iter::once(&self.shared).chain(own.values().map(|own| &own.database)).map(Arc::clone).collect()
    }

    /// Waits until nobody else in this process writes a read model.
    pub async fn turn(&self, model: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(model.to_owned()).or_default())
        };
        turn.lock_owned().await
    }

    /// The checkpoints of all read models, in the order of their names.
    pub async fn checkpoints(&self) -> Result<Vec<Checkpoint>, sqlx::Error> {
        let _none_is_replaced = self.replacing.read().await;
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut checkpoints = self.shared.checkpoints().await?;
        checkpoints.retain(|it| !own.contains_key(it.model()) && !Aside::is_key(&it.projector));
        for own in own.values() {
            checkpoints.extend(own.database.checkpoints().await?);
        }
        checkpoints.sort_by(|one, other| one.projector.cmp(&other.projector));
        Ok(checkpoints)
    }

    /// Connections to PostgreSQL whose statements may take long; `None` for files.
    pub async fn patient(&self) -> Result<Option<Arc<Database>>, StoreError> {
        let Location::Postgres(url) = &self.location else { return Ok(None) };
        let open = || async { Database::patient(url).await.map(Arc::new) };
        Ok(Some(Arc::clone(self.patient.get_or_try_init(open).await?)))
    }

    /// The file of a read model's next build; `None` in PostgreSQL.
    pub fn next_file(&self, model: &str) -> Option<OwnFile> {
        let anchor = self.location.file()?;
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
        let generation = own.get(model).map_or(0, |own| own.generation) + 1;
        Some(OwnFile { generation, path: own_file(anchor, model, generation) })
    }

    /// Has a read model read from another file from now on, whose database is given. It has what the former had, or more.
    /// Whoever does not wait for it any more does not end it in the middle.
    pub async fn replace(
        &self,
        model: &str,
        key: &str,
        file: &OwnFile,
        database: Arc<Database>,
        turn: OwnedMutexGuard<()>,
    ) -> Result<(), sqlx::Error> {
        let (model, key) = (model.to_owned(), key.to_owned());
        let (shared, own) = (Arc::clone(&self.shared), Arc::clone(&self.own));
        let (new, replacing) = (Own { generation: file.generation, database }, Arc::clone(&self.replacing));
        let anchor = self.location.file().map(Path::to_owned);
        let replaced = tokio::spawn(async move {
            let _turn = turn;
            let _replacing = replacing.write().await;
            name_current(&shared, &model, &key, new.generation).await?;
            // From here on the next start opens the new file: nothing may keep this process from doing the same.
            let former = own.write().unwrap_or_else(PoisonError::into_inner).insert(model.clone(), new);
            if let (Some(former), Some(anchor)) = (former, anchor) {
                let path = own_file(&anchor, &model, former.generation);
                tokio::spawn(async move { retire(former.database, &path).await });
            }
            Ok(())
        });
        replaced.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
    }

    pub async fn close(&self) {
        for database in self.all() {
            database.close().await;
        }
        if let Some(patient) = self.patient.get() {
            patient.close().await;
        }
    }
}

/// Writes which file of a read model is current, and forgets the checkpoint in the shared one.
async fn name_current(shared: &Database, model: &str, key: &str, generation: u64) -> Result<(), sqlx::Error> {
    // Otherwise a power loss could undo it, when the former file is gone.
    shared.write(Query::new("PRAGMA synchronous = FULL")).await?;
    let named = async {
        let mut tx = shared.begin().await?;
        let place = "INSERT INTO places (model, generation) VALUES ($1, $2)
                     ON CONFLICT (model) DO UPDATE SET generation = excluded.generation";
        tx.run(Query::new(place).bind(model).bind(generation)).await?;
        tx.run(Query::new("DELETE FROM checkpoints WHERE projector = $1").bind(key)).await?;
        tx.commit().await
    };
    let named = named.await;
    if let Err(error) = shared.write(Query::new("PRAGMA synchronous = NORMAL")).await {
        tracing::warn!(%error, "the read models sync each of their writes until the next start");
    }
    named
}

/// Removes a file that was replaced, once nobody reads it any more.
async fn retire(mut database: Arc<Database>, path: &Path) {
    let alone = async {
        while Arc::get_mut(&mut database).is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = tokio::time::timeout(LONGEST_READ, alone).await;
    database.close().await;
    remove(path);
}

/// A read model's own file: `read-models.users.2.db` beside `read-models.db`.
fn own_file(anchor: &Path, model: &str, generation: u64) -> PathBuf {
    let stem = anchor.file_stem().unwrap_or_default().to_string_lossy();
    anchor.with_file_name(format!("{stem}.{model}.{generation}.db"))
}

/// The own files beside this one, whether or not they are in use.
fn own_files(anchor: &Path) -> Vec<(String, OwnFile)> {
    let folder = anchor.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let stem = anchor.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
    let own = entries.filter_map(|entry| {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_str()?;
        let (model, generation) =
            name.strip_prefix(&stem)?.strip_prefix('.')?.strip_suffix(".db")?.rsplit_once('.')?;
        let generation = generation.parse().ok()?;
        Some((model.to_owned(), OwnFile { generation, path: own_file(anchor, model, generation) }))
    });
    own.collect()
}

/// Removes a file, and what belongs to it.
pub(crate) fn remove(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut path = path.as_os_str().to_owned();
        path.push(suffix);
        // What stays is removed at the next start.
        let _ = std::fs::remove_file(path);
    }
}

/// The files of all read models: the one that they are all in at first, and the own ones in use. Changes nothing.
pub(crate) async fn files(anchor: &Path) -> Result<BTreeMap<Option<String>, PathBuf>, sqlx::Error> {
    let mut files = BTreeMap::from([(None, anchor.to_owned())]);
    for (model, generation) in look_at_places(anchor).await? {
        let path = own_file(anchor, &model, generation);
        if path.exists() {
            files.insert(Some(model), path);
        }
    }
    Ok(files)
}

/// Reads the checkpoints of all read models. Changes nothing.
pub(crate) async fn look_at_all(location: &Location) -> Result<Vec<Checkpoint>, OpenError> {
    let mut checkpoints = look(location).await?;
    checkpoints.retain(|checkpoint| !Aside::is_key(&checkpoint.projector));
    let Location::File(anchor) = location else { return Ok(checkpoints) };
    let files = files(anchor).await.map_err(|source| OpenError::failed(location, source))?;
    for (model, path) in files {
        let Some(model) = model else { continue };
        checkpoints.retain(|checkpoint| checkpoint.model() != model);
        checkpoints.extend(look(&Location::File(path)).await?);
    }
    checkpoints.sort_by(|one, other| one.projector.cmp(&other.projector));
    Ok(checkpoints)
}
