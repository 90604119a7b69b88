//! Arithmetic of times that cannot fail, whatever a clock shows.

use jiff::{SignedDuration, Timestamp};

/// The time so long after another one, at most the last that there is (in the year 9999).
pub fn after(at: Timestamp, span: SignedDuration) -> Timestamp {
    at.checked_add(span).unwrap_or(if span.is_negative() { Timestamp::MIN } else { Timestamp::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_ends_and_begins() {
        let at = Timestamp::from_second(1_800_000_000).expect("in range");
        assert_eq!(
            after(at, SignedDuration::from_secs(7)),
            Timestamp::from_second(1_800_000_007).expect("in range")
        );
        let day = SignedDuration::from_hours(24);
        assert_eq!(after(Timestamp::MAX, day), Timestamp::MAX);
        assert_eq!(after(after(Timestamp::MAX, -day), SignedDuration::MAX), Timestamp::MAX);
        assert_eq!(after(Timestamp::MIN, -day), Timestamp::MIN);
        assert_eq!(after(at, SignedDuration::MIN), Timestamp::MIN);
    }
}
