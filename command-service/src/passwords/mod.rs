//! Passwords: hashing on dedicated threads, lists of known passwords, and guesses by strangers.

pub(crate) mod breached;
pub(crate) mod dictionary;
pub mod hashing;
#[cfg(target_os = "linux")]
pub mod huge_pages;
pub(crate) mod imported;
pub(crate) mod strangers;
