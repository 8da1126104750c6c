//! Which changes a watch delivers.

use std::sync::Arc;

use crate::entry::Entry;
use crate::key::Key;
use crate::state::Change;

use super::Revised;

/// What a watch is about.
#[derive(Clone, Debug)]
pub struct Filter {
    prefix: Key,
}

impl Filter {
    /// Everything at a path and below it.
    pub fn prefix(prefix: Key) -> Self {
        Self { prefix }
    }

    /// The path that all it passes is at or below.
    pub fn fixed(&self) -> &Key {
        &self.prefix
    }

    /// Whether it passes a path. Told without the entry: then nothing is read for what it does not
    /// pass.
    pub fn passes_key(&self, key: &Key) -> bool {
        key.is_within(&self.prefix)
    }

    /// Whether it passes an entry.
    pub fn passes_entry(&self, key: &Key, _entry: &Arc<Entry>) -> bool {
        self.passes_key(key)
    }

    /// Whether it passes a change: one to what it passes, or from it.
    pub fn passes(&self, change: &Change) -> bool {
        let passes = |entry: &Option<Arc<Entry>>| entry.as_ref().is_some_and(|e| self.passes_entry(&change.key, e));
        passes(&change.entry) || passes(&change.previous)
    }

    /// What it passes of a revision; `None` when that is nothing.
    pub(super) fn of(&self, revised: &Arc<Revised>) -> Option<Arc<Revised>> {
        let passed = revised.changes.iter().filter(|change| self.passes(change)).count();
        match passed {
            0 => None,
            all if all == revised.changes.len() => Some(Arc::clone(revised)),
            _ => {
                let changes = revised.changes.iter().filter(|change| self.passes(change)).cloned().collect();
                Some(Arc::new(Revised { revision: revised.revision, changes }))
            }
        }
    }
}
