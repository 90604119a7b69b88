//! Passwords: hashed on threads of their own, compared with lists of known ones, and guessed at by strangers.

pub(crate) mod breached;
pub(crate) mod dictionary;
pub mod hashing;
#[cfg(target_os = "linux")]
pub mod huge_pages;
pub(crate) mod strangers;
