//! Everything is sealed with XChaCha20-Poly1305 and a random nonce.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use crate::clock::random;

const NONCE: usize = 24;
/// How much longer sealing makes what is sealed: by the nonce and a tag.
pub const OVERHEAD: usize = NONCE + 16;

/// A key that encrypts and decrypts.
pub struct Cipher(XChaCha20Poly1305);

impl Cipher {
    /// A cipher with this key.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(XChaCha20Poly1305::new(key.into()))
    }

    /// Nonce ‖ ciphertext ‖ tag: 40 bytes longer than the plaintext. The random nonce is long enough never to repeat.
    pub fn seal(&self, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE] = random();
        let sealed = self
            .0
            .encrypt(&XNonce::from(nonce), Payload { msg: plaintext, aad })
            .expect("it only fails for messages of hundreds of gigabytes");
        [nonce.as_slice(), &sealed].concat()
    }

    /// The plaintext, or `None` if the ciphertext was changed, or sealed with another key or for another place.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE)?;
        let nonce = XNonce::from(<[u8; NONCE]>::try_from(nonce).ok()?);
        self.0.decrypt(&nonce, Payload { msg: sealed, aad }).ok()
    }
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cipher(…)")
    }
}
