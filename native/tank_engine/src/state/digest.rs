//! A hash of all entries that is kept up to date with each change.
//!
//! The sum, modulo 2^64, of the XXH3 hash of each entry's key and record. Sums do not depend on
//! the order of changes, so the digest of a state read from the disk must equal the one that was
//! written with it: entries that a damaged database lost or brought back show here, although each
//! single record is intact. Members at the same revision have the same digest.

use xxhash_rust::xxh3::Xxh3;

use crate::entry::Entry;
use crate::key::Key;

/// The hash of a set of entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(u64);

impl Digest {
    /// The hash as a number.
    pub fn value(self) -> u64 {
        self.0
    }

    /// Takes an entry into the set.
    pub fn add(&mut self, key: &Key, entry: &Entry) {
        self.0 = self.0.wrapping_add(hash(key, entry));
    }

    /// Takes an entry out of the set. It must be in it.
    pub fn remove(&mut self, key: &Key, entry: &Entry) {
        self.0 = self.0.wrapping_sub(hash(key, entry));
    }
}

fn hash(key: &Key, entry: &Entry) -> u64 {
    let mut hasher = Xxh3::new();
    // The length first: no two pairs of key and record give the same bytes.
    hasher.update(&(key.as_bytes().len() as u64).to_be_bytes());
    hasher.update(key.as_bytes());
    hasher.update(&entry.head());
    hasher.update(&entry.payload);
    hasher.digest()
}
