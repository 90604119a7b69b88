//! `as_of`: queries that ask for the past.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use axum::response::{IntoResponseParts, ResponseParts};
use domain::Timestamp;
use event_store::repository::as_of::position_at;
use event_store::{Clock, Repository};
use http::{HeaderName, HeaderValue};
use schemas::field_codes;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use utoipa::IntoParams;

use crate::problem::Problem;
use crate::reader::Time;

/// The header with the position that an answer is about.
pub const AS_OF_POSITION: HeaderName = HeaderName::from_static("as-of-position");

/// A moment of the past as a query names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// The log as it was at this time.
    Time(Timestamp),
    /// The log up to and including this position.
    Position(u64),
}

/// The parameters of a query for one thing, as it is or as it was. Anything else is refused rather than ignored.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AsOfParams {
    /// A time, or a position of the log: the answer is as of then.
    #[param(value_type = Option<String>, example = "2026-01-31T09:30:00Z")]
    pub as_of: Option<AsOf>,
}

/// A moment of the past, found in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The last position that counts. As part of a response it sets the header `As-Of-Position`.
    pub position: u64,
    /// The time at which expiry is judged: the one that was asked for, or that of the event at the position.
    pub at: Timestamp,
}

impl AsOf {
    /// Finds it in the log; 422 if the log has not come so far. What a time means where clocks disagreed is explained at
    /// [`event_store::repository::as_of`].
    pub async fn find(self, repository: &Repository, clock: &dyn Clock) -> Result<Moment, Problem> {
        let beyond =
            |detail: &str| Problem::invalid_parameter("as_of", field_codes::OUT_OF_RANGE, detail.to_owned());
        let journal = repository.journal();
        match self {
            // Another node, whose clock is a little ahead, may have written that time.
            Self::Time(at) if at > repository.latest(clock.now()) => {
                Err(beyond("this time is in the future"))
            }
            Self::Time(at) => {
                let position = position_at(&**journal, at, journal.head().await?).await?;
                Ok(Moment { position, at })
            }
            Self::Position(0) => Ok(Moment { position: 0, at: Timestamp::MIN }),
            Self::Position(position) => {
                let event = journal.read_positions(&[position]).await?.pop();
                let event = event.ok_or_else(|| beyond("the log has no event at this position yet"))?;
                Ok(Moment { position, at: event.at })
            }
        }
    }
}

impl<'de> Deserialize<'de> for AsOf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text)
    }
}

struct Text;

impl Visitor<'_> for Text {
    type Value = AsOf;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<AsOf, E> {
        text.parse().map_err(E::custom)
    }
}

/// A text is neither a time nor a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a time such as 2026-01-31T09:30:00Z, a date, or a position such as 42")]
pub struct InvalidMoment;

impl FromStr for AsOf {
    type Err = InvalidMoment;

    fn from_str(text: &str) -> Result<Self, InvalidMoment> {
        if !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit()) {
            // What does not fit is beyond every log.
            return Ok(Self::Position(text.parse().unwrap_or(u64::MAX)));
        }
        Time::parse(text).map(|time| Self::Time(time.0)).ok_or(InvalidMoment)
    }
}

impl IntoResponseParts for Moment {
    type Error = Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        parts.headers_mut().insert(AS_OF_POSITION, HeaderValue::from(self.position));
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<AsOf> {
        text.parse().ok()
    }

    #[test]
    fn a_number_is_a_position_and_everything_else_a_time() {
        let time = |text: &str| Some(AsOf::Time(text.parse().expect("a time")));
        assert_eq!(read("42"), Some(AsOf::Position(42)));
        assert_eq!(read("0"), Some(AsOf::Position(0)));
        assert_eq!(read("2026"), Some(AsOf::Position(2026)));
        assert_eq!(read("99999999999999999999"), Some(AsOf::Position(u64::MAX)));
        assert_eq!(read("2026-01-31T09:30:00+02:00"), time("2026-01-31T07:30:00Z"));
        assert_eq!(read("2026-01-31"), time("2026-01-31T00:00:00Z"));
        for text in ["", "-1", "4.2", "yesterday", "2026-02-30"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
