//! Which watches are of the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::sync::lock;

use super::Filter;

/// How many watches of each filter a store has.
#[derive(Debug, Default)]
pub struct AlikeWatches(Mutex<Groups>);

#[derive(Debug, Default)]
struct Groups {
    groups: HashMap<Filter, Group>,
    begun: u64,
}

#[derive(Debug)]
struct Group {
    number: u64,
    watches: usize,
}

/// Counts a watch as one of its group. Dropping it ends that.
#[derive(Debug)]
pub struct Alike {
    watches: Arc<AlikeWatches>,
    filter: Filter,
}

impl AlikeWatches {
    /// Counts a watch of `filter`.
    pub fn join(self: &Arc<Self>, filter: &Filter) -> Alike {
        let mut groups = lock(&self.0);
        let next = groups.begun + 1;
        let group = groups.groups.entry(filter.clone()).or_insert(Group { number: next, watches: 0 });
        group.watches += 1;
        let number = group.number;
        groups.begun = groups.begun.max(number);
        Alike { watches: Arc::clone(self), filter: filter.clone() }
    }
}

impl Alike {
    /// The number of the group, which no other group of this store has or had; `None` while there is no other watch of
    /// the same.
    pub fn group(&self) -> Option<u64> {
        let groups = lock(&self.watches.0);
        groups.groups.get(&self.filter).filter(|group| group.watches > 1).map(|group| group.number)
    }
}

impl Drop for Alike {
    fn drop(&mut self) {
        let mut groups = lock(&self.watches.0);
        let Some(group) = groups.groups.get_mut(&self.filter) else { return };
        group.watches -= 1;
        if group.watches == 0 {
            groups.groups.remove(&self.filter);
        }
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
    fn watches_of_the_same_are_a_group_and_one_alone_is_none() {
        let watches = Arc::new(AlikeWatches::default());
        let (one, other) = (watches.join(&filter("a")), watches.join(&filter("b")));
        assert_eq!((one.group(), other.group()), (None, None));
        let alike = watches.join(&filter("a"));
        assert!(one.group().is_some());
        assert_eq!((one.group(), other.group()), (alike.group(), None));
        drop(one);
        assert_eq!(alike.group(), None);
    }

    #[test]
    fn a_number_is_never_used_for_another_group() {
        let watches = Arc::new(AlikeWatches::default());
        let number = || {
            let pair = [watches.join(&filter("a")), watches.join(&filter("a"))];
            pair[0].group()
        };
        let former = number();
        assert!(lock(&watches.0).groups.is_empty());
        assert_ne!(number(), former);
    }
}
