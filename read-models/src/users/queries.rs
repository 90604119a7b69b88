//! Queries `users`.

use std::sync::Arc;

use domain::{AppId, Email, Personal, Role, Timestamp, UserId};
use event_store::{LookupKey, Sealer};

use super::{TABLE, words};
use crate::database::Database;
use crate::page::{Page, Paging, decode_cursor, encode_cursor};
use crate::rows;
use crate::sql::{Query, Row};
use crate::store::{ReadError, ReadModels};

/// The most candidates that a word search decrypts. A word that more users share finds only the first of them.
pub const SEARCH_CANDIDATES: u32 = 2000;

/// Whether a user is banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserStatus {
    /// Not banned.
    Active,
    /// Banned.
    Banned,
}

/// The order of a list of users.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserSort {
    /// Oldest account first.
    CreatedAt,
    /// Newest account first.
    #[default]
    CreatedAtDescending,
    /// Longest unchanged first.
    UpdatedAt,
    /// Last changed first.
    UpdatedAtDescending,
}

impl UserSort {
    fn column(self) -> &'static str {
        match self {
            Self::CreatedAt | Self::CreatedAtDescending => "created_at",
            Self::UpdatedAt | Self::UpdatedAtDescending => "updated_at",
        }
    }

    fn descending(self) -> bool {
        matches!(self, Self::CreatedAtDescending | Self::UpdatedAtDescending)
    }
}

/// A filter of an app's users, and their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserFilter {
    /// A whole address, or beginnings of words of the name or the address.
    pub query: Option<String>,
    /// Users with this role.
    pub role: Option<Role>,
    /// Users who are banned, or who are not.
    pub status: Option<UserStatus>,
    /// Users who have verified their address, or who have not.
    pub email_verified: Option<bool>,
    /// The order.
    pub sort: UserSort,
}

/// A user as lists show them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRow {
    /// Their id.
    pub id: UserId,
    /// Their app.
    pub app_id: String,
    /// Address, name, telephone number and picture; empty once the person is erased.
    pub personal: Personal,
    /// Whether the address is verified.
    pub email_verified: bool,
    /// Whether they are banned.
    pub banned: bool,
    /// Their roles, in order.
    pub roles: Vec<Role>,
    /// When the account was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Whether the person's key is missing without an erasure.
    pub damaged: bool,
}

/// Queries of `users`.
pub struct Users<'a> {
    database: Arc<Database>,
    sealer: &'a Sealer,
    lookup: &'a LookupKey,
}

/// The interpretation of a search text.
enum Search {
    Everybody,
    Address([u8; 32]),
    Words { tokens: Vec<[u8; 8]>, words: Vec<String> },
}

impl<'a> Users<'a> {
    pub(crate) fn new(models: &'a ReadModels) -> Self {
        Self { database: models.database_of(super::NAME), sealer: &models.sealer, lookup: &models.lookup }
    }

    /// A page of an app's users.
    pub async fn list(
        &self,
        app: &AppId,
        filter: &UserFilter,
        paging: &Paging,
    ) -> Result<Page<UserRow>, ReadError> {
        let search = self.search(app, filter.query.as_deref()).await?;
        if let Search::Words { words, .. } = &search {
            return self.list_by_words(app, filter, &search, words, paging).await;
        }
        let total = self.database.read_number(select("count(*)", app, filter, &search)).await?;
        let mut query = select("*", app, filter, &search);
        let after = paging.cursor.as_deref().map(read_cursor).transpose()?;
        if let Some((value, id)) = after {
            let (column, sign) = (filter.sort.column(), if filter.sort.descending() { "<" } else { ">" });
            query.push(&format!(" AND ({column}, user_id) {sign} (")).push_bind(value).push(", ");
            query.push_bind(id.as_slice()).push(")");
        }
        order(&mut query, filter.sort);
        query.push(" LIMIT ").push_bind(paging.limit + 1).push(" OFFSET ");
        query.push_bind(if after.is_some() { 0 } else { paging.offset });
        let found = self.database.read(query).await?;
        let limit = paging.limit as usize;
        let mut items = Vec::with_capacity(found.len().min(limit));
        for row in found.iter().take(limit) {
            items.push(self.read(row).await?);
        }
        let next_cursor = items.last().filter(|_| found.len() > limit).map(|last| cursor(last, filter.sort));
        Ok(Page { items, total: total.cast_unsigned(), next_cursor })
    }

    /// Tokens find candidates; only the sealed data shows which of them have the words.
    async fn list_by_words(
        &self,
        app: &AppId,
        filter: &UserFilter,
        search: &Search,
        words: &[String],
        paging: &Paging,
    ) -> Result<Page<UserRow>, ReadError> {
        let mut query = select("*", app, filter, search);
        order(&mut query, filter.sort);
        query.push(" LIMIT ").push_bind(SEARCH_CANDIDATES);
        let candidates = self.database.read(query).await?;
        let mut found = Vec::new();
        for row in &candidates {
            let user = self.read(row).await?;
            if words::matches(words, &user.personal) {
                found.push(user);
            }
        }
        let start = match paging.cursor.as_deref().map(read_cursor).transpose()? {
            Some(after) => found.partition_point(|user| is_not_behind(user, after, filter.sort)),
            None => paging.offset as usize,
        };
        let total = found.len();
        let items: Vec<UserRow> = found.into_iter().skip(start).take(paging.limit as usize).collect();
        let more = start + items.len() < total;
        let next_cursor = items.last().filter(|_| more).map(|last| cursor(last, filter.sort));
        Ok(Page { items, total: total as u64, next_cursor })
    }

    /// A text that is the address of a user finds only that account; any other text is split into words.
    async fn search(&self, app: &AppId, query: Option<&str>) -> Result<Search, ReadError> {
        let Some(query) = query.map(str::trim).filter(|query| !query.is_empty()) else {
            return Ok(Search::Everybody);
        };
        if let Ok(email) = Email::parse(query) {
            let email = self.lookup.email(app, &email);
            let known = Query::new("SELECT count(*) FROM users_v1 WHERE app_id = $1 AND email = $2")
                .bind(app.as_str())
                .bind(email.as_slice());
            if self.database.read_number(known).await? > 0 {
                return Ok(Search::Address(email));
            }
        }
        let words = words::words(query);
        let tokens: Vec<[u8; 8]> =
            words.iter().filter_map(|word| words::search_token(self.lookup, app, word)).take(8).collect();
        if tokens.is_empty() { Err(ReadError::QueryTooShort) } else { Ok(Search::Words { tokens, words }) }
    }

    async fn read(&self, row: &Row) -> Result<UserRow, ReadError> {
        let id = UserId(rows::id(row.get("user_id")?)?);
        let sealed: Option<&[u8]> = row.get("sealed")?;
        let roles: String = row.get("roles")?;
        let personal = rows::open(self.sealer, TABLE, id.0, id, sealed).await?;
        // Everybody has an address until they are erased.
        let damaged = personal.is_empty() && rows::lacks_key(self.sealer, id).await?;
        Ok(UserRow {
            id,
            app_id: row.get("app_id")?,
            personal,
            damaged,
            email_verified: row.get::<i64>("email_verified")? != 0,
            banned: row.get::<i64>("banned")? != 0,
            roles: serde_json::from_str(&roles)
                .map_err(|_| event_store::StoreError::Damaged("a user's roles".to_owned()))?,
            created_at: rows::time(row.get("created_at")?)?,
            updated_at: rows::time(row.get("updated_at")?)?,
        })
    }
}

fn select(what: &'static str, app: &AppId, filter: &UserFilter, search: &Search) -> Query {
    let mut query = Query::new(format!("SELECT {what} FROM users_v1 WHERE app_id = "));
    query.push_bind(app.as_str());
    match search {
        Search::Everybody => {}
        Search::Address(email) => {
            query.push(" AND email = ").push_bind(email.as_slice());
        }
        Search::Words { tokens, .. } => {
            for token in tokens {
                query.push(" AND user_id IN (SELECT user_id FROM user_words_v1 WHERE word = ");
                query.push_bind(token.as_slice()).push(")");
            }
        }
    }
    if let Some(status) = filter.status {
        query.push(" AND banned = ").push_bind(status == UserStatus::Banned);
    }
    if let Some(verified) = filter.email_verified {
        query.push(" AND email_verified = ").push_bind(verified);
    }
    if let Some(role) = &filter.role {
        // The roles are a JSON array, and their names have neither quotes nor anything JSON would escape.
        query.push(" AND replace(roles, ").push_bind(format!("\"{}\"", role.as_str())).push(", '') <> roles");
    }
    query
}

fn order(query: &mut Query, sort: UserSort) {
    let (column, direction) = (sort.column(), if sort.descending() { "DESC" } else { "ASC" });
    query.push(&format!(" ORDER BY {column} {direction}, user_id {direction}"));
}

fn sort_value(user: &UserRow, sort: UserSort) -> i64 {
    match sort {
        UserSort::CreatedAt | UserSort::CreatedAtDescending => user.created_at.as_microsecond(),
        UserSort::UpdatedAt | UserSort::UpdatedAtDescending => user.updated_at.as_microsecond(),
    }
}

fn is_not_behind(user: &UserRow, (value, id): (i64, [u8; 16]), sort: UserSort) -> bool {
    let place = (sort_value(user, sort), *user.id.0.as_bytes());
    if sort.descending() { place >= (value, id) } else { place <= (value, id) }
}

fn cursor(last: &UserRow, sort: UserSort) -> String {
    encode_cursor(&[&sort_value(last, sort).to_be_bytes()[..], last.id.0.as_bytes()].concat())
}

fn read_cursor(cursor: &str) -> Result<(i64, [u8; 16]), ReadError> {
    let bytes: [u8; 24] = decode_cursor(cursor).ok_or(ReadError::Cursor)?;
    let (value, id) = bytes.split_at(8);
    Ok((i64::from_be_bytes(value.try_into().expect("eight bytes")), id.try_into().expect("sixteen bytes")))
}
