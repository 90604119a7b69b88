//! Walks through the users who meet several conditions, in the order of a list, without reading more than it must.
//!
//! The index has the users of each token in the order in which their accounts were made. The walk is along the rarest token, and
//! looks for the others at each user. It stops after so many users, wherever that is, so that conditions that hardly ever meet
//! cost no more than others.

use std::sync::Arc;

use domain::AppId;

use super::queries::{COUNTED, Place, UserSort};
use super::words::Token;
use crate::database::Database;
use crate::sql::{Query, Row};
use crate::store::ReadError;

/// After how many users a walk stops.
const SCANNED: usize = 20_000;
/// How many users a walk looks at first.
const FIRST: usize = 200;

/// The conditions, the rarest first.
pub(super) struct Wanted<'a> {
    database: &'a Arc<Database>,
    app: &'a AppId,
    tokens: Vec<Token>,
    /// How many users have the first one, if no more than [`COUNTED`].
    rarest: Option<u32>,
}

impl<'a> Wanted<'a> {
    pub async fn new(
        database: &'a Arc<Database>,
        app: &'a AppId,
        tokens: Vec<Token>,
    ) -> Result<Self, ReadError> {
        let mut counted = Vec::with_capacity(tokens.len());
        for token in tokens {
            let mut query = Query::new("SELECT count(*) FROM (SELECT 1 FROM user_words_v2 WHERE word = ");
            query.push_bind(token.as_slice()).push(" LIMIT ").push_bind(COUNTED + 1).push(") AS having_it");
            counted.push((database.read_number(query).await?, token));
        }
        counted.sort_unstable();
        let rarest = counted.first().and_then(|(count, _)| u32::try_from(*count).ok());
        let tokens = counted.into_iter().map(|(_, token)| token).collect();
        Ok(Self { database, app, tokens, rarest: rarest.filter(|count| *count <= COUNTED) })
    }

    /// How many users meet all conditions, among the first [`COUNTED`] of the rarest one.
    pub async fn count(&self) -> Result<u64, ReadError> {
        let Some((first, others)) = self.tokens.split_first() else { return Ok(0) };
        let mut query =
            Query::new("SELECT count(*) FROM (SELECT created_at, owner_id FROM user_words_v2 WHERE word = ");
        query.push_bind(first.as_slice()).push(" LIMIT ").push_bind(COUNTED);
        query.push(") AS s WHERE 1 = 1");
        for token in others {
            query.push(" AND ");
            has(&mut query, *token, "owner_id");
        }
        Ok(self.database.read_number(query).await?.cast_unsigned())
    }
}

/// A walk. Each step is longer than the one before.
pub(super) struct Scan<'a> {
    wanted: &'a Wanted<'a>,
    sort: UserSort,
    after: Option<Place>,
    step: usize,
    scanned: usize,
    most: usize,
    at_end: bool,
}

/// What a step found.
pub(super) struct Step {
    /// The users who meet all conditions, in order.
    pub hits: Vec<Place>,
    /// The last one that was looked at.
    pub last: Option<Place>,
}

impl<'a> Scan<'a> {
    /// A walk behind a place, for so many users.
    pub fn new(wanted: &'a Wanted<'a>, sort: UserSort, after: Option<Place>, enough: usize) -> Self {
        let step = if wanted.tokens.len() == 1 { enough } else { (4 * enough).max(FIRST) };
        Self { wanted, sort, after, step, scanned: 0, most: SCANNED + enough, at_end: false }
    }

    /// Whether there is nobody behind what was looked at.
    pub fn is_at_end(&self) -> bool {
        self.at_end
    }

    /// The next users; `None` at the end, or after enough of them.
    pub async fn next(&mut self) -> Result<Option<Step>, ReadError> {
        if self.at_end || self.scanned >= self.most {
            return Ok(None);
        }
        let limit = self.step.min(self.most - self.scanned);
        let rows = self.wanted.database.read(self.query(limit)).await?;
        self.scanned += rows.len();
        self.step *= 4;
        self.at_end = rows.len() < limit;
        let mut found = Step { hits: Vec::new(), last: None };
        for row in &rows {
            let place = place(row)?;
            if row.get::<i64>("hit")? != 0 {
                found.hits.push(place);
            }
            found.last = Some(place);
        }
        self.after = found.last.or(self.after);
        Ok(Some(found))
    }

    fn query(&self, limit: usize) -> Query {
        let (first, others) = self.wanted.tokens.split_first().expect("there is a condition");
        let is_by_creation = self.sort.column() == "created_at";
        let is_rare = self.wanted.rarest.is_some();
        let mut query = Query::new("SELECT value, id, CASE WHEN 1 = 1");
        for token in others {
            query.push(" AND ");
            has(&mut query, *token, "id");
        }
        if !is_by_creation && !is_rare {
            query.push(" AND ");
            has(&mut query, *first, "id");
        }
        query.push(" THEN CAST(1 AS BIGINT) ELSE CAST(0 AS BIGINT) END AS hit FROM (");
        if is_by_creation {
            query.push(
                "SELECT created_at AS value, owner_id AS id, created_at FROM user_words_v2 WHERE word = ",
            );
            query.push_bind(first.as_slice());
            continue_after(&mut query, self.sort, "owner_id", self.after);
        } else if is_rare {
            // The words first, in SQLite's order of tables.
            query.push(
                "SELECT updated_at AS value, user_id AS id, users_v2.created_at FROM user_words_v2 CROSS JOIN users_v2
                 WHERE user_id = owner_id AND word = ",
            );
            query.push_bind(first.as_slice());
            continue_after(&mut query, self.sort, "user_id", self.after);
        } else {
            query.push("SELECT updated_at AS value, user_id AS id, created_at FROM users_v2 WHERE app_id = ");
            query.push_bind(self.wanted.app.as_str());
            continue_after(&mut query, self.sort, "user_id", self.after);
        }
        query.push(" LIMIT ").push_bind(limit as u64).push(") AS s");
        let direction = if self.sort.descending() { "DESC" } else { "ASC" };
        query.push(&format!(" ORDER BY value {direction}, id {direction}"));
        query
    }
}

/// Appends that a user has a token.
fn has(query: &mut Query, token: Token, id: &str) {
    query.push("EXISTS (SELECT 1 FROM user_words_v2 AS o WHERE o.word = ").push_bind(token.as_slice());
    query.push(&format!(" AND o.created_at = s.created_at AND o.owner_id = s.{id})"));
}

/// Appends where a list goes on, and its order.
pub(super) fn continue_after(query: &mut Query, sort: UserSort, id: &str, after: Option<Place>) {
    let column = sort.column();
    if let Some((value, last)) = after {
        let sign = if sort.descending() { "<" } else { ">" };
        query.push(&format!(" AND ({column}, {id}) {sign} (")).push_bind(value).push(", ");
        query.push_bind(last.as_slice()).push(")");
    }
    let direction = if sort.descending() { "DESC" } else { "ASC" };
    query.push(&format!(" ORDER BY {column} {direction}, {id} {direction}"));
}

fn place(row: &Row) -> Result<Place, ReadError> {
    let id: &[u8] = row.get("id")?;
    let id = id.try_into().map_err(|_| event_store::StoreError::Damaged("an id".to_owned()))?;
    Ok((row.get("value")?, id))
}
