//! The key on disk of an entry as it was at a revision.
//!
//! `e`, the path's key, a zero, and the revision with all bits flipped, big-endian. The zero is
//! below every tag that begins a component: an entry's versions stand before what is below it.
//! Flipped, the newest version is the first, and the first one behind a revision is the one that
//! was current at it.

use crate::key::Key;

/// What the keys of versions begin with.
pub(crate) const ENTRY: u8 = b'e';

const END: u8 = 0;
const TAIL_BYTES: usize = 9;

/// The key of the version of `key` that was written at `revision`.
pub(crate) fn of(key: &Key, revision: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + key.as_bytes().len() + TAIL_BYTES);
    write(key, revision, &mut bytes);
    bytes
}

/// The same, in the place of what is in `bytes`.
pub(crate) fn write(key: &Key, revision: u64, bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.push(ENTRY);
    bytes.extend_from_slice(key.as_bytes());
    bytes.push(END);
    bytes.extend_from_slice(&(!revision).to_be_bytes());
}

/// The path and the revision of a version's key.
pub(crate) fn parse(bytes: &[u8]) -> Option<(&[u8], u64)> {
    let (rest, revision) = bytes.split_last_chunk::<8>()?;
    let path = rest.strip_prefix(&[ENTRY])?.strip_suffix(&[END])?;
    Some((path, !u64::from_be_bytes(*revision)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_first_and_before_what_is_below() {
        let (a, ab, b) = (Key::from_bytes(b"\x02a\0"), Key::from_bytes(b"\x02a\0\x01b\0"), Key::from_bytes(b"\x02b\0"));
        let keys = [of(&a, 300), of(&a, 2), of(&a, 1), of(&ab, 5), of(&b, 1)];
        assert!(keys.is_sorted());
        assert_eq!(parse(&keys[0]), Some((a.as_bytes(), 300)));
        assert_eq!(parse(&of(&Key::default(), 7)), Some((&b""[..], 7)));
        assert_eq!(parse(b"e1"), None);
    }
}
