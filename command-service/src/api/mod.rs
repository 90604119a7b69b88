//! What requests and answers of several flows have in common.

pub(crate) mod answers;
pub(crate) mod fields;
pub(crate) mod pagination;
pub(crate) mod refusals;
pub(crate) mod timing;
