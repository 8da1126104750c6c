//! The entries below a path, in either order, down to some depth, from any of them on.

use std::ops::Bound;
use std::sync::Arc;

use crate::entries::Entries;
use crate::entry::Entry;
use crate::key::Key;
use crate::nodes::Tree;

/// Entries that are too deep, looked at before the rest of them is skipped by a search.
const STEPS_MAX: usize = 8;

/// Which entries below a path.
#[derive(Clone, Debug)]
pub struct Range {
    /// Only those behind this path, in the order asked for.
    pub after: Option<Key>,
    /// The last one first.
    pub reverse: bool,
    /// How many levels below the path: 1 for its direct children.
    pub depth: usize,
}

/// The entries that [`list`] gives.
pub struct Listing<'e> {
    entries: &'e Entries,
    rest: Option<imbl::ordmap::RangedIter<'e, Key, Arc<Entry>, imbl::shared_ptr::DefaultSharedPtr>>,
    prefix: Key,
    reverse: bool,
    depth: usize,
    in_vain: usize,
    steps: usize,
    steps_max: usize,
}

/// The entries below `prefix`, without its own.
pub fn list<'e>(entries: &'e Entries, prefix: &Key, range: &Range) -> Listing<'e> {
    let (mut from, mut to) = (prefix.clone(), prefix.after_subtree());
    match &range.after {
        Some(after) if range.reverse => to = to.min(after.clone()),
        Some(after) => from = from.max(after.clone()),
        None => {}
    }
    let rest = (from < to).then(|| entries.range((Bound::Excluded(from), Bound::Excluded(to))));
    let (reverse, depth) = (range.reverse, range.depth);
    Listing { entries, rest, prefix: prefix.clone(), reverse, depth, in_vain: 0, steps: 0, steps_max: usize::MAX }
}

/// The nodes below `prefix`, with a payload or without, without its own; `None` for one that is deeper than is asked for.
pub fn nodes<'e>(tree: Tree<'e>, prefix: &Key, range: &Range) -> Box<dyn Iterator<Item = Option<&'e Key>> + 'e> {
    let (mut from, mut to) = (prefix.clone(), prefix.after_subtree());
    match &range.after {
        Some(after) if range.reverse => to = to.min(after.clone()),
        Some(after) => from = from.max(after.clone()),
        None => {}
    }
    let (first, length, depth) = (from.clone(), prefix.as_bytes().len(), range.depth);
    // A zero ends a component, and stands nowhere in one.
    let levels = move |key: &Key| key.as_bytes().iter().skip(length).filter(|byte| **byte == 0).count();
    let below = tree.range(from, to).map(|(key, _entry)| key).filter(move |key| **key != first);
    let shown = move |key: &'e Key| (levels(key) <= depth).then_some(key);
    if range.reverse { Box::new(below.rev().map(shown)) } else { Box::new(below.map(shown)) }
}

impl Listing<'_> {
    /// The same, which ends after about so many steps, whether or not there is more.
    pub fn within(self, steps_max: usize) -> Self {
        Self { steps_max, ..self }
    }

    /// How many entries were looked at so far: a measure of the time it took.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The path above `key` that is as deep as is asked for, if `key` is deeper.
    fn too_deep(&self, key: &Key) -> Option<Key> {
        let length = self.prefix.as_bytes().len();
        let below = key.as_bytes().get(length..)?;
        // A zero ends a component, and stands nowhere in one.
        let mut ends = below.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(at, _)| at + 1);
        let end = ends.nth(self.depth.checked_sub(1)?)?;
        (end < below.len()).then(|| Key::from_bytes(key.as_bytes().get(..length + end).unwrap_or_default()))
    }

    fn skip(&mut self, above: &Key) {
        self.in_vain = 0;
        self.rest = Some(if self.reverse {
            self.entries.range((Bound::Excluded(self.prefix.clone()), Bound::Included(above.clone())))
        } else {
            self.entries.range((Bound::Included(above.after_subtree()), Bound::Excluded(self.prefix.after_subtree())))
        });
    }
}

impl<'e> Iterator for Listing<'e> {
    type Item = (&'e Key, &'e Arc<Entry>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.rest.as_mut()?;
            self.steps += 1;
            if self.steps > self.steps_max {
                return None;
            }
            let (key, entry) = if self.reverse { rest.next_back()? } else { rest.next()? };
            match self.too_deep(key) {
                None => {
                    self.in_vain = 0;
                    return Some((key, entry));
                }
                Some(above) if self.in_vain >= STEPS_MAX => self.skip(&above),
                Some(_) => self.in_vain += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Component;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn place() -> impl Strategy<Value = Vec<Component>> {
        let name = prop::sample::select(vec!["", "a", "b", "a\0"]);
        prop::collection::vec(name.prop_map(|name| Component::String(name.into())), 0..5)
    }

    proptest! {
        #[test]
        fn it_is_the_map_filtered(
            places in prop::collection::vec(place(), 0..60),
            (prefix, after) in (place(), prop::option::of(place())),
            (reverse, depth) in (any::<bool>(), 1usize..5),
        ) {
            let keys = places.iter().map(|place| Key::of(place));
            let entries: Entries = keys.map(|key| (key.clone(), Arc::new(Entry::created(&key, Bytes::new(), 1, 0)))).collect();
            let mut wanted: Vec<_> = entries.keys().map(|key| key.components().unwrap()).collect();
            wanted.retain(|place| place.starts_with(&prefix) && (1..=depth).contains(&(place.len() - prefix.len())));
            if let Some(after) = &after {
                wanted.retain(|place| if reverse { place < after } else { place > after });
            }
            if reverse {
                wanted.reverse();
            }
            let range = Range { after: after.map(|after| Key::of(&after)), reverse, depth };
            let found: Vec<_> = list(&entries, &Key::of(&prefix), &range).map(|(key, _)| key.components().unwrap()).collect();
            prop_assert_eq!(found, wanted);
        }
    }

    #[test]
    fn what_is_too_deep_is_skipped() {
        let places = (0..20u32).flat_map(|a| (0..100u32).map(move |b| [a, b]));
        let keys = places.map(|place| Key::of(&place.map(|n| Component::String(n.to_string().into_bytes()))));
        let entries: Entries =
            keys.map(|key| (key.clone(), Arc::new(Entry::created(&key, Bytes::new(), 1, 0)))).collect();
        for reverse in [false, true] {
            let mut listing = list(&entries, &Key::default(), &Range { after: None, reverse, depth: 1 });
            assert_eq!(listing.by_ref().count(), 0);
            assert!(listing.steps() < 250, "{} steps", listing.steps());
        }
    }
}
