//! What an import does after its answer. Lines are imported side by side, each in an append of its own, by an admin who is
//! still one when it is made.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use dispatcher::{Context, DispatchError, Reads};
use domain::app::App;
use domain::decisions::{ImportUser, NotGranted, NotImported};
use domain::draft::Draft;
use domain::user::{User, UserError};
use domain::{Timestamp, UserId};
use event_store::StoreError;
use futures::{StreamExt, stream};
use http_kit::auth::AdminCaller;
use http_kit::problem::Problem;
use schemas::{field_codes, problems};
use tokio::sync::Mutex;

use super::lines::{ImportLine, ImportLines, errors_of};
use super::memberships::Found;
use crate::CommandService;
use crate::api::refusals::{app_closed, not_granted, user_problem};
use crate::imports::{Import, ImportState, LineError};

/// How many lines are on their way to the journal at once.
const IN_FLIGHT: usize = 64;
/// How often a line is tried while a store is away or busy, and after which pause.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// What became of a line.
enum Outcome {
    Imported {
        is_admin: bool,
    },
    Skipped,
    Failed(Vec<LineError>),
    /// Nothing more can be imported.
    Stopped(Vec<LineError>),
}

/// What all lines have in common.
struct Running {
    service: Arc<CommandService>,
    caller: AdminCaller,
    context: Context,
    /// When the app was made: the time in ids that are derived.
    app_made_at: Timestamp,
    import: Arc<Import>,
    /// Taken by a line with memberships: appends to the same organization conflict.
    joining: Mutex<()>,
}

/// Imports lines, and does not wait.
pub(super) fn start(
    service: &Arc<CommandService>,
    caller: AdminCaller,
    context: Context,
    app_made_at: Timestamp,
    import: Arc<Import>,
    bytes: Bytes,
) {
    let (service, joining) = (Arc::clone(service), Mutex::default());
    let running = Running { service, caller, context, app_made_at, import, joining };
    tokio::spawn(running.run(bytes));
}

/// Marks an import as failed if it ends before it says how, because of a panic or the end of the process.
struct Ending(Arc<Import>);

impl Drop for Ending {
    fn drop(&mut self) {
        let mut tally = self.0.tally();
        if tally.state == ImportState::Running {
            tally.state = ImportState::Failed;
        }
    }
}

impl Running {
    async fn run(self, bytes: Bytes) {
        let ending = Ending(Arc::clone(&self.import));
        let lines = ImportLines::new(bytes, self.service.settings.imported_hash_cost, self.context.at);
        let running = &self;
        let mut outcomes = stream::iter(lines)
            .map(|line| async move {
                match line {
                    Ok(line) => running.take(line).await,
                    Err(errors) => Outcome::Failed(errors),
                }
            })
            .buffer_unordered(IN_FLIGHT);
        let mut state = ImportState::Done;
        while let Some(outcome) = outcomes.next().await {
            let mut tally = self.import.tally();
            tally.lines += 1;
            match outcome {
                Outcome::Imported { is_admin } => {
                    tally.imported += 1;
                    tally.admins += u64::from(is_admin);
                }
                Outcome::Skipped => tally.skipped += 1,
                Outcome::Failed(errors) => tally.fail(errors),
                Outcome::Stopped(errors) => {
                    tally.fail(errors);
                    state = ImportState::Failed;
                    break;
                }
            }
        }
        self.import.tally().state = state;
        drop(ending);
    }

    async fn take(&self, line: ImportLine) -> Outcome {
        let number = line.number;
        let mut tries = 0;
        loop {
            tries += 1;
            let problem = match self.once(&line).await {
                Ok(outcome) => return outcome,
                Err(problem) => problem,
            };
            let errors = errors_of(number, &problem);
            match problem.status().as_u16() {
                // Whose right has ended, or whose app.
                401 | 403 | 404 => return Outcome::Stopped(errors),
                500.. if tries == TRIES => return Outcome::Stopped(errors),
                500.. => tokio::time::sleep(PAUSE * tries).await,
                _ => return Outcome::Failed(errors),
            }
        }
    }

    async fn once(&self, line: &ImportLine) -> Result<Outcome, Problem> {
        let user_id = self.id_of(line);
        let memberships = match Found::of(&self.service, &self.import.app_id, &line.memberships).await {
            Ok(found) => found,
            Err(problem) => {
                // Whoever is there already is skipped, whatever became of the organizations.
                let user = self.service.repository.load::<User>(&user_id).await?;
                user.state.id.ok_or(problem)?;
                Found::none(&self.import.app_id)
            }
        };
        if self.import.dry_run {
            return self.check(user_id, line, &memberships).await;
        }
        let _joining = if memberships.is_empty() { None } else { Some(self.joining.lock().await) };
        let at = self.service.clock.now();
        let import = import_of(user_id, line, at);
        let context = Context { at, ..self.context.clone() };
        let (mut reads, app) = Reads::one::<App>(&self.import.app_id);
        let user = reads.new_one::<User>(&user_id);
        let joins = (!memberships.is_empty()).then(|| memberships.read(user_id, &mut reads));
        // A refusal that is no failure goes past the type of problems.
        let imported = self.service.run_as(&self.caller, context, reads, move |work| {
            let (app, account) = work.drafts((app, user));
            match import.decide(app, account) {
                Ok(is_admin) => {
                    joins.as_ref().map_or(Ok(()), |joins| joins.decide(work, user, user_id, at))?;
                    Ok(Some(is_admin))
                }
                Err(NotImported::Before) => Ok(None),
                Err(why) => Err(refused(&import, &why)),
            }
        });
        match imported.await {
            Ok(committed) => Ok(match committed.value.flatten() {
                Some(is_admin) => Outcome::Imported { is_admin },
                None => Outcome::Skipped,
            }),
            Err(DispatchError::ClaimTaken { .. }) => Err(taken()),
            // They were erased while this was decided.
            Err(DispatchError::Store(StoreError::Erased(_))) => Err(erased()),
            Err(error) => Err(error.into()),
        }
    }

    /// What would become of a line.
    async fn check(
        &self,
        user_id: UserId,
        line: &ImportLine,
        memberships: &Found,
    ) -> Result<Outcome, Problem> {
        let app = self.service.authenticator.existing_app(&self.import.app_id).await?;
        let user = self.service.repository.load::<User>(&user_id).await?;
        let mut draft = Draft::of(user);
        let import = import_of(user_id, line, self.service.clock.now());
        let is_admin = match import.decide(&app.state, &mut draft) {
            Ok(is_admin) => is_admin,
            Err(NotImported::Before) => return Ok(Outcome::Skipped),
            Err(why) => return Err(refused(&import, &why)),
        };
        memberships.check(&self.service, &draft, user_id, import.at).await?;
        match self.service.locate.locate(&self.import.app_id, &line.email).await? {
            Some(_) => Err(taken()),
            None => Ok(Outcome::Imported { is_admin }),
        }
    }

    /// The line's own, or one that follows from what the other system calls the account: the same for the same line.
    fn id_of(&self, line: &ImportLine) -> UserId {
        line.id.unwrap_or_else(|| {
            let account = match &line.origin.external_id {
                Some(id) => format!("id {id}"),
                None => format!("email {}", line.email.as_str()),
            };
            let name = self.service.lookup.imported(&self.import.app_id, &account);
            let mut tail = [0; 10];
            tail.copy_from_slice(&name[..10]);
            let made_at = self.app_made_at.as_millisecond().max(0).unsigned_abs();
            UserId(uuid::Builder::from_unix_timestamp_millis(made_at, &tail).into_uuid())
        })
    }
}

fn import_of(user_id: UserId, line: &ImportLine, at: Timestamp) -> ImportUser {
    ImportUser {
        user_id,
        email: line.email.clone(),
        email_verified: line.email_verified,
        password_hash: line.password_hash.clone(),
        profile: line.profile.clone(),
        origin: line.origin.clone(),
        roles: line.roles.clone(),
        banned: line.banned,
        at,
    }
}

fn taken() -> Problem {
    let detail = "this address belongs to another account";
    Problem::new(problems::EMAIL_TAKEN).field("/email", problems::EMAIL_TAKEN, detail)
}

fn erased() -> Problem {
    let detail = "this person was imported before, and erased since: to import them once more, give the line another id";
    Problem::invalid("", field_codes::INVALID, detail)
}

fn refused(import: &ImportUser, why: &NotImported) -> Problem {
    match why {
        NotImported::App(closed) => app_closed(*closed),
        NotImported::Before => Problem::internal(why),
        NotImported::Erased => erased(),
        NotImported::IdTaken => Problem::invalid("/id", field_codes::INVALID, why.to_string()),
        NotImported::Role { role, why } => {
            let at = import.roles.iter().position(|it| it == role).unwrap_or_default();
            let problem = match why {
                NotGranted::User(UserError::EmailNotVerified) => problems::EMAIL_NOT_VERIFIED,
                NotGranted::User(UserError::TooManyRoles) => problems::TOO_MANY_ROLES,
                NotGranted::User(_) | NotGranted::NeedsFullAdmin => return not_granted(why.clone()),
            };
            Problem::invalid(format!("/roles/{at}"), problem, why.to_string())
        }
        NotImported::User(error) => user_problem(error.clone()),
    }
}
