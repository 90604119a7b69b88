//! Sealing personal data with the person's own key.

use std::sync::Arc;

use domain::UserId;

use crate::journal::StoreError;
use crate::key_store::KeyStore;

/// The form of what this code seals; the first byte of it.
const FORM: u8 = 1;

/// Seals and opens. The additional data (AAD) names the place of what is sealed, so that nobody can move it to
/// another.
#[derive(Clone)]
pub struct Sealer {
    keys: Arc<KeyStore>,
}

impl Sealer {
    /// Seals with the keys of this store.
    pub fn new(keys: Arc<KeyStore>) -> Self {
        Self { keys }
    }

    /// The keys.
    pub fn keys(&self) -> &Arc<KeyStore> {
        &self.keys
    }

    /// Seals with the person's key, which is made if there is none. Refuses for an erased person.
    pub async fn seal(&self, person: UserId, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, StoreError> {
        let key = self.keys.create_data_key(person).await?;
        let mut sealed = key.cipher().seal(aad, plaintext);
        sealed.insert(0, FORM);
        Ok(sealed)
    }

    /// What was sealed; nothing if the person was erased. An error if it was changed, or sealed for another place.
    pub async fn open(
        &self,
        person: UserId,
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(key) = self.keys.data_key(person).await? else { return Ok(None) };
        let damaged = || StoreError::Damaged(format!("sealed data of {person} cannot be opened"));
        let (form, sealed) = sealed.split_first().ok_or_else(damaged)?;
        if *form != FORM {
            return Err(damaged());
        }
        key.cipher().open(aad, sealed).map(Some).ok_or_else(damaged)
    }
}
