//! Queries `stats`.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use domain::{AppId, Timestamp};

use crate::database::Database;
use crate::rows;
use crate::sql::Query;
use crate::store::{ReadError, ReadModels};

/// The length of a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Granularity {
    /// An hour.
    Hour,
    /// A day in UTC.
    #[default]
    Day,
}

impl Granularity {
    /// How many hours.
    pub fn hours(self) -> i64 {
        match self {
            Self::Hour => 1,
            Self::Day => 24,
        }
    }
}

/// The statistics of one hour or day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its start.
    pub start: Timestamp,
    /// By metric (`registrations`, `logins`, `failures`, `lockouts`, `refreshes`, `revocations`), then by method or
    /// reason (empty if there is none).
    pub counts: BTreeMap<String, BTreeMap<String, u64>>,
    /// How many users logged in or refreshed; only for days.
    pub active_users: Option<u64>,
}

/// Queries of `stats`.
pub struct Stats<'a> {
    database: Arc<Database>,
    /// They need nothing else of the read models, but live no longer.
    models: PhantomData<&'a ReadModels>,
}

impl<'a> Stats<'a> {
    pub(crate) fn new(models: &'a ReadModels) -> Self {
        Self { database: models.database_of(super::NAME), models: PhantomData }
    }

    /// The non-empty buckets between two times (the second excluded), in order. A bucket that lies only partly between
    /// them counts in full.
    pub async fn buckets(
        &self,
        app: &AppId,
        from: Timestamp,
        to: Timestamp,
        granularity: Granularity,
    ) -> Result<Vec<Bucket>, ReadError> {
        let width = granularity.hours();
        let first = from.as_second().div_euclid(3600).div_euclid(width);
        // The last second that counts is the one before `to`.
        let last = (to.as_second() - 1).div_euclid(3600).div_euclid(width);
        // PostgreSQL's sums have a wider type than their terms. No hour counts more than a million millions: somebody else has
        // put that there, and it must not be too much for the sum.
        let query = Query::new(
            "SELECT hour / $4 AS bucket, metric, method,
               CAST(sum(CASE WHEN count BETWEEN 0 AND 1000000000000 THEN count ELSE 0 END) AS BIGINT) AS count FROM stats_v1
             WHERE app_id = $1 AND hour BETWEEN $2 AND $3 GROUP BY 1, 2, 3",
        )
        .bind(app.as_str())
        .bind(first * width)
        .bind(last * width + width - 1)
        .bind(width);
        let mut buckets: BTreeMap<i64, Bucket> = BTreeMap::new();
        for row in self.database.read(query).await? {
            let entry = bucket_at(&mut buckets, row.get("bucket")?, granularity)?;
            let count: i64 = row.get("count")?;
            entry
                .counts
                .entry(row.get("metric")?)
                .or_default()
                .insert(row.get("method")?, count.cast_unsigned());
        }
        if granularity == Granularity::Day {
            for (day, users) in self.active_by_day(app, first, last).await? {
                bucket_at(&mut buckets, day, granularity)?.active_users = Some(users.cast_unsigned());
            }
        }
        Ok(buckets.into_values().collect())
    }

    async fn active_by_day(&self, app: &AppId, first: i64, last: i64) -> Result<Vec<(i64, i64)>, ReadError> {
        let query = Query::new(
            "SELECT day, count(*) FROM active_users_v1 WHERE app_id = $1 AND day BETWEEN $2 AND $3 GROUP BY day",
        )
        .bind(app.as_str())
        .bind(first)
        .bind(last);
        let days = self.database.read(query).await?;
        days.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
    }
}

fn bucket_at(
    buckets: &mut BTreeMap<i64, Bucket>,
    bucket: i64,
    granularity: Granularity,
) -> Result<&mut Bucket, ReadError> {
    let start = rows::time(bucket * granularity.hours() * 3_600_000_000)?;
    let active_users = (granularity == Granularity::Day).then_some(0);
    Ok(buckets.entry(bucket).or_insert_with(|| Bucket { start, counts: BTreeMap::new(), active_users }))
}
