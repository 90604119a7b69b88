//! Reads the head without opening the read models.

use event_store::{Location, StoreError, TreeKey};

use super::{NAME, TreeHead};
use crate::compare::Live;
use crate::store::{ReadError, ReadModels};

/// The head of the tree that the read models at this place have; `None` if there is none yet. Refuses one that the instance
/// of this key did not write. Changes nothing. No process may write a file meanwhile.
pub async fn look(location: &Location, key: &TreeKey) -> Result<Option<TreeHead>, ReadError> {
    if location.file().is_some_and(|path| !path.exists()) {
        return Ok(None);
    }
    let checkpoints = ReadModels::look(location)
        .await
        .map_err(|error| StoreError::Unavailable(error.to_string().into()))?;
    if !checkpoints.iter().any(|it| it.model() == NAME && it.position > 0) {
        return Ok(None);
    }
    let mut live = Live::begin(location).await?;
    live.turn_to(NAME);
    let rows = live.read(&TreeHead::query()).await;
    live.close().await?;
    Ok(Some(TreeHead::read(&rows?, key)?))
}
