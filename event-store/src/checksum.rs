//! Telling a damaged event from a whole one.

use aws_lc_rs::digest;

/// Tells a row that a disk or a hand has changed from the one that was written: the first half of a SHA-256 of all
/// that is in it. It proves nothing against somebody who can compute it as well.
pub(crate) fn checksum(numbers: [i64; 4], parts: [&[u8]; 5], optional: [Option<&[u8]>; 2]) -> [u8; 16] {
    let mut context = digest::Context::new(&digest::SHA256);
    for number in numbers {
        context.update(&number.to_le_bytes());
    }
    // Lengths keep a part from running into the next; an absent part has none that a present one could have.
    for part in parts.map(Some).into_iter().chain(optional) {
        context.update(&part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
        context.update(part.unwrap_or_default());
    }
    let mut half = [0; 16];
    half.copy_from_slice(&context.finish().as_ref()[..16]);
    half
}
