//! What flows have in common whose tokens are mailed: who may ask for a mail, and what happens when a token comes back.

pub(crate) mod redeem;
pub(crate) mod request;
