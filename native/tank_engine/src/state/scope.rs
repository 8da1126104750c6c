//! What one operation has done: what conditions must be looked at again because of it, and what it answers.

use std::collections::{BTreeMap, BTreeSet};

use crate::key::Key;
use crate::nodes::Nodes;
use crate::outcome::{NodeAfter, NodeChange, NodeInfo};

use super::State;

/// Nodes that are told of: as they were, and what became of them if they are gone.
type Told = BTreeMap<Key, (Option<NodeInfo>, Option<NodeAfter>)>;

/// Of one operation: a command, or an operation of a transaction.
#[derive(Default)]
pub(super) struct Scope {
    /// The nodes whose child list has its version of this operation.
    pub(super) bumped: BTreeSet<Key>,
    changed: Vec<Key>,
    deleted: Vec<Key>,
    /// If the operation asked.
    returned: Option<Told>,
}

impl Scope {
    /// Of an operation that asks for what it changes, or does not.
    pub(super) fn begin(&mut self, returns: bool) {
        *self = Self { returned: returns.then(BTreeMap::new), ..Self::default() };
    }

    /// Whether what it changes is told.
    pub(super) fn returns(&self) -> bool {
        self.returned.is_some()
    }

    /// A node is about to be written.
    pub(super) fn note_written(&mut self, state: &State, key: &Key) {
        if let Some(returned) = &mut self.returned {
            returned.entry(key.clone()).or_insert_with(|| (state.info(key), None));
        }
    }

    /// A node is about to go.
    pub(super) fn note_gone(&mut self, state: &State, key: &Key, after: NodeAfter) {
        if let Some(returned) = &mut self.returned {
            returned.insert(key.clone(), (state.info(key), Some(after)));
        }
    }

    /// A node was written, or its children changed.
    pub(super) fn changed(&mut self, nodes: &Nodes, key: &Key) {
        if !nodes.watched.is_empty() {
            self.changed.push(key.clone());
        }
    }

    /// A node is gone, with all below it.
    pub(super) fn deleted(&mut self, nodes: &Nodes, key: &Key) {
        if !nodes.watched.is_empty() {
            self.deleted.push(key.clone());
        }
    }

    /// The nodes that changed and those that went since the last call; `None` when there are none.
    pub(super) fn take(&mut self) -> Option<(Vec<Key>, Vec<Key>)> {
        let taken = (std::mem::take(&mut self.changed), std::mem::take(&mut self.deleted));
        (!taken.0.is_empty() || !taken.1.is_empty()).then_some(taken)
    }

    /// What the operation answers, if it asked.
    pub(super) fn answer(&mut self, state: &State) -> Option<Vec<NodeChange>> {
        let tree = state.tree();
        let there = |key: Key| NodeAfter::There {
            payload_version: tree.payload_version(&key),
            child_list_version: tree.child_list_version(&key),
            child_count: tree.child_count(&key),
            key,
        };
        let change = |(key, (before, after)): (Key, (_, Option<_>))| NodeChange {
            before,
            after: after.unwrap_or_else(|| there(key)),
        };
        self.returned.take().map(|returned| returned.into_iter().map(change).collect())
    }
}
