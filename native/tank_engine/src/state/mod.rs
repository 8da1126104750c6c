//! The state that the log builds: entries, leases, revision, and the requests that were applied.
//!
//! Applying ([`State::apply`]) is a pure function of the state, the command and the time in the log. The
//! state here lives in memory; [`crate::machine`] writes what changed to the disk.

pub mod command;
pub mod lease;
pub mod outcome;

mod apply;
mod filter;
mod history;
mod keep_while;
mod leases;
mod log_time;
mod many;
mod nodes;
mod revised;
mod scope;
mod scratch;
mod sessions;
mod steps;
mod txn;
mod undo;
mod weight;

pub use crate::tree::{Digest, Facts, Fingerprint};
pub use apply::{Applied, Cause, Change};
pub use filter::Filter;
pub use history::{History, REVISION_STEP};
pub use leases::{LeaseChange, Leases};
pub use log_time::{LogTime, STEP_MS_MAX};
pub use revised::Revised;
pub(crate) use scratch::Scratch;
pub use sessions::{Remembered, SESSION_MS, SessionRecord, Sessions};
pub use steps::{NodeNumbers, NodeStep};

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::entries::Entries;
use crate::entry::Entry;
use crate::key::Key;
use crate::lease::Lease;
use crate::nodes::{Node, Nodes};
use crate::payload::Memory;

/// Everything that commands read and write.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Every entry, in the order of paths.
    pub entries: Entries,
    /// What nodes have besides their entries.
    pub nodes: Nodes,
    /// The nodes whose records are not written yet as they are.
    changed_nodes: BTreeSet<Key>,
    /// The leases that are held, by name.
    pub leases: Leases,
    /// The entries that go with each lease that is held, by its epoch.
    attached: OrdMap<u64, OrdSet<Key>>,
    /// +1 for each applied command that changed something.
    pub revision: u64,
    /// The oldest revision that can still be read.
    pub compacted: u64,
    /// Which history it is in.
    pub history: History,
    /// Hash of all entries and leases.
    pub digest: Digest,
    /// Bytes of keys and payloads.
    pub bytes: u64,
    /// Requests that were applied and may be asked again.
    pub sessions: Sessions,
    /// The time in the log.
    pub log_time: LogTime,
    /// What the payloads in memory count in.
    memory: Arc<Memory>,
}

impl State {
    /// An empty state whose payloads count in `memory`.
    pub fn new(memory: Arc<Memory>) -> Self {
        Self { memory, ..Self::default() }
    }

    /// Takes over an entry read from a disk or a snapshot.
    pub fn load(&mut self, key: &Key, entry: Entry) {
        let entry = entry.counted_in(&self.memory);
        if self.memory.is_scarce() {
            entry.evict();
        }
        self.set(key, Some(Arc::new(entry)));
    }

    /// Takes over the record of a node, after all entries.
    pub fn load_node(&mut self, key: &Key, node: Node) {
        self.nodes.set(key, Some(node), self.entries.contains_key(key));
    }

    /// Makes the records of nodes of the entries: the state was written before there were any.
    pub fn make_nodes(&mut self) {
        self.nodes = Nodes::of(&self.entries);
        self.changed_nodes = self.nodes.records().map(|(key, _)| key.clone()).collect();
    }

    /// The records of nodes that changed since the last call, as they are now; `None` for one that is gone.
    pub fn take_changed_nodes(&mut self) -> Vec<(Key, Option<Node>)> {
        let changed = std::mem::take(&mut self.changed_nodes);
        changed.into_iter().map(|key| (self.nodes.get(&key).cloned(), key)).map(|(node, key)| (key, node)).collect()
    }

    /// A hash of everything but the requests that were applied.
    pub fn whole_digest(&self) -> Digest {
        let mut digest = self.digest;
        digest.add(self.nodes.digest().value());
        digest
    }

    /// Takes over a lease read from a disk or a snapshot.
    pub fn load_lease(&mut self, lease: Lease) {
        self.set_lease(&lease.name.clone(), Some(Arc::new(lease)));
    }

    /// Replaces the entry at `key`, and keeps the sums right. Returns what was there.
    fn set(&mut self, key: &Key, entry: Option<Arc<Entry>>) -> Option<Arc<Entry>> {
        if let Some(new) = &entry {
            self.digest.add(new.hash());
            self.bytes += size(key, new);
            self.attach(new.lease, key);
        }
        let lease = entry.as_ref().map_or(0, |new| new.lease);
        let old = match entry {
            Some(new) => self.entries.insert(key.clone(), new),
            None => self.entries.remove(key),
        };
        if let Some(old) = &old {
            self.digest.remove(old.hash());
            self.bytes -= size(key, old);
            if old.lease != lease {
                self.detach(old.lease, key);
            }
        }
        old
    }
}

fn size(key: &Key, entry: &Entry) -> u64 {
    (key.as_bytes().len() + entry.payload.len()) as u64
}
