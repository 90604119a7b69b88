//! The imports of users that this process is doing, or has lately done: how far they are, and what was wrong with which line.
//!
//! This is remembered, not stored. What an import has done is in the log, and one that was cut off is sent again: whoever is
//! there already is skipped.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::AppId;
use event_store::Idempotency;
use http_kit::Problem;
use schemas::problems;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// How many are remembered.
const REMEMBERED: usize = 64;
/// How many errors of one are kept.
pub(crate) const MOST_ERRORS: usize = 1000;

/// How far an import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = UserImportState)]
pub(crate) enum ImportState {
    /// Lines are being imported.
    Running,
    /// All lines were looked at.
    Done,
    /// It stopped before its end: the last error says why. Send the lines again.
    Failed,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = UserImportError)]
pub struct LineError {
    /// The number of the line; the first is 1.
    #[schema(example = 3)]
    pub line: u64,
    /// The member, as a JSON Pointer (RFC 6901); `""` if it is the line as a whole.
    #[schema(example = "/email")]
    pub pointer: String,
    /// What is wrong, as a code.
    #[schema(example = "invalid_email")]
    pub code: String,
    /// What is wrong, for people.
    #[schema(example = "not a valid email address")]
    pub detail: String,
}

/// What became of the lines so far.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub state: ImportState,
    pub lines: u64,
    pub imported: u64,
    pub skipped: u64,
    pub failed: u64,
    /// How many were made admins of the app.
    pub admins: u64,
    /// The first ones, in the order of lines.
    pub errors: Vec<LineError>,
}

/// An import.
pub(crate) struct Import {
    pub id: Uuid,
    pub app_id: AppId,
    /// Whether lines are only checked.
    pub dry_run: bool,
    idempotency: Option<Idempotency>,
    tally: Mutex<Tally>,
}

impl Import {
    /// What became of the lines so far.
    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tally {
    /// Counts a line that was not imported.
    pub fn fail(&mut self, errors: Vec<LineError>) {
        self.failed += 1;
        self.note(errors);
    }

    /// Keeps the first errors. They come nearly in the order of lines.
    pub fn note(&mut self, errors: Vec<LineError>) {
        for error in errors {
            let at = self.errors.partition_point(|known| known.line <= error.line);
            self.errors.insert(at, error);
        }
        self.errors.truncate(MOST_ERRORS);
    }
}

/// All of them.
pub(crate) struct Imports {
    /// How many run at once: each holds its lines in memory.
    at_once: usize,
    /// The newest last.
    all: Mutex<VecDeque<Arc<Import>>>,
}

/// An import that was asked for.
pub(crate) enum Begun {
    New(Arc<Import>),
    /// The same request under the same idempotency key has begun it before.
    Before(Arc<Import>),
}

impl Imports {
    /// None yet, of which so many run at once.
    pub fn new(at_once: NonZeroUsize) -> Self {
        Self { at_once: at_once.get(), all: Mutex::default() }
    }

    /// Begins one. 503 while too many run.
    pub fn begin(
        &self,
        id: Uuid,
        app_id: AppId,
        dry_run: bool,
        idempotency: Option<Idempotency>,
    ) -> Result<Begun, Problem> {
        let mut all = self.all();
        if let Some(asked) = &idempotency {
            let same =
                |known: &&Arc<Import>| known.idempotency.as_ref().is_some_and(|it| it.key == asked.key);
            if let Some(known) = all.iter().find(same) {
                let is_same =
                    known.idempotency.as_ref().is_some_and(|it| it.fingerprint == asked.fingerprint);
                return if is_same {
                    Ok(Begun::Before(Arc::clone(known)))
                } else {
                    Err(Problem::new(problems::IDEMPOTENCY_KEY_REUSED))
                };
            }
        }
        let is_running = |import: &&Arc<Import>| import.tally().state == ImportState::Running;
        if all.iter().filter(is_running).count() >= self.at_once {
            let detail = format!("{} imports are running: try again when one has ended", self.at_once);
            return Err(Problem::overloaded("too many imports of users are running").detail(detail));
        }
        let (state, errors) = (ImportState::Running, Vec::new());
        let tally = Tally { state, lines: 0, imported: 0, skipped: 0, failed: 0, admins: 0, errors };
        let import = Arc::new(Import { id, app_id, dry_run, idempotency, tally: Mutex::new(tally) });
        if all.len() >= REMEMBERED {
            let over = all.iter().position(|import| import.tally().state != ImportState::Running);
            over.and_then(|at| all.remove(at));
        }
        all.push_back(Arc::clone(&import));
        Ok(Begun::New(import))
    }

    /// One of an app.
    pub fn find(&self, app_id: &AppId, id: Uuid) -> Option<Arc<Import>> {
        self.all().iter().find(|import| import.id == id && import.app_id == *app_id).map(Arc::clone)
    }

    fn all(&self) -> MutexGuard<'_, VecDeque<Arc<Import>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imports() -> Imports {
        Imports::new(NonZeroUsize::new(2).expect("not zero"))
    }

    fn begin(imports: &Imports, id: u128, key: Option<(u8, u8)>) -> Result<Begun, Problem> {
        let idempotency = key.map(|(key, body)| Idempotency { key: [key; 32], fingerprint: [body; 32] });
        imports.begin(Uuid::from_u128(id), AppId::default_app(), false, idempotency)
    }

    fn new(begun: Result<Begun, Problem>) -> Arc<Import> {
        match begun {
            Ok(Begun::New(import)) => import,
            Ok(Begun::Before(_)) => panic!("it was there"),
            Err(problem) => panic!("{}", problem.text()),
        }
    }

    #[test]
    fn two_run_at_once_and_the_last_are_remembered() {
        let imports = imports();
        let first = new(begin(&imports, 0, None));
        let second = new(begin(&imports, 1, None));
        assert_eq!(begin(&imports, 2, None).err().map(|problem| problem.kind()), Some(problems::OVERLOADED));
        second.tally().state = ImportState::Done;
        for id in 2..2 * REMEMBERED as u128 {
            new(begin(&imports, id, None)).tally().state = ImportState::Failed;
        }
        let found = |id| imports.find(&AppId::default_app(), Uuid::from_u128(id)).is_some();
        assert!(found(0) && !found(1) && !found(2) && found(2 * REMEMBERED as u128 - 1));
        assert!(imports.find(&AppId::parse("other").expect("valid"), first.id).is_none());
    }

    #[test]
    fn one_idempotency_key_is_one_import() {
        let imports = imports();
        let first = new(begin(&imports, 0, Some((1, 1))));
        let again = begin(&imports, 1, Some((1, 1)));
        assert!(matches!(again, Ok(Begun::Before(same)) if same.id == first.id));
        let other = begin(&imports, 1, Some((1, 2))).err().map(|problem| problem.kind());
        assert_eq!(other, Some(problems::IDEMPOTENCY_KEY_REUSED));
        new(begin(&imports, 1, Some((2, 1))));
    }

    #[test]
    fn the_first_errors_are_kept_in_the_order_of_lines() {
        let imports = imports();
        let import = new(begin(&imports, 0, None));
        let error = |line| {
            let (pointer, code, detail) = (String::new(), "invalid".to_owned(), String::new());
            vec![LineError { line, pointer, code, detail }]
        };
        for line in (1..=MOST_ERRORS as u64 + 1).rev() {
            import.tally().fail(error(line));
        }
        let tally = import.tally();
        let lines: Vec<u64> = tally.errors.iter().map(|error| error.line).collect();
        assert_eq!(lines, (1..=MOST_ERRORS as u64).collect::<Vec<_>>());
        assert_eq!(tally.failed, MOST_ERRORS as u64 + 1);
    }
}
