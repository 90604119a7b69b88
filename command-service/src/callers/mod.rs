//! Who calls: whether they are entitled when a decision is made, whether they have been there before, how often they may guess.

pub(crate) mod admin;
pub(crate) mod credentials_limit;
pub(crate) mod known_client;
pub(crate) mod live;
