//! When entries were last changed, told in nanoseconds: so that a reader may keep what it read, and
//! use it again while that is still what the store holds.
//!
//! Paths share slots, by a hash. A slot holds the last revision that changed one of its entries; it is
//! set before the view with that change is published. So while a slot is no newer than a view, its
//! entries are in the current view what they were in that one.

use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64;

use crate::key::Key;

/// With a hundred thousand entries that are read, one that is written makes one or two others be
/// read anew. Of their 512 KiB, only what is written to takes up memory.
const SLOTS: usize = 1 << 16;

/// The last revision that changed an entry, for groups of entries.
#[derive(Debug)]
pub struct LastChanged {
    slots: Box<[AtomicU64]>,
    /// No entry is known to be unchanged since before it.
    floor: AtomicU64,
}

impl Default for LastChanged {
    fn default() -> Self {
        Self { slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(), floor: AtomicU64::new(0) }
    }
}

impl LastChanged {
    /// The slot of the entry with this key.
    #[expect(clippy::cast_possible_truncation, reason = "the lower bits of a hash")]
    pub fn slot(key: &[u8]) -> u32 {
        xxh3_64(key) as u32 % SLOTS as u32
    }

    /// Whether the entries of a slot are what they were at `revision`.
    pub fn is_unchanged(&self, slot: u32, revision: u64) -> bool {
        let newest = |cell: &AtomicU64| cell.load(Ordering::Acquire) <= revision;
        newest(&self.floor) && self.slots.get(slot as usize).is_some_and(newest)
    }

    /// An entry changes with the view that is published next, of `revision` or later.
    pub(crate) fn note(&self, key: &Key, revision: u64) {
        if let Some(slot) = self.slots.get(Self::slot(key.as_bytes()) as usize) {
            slot.store(revision, Ordering::Release);
        }
    }

    /// Any entry may be another one in the view that is published next, of `revision`.
    pub(crate) fn reset(&self, revision: u64) {
        self.floor.store(revision, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> Key {
        Key::from_bytes(format!("\x02{n}\0").as_bytes())
    }

    fn slot(n: u32) -> u32 {
        LastChanged::slot(key(n).as_bytes())
    }

    #[test]
    fn an_entry_is_unchanged_until_it_is_noted() {
        let changed = LastChanged::default();
        assert!(changed.is_unchanged(slot(1), 0));
        changed.note(&key(1), 5);
        assert!(!changed.is_unchanged(slot(1), 4));
        assert!(changed.is_unchanged(slot(1), 5), "read from the view that has the change");
        assert!(changed.is_unchanged(slot(2), 4), "another entry");
        assert!(!changed.is_unchanged(u32::MAX, 5), "no slot of ours");
    }

    #[test]
    fn nothing_is_unchanged_since_before_a_reset() {
        let changed = LastChanged::default();
        changed.reset(7);
        assert!(!changed.is_unchanged(slot(1), 6) && changed.is_unchanged(slot(1), 7));
    }

    #[test]
    fn slots_are_used_evenly() {
        let mut used: Vec<u32> = (0..10_000).map(slot).collect();
        used.sort_unstable();
        used.dedup();
        // 9,279 are expected of random ones.
        assert!(used.len() > 9_000, "{}", used.len());
    }
}
