//! A lease: a time-limited promise with an epoch.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

/// A granted lease. It ends by its holder's will, or when the leader has found by its monotonic
/// clock that no renewal came for `ttl_ms`; either stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its name.
    pub name: Bytes,
    /// Who holds it. Opaque.
    pub holder: Bytes,
    /// The store's revision when it was granted: higher than that of every grant before.
    pub epoch: u64,
    /// How long it lasts without a renewal, in milliseconds.
    pub ttl_ms: u64,
    /// How often it was renewed.
    pub renewals: u64,
}

impl Lease {
    /// Its part of the state's digest.
    pub fn hash(&self) -> u64 {
        let mut hasher = Xxh3::new();
        for bytes in [&self.name, &self.holder] {
            hasher.update(&(bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        }
        for number in [self.epoch, self.ttl_ms, self.renewals] {
            hasher.update(&number.to_be_bytes());
        }
        hasher.digest()
    }
}
