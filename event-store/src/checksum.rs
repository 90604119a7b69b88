//! Detects damaged events.

use aws_lc_rs::digest;

/// Detects a row that was changed after it was written, by a disk or by hand: the first half of a SHA-256 of its whole
/// content. It is no proof against an attacker, who can compute it too.
pub(crate) fn checksum(numbers: [i64; 4], parts: [&[u8]; 5], optional: [Option<&[u8]>; 2]) -> [u8; 16] {
    let mut context = digest::Context::new(&digest::SHA256);
    for number in numbers {
        context.update(&number.to_le_bytes());
    }
    // Each part is preceded by its length, so parts cannot run into each other. An absent part has a length that no
    // present one can have.
    for part in parts.map(Some).into_iter().chain(optional) {
        context.update(&part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
        context.update(part.unwrap_or_default());
    }
    let mut half = [0; 16];
    half.copy_from_slice(&context.finish().as_ref()[..16]);
    half
}
