//! Requests and answers that several flows share.

pub(crate) mod answers;
pub(crate) mod fields;
pub(crate) mod pagination;
pub(crate) mod refusals;
pub(crate) mod timing;
