//! How far new accounts come, and who returns.

use domain::{AppId, Timestamp};
use jiff::tz::TimeZone;

use super::calendar::{Granularity, Span, latest};
use super::queries::{Stats, WAS_ACTIVE, active_spans, number, values};
use super::scope;
use crate::sql::Query;
use crate::store::ReadError;

/// How far the accounts of a period have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Funnel {
    /// Accounts that were made.
    pub registered: u64,
    /// Those of them whose address has been verified since.
    pub verified: u64,
    /// Those of them whose owner has logged in since. The session that a registration with a password begins is no
    /// login; the one of a magic link that made the account is.
    pub logged_in: u64,
}

/// The accounts of a week or a month, and how many of them were used later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cohort {
    /// The start of the week or month in which they were made.
    pub start: Timestamp,
    /// How many they are.
    pub size: u64,
    /// How many of them were active in that week or month, in the next, and so on up to this one.
    pub active: Vec<u64>,
}

impl Stats<'_> {
    /// How far the accounts have come that were made between two times, the second excluded.
    pub async fn funnel(&self, app: &AppId, from: Timestamp, to: Timestamp) -> Result<Funnel, ReadError> {
        let query = Query::new(
            "SELECT count(*) AS registered, count(CASE WHEN verified = 1 THEN 1 END) AS verified,
               count(CASE WHEN logged_in = 1 THEN 1 END) AS logged_in
             FROM accounts_v2 WHERE app_id = $1 AND registered_at >= $2 AND registered_at < $3",
        )
        .bind(app.as_str())
        .bind(from)
        .bind(to);
        let found = self.database.read(query).await?;
        let Some(row) = found.first() else { return Ok(Funnel::default()) };
        let count = |column: &'static str| row.get::<i64>(column).map(i64::cast_unsigned);
        Ok(Funnel {
            registered: count("registered")?,
            verified: count("verified")?,
            logged_in: count("logged_in")?,
        })
    }

    /// The accounts of the latest weeks or months, up to the one that this time is in: `count` of them. None if the calendar does not
    /// go so far.
    pub async fn retention(
        &self,
        app: &AppId,
        zone: &TimeZone,
        granularity: Granularity,
        (at, count): (Timestamp, usize),
    ) -> Result<Option<Vec<Cohort>>, ReadError> {
        let Some(spans) = latest(zone, granularity, at, count) else { return Ok(None) };
        let mut cohorts: Vec<Cohort> = (0..spans.len())
            .zip(&spans)
            .map(|(n, span)| Cohort { start: span.start(), size: 0, active: vec![0; spans.len() - n] })
            .collect();
        for (number, size) in self.sizes(app, &spans).await? {
            if let Some(cohort) = cohorts.get_mut(number) {
                cohort.size = size;
            }
        }
        // One after another: each reads the rows of its own days, and no statement takes as long as all of them.
        for (later, span) in spans.iter().enumerate() {
            for (number, active) in self.returned(app, &spans, *span).await? {
                let cell = cohorts.get_mut(number).zip(later.checked_sub(number));
                if let Some(cell) = cell.and_then(|(cohort, later)| cohort.active.get_mut(later)) {
                    *cell = active;
                }
            }
        }
        Ok(Some(cohorts))
    }

    async fn sizes(&self, app: &AppId, cohorts: &[Span]) -> Result<Vec<(usize, u64)>, ReadError> {
        let query = Query::new(format!(
            "WITH cohorts (number, since, before) AS (VALUES {})
             SELECT number, count(*) AS size FROM cohorts CROSS JOIN accounts_v2
             WHERE app_id = $1 AND registered_at >= since AND registered_at < before GROUP BY number",
            values(cohorts, times),
        ))
        .bind(app.as_str());
        let found = self.database.read(query).await?;
        found.iter().map(|row| Ok((number(row)?, row.get::<i64>("size")?.cast_unsigned()))).collect()
    }

    /// How many of each cohort were active in a span.
    async fn returned(
        &self,
        app: &AppId,
        cohorts: &[Span],
        span: Span,
    ) -> Result<Vec<(usize, u64)>, ReadError> {
        let query = Query::new(format!(
            "WITH {}, cohorts (cohort, since, before) AS (VALUES {})
             SELECT cohort AS number, count(*) AS active
             FROM (SELECT DISTINCT person_key AS person FROM spans CROSS JOIN active_users_v2
               WHERE app_id = $1 AND organization_id = $2 AND {WAS_ACTIVE}) AS were_active
             CROSS JOIN accounts_v2 JOIN cohorts ON registered_at >= since AND registered_at < before
             WHERE accounts_v2.person_key = person GROUP BY cohort",
            active_spans(&[span]),
            values(cohorts, times),
        ))
        .bind(app.as_str())
        .bind(scope(None));
        let found = self.database.read(query).await?;
        found.iter().map(|row| Ok((number(row)?, row.get::<i64>("active")?.cast_unsigned()))).collect()
    }
}

/// The begin and the end of a span as tables have times.
fn times(span: &Span) -> String {
    format!(
        "CAST({} AS BIGINT), CAST({} AS BIGINT)",
        span.start().as_microsecond(),
        span.end().as_microsecond()
    )
}
