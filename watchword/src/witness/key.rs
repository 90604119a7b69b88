//! The file with a witness's private key. It is one line, as other programs for signed notes have it:
//! `PRIVATE+KEY+<name>+<id>+<kind and seed in base64>`.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use event_store::clock::random;
use secrecy::{ExposeSecret, SecretString};
use tlog::Signer;
use tlog::note::Kind;
use zeroize::Zeroizing;

use crate::data_dir::{read_secret, write_secret};

const PREFIX: &str = "PRIVATE+KEY+";

/// The first byte of the key of a witness, as in its public key.
const KIND: u8 = 4;

/// The name of a witness that was given none: where it is reached.
pub fn default_name(listen: SocketAddr) -> String {
    listen.to_string()
}

/// A witness's private key. Whoever holds this also holds the lock on its file.
pub struct Held {
    pub signer: Signer,
    pub lock: File,
}

/// The key of this file, which is made if it is not there and `may_be_made`. One process at a time may use it: two that
/// remember different checkpoints could sign two histories.
pub fn open(path: &Path, name: Option<&str>, default: &str, may_be_made: bool) -> anyhow::Result<Held> {
    if !path.exists() {
        if !may_be_made {
            bail!(
                "{} is missing, but the state file has checkpoints that were signed with it. Restore it from its backup; \
                 if it is lost, begin as a new witness: with a new key and a new state file",
                path.display()
            );
        }
        let seed = Zeroizing::new(random::<32>());
        let name = name.unwrap_or(default);
        let signer = Signer::from_seed(name, Kind::Witness, &seed).with_context(|| {
            format!("{name:?} cannot be the name of a key: give --name without spaces and plus signs")
        })?;
        write_secret(path, &line(&signer, &seed))?;
    }
    let signer = parse(&read_secret(path)?).with_context(|| {
        format!(
            "{} holds no key of a witness. Restore it, or name a file that is not there yet",
            path.display()
        )
    })?;
    if let Some(name) = name.filter(|name| *name != signer.key().name()) {
        bail!(
            "the key in {} is that of {}, not of {name}: leave --name out",
            path.display(),
            signer.key().name()
        );
    }
    let lock = File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    super::state::hold(&lock, path)?;
    Ok(Held { signer, lock })
}

fn line(signer: &Signer, seed: &[u8; 32]) -> SecretString {
    let secret = Zeroizing::new([&[KIND], seed.as_slice()].concat());
    let secret = Zeroizing::new(STANDARD.encode(&secret));
    format!("{PREFIX}{}+{:08x}+{}", signer.key().name(), signer.key().id(), *secret).into()
}

fn parse(line: &SecretString) -> Option<Signer> {
    // Base64 may have a plus sign, a name has none.
    let mut parts = line.expose_secret().strip_prefix(PREFIX)?.splitn(3, '+');
    let (name, id, secret) = (parts.next()?, parts.next()?, parts.next()?);
    let secret = Zeroizing::new(STANDARD.decode(secret).ok()?);
    let (&KIND, seed) = secret.split_first()? else { return None };
    let signer = Signer::from_seed(name, Kind::Witness, seed.try_into().ok()?)?;
    (format!("{:08x}", signer.key().id()) == id).then_some(signer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_used_by_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("witness.key");
        assert!(open(&path, None, "w.example", false).is_err(), "it was lost");
        assert!(open(&path, Some("a name"), "w.example", true).is_err() && !path.exists());
        let made = open(&path, Some("w.example/1"), "", true).expect("made");
        assert_eq!(made.signer.key().name(), "w.example/1");
        let other = open(&path, None, "w.example", true).err().expect("in use").to_string();
        assert!(other.contains("another process"), "{other}");
        let key = made.signer.key().clone();
        drop(made);
        assert_eq!(open(&path, None, "w.example", false).expect("read").signer.key(), &key);
        assert!(open(&path, Some("w.example/2"), "", false).is_err(), "another name");
        let text = std::fs::read_to_string(&path).expect("text");
        for wrong in
            ["", "PRIVATE+KEY+w.example/1", &text.replace("/1+", "/2+"), &text.replace("PRIVATE", "PUBLIC")]
        {
            assert!(parse(&wrong.to_owned().into()).is_none(), "{wrong}");
        }
    }
}
