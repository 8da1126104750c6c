//! Finding the nodes that match: one pass over the entries, which skips what cannot match.

use std::borrow::Cow;
use std::ops::Bound;
use std::sync::Arc;

use crate::entry::Entry;
use crate::key::{Component, Key, first_component};
use crate::nodes::{Leaves, Tree};

use super::{Next, Pattern, States};

/// Entries below a node that cannot match, looked at before the rest of them is skipped by a
/// search: mostly there are none.
const STEPS_MAX: usize = 8;

/// A path with a value, with something below it, or written without a value.
#[derive(Clone, Debug)]
pub struct Node<'e> {
    /// The path.
    pub key: Cow<'e, Key>,
    /// The encoding of its last component; empty for the root.
    pub(super) name: &'e [u8],
    /// Its entry, if it has a value.
    pub entry: Option<&'e Arc<Entry>>,
}

/// The nodes that match a pattern, in the order of paths.
pub struct Walk<'e, 'p> {
    pattern: &'p Pattern,
    tree: Tree<'e>,
    rest: Leaves<'e>,
    /// The leaf whose path is being looked at, one level after the other.
    current: Option<(&'e Key, Option<&'e Arc<Entry>>)>,
    /// The nodes from the root to the one looked at last, whose key is `path`.
    levels: Vec<Level>,
    path: Vec<u8>,
    after: Option<Key>,
    /// Whether the root was looked at.
    begun: bool,
    /// Entries looked at below a node that cannot match.
    in_vain: usize,
    steps: usize,
    steps_max: usize,
}

/// A node on the way down.
struct Level {
    /// Of its key.
    length: usize,
    /// What its children may go on from.
    states: States,
}

impl<'e> Node<'e> {
    /// The node at a path.
    pub(crate) fn at(tree: Tree<'e>, key: &'e Key) -> Self {
        Self { entry: tree.entries.get(key), key: Cow::Borrowed(key), name: key.name() }
    }

    /// The text of its last component.
    pub(super) fn text(&self) -> Cow<'e, [u8]> {
        match self.name {
            [_tag, plain @ .., 0] if !plain.contains(&1) => Cow::Borrowed(plain),
            escaped => match Key::from_bytes(escaped).components().unwrap_or_default().pop() {
                Some(Component::Atom(text) | Component::String(text)) => Cow::Owned(text),
                None => Cow::Borrowed(&[]),
            },
        }
    }
}

impl<'e, 'p> Walk<'e, 'p> {
    pub(super) fn new(pattern: &'p Pattern, tree: Tree<'e>, after: Option<Key>) -> Self {
        let from = after.clone().map_or(Bound::Unbounded, Bound::Excluded);
        Self {
            pattern,
            tree,
            rest: tree.leaves(from),
            current: None,
            levels: vec![Level { length: 0, states: pattern.beyond(States::START) }],
            path: Vec::new(),
            begun: after.is_some(),
            after,
            in_vain: 0,
            steps: 0,
            steps_max: usize::MAX,
        }
    }

    /// The same, which ends after about so many steps, whether or not there is more.
    pub fn within(self, steps_max: usize) -> Self {
        Self { steps_max, ..self }
    }

    /// How many entries were looked at or searched so far: a measure of the time it took.
    pub fn steps(&self) -> usize {
        self.steps
    }

    fn root(&self) -> Option<Node<'e>> {
        let root = Key::default();
        let matches = self.pattern.is_whole(States::START) && self.tree.exists(&root);
        matches.then(|| Node { entry: self.tree.entries.get(&root), key: Cow::Owned(root), name: &[] })
    }

    /// Takes the next entry, and goes up to the node that it is below.
    fn advance(&mut self) -> Option<(&'e Key, Option<&'e Arc<Entry>>)> {
        self.steps += 1;
        if self.steps > self.steps_max {
            return None;
        }
        let (key, entry) = self.rest.next()?;
        let above =
            |level: &Level, path: &[u8]| path.get(..level.length).is_some_and(|p| key.as_bytes().starts_with(p));
        while self.levels.len() > 1 && self.levels.last().is_some_and(|level| !above(level, &self.path)) {
            self.levels.pop();
        }
        self.path.truncate(self.levels.last().map_or(0, |level| level.length));
        self.current = Some((key, entry));
        self.current
    }

    /// Goes on at `from`.
    fn seek(&mut self, from: Key) {
        self.steps += 1;
        self.in_vain = 0;
        self.rest = self.tree.leaves(Bound::Included(from));
        self.current = None;
    }

    /// Leaves the node looked at last, none of whose children can match.
    fn leave(&mut self) {
        self.in_vain += 1;
        self.current = None;
        if self.in_vain > STEPS_MAX {
            self.seek(Key::from_bytes(&self.path).after_subtree());
        }
    }

    /// Looks at the next level of the current entry's path: a node that matches, if it does.
    fn descend(&mut self, key: &'e Key, entry: Option<&'e Arc<Entry>>, level: (usize, States)) -> Option<Node<'e>> {
        let (length, states) = level;
        let Some(name) = key.as_bytes().get(length..).and_then(first_component) else {
            // It is the root itself.
            self.current = None;
            return None;
        };
        if states.is_empty() {
            self.leave();
            return None;
        }
        match self.pattern.next_name(states, name) {
            Next::Any | Next::This => {}
            Next::Skip(next) => {
                self.seek(Key::from_bytes(&[self.path.as_slice(), next].concat()));
                return None;
            }
            Next::Over => {
                self.seek(Key::from_bytes(&self.path).after_subtree());
                return None;
            }
        }
        self.path.extend_from_slice(name);
        let node = if self.path.len() == key.as_bytes().len() {
            // With it, the current entry is looked at.
            self.current = None;
            Node { key: Cow::Borrowed(key), name, entry }
        } else {
            let key = Key::from_bytes(&self.path);
            Node { entry: self.tree.entries.get(&key), key: Cow::Owned(key), name }
        };
        let states = self.pattern.step(states, self.tree, &node);
        self.in_vain = 0;
        self.levels.push(Level { length: self.path.len(), states: self.pattern.beyond(states) });
        let behind = self.after.as_ref().is_none_or(|after| *node.key > *after);
        (behind && self.pattern.is_whole(states)).then_some(node)
    }
}

impl<'e> Iterator for Walk<'e, '_> {
    type Item = Node<'e>;

    fn next(&mut self) -> Option<Node<'e>> {
        if !self.begun {
            self.begun = true;
            if let Some(root) = self.root() {
                return Some(root);
            }
        }
        loop {
            let (key, entry) = match self.current {
                Some(current) => current,
                None => self.advance()?,
            };
            let level = self.levels.last().map(|level| (level.length, level.states))?;
            // At the root, nothing more can match.
            if level.0 == 0 && level.1.is_empty() {
                return None;
            }
            if let Some(node) = self.descend(key, entry, level) {
                return Some(node);
            }
        }
    }
}
