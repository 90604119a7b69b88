//! Apps: created, read, changed, disabled and enabled.

mod change;
mod create;
mod read;
mod settings;
mod switch;

use std::sync::Arc;

use domain::app::AppError;
use domain::claims::ClaimKind;
use domain::text::{Lines, readable};
use http_kit::problem::Problem;
use schemas::field_codes;
use schemas::problems;
use utoipa_axum::router::OpenApiRouter;

use crate::CommandService;

/// The claims that make apps listable from the journal, without a projection.
pub const CLAIM: &str = ClaimKind::App.as_str();
const MAX_NAME: usize = 100;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new()
        .merge(create::routes())
        .merge(read::routes())
        .merge(change::routes())
        .merge(switch::routes())
}

/// Checks the name of something that is not a person.
pub(crate) fn check_name(name: &str) -> Result<String, Problem> {
    let name = readable(name, MAX_NAME, Lines::One);
    let name = name.map_err(|error| Problem::invalid("/name", field_codes::INVALID, error.to_string()))?;
    Ok(name.to_owned())
}

#[expect(clippy::needless_pass_by_value, reason = "what `map_err` gives")]
pub(crate) fn refused(error: AppError) -> Problem {
    match error {
        AppError::Exists => Problem::new(problems::APP_EXISTS),
        AppError::Absent | AppError::NoSuchKey => Problem::not_found(),
        AppError::Permissions => Problem::invalid("/permissions", field_codes::INVALID, error.to_string()),
        AppError::TooManyKeys => Problem::new(problems::TOO_MANY_API_KEYS),
    }
}
