//! What happens after an append and must not happen twice: mails, and the relay to the bus. Effects are not projections:
//! they have their own cursors, and replaying events does not trigger them again.

pub mod mailer;
pub mod relay;
pub mod senders;
