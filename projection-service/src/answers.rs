//! What all queries share: pages, users, refusals.

use axum::Json;
use axum::response::Response;
use http_kit::problem::both;
use http_kit::{Page, Problem, UserBody, uncached};
use read_models::users::UserRow;
use read_models::{Paging, ReadError};
use schemas::field_codes;
use serde::Serialize;

const DEFAULT_LIMIT: i64 = 20;
const MAX_LIMIT: i64 = 200;
const MAX_OFFSET: i64 = 10_000;
/// The length of the longest email address, in bytes.
const LONGEST_QUERY: usize = 320;

/// The page of a read model as shown.
pub(crate) fn page_of<T>(page: read_models::Page<T>) -> Page<T> {
    Page { items: page.items, total: page.total, next_cursor: page.next_cursor }
}

/// The shown part of a row.
pub(crate) fn user_body(row: UserRow) -> UserBody {
    UserBody {
        id: row.id.0,
        app_id: row.app_id,
        email: row.personal.email.map(String::from),
        email_verified: row.email_verified,
        name: row.personal.name,
        avatar_url: row.personal.avatar_url,
        phone: row.personal.phone,
        banned: row.banned,
        roles: row.roles.into_iter().map(String::from).collect(),
        created_at: row.created_at,
        updated_at: row.updated_at,
        damaged: row.damaged,
    }
}

/// 200 with a body that no cache keeps.
pub(crate) fn answer(body: impl Serialize) -> Response {
    uncached(Json(body))
}

/// The text of a search.
pub(crate) fn search_text(query: Option<String>) -> Result<Option<String>, Problem> {
    match query {
        Some(query) if query.len() > LONGEST_QUERY => {
            let detail = format!("at most {LONGEST_QUERY} bytes");
            Err(Problem::invalid_parameter("query", field_codes::TOO_LONG, detail))
        }
        query => Ok(query),
    }
}

/// The requested page.
pub(crate) fn paging(
    limit: Option<i64>,
    offset: Option<i64>,
    cursor: Option<String>,
) -> Result<Paging, Problem> {
    let offset_given = offset.is_some();
    let (limit, offset) = (limit.unwrap_or(DEFAULT_LIMIT), offset.unwrap_or(0));
    let within =
        |number: i64, least, most| u32::try_from(number).ok().filter(|_| (least..=most).contains(&number));
    let limit = within(limit, 1, MAX_LIMIT).ok_or_else(|| {
        let detail = format!("limit is 1 to {MAX_LIMIT}");
        Problem::invalid_parameter("limit", field_codes::OUT_OF_RANGE, detail)
    });
    let offset = within(offset, 0, MAX_OFFSET).ok_or_else(|| {
        let detail = format!("offset is 0 to {MAX_OFFSET}: use a cursor for more");
        Problem::invalid_parameter("offset", field_codes::OUT_OF_RANGE, detail)
    });
    let cursor = if cursor.is_some() && offset_given {
        let detail = "send either offset or cursor";
        Err(Problem::invalid_parameter("offset", field_codes::NOT_WITH_CURSOR, detail))
    } else {
        Ok(cursor)
    };
    let ((limit, offset), cursor) = both(both(limit, offset), cursor)?;
    Ok(Paging { limit, offset, cursor })
}

/// The page of a list that is known as a whole. Its cursor is the number of items before it.
pub(crate) fn cut<T>(all: Vec<T>, paging: &Paging) -> Result<Page<T>, Problem> {
    let skipped = match &paging.cursor {
        Some(cursor) => cursor.parse().map_err(|_| refused(ReadError::Cursor))?,
        None => paging.offset as usize,
    };
    let total = all.len();
    let items: Vec<T> = all.into_iter().skip(skipped).take(paging.limit as usize).collect();
    let end = skipped.saturating_add(items.len());
    let next_cursor = (end < total && !items.is_empty()).then(|| end.to_string());
    Ok(Page { items, total: total as u64, next_cursor })
}

/// The position after which to start; 0 by default.
pub(crate) fn position_after(after: Option<i64>) -> Result<u64, Problem> {
    u64::try_from(after.unwrap_or_default()).map_err(|_| {
        Problem::invalid_parameter("after", field_codes::OUT_OF_RANGE, "a position is 0 or more")
    })
}

/// A position used as a cursor.
pub(crate) fn position_cursor(cursor: Option<&str>) -> Result<Option<u64>, Problem> {
    let bad =
        |_| Problem::invalid_parameter("cursor", field_codes::INVALID_CURSOR, ReadError::Cursor.to_string());
    cursor.map(|cursor| cursor.parse().map_err(bad)).transpose()
}

/// The problem for a failed query.
pub(crate) fn refused(error: ReadError) -> Problem {
    match error {
        ReadError::Cursor => {
            Problem::invalid_parameter("cursor", field_codes::INVALID_CURSOR, error.to_string())
        }
        ReadError::QueryWithoutWord => {
            Problem::invalid_parameter("query", field_codes::TOO_SHORT, error.to_string())
        }
        ReadError::Store(error) => error.into(),
    }
}
