//! Signed checkpoints of the tree over all events, and what proves that events are in it.
//!
//! [C2SP tlog-checkpoint]: https://c2sp.org/tlog-checkpoint

mod checkpoint;
mod consistency;
mod inclusion;
mod keys;
mod notary;
mod receipt;
mod signed_tree;
mod task;
mod tile;

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http_kit::uncached;
use utoipa_axum::router::OpenApiRouter;

pub use self::notary::{CheckpointSettings, NotaryStatus};
pub(crate) use self::notary::{NotSigned, Notary};
pub(crate) use self::task::start;
use crate::ProjectionService;

pub(crate) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new()
        .merge(checkpoint::routes())
        .merge(keys::routes())
        .merge(inclusion::routes())
        .merge(consistency::routes())
        .merge(tile::routes())
        .merge(receipt::routes())
}

/// 200 with text that no cache keeps.
pub(crate) fn plain(text: String) -> Response {
    uncached(([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}
