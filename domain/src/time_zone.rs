//! Time zones, by the names of the IANA database. The database is part of the program, so that all nodes know the same zones,
//! whatever is installed beside them.

use std::fmt;

use jiff::tz::{TimeZone, TimeZoneDatabase};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const LONGEST: usize = 64;

/// A name of the IANA time zone database, such as `Europe/Zurich`.
///
/// What is stored is only checked for its form: a version with another database must read every event. [`TimeZoneName::find`]
/// says whether this one knows the zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct TimeZoneName(#[schemars(regex(pattern = r"^[A-Za-z][A-Za-z0-9+_/-]{0,63}$"))] String);

/// The database has no zone of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a name of the IANA time zone database, such as Europe/Zurich or UTC")]
pub struct UnknownTimeZone;

impl TimeZoneName {
    /// The zone; none if the database of this version does not have it.
    pub fn find(&self) -> Option<TimeZone> {
        let zone = TimeZoneDatabase::bundled().get(&self.0).ok()?;
        // Its placeholder for a zone that nobody knows.
        (!zone.is_unknown()).then_some(zone)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TimeZoneName {
    fn default() -> Self {
        Self("UTC".to_owned())
    }
}

impl fmt::Display for TimeZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for TimeZoneName {
    type Error = UnknownTimeZone;

    fn try_from(text: String) -> Result<Self, UnknownTimeZone> {
        let bytes = text.as_bytes();
        let well_formed = (1..=LONGEST).contains(&bytes.len())
            && bytes[0].is_ascii_alphabetic()
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"+_/-".contains(b));
        if !well_formed {
            return Err(UnknownTimeZone);
        }
        // Names are compared without regard to case, and shown as the database spells them.
        let named = Self(text);
        let spelled = named.find().and_then(|zone| zone.iana_name().map(str::to_owned));
        Ok(spelled.map_or(named, Self))
    }
}

impl From<TimeZoneName> for String {
    fn from(name: TimeZoneName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<TimeZoneName> {
        TimeZoneName::try_from(text.to_owned()).ok()
    }

    #[test]
    fn the_database_is_part_of_the_program() {
        for name in ["UTC", "Europe/Zurich", "America/Argentina/Buenos_Aires", "Etc/GMT+12", "Asia/Kathmandu"]
        {
            assert!(parse(name).expect(name).find().is_some(), "{name}");
        }
        assert!(TimeZoneName::default().find().is_some());
        assert_eq!(parse("europe/ZURICH").expect("a name").as_str(), "Europe/Zurich");
    }

    #[test]
    fn what_is_no_zone_is_not_found() {
        for name in ["Mars/Olympus", "Etc/Unknown", "CEST", "localtime"] {
            assert!(parse(name).is_none_or(|name| name.find().is_none()), "{name}");
        }
        let long = "A".repeat(65);
        for text in ["", " UTC", "UTC\0", "../../etc/passwd", "/etc/localtime", "+01:00", long.as_str()] {
            assert!(parse(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn a_zone_of_another_database_is_read() {
        let stored: TimeZoneName =
            serde_json::from_str("\"Mars/Olympus\"").expect("it has the form of a name");
        assert_eq!(serde_json::to_string(&stored).expect("JSON"), "\"Mars/Olympus\"");
    }
}
