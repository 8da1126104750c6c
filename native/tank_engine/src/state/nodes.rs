//! How nodes come, change and go.
//!
//! ```text
//! put [a, b] ── [a, b] came ──> [a] came with it, or has one child more ──> up to the first one that was there
//! delete     ── [a, b] went ──> [a] has one child less, or goes with it ──> up to the first one that stays
//! ```
//!
//! The version of a child list rises once for each operation, however many children that adds or removes.

use std::sync::Arc;

use crate::command::{How, Write};
use crate::entries;
use crate::entry::Entry;
use crate::key::Key;
use crate::nodes::{AS_IT_IS, NO_PAYLOAD, Node, Tree, VALUE};
use crate::outcome::{Found, NodeAfter, NodeInfo};

use super::apply::{Change, Work};
use super::{Cause, State};

impl State {
    /// Its nodes.
    pub fn tree(&self) -> Tree<'_> {
        Tree { entries: &self.entries, nodes: &self.nodes }
    }

    /// The entry at `key`, as it is reported.
    pub(super) fn found(&self, key: &Key) -> Option<Found> {
        let entry = Arc::clone(self.entries.get(key)?);
        let payload = entry.payload.in_memory();
        Some(Found { key: key.clone(), entry, payload, child_count: self.nodes.child_count(key) })
    }

    /// The node at `key`, as it is reported. There always is a root.
    pub(super) fn info(&self, key: &Key) -> Option<NodeInfo> {
        let tree = self.tree();
        (key.is_root() || tree.exists(key)).then(|| NodeInfo {
            key: key.clone(),
            found: self.found(key),
            kind: tree.kind(key),
            payload_version: tree.payload_version(key),
            child_list_version: tree.child_list_version(key),
            child_count: tree.child_count(key),
        })
    }

    /// Writes a node. Returns the version of its entry; 0 without one.
    pub(super) fn put(&mut self, write: &Write, work: &mut Work) -> u64 {
        work.scope.note_written(self, &write.key);
        self.note_bare(write, work);
        if write.how.kind == NO_PAYLOAD {
            self.put_bare(&write.key, &write.how, work);
            return 0;
        }
        if write.how.kind == AS_IT_IS {
            if self.tree().exists(&write.key) {
                self.keep(&write.key, &write.how, work);
            }
            return self.entries.get(&write.key).map_or(0, |entry| entry.version);
        }
        if let Some(version) = self.same_version(write) {
            self.keep(&write.key, &write.how, work);
            return version;
        }
        let existed = self.tree().exists(&write.key);
        let version = self.put_entry(write, work);
        self.note_payload(&write.key, &write.how);
        if !existed {
            self.came(&write.key, work);
        }
        work.scope.changed(&self.nodes, &write.key);
        version
    }

    /// What has no payload is about to be written: the changes of entries do not tell whether it was there.
    fn note_bare(&self, write: &Write, work: &mut Work) {
        if write.how.kind == NO_PAYLOAD || !self.entries.contains_key(&write.key) {
            work.nodes.note(self.tree(), &write.key);
        }
    }

    /// The version of the entry, if the write would not change it and should not then.
    fn same_version(&self, write: &Write) -> Option<u64> {
        let entry = self.entries.get(&write.key).filter(|_| write.how.unless_same)?;
        let is_same = entry.lease == write.lease
            && self.tree().kind(&write.key) == write.how.kind
            && entry.has_payload(&write.key, &write.payload);
        is_same.then_some(entry.version)
    }

    fn put_entry(&mut self, write: &Write, work: &mut Work) -> u64 {
        let revision = work.revision(self);
        let entry = match self.entries.get(&write.key) {
            Some(entry) => entry.updated(&write.key, write.payload.clone(), revision, write.lease),
            None => Entry::created(&write.key, write.payload.clone(), revision, write.lease),
        };
        let entry = Arc::new(entry.counted_in(&self.memory));
        let version = entry.version;
        let previous = self.set(&write.key, Some(Arc::clone(&entry)));
        work.note(Change { key: write.key.clone(), previous, entry: Some(entry), cause: Cause::Command });
        version
    }

    /// Brings the record of a node that has an entry now up to date.
    fn note_payload(&mut self, key: &Key, how: &How) {
        if self.nodes.get(key).is_none() && !key.is_root() && how.kind == VALUE && how.keep_while.is_none() {
            // A leaf as most are: it has no record, and needs none.
            return;
        }
        let fresh = || if key.is_root() { Node::on_the_way() } else { Node::written() };
        let mut node = self.nodes.get(key).cloned().unwrap_or_else(fresh);
        node.kind = how.kind;
        node.keep(key, how);
        self.set_node(key, Some(node));
    }

    /// Makes a node without a payload, or takes its payload away.
    fn put_bare(&mut self, key: &Key, how: &How, work: &mut Work) {
        if key.is_root() || self.tree().exists(key) {
            // The conditions first: what changes then is held against them.
            self.keep(key, how, work);
            self.clear(key, true, Cause::Command, work);
            return;
        }
        work.revision(self);
        let mut node = Node { versions_before: 1, ..Node::written() };
        node.keep(key, how);
        self.set_node(key, Some(node));
        self.came(key, work);
        work.scope.changed(&self.nodes, key);
    }

    /// Replaces the conditions that keep a node, if it should.
    fn keep(&mut self, key: &Key, how: &How, work: &mut Work) {
        let before = self.tree().node(key);
        let mut node = before.clone();
        node.keep(key, how);
        if node != before {
            work.revision(self);
            self.set_node(key, Some(node));
        }
    }

    /// Deletes the payload of a node, and leaves what is below it. Without children the node goes, too, unless
    /// `keep_node`, and it stays by itself. Returns whether there was a payload.
    pub(super) fn clear(&mut self, key: &Key, keep_node: bool, cause: Cause, work: &mut Work) -> bool {
        if !self.entries.contains_key(key) {
            return false;
        }
        work.scope.note_written(self, key);
        work.nodes.note(self.tree(), key);
        let versions_before = self.tree().payload_version(key).saturating_add(1);
        let before = self.tree().node(key);
        let node = Node { versions_before, kind: VALUE, stays: before.stays && keep_node, ..before };
        if node.children == 0 && !node.stays && !key.is_root() {
            if !keep_node {
                work.scope.note_gone(self, key, NodeAfter::Deleted);
            }
            self.remove_entry(key, cause, work);
            if keep_node {
                // As it last was: without the payload.
                self.nodes.set(key, Some(Node { stays: true, ..node }), false);
                work.scope.note_gone(self, key, NodeAfter::NotKept);
            }
            self.went(key, work);
        } else {
            self.remove_entry(key, cause, work);
            self.set_node(key, Some(node));
            work.scope.changed(&self.nodes, key);
        }
        true
    }

    /// Deletes a node and all below it. Of the root, all but itself. Returns how many entries there were.
    pub(super) fn remove_subtree(&mut self, key: &Key, after: &NodeAfter, work: &mut Work) -> u64 {
        if !self.tree().exists(key) {
            return 0;
        }
        self.note_subtree(key, after, work);
        self.note_bare_subtree(key, work);
        work.revision(self);
        let root = key.is_root().then(|| self.emptied_root());
        let keys: Vec<Key> = entries::subtree(&self.entries, key).map(|(key, _)| key.clone()).collect();
        for key in &keys {
            self.remove_entry(key, Cause::Command, work);
        }
        let records: Vec<Key> = self.nodes.subtree(key).map(|(key, _)| key.clone()).collect();
        for key in &records {
            self.set_node(key, None);
        }
        match root {
            Some(node) => {
                self.set_node(key, Some(node));
                work.scope.deleted(&self.nodes, key);
            }
            None => self.went(key, work),
        }
        keys.len() as u64
    }

    fn note_subtree(&self, key: &Key, after: &NodeAfter, work: &mut Work) {
        if !work.scope.returns() {
            return;
        }
        let nodes: Vec<Key> = self.tree().subtree(key).map(|(key, _)| key.clone()).collect();
        for node in nodes.iter().filter(|node| !node.is_root()) {
            work.scope.note_gone(self, node, after.clone());
        }
        if key.is_root() {
            work.scope.note_written(self, key);
        }
    }

    /// The same of the nodes without an entry, and of the root, for those who watch.
    fn note_bare_subtree(&self, key: &Key, work: &mut Work) {
        let tree = self.tree();
        if key.is_root() {
            work.nodes.note(tree, key);
        }
        for (node, _) in self.nodes.subtree(key).filter(|(node, _)| !self.entries.contains_key(*node)) {
            work.nodes.note(tree, node);
        }
    }

    /// The root without children and payload.
    fn emptied_root(&self) -> Node {
        let (root, tree) = (Key::default(), self.tree());
        let before = tree.node(&root);
        let cleared = u64::from(self.entries.contains_key(&root));
        Node {
            children: 0,
            child_list_version: before.child_list_version + u64::from(before.children > 0),
            versions_before: tree.payload_version(&root).saturating_add(cleared),
            kind: VALUE,
            ..before
        }
    }

    fn remove_entry(&mut self, key: &Key, cause: Cause, work: &mut Work) {
        let Some(previous) = self.set(key, None) else { return };
        work.revision(self);
        work.note(Change { key: key.clone(), previous: Some(previous), entry: None, cause });
    }

    /// The node at `key` is new: so may be those above it.
    fn came(&mut self, key: &Key, work: &mut Work) {
        let mut child = key.clone();
        while let Some(parent) = child.parent() {
            work.nodes.note(self.tree(), &parent);
            let existed = parent.is_root() || self.tree().exists(&parent);
            let mut node = if existed { self.tree().node(&parent) } else { Node::on_the_way() };
            node.children += 1;
            let is_first = work.scope.bumped.insert(parent.clone());
            if existed && is_first {
                node.child_list_version += 1;
            }
            self.set_node(&parent, Some(node));
            work.scope.changed(&self.nodes, &parent);
            if existed {
                return;
            }
            child = parent;
        }
    }

    /// The node at `key` is gone, with all below it: so may be those above it.
    fn went(&mut self, key: &Key, work: &mut Work) {
        self.set_node(key, None);
        work.scope.deleted(&self.nodes, key);
        let mut child = key.clone();
        while let Some(parent) = child.parent() {
            work.nodes.note(self.tree(), &parent);
            let mut node = self.tree().node(&parent);
            node.children = node.children.saturating_sub(1);
            if work.scope.bumped.insert(parent.clone()) {
                node.child_list_version += 1;
            }
            let stays = parent.is_root() || node.children > 0 || node.stays || self.entries.contains_key(&parent);
            if stays {
                self.set_node(&parent, Some(node));
                work.scope.changed(&self.nodes, &parent);
                return;
            }
            // As it last was: without children.
            self.nodes.set(&parent, Some(Node { stays: true, ..node }), false);
            work.scope.note_gone(self, &parent, NodeAfter::NotKept);
            self.set_node(&parent, None);
            work.scope.deleted(&self.nodes, &parent);
            child = parent;
        }
    }

    fn set_node(&mut self, key: &Key, node: Option<Node>) {
        let had_record = self.nodes.get(key).is_some();
        self.nodes.set(key, node, self.entries.contains_key(key));
        if had_record || self.nodes.get(key).is_some() {
            self.changed_nodes.insert(key.clone());
        }
    }
}

impl Node {
    /// Takes the conditions of a write. A node that has some of its own stays by them alone.
    fn keep(&mut self, key: &Key, how: &How) {
        if let Some(keep_while) = &how.keep_while {
            self.keep_while = (!keep_while.conditions().is_empty()).then(|| keep_while.clone());
            // The root is no node that comes or goes.
            self.stays = !key.is_root();
        }
    }
}
