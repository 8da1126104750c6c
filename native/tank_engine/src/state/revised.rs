//! All that one revision changed.

use std::sync::Arc;

use super::{Change, NodeStep};

/// What a change takes up besides its key and payloads, about.
const CHANGE_BYTES: usize = 200;

/// One revision: all that it changed, in the order of keys.
#[derive(Debug)]
pub struct Revised {
    /// Which.
    pub revision: u64,
    /// The changes.
    pub changes: Vec<Change>,
    /// What became of nodes besides. Only the newest revisions have it: the disk keeps the changes of entries.
    pub nodes: Vec<NodeStep>,
}

impl Revised {
    /// The bytes that it holds, about.
    pub fn bytes(&self) -> usize {
        let payload = |entry: &Option<Arc<crate::entry::Entry>>| entry.as_ref().map_or(0, |entry| entry.payload.len());
        let size = |change: &Change| {
            CHANGE_BYTES + change.key.as_bytes().len() + payload(&change.entry) + payload(&change.previous)
        };
        let changes: usize = self.changes.iter().map(size).sum();
        changes + self.nodes.iter().map(|step| CHANGE_BYTES + step.key.as_bytes().len()).sum::<usize>()
    }

    /// Whether there is a value that is not in memory.
    pub(crate) fn is_evicted(&self) -> bool {
        let mut entries = self.changes.iter().flat_map(|change| change.entry.iter().chain(&change.previous));
        entries.any(|entry| entry.is_evicted())
    }
}
