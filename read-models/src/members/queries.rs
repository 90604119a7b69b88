//! Queries `members`.

use std::marker::PhantomData;
use std::sync::Arc;

use domain::{OrganizationId, Role, Timestamp, UserId};
use event_store::StoreError;

use crate::database::Database;
use crate::page::{Page, Paging, decode_cursor, encode_cursor};
use crate::rows;
use crate::sql::{Query, Row};
use crate::store::{ReadError, ReadModels};

/// The order of a list of members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemberSort {
    /// Longest a member first.
    #[default]
    JoinedAt,
    /// Newest member first.
    JoinedAtDescending,
}

/// A filter of an organization's members, and their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberFilter {
    /// Members with this role.
    pub role: Option<Role>,
    /// The order.
    pub sort: MemberSort,
}

/// A member as lists show them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRow {
    /// The user.
    pub user_id: UserId,
    /// Their role in the organization.
    pub role: Role,
    /// Since when they are a member.
    pub joined_at: Timestamp,
}

/// Queries of `members`.
pub struct Members<'a> {
    database: Arc<Database>,
    /// They need nothing else of the read models, but live no longer.
    models: PhantomData<&'a ReadModels>,
}

impl<'a> Members<'a> {
    pub(crate) fn new(models: &'a ReadModels) -> Self {
        Self { database: models.database_of(super::NAME), models: PhantomData }
    }

    /// A page of an organization's members.
    pub async fn list(
        &self,
        organization: OrganizationId,
        filter: &MemberFilter,
        paging: &Paging,
    ) -> Result<Page<MemberRow>, ReadError> {
        let after = paging.cursor.as_deref().map(read_cursor).transpose()?;
        // An organization has an end: counting its members costs little.
        let total = self.database.read_number(select("count(*)", organization, filter)).await?;
        let mut query = select("*", organization, filter);
        let (sign, direction) = match filter.sort {
            MemberSort::JoinedAt => (">", "ASC"),
            MemberSort::JoinedAtDescending => ("<", "DESC"),
        };
        if let Some((joined_at, id)) = after {
            query.push(&format!(" AND (joined_at, user_id) {sign} (")).push_bind(joined_at).push(", ");
            query.push_bind(id.as_slice()).push(")");
        }
        query.push(&format!(" ORDER BY joined_at {direction}, user_id {direction} LIMIT "));
        query.push_bind(paging.limit + 1).push(" OFFSET ");
        query.push_bind(if after.is_some() { 0 } else { paging.offset });
        let found = self.database.read(query).await?;
        let limit = paging.limit as usize;
        let items = found.iter().take(limit).map(read).collect::<Result<Vec<_>, _>>()?;
        let next_cursor = items.last().filter(|_| found.len() > limit).map(cursor);
        Ok(Page { items, total: total.cast_unsigned(), next_cursor })
    }
}

fn select(what: &str, organization: OrganizationId, filter: &MemberFilter) -> Query {
    let mut query = Query::new(format!("SELECT {what} FROM members_v1 WHERE organization_id = "));
    query.push_bind(organization.0);
    if let Some(role) = &filter.role {
        query.push(" AND role = ").push_bind(role.as_str());
    }
    query
}

fn read(row: &Row) -> Result<MemberRow, ReadError> {
    let role = Role::parse(row.get::<String>("role")?);
    Ok(MemberRow {
        user_id: UserId(rows::id(row.get("user_id")?)?),
        role: role.map_err(|_| StoreError::Damaged("a member's role".to_owned()))?,
        joined_at: rows::time(row.get("joined_at")?)?,
    })
}

fn cursor(last: &MemberRow) -> String {
    encode_cursor(&[&last.joined_at.as_microsecond().to_be_bytes()[..], last.user_id.0.as_bytes()].concat())
}

fn read_cursor(cursor: &str) -> Result<(i64, [u8; 16]), ReadError> {
    let bytes: [u8; 24] = decode_cursor(cursor).ok_or(ReadError::Cursor)?;
    let (value, id) = bytes.split_at(8);
    Ok((i64::from_be_bytes(value.try_into().expect("eight bytes")), id.try_into().expect("sixteen bytes")))
}
