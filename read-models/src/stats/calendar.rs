//! Hours, days, weeks and months of a time zone.

use domain::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan as _, Zoned};

use super::QUARTER;

/// The length of a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Granularity {
    /// An hour. One in which the clocks are changed ends there, and another begins.
    Hour,
    /// A day: 23 or 25 hours where the clocks are changed.
    #[default]
    Day,
    /// A week that begins on Monday.
    Week,
    /// A month.
    Month,
}

impl Granularity {
    /// How many hours, roughly.
    pub fn hours(self) -> i64 {
        match self {
            Self::Hour => 1,
            Self::Day => 24,
            Self::Week => 168,
            Self::Month => 730,
        }
    }
}

/// The time from one quarter of an hour up to another, which is excluded (quarters since 1970).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub(super) begin: i64,
    pub(super) end: i64,
}

impl Span {
    /// Its first moment.
    pub fn start(self) -> Timestamp {
        moment(self.begin)
    }

    /// The first moment after it.
    pub fn end(self) -> Timestamp {
        moment(self.end)
    }
}

fn moment(quarter: i64) -> Timestamp {
    Timestamp::from_second(quarter.saturating_mul(QUARTER)).unwrap_or(Timestamp::MAX)
}

pub(super) fn quarter(at: Timestamp) -> i64 {
    at.as_second().div_euclid(QUARTER)
}

/// The hours, days, weeks or months of a time zone that have a part between two times, the second excluded. None if there are more
/// than `most`, or if the calendar does not go so far.
pub fn spans(
    zone: &TimeZone,
    granularity: Granularity,
    (from, to): (Timestamp, Timestamp),
    most: usize,
) -> Option<Vec<Span>> {
    let mut spans = Vec::new();
    let mut begin = start_of(zone, granularity, from)?;
    while begin < to {
        if spans.len() == most {
            return None;
        }
        let end = start_of_next(zone, granularity, begin)?;
        let span = Span { begin: quarter(begin), end: quarter(end) };
        // A day that a zone left out, or a change of the clocks that was at no quarter, is part of what comes next to it.
        if span.begin < span.end {
            spans.push(span);
        }
        begin = end;
    }
    Some(spans)
}

/// The `count` spans up to the one that this time is in, which is the last.
pub(super) fn latest(
    zone: &TimeZone,
    granularity: Granularity,
    at: Timestamp,
    count: usize,
) -> Option<Vec<Span>> {
    let mut from = start_of(zone, granularity, at)?;
    for _ in 1..count {
        let before = from.checked_sub(SignedDuration::from_secs(1)).ok()?;
        from = start_of(zone, granularity, before)?;
    }
    let to = at.checked_add(SignedDuration::from_secs(1)).ok()?;
    spans(zone, granularity, (from, to), usize::MAX)
}

fn start_of(zone: &TimeZone, granularity: Granularity, at: Timestamp) -> Option<Timestamp> {
    let local = at.to_zoned(zone.clone());
    let date = local.date();
    let day = match granularity {
        Granularity::Hour => return start_of_hour(zone, &local),
        Granularity::Day => date,
        Granularity::Week => {
            date.checked_sub(i64::from(date.weekday().since(Weekday::Monday)).days()).ok()?
        }
        Granularity::Month => date.first_of_month(),
    };
    Some(day.to_zoned(zone.clone()).ok()?.start_of_day().ok()?.timestamp())
}

/// By the clock, or when the clock was last changed within this hour.
fn start_of_hour(zone: &TimeZone, local: &Zoned) -> Option<Timestamp> {
    let at = Timestamp::from_second(local.timestamp().as_second()).ok()?;
    let past = i64::from(local.minute()) * 60 + i64::from(local.second());
    let by_clock = at.checked_sub(SignedDuration::from_secs(past)).ok()?;
    let next = at.checked_add(SignedDuration::from_secs(1)).ok()?;
    let changed = zone.preceding(next).next().map(|change| change.timestamp());
    Some(changed.map_or(by_clock, |changed| changed.max(by_clock)))
}

fn start_of_next(zone: &TimeZone, granularity: Granularity, start: Timestamp) -> Option<Timestamp> {
    let local = start.to_zoned(zone.clone());
    let mut date = local.date();
    loop {
        date = match granularity {
            Granularity::Hour => {
                let past = i64::from(local.minute()) * 60 + i64::from(local.second());
                let by_clock = start.checked_add(SignedDuration::from_secs(3600 - past)).ok()?;
                let change = zone.following(start).next().map(|change| change.timestamp());
                return Some(change.map_or(by_clock, |change| change.min(by_clock)));
            }
            Granularity::Day => date.tomorrow().ok()?,
            Granularity::Week => date.checked_add(1.week()).ok()?,
            Granularity::Month => date.checked_add(1.month()).ok()?,
        };
        let next = date.to_zoned(zone.clone()).ok()?.start_of_day().ok()?.timestamp();
        // A zone may leave a day out, as Samoa did in 2011.
        if next > start {
            return Some(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> TimeZone {
        domain::TimeZoneName::try_from(name.to_owned()).ok().and_then(|name| name.find()).expect("a zone")
    }

    fn hours(name: &str, granularity: Granularity, from: &str, to: &str) -> Vec<(String, i64)> {
        let period = (from.parse().expect("a time"), to.parse().expect("a time"));
        let spans = spans(&zone(name), granularity, period, 1000).expect("not too many");
        spans.iter().map(|span| (span.start().to_string(), (span.end - span.begin) / 4)).collect()
    }

    #[test]
    fn days_have_23_or_25_hours_when_the_clocks_change() {
        let days = hours("Europe/Zurich", Granularity::Day, "2026-03-28T12:00:00Z", "2026-03-30T00:00:00Z");
        let start = |text: &str, length| (text.to_owned(), length);
        let expected = [
            start("2026-03-27T23:00:00Z", 24),
            start("2026-03-28T23:00:00Z", 23),
            start("2026-03-29T22:00:00Z", 24),
        ];
        assert_eq!(days, expected);
        let days =
            hours("America/New_York", Granularity::Day, "2026-11-01T12:00:00Z", "2026-11-01T13:00:00Z");
        assert_eq!(days, [start("2026-11-01T04:00:00Z", 25)]);
        // Clocks that are changed at midnight: the day begins at one.
        let days = hours("Asia/Beirut", Granularity::Day, "2026-03-29T12:00:00Z", "2026-03-29T13:00:00Z");
        assert_eq!(days, [start("2026-03-28T22:00:00Z", 23)]);
    }

    #[test]
    fn zones_may_begin_at_a_quarter() {
        let days = hours("Asia/Kathmandu", Granularity::Day, "2026-01-01T18:14:59Z", "2026-01-01T18:15:01Z");
        let starts: Vec<_> = days.iter().map(|(start, _)| start.as_str()).collect();
        assert_eq!(starts, ["2025-12-31T18:15:00Z", "2026-01-01T18:15:00Z"]);
        let hours = hours("Asia/Kolkata", Granularity::Hour, "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z");
        let starts: Vec<_> = hours.iter().map(|(start, _)| start.as_str()).collect();
        assert_eq!(starts, ["2025-12-31T23:30:00Z", "2026-01-01T00:30:00Z"]);
    }

    #[test]
    fn an_hour_in_which_the_clocks_change_ends_there() {
        // Lord Howe goes back by half an hour: 1:30 comes twice.
        let period = (
            "2026-04-04T14:00:00Z".parse().expect("a time"),
            "2026-04-04T16:30:00Z".parse().expect("a time"),
        );
        let spans = spans(&zone("Australia/Lord_Howe"), Granularity::Hour, period, 10).expect("a few");
        let quarters: Vec<_> =
            spans.iter().map(|span| (span.start().to_string(), span.end - span.begin)).collect();
        let of = |start: &str, quarters| (start.to_owned(), quarters);
        let expected =
            [of("2026-04-04T14:00:00Z", 4), of("2026-04-04T15:00:00Z", 2), of("2026-04-04T15:30:00Z", 4)];
        assert_eq!(quarters, expected);
    }

    #[test]
    fn weeks_begin_on_monday_and_months_on_the_first() {
        let weeks = hours("UTC", Granularity::Week, "2026-01-01T00:00:00Z", "2026-01-12T00:00:00Z");
        let starts: Vec<_> = weeks.iter().map(|(start, _)| start.as_str()).collect();
        assert_eq!(starts, ["2025-12-29T00:00:00Z", "2026-01-05T00:00:00Z"]);
        let months =
            hours("Pacific/Apia", Granularity::Month, "2026-01-31T11:00:00Z", "2026-02-01T00:00:00Z");
        assert_eq!(months, [("2026-01-31T11:00:00Z".to_owned(), 28 * 24)]);
        let at = "2026-03-31T00:00:00Z".parse().expect("a time");
        let months = latest(&TimeZone::UTC, Granularity::Month, at, 3).expect("a few");
        let starts: Vec<_> = months.iter().map(|span| span.start().to_string()).collect();
        assert_eq!(starts, ["2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"]);
    }

    #[test]
    fn a_day_that_was_left_out_is_no_bucket_and_no_end() {
        let days = hours("Pacific/Apia", Granularity::Day, "2011-12-29T12:00:00Z", "2012-01-01T00:00:00Z");
        let starts: Vec<_> = days.iter().map(|(start, _)| start.as_str()).collect();
        assert_eq!(starts, ["2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"]);
        for at in [Timestamp::MIN, Timestamp::MAX] {
            for granularity in [Granularity::Hour, Granularity::Day, Granularity::Week, Granularity::Month] {
                let _ = spans(&zone("Pacific/Apia"), granularity, (at, Timestamp::MAX), 3);
                let _ = latest(&zone("Pacific/Apia"), granularity, at, 3);
            }
        }
    }
}
