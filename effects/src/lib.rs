//! What happens after an append and must not happen twice: mails, webhooks, and the relay to the bus. Effects are not projections:
//! they have their own cursors, and replaying events does not trigger them again.

mod cursor;
mod handle;
pub mod mailer;
pub mod outbound;
pub mod relay;
pub mod senders;
pub mod webhooks;

pub use crate::cursor::EffectStatus;
pub use crate::handle::Effect;
