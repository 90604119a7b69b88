//! Sessions: begun by a login, kept alive by refreshing, asked about and ended.

pub(crate) mod end;
pub(crate) mod introspection;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod refresh;
