//! Queries `stats`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::marker::PhantomData;
use std::sync::Arc;

use domain::{AppId, OrganizationId, Timestamp, UserId};

use super::calendar::Span;
use super::{OF_A_DAY, scope};
use crate::database::Database;
use crate::rows;
use crate::sql::{Query, Row};
use crate::store::{ReadError, ReadModels};

/// How many spans one statement counts, so that none takes long.
const AT_A_TIME: usize = 50;

/// The statistics of an hour, a day, a week or a month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its start.
    pub start: Timestamp,
    /// Its end, excluded.
    pub end: Timestamp,
    /// By metric (`registrations`, `logins`, `failures`, `lockouts`, `refreshes`, `revocations`), then by method or
    /// reason (empty if there is none).
    pub counts: BTreeMap<String, BTreeMap<String, u64>>,
    /// How many users logged in or refreshed.
    pub active_users: u64,
}

/// Queries of `stats`.
pub struct Stats<'a> {
    pub(super) database: Arc<Database>,
    /// They need nothing else of the read models, but live no longer.
    models: PhantomData<&'a ReadModels>,
}

impl<'a> Stats<'a> {
    pub(crate) fn new(models: &'a ReadModels) -> Self {
        Self { database: models.database_of(super::NAME), models: PhantomData }
    }

    /// What happened in each of these spans in which something did, in order: to all users of an app, or to those who were members of
    /// one of its organizations then.
    pub async fn buckets(
        &self,
        app: &AppId,
        organization: Option<OrganizationId>,
        spans: &[Span],
    ) -> Result<Vec<Bucket>, ReadError> {
        let empty = |span: &Span| Bucket {
            start: span.start(),
            end: span.end(),
            counts: BTreeMap::new(),
            active_users: 0,
        };
        let Some((first, last)) = self.quarters(app, organization).await? else { return Ok(vec![]) };
        // A period may begin long before the app, and end long after today.
        let spans: Vec<Span> =
            spans.iter().filter(|span| span.begin <= last && first < span.end).copied().collect();
        let mut buckets: Vec<Bucket> = spans.iter().map(empty).collect();
        for (spans, buckets) in spans.chunks(AT_A_TIME).zip(buckets.chunks_mut(AT_A_TIME)) {
            for (number, metric, method, count) in self.counts(app, organization, spans).await? {
                let Some(bucket) = buckets.get_mut(number) else { continue };
                bucket.counts.entry(metric).or_default().insert(method, count);
            }
            for (number, users) in self.active(app, organization, spans).await? {
                let Some(bucket) = buckets.get_mut(number) else { continue };
                bucket.active_users = users;
            }
        }
        buckets.retain(|bucket| bucket.active_users > 0 || !bucket.counts.is_empty());
        Ok(buckets)
    }

    /// The first and the last quarter of an hour in which something happened.
    async fn quarters(
        &self,
        app: &AppId,
        organization: Option<OrganizationId>,
    ) -> Result<Option<(i64, i64)>, ReadError> {
        let of = "WHERE app_id = $1 AND organization_id = $2";
        let query = Query::new(format!(
            "SELECT (SELECT min(quarter) FROM stats_v2 {of}) AS first, (SELECT max(quarter) FROM stats_v2 {of}) AS last,
               (SELECT min(day) FROM active_users_v2 {of}) AS first_day,
               (SELECT max(day) FROM active_users_v2 {of}) AS last_day"
        ))
        .bind(app.as_str())
        .bind(scope(organization));
        let Some(row) = self.database.read(query).await?.pop() else { return Ok(None) };
        let number = |name: &str| row.get::<Option<i64>>(name);
        let (first_day, last_day) = (number("first_day")?, number("last_day")?);
        let day = |day: i64| day.saturating_mul(OF_A_DAY);
        let first = [number("first")?, first_day.map(day)].into_iter().flatten().min();
        let last = [number("last")?, last_day.map(|last| day(last).saturating_add(OF_A_DAY - 1))];
        Ok(first.zip(last.into_iter().flatten().max()))
    }

    /// Who is a member of an organization now.
    pub async fn members(&self, organization: OrganizationId) -> Result<Vec<UserId>, ReadError> {
        let query =
            Query::new("SELECT user_id FROM stats_members_v2 WHERE organization_id = $1 ORDER BY user_id")
                .bind(organization.0);
        let found = self.database.read(query).await?;
        found.iter().map(|row| Ok(UserId(rows::id(row.get(0)?)?))).collect()
    }

    async fn counts(
        &self,
        app: &AppId,
        organization: Option<OrganizationId>,
        spans: &[Span],
    ) -> Result<Vec<(usize, String, String, u64)>, ReadError> {
        // PostgreSQL's sums have a wider type than their terms. No quarter counts more than a million millions: somebody else has
        // put that there, and it must not be too much for the sum.
        let query = Query::new(format!(
            "WITH spans (number, first, beyond) AS (VALUES {})
             SELECT number, metric, method,
               CAST(sum(CASE WHEN count BETWEEN 0 AND 1000000000000 THEN count ELSE 0 END) AS BIGINT) AS count
             FROM spans CROSS JOIN stats_v2
             WHERE app_id = $1 AND organization_id = $2 AND quarter >= first AND quarter < beyond GROUP BY 1, 2, 3",
            values(spans, |span| format!("{}, {}", span.begin, span.end)),
        ))
        .bind(app.as_str())
        .bind(scope(organization));
        let mut counts = Vec::new();
        for row in self.database.read(query).await? {
            let count: i64 = row.get("count")?;
            counts.push((number(&row)?, row.get("metric")?, row.get("method")?, count.cast_unsigned()));
        }
        Ok(counts)
    }

    /// How many different people were active in each span.
    async fn active(
        &self,
        app: &AppId,
        organization: Option<OrganizationId>,
        spans: &[Span],
    ) -> Result<Vec<(usize, u64)>, ReadError> {
        // Each span by itself: in one sort, all rows of all spans would have to be in memory.
        let query = Query::new(format!(
            "WITH {} SELECT number, (SELECT count(DISTINCT person_key) FROM active_users_v2
               WHERE app_id = $1 AND organization_id = $2 AND {WAS_ACTIVE}) AS users FROM spans",
            active_spans(spans),
        ))
        .bind(app.as_str())
        .bind(scope(organization));
        let mut active = Vec::new();
        for row in self.database.read(query).await? {
            active.push((number(&row)?, row.get::<i64>("users")?.cast_unsigned()));
        }
        Ok(active)
    }
}

pub(super) fn number(row: &Row) -> Result<usize, sqlx::Error> {
    Ok(usize::try_from(row.get::<i64>("number")?).unwrap_or(usize::MAX))
}

/// A row of numbers for each span: its own number, then these.
pub(super) fn values(spans: &[Span], numbers: impl Fn(&Span) -> String) -> String {
    let mut rows = String::new();
    for (number, span) in spans.iter().enumerate() {
        let comma = if number == 0 { "" } else { ", " };
        // PostgreSQL takes the type of a column from its first row, and small numbers for short ones.
        let _ = write!(rows, "{comma}(CAST({number} AS BIGINT), {})", numbers(span));
    }
    rows
}

/// Whether a row of `active_users_v2` has a quarter in a span. All quarters of the days between the first and the last are in it.
pub(super) const WAS_ACTIVE: &str =
    "day BETWEEN first_day AND last_day AND ((day > first_day AND day < last_day)
       OR (day = first_day AND ((early & first_early) <> 0 OR (late & first_late) <> 0))
       OR (day = last_day AND ((early & last_early) <> 0 OR (late & last_late) <> 0)))";

/// The spans as a table for [`WAS_ACTIVE`]: their first and last days, and the bits of the quarters of these that are in them.
pub(super) fn active_spans(spans: &[Span]) -> String {
    let rows = values(spans, |span| {
        let last = span.end - 1;
        let (first_day, last_day) = (span.begin.div_euclid(OF_A_DAY), last.div_euclid(OF_A_DAY));
        let (from, to) = (span.begin.rem_euclid(OF_A_DAY), last.rem_euclid(OF_A_DAY));
        let of_first = bits(from, if first_day == last_day { to } else { OF_A_DAY - 1 });
        let of_last = bits(if first_day == last_day { from } else { 0 }, to);
        let numbers = [first_day, last_day, of_first.0, of_first.1, of_last.0, of_last.1];
        numbers.map(|number| format!("CAST({number} AS BIGINT)")).join(", ")
    });
    format!(
        "spans (number, first_day, last_day, first_early, first_late, last_early, last_late) AS (VALUES {rows})"
    )
}

/// The bits of the quarters of a day from one to another, which is included.
fn bits(from: i64, to: i64) -> (i64, i64) {
    let bits = (from..=to).fold(0_u128, |bits, quarter| bits | 1 << quarter);
    let half = |bits: u128| i64::try_from(bits & ((1 << 48) - 1)).unwrap_or_default();
    (half(bits), half(bits >> 48))
}
