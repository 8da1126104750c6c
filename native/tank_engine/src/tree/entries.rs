//! The entries of a store in the order of their paths, and what the tree they make looks like.
//!
//! Only paths with a value are entries. A path without one exists as long as there is an entry
//! below it.

use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;

use crate::entry::Entry;
use crate::key::{Key, first_component, is_one_component};

/// Entries by path. Cloning costs nothing.
pub type Entries = OrdMap<Key, Arc<Entry>>;

/// Entries of one child looked at one by one before the rest of them is skipped by a search.
const STEPS_MAX: usize = 8;

/// The entries at `prefix` and below, in order.
pub fn subtree<'e>(entries: &'e Entries, prefix: &Key) -> impl Iterator<Item = (&'e Key, &'e Arc<Entry>)> + use<'e> {
    entries.range(prefix.clone()..prefix.after_subtree())
}

/// The entries directly below `prefix`, each with the encoding of its last component.
pub fn children<'e>(entries: &'e Entries, prefix: &Key) -> impl Iterator<Item = (&'e [u8], &'e Arc<Entry>)> + use<'e> {
    let prefix_bytes = prefix.as_bytes().len();
    subtree(entries, prefix).filter_map(move |(key, entry)| {
        let leaf = key.as_bytes().get(prefix_bytes..)?;
        is_one_component(leaf).then_some((leaf, entry))
    })
}

/// How many direct children `prefix` has, with a value or without.
pub fn child_count(entries: &Entries, prefix: &Key) -> u64 {
    child_keys(entries, prefix).fold(0, |count, _| count + 1)
}

/// The paths of the direct children of `prefix`, with a value or without, in order.
pub fn child_keys<'e>(entries: &'e Entries, prefix: &Key) -> ChildKeys<'e> {
    let rest = entries.range((Bound::Excluded(prefix.clone()), Bound::Excluded(prefix.after_subtree())));
    ChildKeys { entries, rest, prefix: prefix.clone(), last: None }
}

/// Whether there is an entry at or below `prefix`.
pub fn exists(entries: &Entries, prefix: &Key) -> bool {
    subtree(entries, prefix).next().is_some()
}

/// See [`child_keys`].
pub struct ChildKeys<'e> {
    entries: &'e Entries,
    rest: imbl::ordmap::RangedIter<'e, Key, Arc<Entry>, imbl::shared_ptr::DefaultSharedPtr>,
    prefix: Key,
    last: Option<Key>,
}

impl Iterator for ChildKeys<'_> {
    type Item = Key;

    fn next(&mut self) -> Option<Key> {
        let mut steps = 0;
        loop {
            let (key, _) = self.rest.next()?;
            match &self.last {
                Some(last) if key.is_within(last) && steps < STEPS_MAX => steps += 1,
                Some(last) if key.is_within(last) => {
                    let behind = (Bound::Included(last.after_subtree()), Bound::Excluded(self.prefix.after_subtree()));
                    self.rest = self.entries.range(behind);
                    steps = 0;
                }
                _ => {
                    let below = key.as_bytes().get(self.prefix.as_bytes().len()..)?;
                    let child = first_component(below)?;
                    let length = self.prefix.as_bytes().len() + child.len();
                    let child = Key::from_bytes(key.as_bytes().get(..length)?);
                    self.last = Some(child.clone());
                    return Some(child);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn key(path: &str) -> Key {
        let bytes: String = path.split('/').filter(|s| !s.is_empty()).map(|s| format!("\x02{s}\0")).collect();
        Key::from_bytes(bytes.as_bytes())
    }

    fn entries(paths: &[&str]) -> Entries {
        paths.iter().map(|path| (key(path), Arc::new(Entry::created(&key(path), Bytes::new(), 1, 0)))).collect()
    }

    #[test]
    fn children_are_counted_with_a_value_or_without() {
        let deep: Vec<String> = (0..100).map(|i| format!("a/b/{i}")).collect();
        let mut paths: Vec<&str> = deep.iter().map(String::as_str).collect();
        paths.extend(["a", "a/b", "a/c/d/e", "a/d", "ab", "b/x"]);
        let entries = entries(&paths);
        assert_eq!(child_keys(&entries, &key("a")).collect::<Vec<_>>(), [key("a/b"), key("a/c"), key("a/d")]);
        assert_eq!(child_count(&entries, &key("")), 3);
        assert_eq!(child_count(&entries, &key("a/b")), 100);
        assert_eq!(child_count(&entries, &key("a/d")), 0);
        assert_eq!(child_count(&entries, &key("none")), 0);
        assert!(exists(&entries, &key("a/c")) && !exists(&entries, &key("c")));
    }
}
