//! The keys that sign access tokens: their rotation, and how verifiers get them.

pub(crate) mod jwks;
pub(crate) mod rotation;
