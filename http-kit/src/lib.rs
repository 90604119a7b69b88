//! What both services need for HTTP: problem responses, strict extractors, credentials, rate limits, and the layer
//! around every request.
#![deny(missing_docs)]

pub mod accept;
pub mod access_log;
pub mod aliases;
pub mod answers;
mod around;
mod arriving;
pub mod as_of;
pub mod auth;
mod compression;
pub mod consistency;
pub mod cookies;
pub mod crowd;
mod entrance;
pub mod extract;
pub mod fair_queue;
mod forwarded;
mod gcra;
mod heads;
mod known;
pub mod limits;
mod measured;
pub mod openapi;
pub mod page;
pub mod places;
pub mod problem;
pub mod reader;
pub mod request;
pub mod trace;
mod unread;
pub mod waiting;

#[cfg(test)]
mod testing;

pub use access_log::{AccessLog, Looking};
pub use answers::{UserBody, uncached};
pub use arriving::BodyTime;
pub use as_of::{AsOf, AsOfParams, Moment};
pub use auth::{AdminCaller, Authenticator, UserCaller};
pub use compression::Unchanging;
pub use consistency::{AfterToken, ConsistencyToken, ConsistencyTokens};
pub use cookies::{Credentials, SetCookies, TokenCookie};
pub use entrance::{Entrance, around};
pub use extract::{AppScope, Body, FormOrJson, NoBody, OptionalBody, Params, Segments};
pub use forwarded::peer_of;
pub use heads::check_host;
pub use limits::{RateClass, RateLimits, RateSettings};
pub use page::Page;
pub use problem::Problem;
pub use reader::Time;
pub use request::{RequestContext, RequestLayer};
pub use unread::{Discard, Rest};
pub use waiting::waiting;
