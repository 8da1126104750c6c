//! What is made of changes, once for all watches of the same.
//!
//! A thousand processes that watch one path are told of a change at the same time. To read and decode its values for each
//! would take most of the time: so the first keeps what it made, and the others take that. Who watches alone keeps
//! nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use crate::sync::lock;

use super::Filter;

/// Bytes of a store's changes that are kept, about: those behind which most watches of a path are.
const BYTES_MAX: usize = 2 << 20;

/// What a thing that is made takes up besides its values, about.
const OVERHEAD_BYTES: usize = 1 << 10;

/// What was made of the newest changes for the watches of a store.
#[derive(Debug)]
pub struct SharedChanges<T>(Mutex<Shared<T>>);

#[derive(Debug)]
struct Shared<T> {
    groups: HashMap<Filter, Group>,
    groups_begun: u64,
    made: Made<T>,
}

/// The watches of the same.
#[derive(Debug)]
struct Group {
    number: u64,
    watches: usize,
}

/// A watch's membership of its group. Dropping it ends that.
#[derive(Debug)]
pub struct Sharing<T> {
    changes: Arc<SharedChanges<T>>,
    filter: Filter,
    group: u64,
}

/// A group, and a revision that something was made of for it.
type Place = (u64, u64);

/// What was made, by its place; the oldest goes first.
#[derive(Debug)]
struct Made<T> {
    things: HashMap<Place, T>,
    order: VecDeque<(Place, usize)>,
    bytes: usize,
}

impl<T> Default for SharedChanges<T> {
    fn default() -> Self {
        Self(Mutex::new(Shared { groups: HashMap::new(), groups_begun: 0, made: Made::default() }))
    }
}

impl<T: Clone> SharedChanges<T> {
    /// Makes a watch of `filter` share with others of the same.
    pub fn join(self: &Arc<Self>, filter: &Filter) -> Sharing<T> {
        let mut shared = lock(&self.0);
        let next = shared.groups_begun;
        let group = shared.groups.entry(filter.clone()).or_insert(Group { number: next, watches: 0 });
        group.watches += 1;
        let group = group.number;
        shared.groups_begun = next.max(group + 1);
        Sharing { changes: Arc::clone(self), filter: filter.clone(), group }
    }
}

impl<T: Clone> Sharing<T> {
    /// What another watch made of the revision.
    pub fn get(&self, revision: u64) -> Option<T> {
        lock(&self.changes.0).made.things.get(&(self.group, revision)).cloned()
    }

    /// Keeps what `make` makes of a revision of so many bytes, if there are other watches of the same.
    pub fn keep(&self, revision: u64, bytes: usize, make: impl FnOnce() -> T) {
        if self.is_alone() || bytes > BYTES_MAX {
            return;
        }
        let made = make();
        // Dropped without the lock.
        let _out = lock(&self.changes.0).made.push((self.group, revision), bytes + OVERHEAD_BYTES, made);
    }

    fn is_alone(&self) -> bool {
        lock(&self.changes.0).groups.get(&self.filter).is_none_or(|group| group.watches < 2)
    }
}

impl<T> Drop for Sharing<T> {
    fn drop(&mut self) {
        let mut shared = lock(&self.changes.0);
        let Some(group) = shared.groups.get_mut(&self.filter) else { return };
        group.watches -= 1;
        let left = group.watches;
        if left == 0 {
            shared.groups.remove(&self.filter);
        }
        let out = if left == 1 { shared.made.forget(self.group) } else { Vec::new() };
        drop(shared);
        drop(out);
    }
}

impl<T> Default for Made<T> {
    fn default() -> Self {
        Self { things: HashMap::new(), order: VecDeque::new(), bytes: 0 }
    }
}

impl<T> Made<T> {
    /// Adds a thing, unless there is one at its place. Returns what there is no room for any more.
    fn push(&mut self, place: Place, bytes: usize, thing: T) -> Vec<T> {
        if self.things.contains_key(&place) {
            return vec![thing];
        }
        self.things.insert(place, thing);
        self.order.push_back((place, bytes));
        self.bytes += bytes;
        let mut out = Vec::new();
        while self.bytes > BYTES_MAX + OVERHEAD_BYTES {
            let Some((oldest, bytes)) = self.order.pop_front() else { break };
            self.bytes -= bytes;
            out.extend(self.things.remove(&oldest));
        }
        out
    }

    /// Takes out all of a group.
    fn forget(&mut self, group: u64) -> Vec<T> {
        let order = std::mem::take(&mut self.order).into_iter();
        let (of_group, others): (VecDeque<_>, VecDeque<_>) = order.partition(|(place, _)| place.0 == group);
        self.order = others;
        self.bytes -= of_group.iter().map(|(_, bytes)| bytes).sum::<usize>();
        of_group.iter().filter_map(|(place, _)| self.things.remove(place)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::key::{Component, Key};

    fn filter(name: &str) -> Filter {
        Filter::prefix(Key::of(&[Component::String(name.as_bytes().to_vec())]))
    }

    #[test]
    fn what_one_made_others_of_the_same_get() {
        let changes = Arc::new(SharedChanges::default());
        let (one, other) = (changes.join(&filter("a")), changes.join(&filter("b")));
        one.keep(1, 10, || panic!("nobody would get it"));
        let alike = changes.join(&filter("a"));
        one.keep(2, 10, || "two");
        alike.keep(2, 10, || "two again");
        assert_eq!((alike.get(1), alike.get(2), one.get(2), other.get(2)), (None, Some("two"), Some("two"), None));
        alike.keep(3, BYTES_MAX + 1, || panic!("it is too large"));
        drop(one);
        assert_eq!(alike.get(2), None, "nobody else would get it");
    }

    #[test]
    fn a_group_lasts_as_long_as_one_of_its_watches() {
        let changes = Arc::new(SharedChanges::<()>::default());
        let watches = [changes.join(&filter("a")), changes.join(&filter("a"))];
        let former = watches.each_ref().map(|watch| watch.group);
        assert_eq!(former[0], former[1]);
        drop(watches);
        assert!(lock(&changes.0).groups.is_empty());
        assert_ne!(changes.join(&filter("a")).group, former[0]);
    }

    #[test]
    fn the_oldest_goes_when_there_is_no_room() {
        let mut made = Made::default();
        assert!(made.push((1, 1), BYTES_MAX / 2, "one").is_empty());
        assert_eq!(made.push((1, 1), BYTES_MAX / 2, "again"), ["again"]);
        assert!(made.push((1, 2), BYTES_MAX / 2, "two").is_empty());
        assert_eq!(made.push((2, 2), BYTES_MAX / 2, "three"), ["one"]);
        assert_eq!(made.push((2, 3), BYTES_MAX + OVERHEAD_BYTES, "four"), ["two", "three"]);
        assert_eq!((made.things.len(), made.order.len(), made.bytes), (1, 1, BYTES_MAX + OVERHEAD_BYTES));
    }

    #[test]
    fn a_group_is_forgotten_as_a_whole() {
        let mut made = Made::default();
        for revision in 1..=3 {
            made.push((1, revision), 10, revision);
            made.push((2, revision), 10, 10 * revision);
        }
        assert_eq!(made.forget(1), [1, 2, 3]);
        assert_eq!((made.things.len(), made.order.len(), made.bytes), (3, 3, 30));
    }
}
