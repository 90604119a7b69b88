//! The private halves of the keys that sign the apps' tokens.

use domain::AppId;
use zeroize::Zeroizing;

use super::KeyStore;
use crate::journal::StoreError;

impl KeyStore {
    /// Durably stores the private half of a signing key (PKCS #8).
    pub async fn put_signing_key(
        &self,
        app: &AppId,
        kid: &str,
        alg: &str,
        pkcs8: &[u8],
    ) -> Result<(), StoreError> {
        let wrapped = self.kek.seal(&signing_key_name(app, kid), pkcs8);
        self.keys.keep_signing_key(app, kid, alg, wrapped).await
    }

    /// The private half of a signing key.
    pub async fn signing_key(
        &self,
        app: &AppId,
        kid: &str,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let Some(wrapped) = self.keys.signing_key(app, kid).await? else { return Ok(None) };
        self.kek
            .open(&signing_key_name(app, kid), &wrapped)
            .map(|key| Some(Zeroizing::new(key)))
            .ok_or_else(|| StoreError::Damaged(format!("the signing key {kid} of {app} cannot be unwrapped")))
    }
}

fn signing_key_name(app: &AppId, kid: &str) -> Vec<u8> {
    [b"signing key\0", app.as_str().as_bytes(), b"\0", kid.as_bytes()].concat()
}
