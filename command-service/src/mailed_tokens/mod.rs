//! What flows with mailed tokens share: requesting a mail and redeeming its token.

pub(crate) mod redeem;
pub(crate) mod request;
