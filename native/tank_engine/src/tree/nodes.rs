//! Nodes: paths that are there, with a payload or without.
//!
//! An entry is a path with a payload. A **node** is a path that has an entry, has children, or was written without a
//! payload. There are three kinds:
//!
//! | node | has an entry | goes |
//! |---|---|---|
//! | written with a payload | yes | when it is deleted |
//! | written without a payload, or cleared | no | when it is deleted |
//! | made on the way to another one | no, unless it was written since | also with its last child, while it has no payload |
//!
//! [`Nodes`] holds what entries do not: the children of a node, and the conditions that keep it. There is a record only
//! where that differs from a leaf with a payload, so a store of many leaves has few records.

use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::entries::Entries;
use crate::entry::Entry;
use crate::key::Key;

use super::Digest;

pub use super::keep_while::{KEEP_WHILE_MAX, KeepCondition, KeepWhile};

/// The kind of no payload.
pub const NO_PAYLOAD: u8 = 0;
/// The kind of an ordinary payload. What higher kinds mean is the writer's own business.
pub const VALUE: u8 = 1;
/// In a write: whatever the node has. Only its conditions are written, and nothing where there is no node.
pub const AS_IT_IS: u8 = 255;

/// What a node has besides its entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its direct children.
    pub children: u64,
    /// 1 when it was created; one more for each command that added or removed children.
    pub child_list_version: u64,
    /// Its payload version before its entry was created. The entry's own version counts on from here.
    pub versions_before: u64,
    /// Whether it stays without a payload and without children.
    pub stays: bool,
    /// The kind of its payload; what it is without an entry has no meaning.
    pub kind: u8,
    /// What must hold for it to stay.
    pub keep_while: Option<KeepWhile>,
}

/// That a node's conditions name another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Watched {
    /// The path that the condition begins with, up to its first wildcard.
    pub(crate) path: Key,
    /// Whether there is more behind that.
    pub(crate) is_pattern: bool,
    /// The node that has the condition.
    pub(crate) holder: Key,
}

/// All records, by path. Cloning costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    records: OrdMap<Key, Node>,
    /// Nodes with neither an entry nor children.
    bare: OrdSet<Key>,
    /// Who must be looked at when a node changes.
    pub(crate) watched: OrdSet<Watched>,
    digest: Digest,
}

/// The nodes of a state or a view: its entries, and what it has besides.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'e> {
    /// Every path with a payload.
    pub entries: &'e Entries,
    /// What entries do not say.
    pub nodes: &'e Nodes,
}

impl Node {
    /// A leaf that was written: what a path with an entry and without a record is.
    pub(crate) fn written() -> Self {
        let (children, child_list_version, versions_before) = (0, 1, 0);
        Self { children, child_list_version, versions_before, stays: true, kind: VALUE, keep_while: None }
    }

    /// A node that is made on the way to its first child, and the root of a store that was never written to.
    pub(crate) fn on_the_way() -> Self {
        Self { versions_before: 1, stays: false, ..Self::written() }
    }

    /// The hash of the node and its path.
    fn hash(&self, key: &Key) -> u64 {
        let mut hasher = Xxh3::new();
        hasher.update(&(key.as_bytes().len() as u64).to_be_bytes());
        hasher.update(key.as_bytes());
        let kept = self.keep_while.as_ref().map_or(0, KeepWhile::hash);
        for number in [self.children, self.child_list_version, self.versions_before, kept] {
            hasher.update(&number.to_be_bytes());
        }
        hasher.update(&[u8::from(self.stays), self.kind]);
        hasher.digest()
    }
}

impl Nodes {
    /// The nodes of entries that were written without a look at them, as stores before this format were.
    pub fn of(entries: &Entries) -> Self {
        let mut nodes = Self::default();
        for key in entries.keys() {
            let mut child = key.clone();
            while let Some(parent) = child.parent() {
                let is_new = nodes.get(&parent).is_none();
                let was_there = entries.contains_key(&parent);
                let fresh = if was_there && !parent.is_root() { Node::written() } else { Node::on_the_way() };
                let mut node = nodes.get(&parent).cloned().unwrap_or(fresh);
                node.children += 1;
                nodes.set(&parent, Some(node), was_there);
                if !is_new || was_there {
                    break;
                }
                child = parent;
            }
        }
        nodes
    }

    /// The record of a node, if it has one.
    pub fn get(&self, key: &Key) -> Option<&Node> {
        self.records.get(key)
    }

    /// All records, in the order of paths.
    pub fn records(&self) -> impl Iterator<Item = (&Key, &Node)> {
        self.records.iter()
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The records at a path and below.
    pub(crate) fn subtree(&self, prefix: &Key) -> impl Iterator<Item = (&Key, &Node)> {
        self.records.range(prefix.clone()..prefix.after_subtree())
    }

    /// A hash of all records.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// How many direct children a path has.
    pub fn child_count(&self, key: &Key) -> u64 {
        self.records.get(key).map_or(0, |node| node.children)
    }

    /// Replaces the record of a node, which has an entry or not.
    pub(crate) fn set(&mut self, key: &Key, node: Option<Node>, has_entry: bool) {
        let node = node.filter(|node| !has_entry || *node != Node::written());
        let is_bare = node.as_ref().is_some_and(|node| !has_entry && node.children == 0 && node.stays);
        if is_bare {
            self.bare.insert(key.clone());
        } else if !self.bare.is_empty() {
            self.bare.remove(key);
        }
        if let Some(new) = &node {
            self.digest.add(new.hash(key));
        }
        let kept = node.as_ref().and_then(|node| node.keep_while.clone());
        let old = match node {
            Some(new) => self.records.insert(key.clone(), new),
            None => self.records.remove(key),
        };
        if let Some(old) = &old {
            self.digest.remove(old.hash(key));
        }
        self.watch(key, old.and_then(|old| old.keep_while).as_ref(), kept.as_ref());
    }

    fn watch(&mut self, holder: &Key, old: Option<&KeepWhile>, new: Option<&KeepWhile>) {
        if old == new {
            return;
        }
        for watched in old.iter().flat_map(|old| old.watched(holder)) {
            self.watched.remove(&watched);
        }
        for watched in new.iter().flat_map(|new| new.watched(holder)) {
            self.watched.insert(watched);
        }
    }

    /// The nodes whose conditions name exactly this path.
    pub(crate) fn holders_of(&self, path: &Key) -> impl Iterator<Item = &Key> {
        let first = |is_pattern| Watched { path: path.clone(), is_pattern, holder: Key::default() };
        self.watched.range(first(false)..first(true)).map(|watched| &watched.holder)
    }

    /// The nodes whose conditions name this path or one below it, also with wildcards behind that.
    pub(crate) fn holders_within(&self, path: &Key) -> impl Iterator<Item = &Key> {
        let first = |path| Watched { path, is_pattern: false, holder: Key::default() };
        self.watched.range(first(path.clone())..first(path.after_subtree())).map(|watched| &watched.holder)
    }
}

impl<'e> Tree<'e> {
    /// Whether there is a node: an entry, a child, or one that was written without a payload.
    pub fn exists(&self, key: &Key) -> bool {
        self.entries.contains_key(key) || self.nodes.get(key).is_some_and(|node| node.children > 0 || node.stays)
    }

    /// How many direct children a path has.
    pub fn child_count(&self, key: &Key) -> u64 {
        self.nodes.child_count(key)
    }

    /// The record of a path, or what a node without one is.
    pub fn node(&self, key: &Key) -> Node {
        match self.nodes.get(key) {
            Some(node) => node.clone(),
            None if self.entries.contains_key(key) && !key.is_root() => Node::written(),
            None => Node::on_the_way(),
        }
    }

    /// How often the payload of a node was changed since the node was created, with that; 0 without a node.
    pub fn payload_version(&self, key: &Key) -> u64 {
        let entry = self.entries.get(key).map_or(0, |entry| entry.version);
        match self.nodes.get(key) {
            Some(node) => node.versions_before.saturating_add(entry),
            None if key.is_root() => entry.saturating_add(1),
            None => entry,
        }
    }

    /// How often children came or went; 0 without a node.
    pub fn child_list_version(&self, key: &Key) -> u64 {
        match self.nodes.get(key) {
            Some(node) => node.child_list_version,
            None => u64::from(key.is_root() || self.entries.contains_key(key)),
        }
    }

    /// The kind of the payload; [`NO_PAYLOAD`] without one.
    pub fn kind(&self, key: &Key) -> u8 {
        if !self.entries.contains_key(key) {
            return NO_PAYLOAD;
        }
        self.nodes.get(key).map_or(VALUE, |node| node.kind)
    }

    /// The paths of all nodes at `prefix` and below, each with its entry if it has one, in the order of paths.
    pub fn subtree(
        &self,
        prefix: &Key,
    ) -> impl DoubleEndedIterator<Item = (&'e Key, Option<&'e Arc<Entry>>)> + use<'e> {
        self.range(prefix.clone(), prefix.after_subtree())
    }

    /// The same of all paths from `from` on that are before `to`.
    pub fn range(
        &self,
        from: Key,
        to: Key,
    ) -> impl DoubleEndedIterator<Item = (&'e Key, Option<&'e Arc<Entry>>)> + use<'e> {
        let (from, to) = if from < to { (from, to) } else { (to.clone(), to) };
        let entries = self.entries.range(from.clone()..to.clone()).map(|(key, entry)| (key, Some(entry)));
        let is_node = |(_, node): &(&Key, &Node)| node.children > 0 || node.stays;
        let nodes = self.nodes.records.range(from..to).filter(is_node).map(|(key, _)| (key, None));
        Merged::new(entries, nodes)
    }
}

/// The paths with an entry and the bare nodes from one on, in order: all nodes are on the way to one of them.
pub(crate) struct Leaves<'e> {
    entries: Peekable<imbl::ordmap::RangedIter<'e, Key, Arc<Entry>, imbl::shared_ptr::DefaultSharedPtr>>,
    /// Most stores have none.
    bare: Option<Peekable<Box<dyn Iterator<Item = &'e Key> + 'e>>>,
}

impl<'e> Tree<'e> {
    /// See [`Leaves`].
    pub(crate) fn leaves(&self, from: Bound<Key>) -> Leaves<'e> {
        let bare = || Box::new(self.nodes.bare.range((from.clone(), Bound::Unbounded))) as Box<dyn Iterator<Item = _>>;
        let bare = (!self.nodes.bare.is_empty()).then(|| bare().peekable());
        Leaves { entries: self.entries.range((from, Bound::Unbounded)).peekable(), bare }
    }
}

impl<'e> Iterator for Leaves<'e> {
    type Item = (&'e Key, Option<&'e Arc<Entry>>);

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(bare) = &mut self.bare
            && let Some(key) = bare.peek()
            && self.entries.peek().is_none_or(|(other, _)| key < other)
        {
            return bare.next().map(|key| (key, None));
        }
        self.entries.next().map(|(key, entry)| (key, Some(entry)))
    }
}

/// Two ordered sequences as one. Of two items with one key, that of the first sequence is given.
struct Merged<A: Iterator, B: Iterator> {
    first: Ends<A>,
    second: Ends<B>,
}

/// A sequence that can be looked at from both ends.
struct Ends<I: Iterator> {
    rest: I,
    front: Option<I::Item>,
    back: Option<I::Item>,
}

impl<'e, T, A, B> Merged<A, B>
where
    A: DoubleEndedIterator<Item = (&'e Key, T)>,
    B: DoubleEndedIterator<Item = (&'e Key, T)>,
{
    fn new(first: A, second: B) -> Self {
        Self { first: Ends::new(first), second: Ends::new(second) }
    }
}

impl<'e, T, I: DoubleEndedIterator<Item = (&'e Key, T)>> Ends<I> {
    fn new(rest: I) -> Self {
        Self { rest, front: None, back: None }
    }

    fn front(&mut self) -> Option<&'e Key> {
        if self.front.is_none() {
            self.front = self.rest.next();
        }
        self.front.as_ref().or(self.back.as_ref()).map(|(key, _)| *key)
    }

    fn back(&mut self) -> Option<&'e Key> {
        if self.back.is_none() {
            self.back = self.rest.next_back();
        }
        self.back.as_ref().or(self.front.as_ref()).map(|(key, _)| *key)
    }

    fn take_front(&mut self) -> Option<(&'e Key, T)> {
        self.front.take().or_else(|| self.rest.next()).or_else(|| self.back.take())
    }

    fn take_back(&mut self) -> Option<(&'e Key, T)> {
        self.back.take().or_else(|| self.rest.next_back()).or_else(|| self.front.take())
    }
}

impl<'e, T, A, B> Iterator for Merged<A, B>
where
    A: DoubleEndedIterator<Item = (&'e Key, T)>,
    B: DoubleEndedIterator<Item = (&'e Key, T)>,
{
    type Item = (&'e Key, T);

    fn next(&mut self) -> Option<Self::Item> {
        match (self.first.front(), self.second.front()) {
            (Some(one), Some(other)) if one == other => {
                self.second.take_front();
                self.first.take_front()
            }
            (Some(one), Some(other)) if other < one => self.second.take_front(),
            (None, _) => self.second.take_front(),
            _ => self.first.take_front(),
        }
    }
}

impl<'e, T, A, B> DoubleEndedIterator for Merged<A, B>
where
    A: DoubleEndedIterator<Item = (&'e Key, T)>,
    B: DoubleEndedIterator<Item = (&'e Key, T)>,
{
    fn next_back(&mut self) -> Option<Self::Item> {
        match (self.first.back(), self.second.back()) {
            (Some(one), Some(other)) if one == other => {
                self.second.take_back();
                self.first.take_back()
            }
            (Some(one), Some(other)) if other > one => self.second.take_back(),
            (None, _) => self.second.take_back(),
            _ => self.first.take_back(),
        }
    }
}
