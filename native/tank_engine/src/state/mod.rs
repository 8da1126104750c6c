//! The state that the log builds: entries, revision, and the requests that were applied.
//!
//! Applying ([`State::apply`]) is a pure function of the state, the command and the time in the log. The
//! state here lives in memory; [`crate::machine`] writes what changed to the disk.

mod apply;
mod digest;
mod sessions;

pub use apply::{Applied, Change};
pub use digest::Digest;
pub use sessions::{Remembered, SESSION_MS, Sessions};

use std::sync::Arc;

use imbl::OrdMap;

use crate::entry::Entry;
use crate::key::Key;

/// Everything that commands read and write.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Every entry, in the order of paths.
    pub entries: OrdMap<Key, Arc<Entry>>,
    /// +1 for each applied command that changed something.
    pub revision: u64,
    /// Hash of all entries.
    pub digest: Digest,
    /// Bytes of keys and payloads.
    pub bytes: u64,
    /// Requests that were applied and may be asked again.
    pub sessions: Sessions,
}

impl State {
    /// Takes over an entry read from a disk or a snapshot.
    pub fn load(&mut self, key: &Key, entry: Entry) {
        self.set(key, Some(Arc::new(entry)));
    }

    /// Replaces the entry at `key`, and keeps the sums right. Returns what was there.
    fn set(&mut self, key: &Key, entry: Option<Arc<Entry>>) -> Option<Arc<Entry>> {
        if let Some(new) = &entry {
            self.digest.add(key, new);
            self.bytes += size(key, new);
        }
        let old = match entry {
            Some(new) => self.entries.insert(key.clone(), new),
            None => self.entries.remove(key),
        };
        if let Some(old) = &old {
            self.digest.remove(key, old);
            self.bytes -= size(key, old);
        }
        old
    }
}

fn size(key: &Key, entry: &Entry) -> u64 {
    (key.as_bytes().len() + entry.payload.len()) as u64
}
