//! Queries `users`.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::{AppId, Email, Personal, Role, Timestamp, UserId};
use event_store::{LookupKey, Sealer};

use super::words::{self, Token};
use super::{TABLE, scan};
use crate::database::Database;
use crate::page::{Page, Paging, decode_cursor, encode_cursor};
use crate::rows;
use crate::sql::{Query, Row};
use crate::store::{ReadError, ReadModels};

/// How many users of the rarest of several conditions a total looks at. There may be more.
pub const COUNTED: u32 = 5000;
/// The most words of a search.
const MAX_WORDS: usize = 8;
/// How many users are read at a time.
const TOGETHER: usize = 100;
/// How many users are opened at most, because a word is longer than what is indexed.
const OPENED: usize = 500;

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
    pub(super) fn column(self) -> &'static str {
        match self {
            Self::CreatedAt | Self::CreatedAtDescending => "created_at",
            Self::UpdatedAt | Self::UpdatedAtDescending => "updated_at",
        }
    }

    pub(super) fn descending(self) -> bool {
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

/// The interpretation of a filter.
enum Search {
    /// A whole address.
    Address([u8; 32]),
    /// All of these tokens, and the words that are longer than what is indexed.
    Tokens { tokens: Vec<Token>, long_words: Vec<String> },
}

impl<'a> Users<'a> {
    pub(crate) fn new(models: &'a ReadModels) -> Self {
        Self { database: models.database_of(super::NAME), sealer: &models.sealer, lookup: &models.lookup }
    }

    /// A page of an app's users. Where several conditions meet, its total looks at [`COUNTED`] users of the rarest one, and
    /// it may have fewer items than asked for although another page follows.
    pub async fn list(
        &self,
        app: &AppId,
        filter: &UserFilter,
        paging: &Paging,
    ) -> Result<Page<UserRow>, ReadError> {
        let after = paging.cursor.as_deref().map(read_cursor).transpose()?;
        match self.search(app, filter).await? {
            Search::Address(email) => self.with_address(app, &email, filter).await,
            Search::Tokens { tokens, .. } if tokens.is_empty() => {
                let mut query = Query::new("SELECT * FROM users_v2 WHERE app_id = ");
                query.push_bind(app.as_str());
                scan::continue_after(&mut query, filter.sort, "user_id", after);
                query.push(" LIMIT ").push_bind(paging.limit + 1).push(" OFFSET ");
                query.push_bind(if after.is_some() { 0 } else { paging.offset });
                let found = self.database.read(query).await?;
                let mut items = Vec::with_capacity(found.len());
                for row in &found {
                    items.push(self.read(row).await?);
                }
                let more = items.len() > paging.limit as usize;
                items.truncate(paging.limit as usize);
                let next_cursor = items.last().filter(|_| more).map(|last| cursor(place(last, filter.sort)));
                Ok(Page { items, total: self.count(app, filter).await?, next_cursor })
            }
            Search::Tokens { tokens, long_words } => {
                self.with_tokens(app, filter, tokens, &long_words, paging, after).await
            }
        }
    }

    /// Users who meet conditions that tokens stand for.
    async fn with_tokens(
        &self,
        app: &AppId,
        filter: &UserFilter,
        tokens: Vec<Token>,
        long_words: &[String],
        paging: &Paging,
        after: Option<Place>,
    ) -> Result<Page<UserRow>, ReadError> {
        let wanted = scan::Wanted::new(&self.database, app, tokens).await?;
        let only_counted =
            filter.query.as_deref().is_none_or(|query| query.trim().is_empty()) && filter.role.is_none();
        let total = if only_counted { self.count(app, filter).await? } else { wanted.count().await? };
        let limit = paging.limit as usize;
        let skipped = if after.is_some() { 0 } else { paging.offset as usize };
        let mut scan = scan::Scan::new(&wanted, filter.sort, after, skipped + limit + 1);
        let mut found = Found { items: Vec::new(), skipped, limit, long_words, opened: 0, last: after };
        while let Some(step) = scan.next().await? {
            for places in step.hits.chunks(TOGETHER) {
                // Nobody who is skipped has to be read, unless that tells whether they are to be skipped.
                if long_words.is_empty() && found.skipped >= places.len() {
                    found.skipped -= places.len();
                } else if found.add(places, self.rows(app, places).await?) {
                    let next_cursor = found.last.map(cursor);
                    return Ok(Page { items: found.items, total, next_cursor });
                }
            }
            found.last = step.last.or(found.last);
        }
        let next_cursor = if scan.is_at_end() { None } else { found.last.map(cursor) };
        Ok(Page { items: found.items, total, next_cursor })
    }

    /// These users, by id.
    /// The rows of these users, if they are of the app: another app's must not be shown, whoever has put them into an index.
    async fn rows(&self, app: &AppId, places: &[Place]) -> Result<BTreeMap<[u8; 16], UserRow>, ReadError> {
        let mut query = Query::new("SELECT * FROM users_v2 WHERE app_id = ");
        query.push_bind(app.as_str()).push(" AND user_id IN (");
        for (n, (_, id)) in places.iter().enumerate() {
            query.push(if n == 0 { "" } else { ", " }).push_bind(id.as_slice());
        }
        query.push(")");
        let mut users = BTreeMap::new();
        for row in &self.database.read(query).await? {
            let user = self.read(row).await?;
            users.insert(*user.id.0.as_bytes(), user);
        }
        Ok(users)
    }

    /// How many users of the app have this status, and are verified or not.
    async fn count(&self, app: &AppId, filter: &UserFilter) -> Result<u64, ReadError> {
        let mut query = Query::new("SELECT users FROM user_counts_v2 WHERE app_id = ");
        query.push_bind(app.as_str());
        if let Some(status) = filter.status {
            query.push(" AND banned = ").push_bind(status == UserStatus::Banned);
        }
        if let Some(verified) = filter.email_verified {
            query.push(" AND email_verified = ").push_bind(verified);
        }
        let mut total: u64 = 0;
        for row in &self.database.read(query).await? {
            total = total.saturating_add(row.position("users")?);
        }
        Ok(total)
    }

    /// The account with an address, if the other conditions fit.
    async fn with_address(
        &self,
        app: &AppId,
        email: &[u8; 32],
        filter: &UserFilter,
    ) -> Result<Page<UserRow>, ReadError> {
        let query = Query::new("SELECT * FROM users_v2 WHERE app_id = $1 AND email = $2");
        let found = self.database.read(query.bind(app.as_str()).bind(email.as_slice())).await?;
        let mut items = Vec::new();
        for row in &found {
            let user = self.read(row).await?;
            let fits = filter.status.is_none_or(|status| user.banned == (status == UserStatus::Banned))
                && filter.email_verified.is_none_or(|verified| user.email_verified == verified)
                && filter.role.as_ref().is_none_or(|role| user.roles.contains(role));
            items.extend(fits.then_some(user));
        }
        Ok(Page { total: items.len() as u64, items, next_cursor: None })
    }

    /// A text that is the address of a user finds only that account; any other text is split into words.
    async fn search(&self, app: &AppId, filter: &UserFilter) -> Result<Search, ReadError> {
        let name = app.as_str();
        let query = filter.query.as_deref().map(str::trim).filter(|query| !query.is_empty());
        if let Some(Ok(email)) = query.map(Email::parse) {
            let email = self.lookup.email(app, &email);
            let known = Query::new("SELECT count(*) FROM users_v2 WHERE app_id = $1 AND email = $2")
                .bind(name)
                .bind(email.as_slice());
            if self.database.read_number(known).await? > 0 {
                return Ok(Search::Address(email));
            }
        }
        let words: Vec<String> = query.map(crate::text::words).unwrap_or_default();
        if query.is_some() && words.is_empty() {
            return Err(ReadError::QueryWithoutWord);
        }
        let words = &words[..words.len().min(MAX_WORDS)];
        let mut tokens: Vec<Token> =
            words.iter().map(|word| words::search_token(self.lookup, name, word)).collect();
        tokens.extend(filter.role.as_ref().map(|role| words::role_mark(self.lookup, name, role)));
        let is_banned = filter.status.map(|status| status == UserStatus::Banned);
        tokens.extend(is_banned.map(|banned| words::status_mark(self.lookup, name, banned)));
        tokens.extend(filter.email_verified.map(|it| words::verified_mark(self.lookup, name, it)));
        tokens.sort_unstable();
        tokens.dedup();
        let long_words = words.iter().filter(|word| !words::is_whole(word)).cloned().collect();
        Ok(Search::Tokens { tokens, long_words })
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

/// A page while it is filled.
struct Found<'a> {
    items: Vec<UserRow>,
    /// How many more to skip.
    skipped: usize,
    limit: usize,
    long_words: &'a [String],
    /// How many were opened.
    opened: usize,
    /// Behind which place the next page begins.
    last: Option<Place>,
}

impl Found<'_> {
    /// Adds those who fit. Returns whether the page ends here, although there may be more.
    fn add(&mut self, places: &[Place], mut users: BTreeMap<[u8; 16], UserRow>) -> bool {
        for place in places {
            // Deleted since: the index is read first.
            let Some(user) = users.remove(&place.1) else { continue };
            self.opened += 1;
            // What tokens do not say about long words shows only the opened data.
            let fits = self.long_words.is_empty() || words::matches(self.long_words, &user.personal);
            if fits && self.skipped > 0 {
                self.skipped -= 1;
            } else if fits && self.items.len() == self.limit {
                return true;
            } else if fits {
                self.items.push(user);
            }
            self.last = Some(*place);
            if !self.long_words.is_empty() && self.opened >= OPENED {
                return true;
            }
        }
        false
    }
}

/// Where a user is in a list: what it is ordered by, and the id.
pub(super) type Place = (i64, [u8; 16]);

fn place(user: &UserRow, sort: UserSort) -> Place {
    let at = match sort {
        UserSort::CreatedAt | UserSort::CreatedAtDescending => user.created_at,
        UserSort::UpdatedAt | UserSort::UpdatedAtDescending => user.updated_at,
    };
    (at.as_microsecond(), *user.id.0.as_bytes())
}

fn cursor((at, id): Place) -> String {
    encode_cursor(&[&at.to_be_bytes()[..], &id].concat())
}

fn read_cursor(cursor: &str) -> Result<Place, ReadError> {
    let bytes: [u8; 24] = decode_cursor(cursor).ok_or(ReadError::Cursor)?;
    let (value, id) = bytes.split_at(8);
    Ok((i64::from_be_bytes(value.try_into().expect("eight bytes")), id.try_into().expect("sixteen bytes")))
}
