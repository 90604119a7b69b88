//! Times as people and libraries write them.

use std::fmt;

use domain::Timestamp;
use jiff::fmt::temporal::Pieces;
use jiff::tz::Offset;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A time of RFC 3339. Without an offset it is UTC; a date alone is its start. The last hours of the year 9999, which
/// programs write for «never», are beyond what a [`Timestamp`] can hold, and become the last that it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Timestamp);

impl Time {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let pieces = Pieces::parse(text).ok()?;
        // A zone, as in `…[Europe/Berlin]`, is no RFC 3339.
        if pieces.time_zone_annotation().is_some() {
            return None;
        }
        let offset = pieces.to_numeric_offset();
        let time = match pieces.time() {
            Some(time) => time,
            None if offset.is_none() => jiff::civil::Time::midnight(),
            None => return None,
        };
        let at = offset.unwrap_or(Offset::UTC).to_timestamp(pieces.date().to_datetime(time));
        let nearest = if pieces.date().year() > 0 { Timestamp::MAX } else { Timestamp::MIN };
        Some(Self(at.unwrap_or(nearest)))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text)
    }
}

struct Text;

impl Visitor<'_> for Text {
    type Value = Time;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Time, E> {
        Time::parse(text).ok_or_else(|| {
            E::custom("must be a time such as 2026-01-31T09:30:00Z, or a date such as 2026-01-31")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Time;

    #[test]
    fn a_date_is_its_start_and_without_an_offset_it_is_utc() {
        let shown = |text: &str| Time::parse(text).map(|time| time.0.to_string());
        for (text, time) in [
            ("2026-01-31T09:30:00Z", "2026-01-31T09:30:00Z"),
            ("2026-01-31t09:30:00z", "2026-01-31T09:30:00Z"),
            ("2026-01-31T09:30:00+02:00", "2026-01-31T07:30:00Z"),
            ("2026-01-31T09:30:00.25", "2026-01-31T09:30:00.25Z"),
            ("2026-01-31T09:30:00", "2026-01-31T09:30:00Z"),
            ("2026-01-31T09:30", "2026-01-31T09:30:00Z"),
            ("2026-01-31 09:30", "2026-01-31T09:30:00Z"),
            ("2026-01-31", "2026-01-31T00:00:00Z"),
            ("2024-02-29", "2024-02-29T00:00:00Z"),
            // A leap second is the end of its minute.
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
            ("2026-01-31T00:30:00-00:00", "2026-01-31T00:30:00Z"),
            ("2026-01-31T00:30+14:00", "2026-01-30T10:30:00Z"),
            ("9999-12-30T22:00:00Z", "9999-12-30T22:00:00Z"),
            ("9999-12-31", "9999-12-30T22:00:00.999999999Z"),
            ("9999-12-31T23:59:59.999Z", "9999-12-30T22:00:00.999999999Z"),
            ("9999-12-30T22:00:00-23:59", "9999-12-30T22:00:00.999999999Z"),
            ("-009999-01-01", "-009999-01-02T01:59:59Z"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(time), "{text}");
        }
        for text in [
            "",
            "x",
            "2026",
            "2026-02-29",
            "2026-02-30",
            "2026-13-01",
            "09:30",
            "1769851800",
            "2026-01-31Z",
            "2026-01-31T25:00",
            "2026-01-31T09:30:61Z",
            "2026-01-31T09:30[Europe/Berlin]",
            "2026-01-31T09:30+01:00[Europe/Berlin]",
            "2026-01-31T09:30+99:00",
            "10000-01-01",
            " 2026-01-31",
        ] {
            assert_eq!(shown(text), None, "{text}");
        }
    }
}
