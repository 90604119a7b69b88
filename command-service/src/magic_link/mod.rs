//! Logging in by a link in a mail: asked for, followed, and exchanged for tokens.

pub(crate) mod exchange;
pub(crate) mod request;
pub(crate) mod verify;
