//! Reads payloads that are not in memory back from the database.

use std::sync::{Arc, Weak};

use bytes::Bytes;

use crate::entry::Entry;
use crate::error::EngineError;
use crate::key::Key;

use super::checkpoint::Checkpoints;
use super::version_key;

/// The entries' versions of an open store. Does not keep it open: views, which have one of these, may live longer.
#[derive(Clone, Debug)]
pub struct Versions {
    checkpoints: Weak<Checkpoints>,
    generation: u64,
}

impl Versions {
    pub(super) fn new(checkpoints: &Arc<Checkpoints>) -> Self {
        let generation = checkpoints.store().generation();
        Self { checkpoints: Arc::downgrade(checkpoints), generation }
    }

    /// The payload of the entry, which is at `key`: from memory, or else from the disk, and then
    /// kept in memory again, if there is room. `None` when that version was compacted since.
    ///
    /// # Errors
    /// The store is closed, or the disk's.
    pub fn payload(&self, key: &Key, entry: &Entry) -> Result<Option<Bytes>, EngineError> {
        if let Some(payload) = entry.payload.in_memory() {
            return Ok(Some(payload));
        }
        let checkpoints = self.checkpoints.upgrade().ok_or(EngineError::Closed)?;
        let store = checkpoints.store();
        // A snapshot that was installed since took the place of all versions.
        let Some(family) = store.family().ok().filter(|_| store.generation() == self.generation) else {
            return Ok(None);
        };
        let record = store
            .db()
            .get_pinned_cf(&family, version_key::of(key, entry.revision))
            .map_err(|error| EngineError::from_rocks_read("state", &error))?;
        let Some(record) = record else { return Ok(None) };
        let read = Entry::from_record(key, &record)?;
        if read.hash() != entry.hash() {
            let detail = format!("the entry of revision {} is another one on the disk", entry.revision);
            return Err(EngineError::Corrupt { what: "state", detail });
        }
        let payload = read.payload.in_memory();
        if let Some(payload) = &payload {
            entry.payload.restore(payload);
        }
        Ok(payload)
    }
}
