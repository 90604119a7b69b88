//! What the admins of an app do: to its users, and to its mails that were given up.

pub(crate) mod mail_failures;
pub(crate) mod password_reset;
pub(crate) mod users;
