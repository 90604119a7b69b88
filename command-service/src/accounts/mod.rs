//! Accounts: made by registration, shown and changed by those who own them, erased by those who never wanted them.

pub(crate) mod disown;
pub(crate) mod email_change;
pub(crate) mod email_verification;
pub(crate) mod me;
pub(crate) mod password_change;
pub(crate) mod password_reset;
pub(crate) mod register;
