//! A hash of all entries and leases that is kept up to date with each change.
//!
//! The sum, modulo 2^64, of the XXH3 hash of each. Sums do not depend on the order of changes, so
//! the digest of a state read from the disk must equal the one that was written with it: entries
//! that a damaged database lost or brought back show here, although each single record is intact.
//! Members that have applied the same log have the same digest.

/// The hash of a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(u64);

impl Digest {
    /// The hash as a number.
    pub fn value(self) -> u64 {
        self.0
    }

    /// Takes what has this hash into the set.
    pub fn add(&mut self, hash: u64) {
        self.0 = self.0.wrapping_add(hash);
    }

    /// Takes what has this hash out of the set. It must be in it.
    pub fn remove(&mut self, hash: u64) {
        self.0 = self.0.wrapping_sub(hash);
    }
}
