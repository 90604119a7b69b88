//! Callers: whether they are entitled when a decision is made, whether they are known clients, how often they may guess.

pub(crate) mod admin;
pub(crate) mod credentials_limit;
pub(crate) mod known_client;
pub(crate) mod live;
