//! Encodes and decodes cells: sealed members, times, ids.

use domain::{Personal, Timestamp, UserId};
use event_store::{Sealer, StoreError};
use uuid::Uuid;

/// The associated data binds a sealed member to its row: in another row it does not open.
fn aad(table: &str, id: Uuid) -> Vec<u8> {
    [table.as_bytes(), id.as_bytes()].concat()
}

/// Seals a person's data in a row. `None` if there is nothing to keep, or the person is erased.
pub(crate) async fn seal(
    keys: &Sealer,
    table: &str,
    id: Uuid,
    owner: UserId,
    personal: &Personal,
) -> Result<Option<Vec<u8>>, StoreError> {
    if personal.is_empty() {
        return Ok(None);
    }
    let json = serde_json::to_vec(personal).expect("personal data is plain JSON");
    match keys.seal(owner, &aad(table, id), &json).await {
        Ok(sealed) => Ok(Some(sealed)),
        Err(StoreError::Erased(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens what [`seal`] sealed; empty once the person is erased.
pub(crate) async fn open(
    keys: &Sealer,
    table: &str,
    id: Uuid,
    owner: UserId,
    sealed: Option<&[u8]>,
) -> Result<Personal, StoreError> {
    let Some(sealed) = sealed else { return Ok(Personal::default()) };
    match keys.open(owner, &aad(table, id), sealed).await? {
        Some(json) => serde_json::from_slice(&json)
            .map_err(|_| StoreError::Damaged(format!("a sealed member of {table}"))),
        None => Ok(Personal::default()),
    }
}

/// Whether a person's key is missing without an erasure.
pub(crate) async fn lacks_key(keys: &Sealer, person: UserId) -> Result<bool, StoreError> {
    match keys.keys().require_known(person).await {
        Err(StoreError::Damaged(_)) => Ok(true),
        known => known.map(|()| false),
    }
}

/// A stored time.
pub(crate) fn time(microseconds: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(microseconds).map_err(|_| StoreError::Damaged("a time".to_owned()))
}

/// A stored id.
pub(crate) fn id(bytes: &[u8]) -> Result<Uuid, StoreError> {
    Uuid::from_slice(bytes).map_err(|_| StoreError::Damaged("an id".to_owned()))
}
