//! One page of a list.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Where a page starts and how long it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paging {
    /// How many items at most.
    pub limit: u32,
    /// How many items to skip; not used together with a cursor.
    pub offset: u32,
    /// The cursor from [`Page::next_cursor`].
    pub cursor: Option<String>,
}

impl Default for Paging {
    fn default() -> Self {
        Self { limit: 20, offset: 0, cursor: None }
    }
}

/// A page of a list's items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// How many there are on all pages.
    pub total: u64,
    /// Leads to the next page, if there is one.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// The same page of other items.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(f).collect(),
            total: self.total,
            next_cursor: self.next_cursor,
        }
    }
}

/// Text that is opaque to callers.
pub(crate) fn encode_cursor(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes of a cursor, if it has the right length.
pub(crate) fn decode_cursor<const N: usize>(cursor: &str) -> Option<[u8; N]> {
    decode_any_cursor(cursor)?.try_into().ok()
}

/// The bytes of a cursor of any length.
pub(crate) fn decode_any_cursor(cursor: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(cursor).ok()
}
