//! Marks that prove that this instance published a message on the bus.
//!
//! A client with write access to the bus can append any message, and one with only read access can often do so
//! indirectly. So a message carries a mark, a MAC that requires the instance key, over everything that its readers rely
//! on: the position in the stream, the event's id and that of the previous event, the subject and the bytes of the
//! body. Naming the previous event links messages into a chain: if the last of a run is the journal's event, all of
//! them are.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemas::bus;
use uuid::Uuid;

use crate::instance_key::InstanceKey;

/// The key of all marks of an instance.
#[derive(Clone, Debug)]
pub struct MessageKey(hmac::Key);

/// What a mark covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marked<'a> {
    /// The sequence of the message in the stream, which is the position of its event.
    pub position: u64,
    /// The id of its event.
    pub id: Uuid,
    /// The id of the event before it; nil before the first.
    pub previous: Uuid,
    /// The subject that it is published to.
    pub subject: &'a str,
    /// The envelope.
    pub body: &'a [u8],
}

/// The result of checking a message's mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// This instance published it at this position.
    Genuine {
        /// The id of its event.
        id: Uuid,
        /// The id of the event before it.
        previous: Uuid,
    },
    /// It has none: an earlier version published it, or another client.
    Absent,
    /// This instance did not make the mark, or not for this message at this position.
    Wrong,
}

impl MessageKey {
    /// Derives the key.
    pub fn new(instance: &InstanceKey) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &*instance.derive("watchword/v1/bus-message")))
    }

    /// The mark of a message, as its header carries it.
    pub fn mark(&self, message: &Marked<'_>) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        covered(message, |part| context.update(part));
        URL_SAFE_NO_PAD.encode(context.sign())
    }

    /// Checks the mark of a message found at a position.
    pub fn read<'h>(
        &self,
        position: u64,
        subject: &str,
        header: impl Fn(&'static str) -> Option<&'h str>,
        body: &[u8],
    ) -> Mark {
        let Some(mark) = header(bus::MARK) else { return Mark::Absent };
        let id = |name| header(name).and_then(|text| Uuid::try_parse(text).ok());
        let (Some(id), Some(previous), Ok(mark)) =
            (id(bus::MESSAGE_ID), id(bus::PREVIOUS_ID), URL_SAFE_NO_PAD.decode(mark))
        else {
            return Mark::Wrong;
        };
        let mut bytes = Vec::with_capacity(body.len() + subject.len() + 96);
        covered(&Marked { position, id, previous, subject, body }, |part| bytes.extend_from_slice(part));
        // In constant time, and only at full length.
        match hmac::verify(&self.0, &bytes, &mark) {
            Ok(()) => Mark::Genuine { id, previous },
            Err(_) => Mark::Wrong,
        }
    }
}

/// No two messages give the same bytes: every part before the body, which comes last, has a fixed or stated length.
fn covered(message: &Marked<'_>, mut update: impl FnMut(&[u8])) {
    let Marked { position, id, previous, subject, body } = message;
    update(b"watchword bus message 1\0");
    update(&position.to_be_bytes());
    update(id.as_bytes());
    update(previous.as_bytes());
    update(&(subject.len() as u64).to_be_bytes());
    update(subject.as_bytes());
    update(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: Marked<'_> = Marked {
        position: 7,
        id: Uuid::from_u128(7),
        previous: Uuid::from_u128(6),
        subject: "auth.v1.acme.user.UserBanned",
        body: b"{}",
    };

    /// Reads this message with a mark.
    fn read(key: &MessageKey, message: &Marked<'_>, mark: Option<&str>) -> Mark {
        let (id, previous) = (message.id.to_string(), message.previous.to_string());
        let header = |name| match name {
            bus::MESSAGE_ID => Some(id.as_str()),
            bus::PREVIOUS_ID => Some(previous.as_str()),
            bus::MARK => mark,
            _ => None,
        };
        key.read(message.position, message.subject, header, message.body)
    }

    #[test]
    fn a_mark_holds_for_one_message_at_one_position_of_one_instance() {
        let (key, other) =
            (MessageKey::new(&InstanceKey::generate()), MessageKey::new(&InstanceKey::generate()));
        let mark = key.mark(&MESSAGE);
        let genuine = Mark::Genuine { id: MESSAGE.id, previous: MESSAGE.previous };
        assert_eq!(read(&key, &MESSAGE, Some(&mark)), genuine);
        assert_eq!(read(&other, &MESSAGE, Some(&mark)), Mark::Wrong, "another instance's");
        assert_eq!(read(&key, &MESSAGE, None), Mark::Absent);
        for changed in [
            Marked { position: 8, ..MESSAGE },
            Marked { id: Uuid::from_u128(8), ..MESSAGE },
            Marked { previous: Uuid::nil(), ..MESSAGE },
            Marked { subject: "auth.v1.acme.user.RoleGranted", ..MESSAGE },
            Marked { subject: "auth.v1.acme.user.UserBanned{", body: b"}", ..MESSAGE },
            Marked { body: b"{ }", ..MESSAGE },
            Marked { body: b"", ..MESSAGE },
        ] {
            assert_eq!(read(&key, &changed, Some(&mark)), Mark::Wrong, "{changed:?}");
        }
    }

    #[test]
    fn a_mark_that_is_cut_or_garbage_is_wrong() {
        let key = MessageKey::new(&InstanceKey::generate());
        let mark = key.mark(&MESSAGE);
        assert_eq!(mark.len(), 43);
        let longer = format!("{mark}AAAA");
        let padded = format!("{mark}=");
        let twice = format!("{mark},{mark}");
        let zeros = "A".repeat(43);
        for wrong in ["", " ", "AAAA", &mark[..22], &mark[..42], &longer, &padded, &twice, "é", &zeros] {
            assert_eq!(read(&key, &MESSAGE, Some(wrong)), Mark::Wrong, "{wrong}");
        }
        let garbage = key.read(7, MESSAGE.subject, |name| (name == bus::MARK).then_some(&mark), MESSAGE.body);
        assert_eq!(garbage, Mark::Wrong, "a mark without the ids that it covers");
    }
}
