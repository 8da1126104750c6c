//! How many children paths have, for commands that ask again and again.
//!
//! Counting 100,000 children takes milliseconds, and a hundred writers that all try to create one
//! path are all told how many it has. So a count that took long is kept, and kept right by what
//! comes and goes below. Only a cache: what is in it makes no difference to any answer.

use std::collections::HashMap;

use crate::entries::{self, Entries};
use crate::key::Key;
use crate::outcome::Found;

use super::State;

/// Fewer children than this are counted each time.
const MANY: u64 = 64;

/// The most paths whose count is kept.
const KEPT_MAX: usize = 256;

/// The counts that are kept.
#[derive(Clone, Debug, Default)]
pub(super) struct ChildCounts(HashMap<Key, u64>);

impl ChildCounts {
    /// Notes that the entry at `key` came, if it is in `entries`, or went.
    pub(super) fn note(&mut self, entries: &Entries, key: &Key) {
        if self.0.is_empty() {
            return;
        }
        let came = entries.contains_key(key);
        let mut child = key.clone();
        while let Some(parent) = child.parent() {
            // With others at or below it, the child was there before, and is still; so are those above.
            if entries::subtree(entries, &child).any(|(other, _)| other != key) {
                return;
            }
            if let Some(count) = self.0.get_mut(&parent) {
                *count = if came { count.saturating_add(1) } else { count.saturating_sub(1) };
            }
            child = parent;
        }
    }
}

impl State {
    /// How many direct children `key` has, with a value or without.
    pub(super) fn child_count(&mut self, key: &Key) -> u64 {
        if let Some(count) = self.child_counts.0.get(key) {
            return *count;
        }
        let count = entries::child_count(&self.entries, key);
        if count >= MANY {
            if self.child_counts.0.len() >= KEPT_MAX {
                self.child_counts.0.clear();
            }
            self.child_counts.0.insert(key.clone(), count);
        }
        count
    }

    /// The entry at `key`, as it is reported.
    pub(super) fn found(&mut self, key: &Key) -> Option<Found> {
        let entry = std::sync::Arc::clone(self.entries.get(key)?);
        let payload = entry.payload.in_memory();
        Some(Found { key: key.clone(), entry, payload, child_count: self.child_count(key) })
    }

    /// How many entries telling how many children `key` has looks at; a little above `max` at the most.
    pub(super) fn counting(&self, key: &Key, max: usize) -> usize {
        if self.child_counts.0.contains_key(key) {
            return 1;
        }
        entries::child_keys(&self.entries, key).take(max).count() + 1
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use tank_sim::Rng;

    use super::*;
    use crate::entry::Entry;
    use crate::key::Component;

    fn key(path: &[usize]) -> Key {
        Key::of(&path.iter().map(|name| Component::String(name.to_string().into_bytes())).collect::<Vec<_>>())
    }

    fn put(state: &mut State, key: &Key) {
        state.set(key, Some(Arc::new(Entry::created(key, Bytes::new(), 1, 0))));
    }

    #[test]
    fn a_count_that_is_kept_is_the_count() {
        let mut state = State::default();
        // Wide enough at each level that counts are kept.
        let paths: Vec<Key> =
            (0..100).flat_map(|i| [key(&[i]), key(&[0, i]), key(&[0, 0, i]), key(&[0, 1, i, 5])]).collect();
        paths.iter().for_each(|path| put(&mut state, path));
        let parents = [key(&[]), key(&[0]), key(&[0, 0]), key(&[0, 1]), key(&[7]), key(&[0, 1, 3])];
        let seed = tank_sim::rng::seed("TANK_SEED", 8);
        let mut rng = Rng::new(seed);
        for step in 0..20_000 {
            let path = &paths[rng.below(paths.len())];
            match rng.below(3) {
                0 => drop(state.set(path, None)),
                _ => put(&mut state, path),
            }
            let parent = &parents[rng.below(parents.len())];
            let counted = entries::child_count(&state.entries, parent);
            assert_eq!(state.child_count(parent), counted, "seed {seed}, step {step}: {parent:?}");
        }
        assert!(!state.child_counts.0.is_empty());
    }

    #[test]
    fn only_counts_that_took_long_are_kept() {
        let mut state = State::default();
        (0..63).for_each(|i| put(&mut state, &key(&[1, i])));
        assert_eq!((state.child_count(&key(&[1])), state.child_counts.0.len()), (63, 0));
        put(&mut state, &key(&[1, 63]));
        assert_eq!((state.child_count(&key(&[1])), state.counting(&key(&[1]), 1_000)), (64, 1));
        for parent in 2..400 {
            (0..64).for_each(|i| put(&mut state, &key(&[parent, i])));
            assert_eq!(state.child_count(&key(&[parent])), 64);
            assert!(state.child_counts.0.len() <= KEPT_MAX);
        }
    }
}
