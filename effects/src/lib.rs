//! What happens after an append and must not happen twice: mails, and the relay to the bus. Effects are no projections: they
//! have cursors of their own, and nothing that is read again fires again.

pub mod mailer;
pub mod relay;
pub mod senders;
