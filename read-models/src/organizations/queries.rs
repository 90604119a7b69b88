//! Queries `organizations`.

use std::marker::PhantomData;
use std::sync::Arc;

use domain::{AppId, OrganizationId, Timestamp};

use super::projector::indexed_word;
use crate::database::Database;
use crate::page::{Page, Paging, decode_any_cursor, encode_cursor};
use crate::rows;
use crate::sql::{Query, Row, Value};
use crate::store::{ReadError, ReadModels};
use crate::text;

/// The most organizations that a search counts. There may be more.
pub const COUNTED: u32 = 10_000;
/// Up to how many organizations that have a word are looked at one by one. A word of more of them is looked for in the
/// organizations in their order, where the next one is not far.
const FEW: u32 = 2000;
/// The most words of a search.
const MAX_WORDS: usize = 8;

/// The order of a list of organizations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OrganizationSort {
    /// Oldest first.
    CreatedAt,
    /// Newest first.
    #[default]
    CreatedAtDescending,
    /// Longest unchanged first.
    UpdatedAt,
    /// Last changed first.
    UpdatedAtDescending,
    /// By name, without regard to case and accents.
    Name,
    /// By name, backwards.
    NameDescending,
}

impl OrganizationSort {
    fn column(self) -> &'static str {
        match self {
            Self::CreatedAt | Self::CreatedAtDescending => "created_at",
            Self::UpdatedAt | Self::UpdatedAtDescending => "updated_at",
            Self::Name | Self::NameDescending => "sort_name",
        }
    }

    fn descending(self) -> bool {
        matches!(self, Self::CreatedAtDescending | Self::UpdatedAtDescending | Self::NameDescending)
    }
}

/// A filter of an app's organizations, and their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrganizationFilter {
    /// Beginnings of words of the name or the slug.
    pub query: Option<String>,
    /// The order.
    pub sort: OrganizationSort,
}

/// An organization as lists show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrganizationRow {
    /// Its id.
    pub id: OrganizationId,
    /// Its app.
    pub app_id: String,
    /// The name shown to people.
    pub name: String,
    /// Its name in URLs.
    pub slug: String,
    /// How many members it has.
    pub member_count: u64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it, or one of its members, was last changed.
    pub updated_at: Timestamp,
}

/// Queries of `organizations`.
pub struct Organizations<'a> {
    database: Arc<Database>,
    /// They need nothing else of the read models, but live no longer.
    models: PhantomData<&'a ReadModels>,
}

/// A word of a search: all that begin with it.
struct Word {
    from: String,
    to: String,
    /// Whether at most [`FEW`] organizations have it.
    is_rare: bool,
}

impl<'a> Organizations<'a> {
    pub(crate) fn new(models: &'a ReadModels) -> Self {
        Self { database: models.database_of(super::NAME), models: PhantomData }
    }

    /// A page of an app's organizations. Its total counts no more than [`COUNTED`] results of a search.
    pub async fn list(
        &self,
        app: &AppId,
        filter: &OrganizationFilter,
        paging: &Paging,
    ) -> Result<Page<OrganizationRow>, ReadError> {
        let words = self.words(app, filter.query.as_deref()).await?;
        let total = self.total(app, &words).await?;
        let sort = filter.sort;
        let mut query = select("*", app, &words);
        let after = paging.cursor.as_deref().map(|cursor| read_cursor(cursor, sort)).transpose()?;
        let is_behind = after.is_some();
        if let Some((value, id)) = after {
            let sign = if sort.descending() { "<" } else { ">" };
            query.push(&format!(" AND ({}, organization_id) {sign} (", sort.column()));
            query.push_bind(value).push(", ").push_bind(id.as_slice()).push(")");
        }
        let direction = if sort.descending() { "DESC" } else { "ASC" };
        query.push(&format!(" ORDER BY {} {direction}, organization_id {direction}", sort.column()));
        query.push(" LIMIT ").push_bind(paging.limit + 1).push(" OFFSET ");
        query.push_bind(if is_behind { 0 } else { paging.offset });
        let found = self.database.read(query).await?;
        let limit = paging.limit as usize;
        let rows = &found[..found.len().min(limit)];
        let items = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let next_cursor = match rows.last().filter(|_| found.len() > limit) {
            Some(last) => Some(cursor(last, sort)?),
            None => None,
        };
        Ok(Page { items, total, next_cursor })
    }

    async fn words(&self, app: &AppId, query: Option<&str>) -> Result<Vec<Word>, ReadError> {
        let mut words = Vec::new();
        let Some(query) = query.filter(|query| !query.trim().is_empty()) else { return Ok(words) };
        for word in text::words(query).into_iter().take(MAX_WORDS) {
            let from = indexed_word(app.as_str(), &word);
            let to = format!("{from}{}", char::MAX);
            let mut having =
                Query::new("SELECT count(*) FROM (SELECT 1 FROM organization_words_v1 WHERE word >= ");
            having.push_bind(from.as_str()).push(" AND word < ").push_bind(to.as_str());
            having.push(" LIMIT ").push_bind(FEW + 1).push(") AS having_it");
            let count = self.database.read_number(having).await?;
            words.push(Word { from, to, is_rare: count <= i64::from(FEW) });
        }
        if words.is_empty() { Err(ReadError::QueryWithoutWord) } else { Ok(words) }
    }

    async fn total(&self, app: &AppId, words: &[Word]) -> Result<u64, ReadError> {
        if words.is_empty() {
            let of_app = Query::new("SELECT organizations FROM organization_counts_v1 WHERE app_id = $1");
            let found = self.database.read(of_app.bind(app.as_str())).await?;
            return Ok(found.first().map(|row| row.position("organizations")).transpose()?.unwrap_or(0));
        }
        let mut query = Query::new("SELECT count(*) FROM (");
        query.append(select("1", app, words)).push(" LIMIT ").push_bind(COUNTED).push(") AS found");
        Ok(self.database.read_number(query).await?.cast_unsigned())
    }
}

fn select(what: &str, app: &AppId, words: &[Word]) -> Query {
    let mut query = Query::new(format!("SELECT {what} FROM organizations_v1 AS o WHERE app_id = "));
    query.push_bind(app.as_str());
    for Word { from, to, is_rare } in words {
        query.push(if *is_rare {
            " AND organization_id IN (SELECT organization_id FROM organization_words_v1 WHERE word >= "
        } else {
            " AND EXISTS (SELECT 1 FROM organization_words_v1 AS w WHERE w.organization_id = o.organization_id AND word >= "
        });
        query.push_bind(from.as_str()).push(" AND word < ").push_bind(to.as_str()).push(")");
    }
    query
}

fn read(row: &Row) -> Result<OrganizationRow, ReadError> {
    Ok(OrganizationRow {
        id: OrganizationId(rows::id(row.get("organization_id")?)?),
        app_id: row.get("app_id")?,
        name: row.get("name")?,
        slug: row.get("slug")?,
        member_count: row.position("member_count")?,
        created_at: rows::time(row.get("created_at")?)?,
        updated_at: rows::time(row.get("updated_at")?)?,
    })
}

/// The id of the last item, and what the list is ordered by.
fn cursor(last: &Row, sort: OrganizationSort) -> Result<String, ReadError> {
    let id: &[u8] = last.get("organization_id")?;
    let value = match sort.column() {
        "sort_name" => last.get::<String>("sort_name")?.into_bytes(),
        column => last.get::<i64>(column)?.to_be_bytes().to_vec(),
    };
    Ok(encode_cursor(&[&[sort as u8], id, &value].concat()))
}

/// A cursor of another order is none of this list.
fn read_cursor(cursor: &str, sort: OrganizationSort) -> Result<(Value, [u8; 16]), ReadError> {
    let bytes = decode_any_cursor(cursor).ok_or(ReadError::Cursor)?;
    let (order, rest) = bytes.split_first().ok_or(ReadError::Cursor)?;
    let (id, value) = rest.split_at_checked(16).ok_or(ReadError::Cursor)?;
    if *order != sort as u8 {
        return Err(ReadError::Cursor);
    }
    let id = id.try_into().map_err(|_| ReadError::Cursor)?;
    let value = match sort {
        OrganizationSort::Name | OrganizationSort::NameDescending => {
            // PostgreSQL has no texts with a null character.
            let text = std::str::from_utf8(value).ok().filter(|text| !text.contains('\0'));
            Value::from(text.ok_or(ReadError::Cursor)?)
        }
        _ => i64::from_be_bytes(value.try_into().map_err(|_| ReadError::Cursor)?).into(),
    };
    Ok((value, id))
}
