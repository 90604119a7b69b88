//! The pages that mails link to.

pub(crate) mod change_password_url;
pub(crate) mod language;
pub(crate) mod page;
pub(crate) mod script;
pub(crate) mod texts;
