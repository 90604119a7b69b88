//! What every erasure of a person ends with, whoever asked for it.

use axum::response::Response;
use dispatcher::Context;
use domain::UserId;
use event_store::erase;
use http_kit::problem::Problem;
use serde::Serialize;
use utoipa::ToSchema;

use crate::CommandService;
use crate::api::answers::Done;

/// The account was erased.
#[derive(Serialize, ToSchema)]
#[schema(as = ErasedUser)]
pub(crate) struct Erased {
    /// Always true.
    deleted: bool,
    /// The position of the event that records the erasure.
    position: u64,
}

impl CommandService {
    /// Destroys the key of a person whose erasure is in the log, before anybody is told of it. `position` is that of the last
    /// event of the request, and `context` its own.
    pub(crate) async fn finish_erasure(
        &self,
        person: UserId,
        position: u64,
        context: Context,
    ) -> Result<Response, Problem> {
        // A key cannot be restored: the log must say it.
        let erased = erase::position(&self.repository, person).await?;
        let erased = erased.ok_or_else(|| Problem::internal("no event says that the person was erased"))?;
        self.key_store.erase_data_key(person).await?;
        self.end_memberships(person, context).await;
        Ok(Done::ok(position.max(erased), Erased { deleted: true, position: erased }))
    }
}
