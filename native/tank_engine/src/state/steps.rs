//! What became of nodes, besides what became of their entries: of those without a payload, and of child lists.

use std::sync::Arc;

use crate::entry::Entry;
use crate::key::Key;
use crate::nodes::Tree;

/// What a command did to a node that has no payload, before or after it, or whose children came or went.
#[derive(Clone, Debug)]
pub struct NodeStep {
    /// Where.
    pub key: Key,
    /// The node before, unless it is new.
    pub before: Option<NodeNumbers>,
    /// The node after, unless it is gone.
    pub after: Option<NodeNumbers>,
    /// Its entry after, if it has one.
    pub entry: Option<Arc<Entry>>,
}

/// What counts in a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeNumbers {
    /// Changes of its payload since it was created, with that.
    pub payload_version: u64,
    /// How often its children came or went, with its creation.
    pub child_list_version: u64,
    /// Its direct children.
    pub child_count: u64,
}

impl NodeNumbers {
    fn of(tree: Tree<'_>, key: &Key) -> Option<Self> {
        (key.is_root() || tree.exists(key)).then(|| Self {
            payload_version: tree.payload_version(key),
            child_list_version: tree.child_list_version(key),
            child_count: tree.child_count(key),
        })
    }
}

/// Nodes as they were before a command, in the order in which it came to them.
#[derive(Debug, Default)]
pub(super) struct Before(Vec<(Key, Option<NodeNumbers>)>);

impl Before {
    /// A node is about to change. Of several times, the first counts.
    pub(super) fn note(&mut self, tree: Tree<'_>, key: &Key) {
        if self.0.last().is_none_or(|(last, _)| last != key) {
            self.0.push((key.clone(), NodeNumbers::of(tree, key)));
        }
    }

    /// What became of them, in the order of paths.
    pub(super) fn steps(self, tree: Tree<'_>) -> Vec<NodeStep> {
        let mut noted = self.0;
        noted.sort_by(|(one, _), (other, _)| one.cmp(other));
        noted.dedup_by(|(later, _), (first, _)| later == first);
        let step = |(key, before): (Key, Option<NodeNumbers>)| {
            let after = NodeNumbers::of(tree, &key);
            let entry = tree.entries.get(&key).cloned();
            // A new leaf with a payload is told of by that.
            let is_leaf = after.is_some_and(|after| after.child_count == 0);
            let is_plain = before.is_none() && entry.is_some() && is_leaf;
            (before != after && !is_plain).then_some(NodeStep { key, before, after, entry })
        };
        noted.into_iter().filter_map(step).collect()
    }
}
