//! Seals personal data with the person's own key.

use std::sync::Arc;

use domain::UserId;

use crate::cipher::{Cipher, OVERHEAD};
use crate::journal::StoreError;
use crate::key_store::KeyStore;

/// The version of the sealed form, which is its first byte.
const FORM: u8 = 1;

/// Seals and opens personal data. The additional data (AAD) names the place of the sealed data, so that it cannot be
/// moved to another.
#[derive(Clone)]
pub struct Sealer {
    keys: Arc<KeyStore>,
    /// For sealed data that belongs to no person.
    of_nobody: Arc<Cipher>,
}

impl Sealer {
    /// Seals with the keys of this store.
    pub fn new(keys: Arc<KeyStore>) -> Self {
        let of_nobody = Cipher::new(&keys.instance_key().derive("watchword/v1/personal-of-nobody"));
        Self { keys, of_nobody: Arc::new(of_nobody) }
    }

    /// The keys.
    pub fn keys(&self) -> &Arc<KeyStore> {
        &self.keys
    }

    /// Whether bytes have the form of sealed data, which anybody can tell. Whether they can be opened only the keys show.
    pub fn is_sealed(bytes: &[u8]) -> bool {
        bytes.first() == Some(&FORM) && bytes.len() > 1 + OVERHEAD
    }

    /// Seals with the person's key, which is created if there is none. Refuses for an erased person.
    pub async fn seal(&self, person: UserId, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, StoreError> {
        let key = self.keys.create_data_key(person).await?;
        let mut sealed = key.cipher().seal(aad, plaintext);
        sealed.insert(0, FORM);
        Ok(sealed)
    }

    /// Seals identifying data that belongs to no person with a key, such as the holder of an API key. Only the loss of
    /// the instance key erases it.
    pub fn seal_of_nobody(&self, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let mut sealed = self.of_nobody.seal(aad, plaintext);
        sealed.insert(0, FORM);
        sealed
    }

    /// What [`Sealer::seal_of_nobody`] sealed. An error if it was changed, or sealed for another place.
    pub fn open_of_nobody(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        let opened = match sealed.split_first() {
            Some((&FORM, sealed)) => self.of_nobody.open(aad, sealed),
            _ => None,
        };
        opened.ok_or_else(|| StoreError::Damaged("sealed data of no person cannot be opened".to_owned()))
    }

    /// What was sealed; `None` if the person was erased. An error if it was changed, or sealed for another place.
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
