//! What a state changed by, from one moment to another: kept in memory until it is on the disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use imbl::Vector;

use crate::error::EngineError;
use crate::key::Key;
use crate::lease::Lease;
use crate::nodes::Node;
use crate::state::{Applied, LeaseChange, Remembered, Revised, SessionRecord, State};

use super::history::{self, Revision};
use super::rows::Rows;
use super::store::{Header, LEASE, NODE, REMEMBERED, SESSION};
use super::version_key;

/// A revision, and what else the history says of it.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) revised: Arc<Revised>,
    /// The time in the log.
    pub(super) time_ms: u64,
}

impl Made {
    pub(super) fn number(&self) -> u64 {
        self.revised.revision
    }

    fn names(&self) -> Revision {
        Revision::new(self.time_ms, &self.revised.changes)
    }
}

/// The revisions of a delta.
#[derive(Clone, Debug)]
pub(super) struct Recent {
    /// In the state at its end.
    pub(super) compacted: u64,
    pub(super) revision: u64,
    revisions: Vector<Made>,
}

impl Recent {
    /// Those behind `after`.
    pub(super) fn behind(&self, after: u64) -> impl DoubleEndedIterator<Item = &Made> {
        let begin = self.revisions.binary_search_by_key(&(after + 1), Made::number).unwrap_or_else(|at| at);
        (begin..self.revisions.len()).filter_map(|at| self.revisions.get(at))
    }
}

/// What was applied between two moments.
#[derive(Clone, Debug, Default)]
pub(super) struct Delta {
    /// What the state is at its end. `None`: nothing was applied.
    pub(super) header: Option<Header>,
    /// A copy of it costs nothing, and is not disturbed by what comes.
    revisions: Vector<Made>,
    nodes: BTreeMap<Key, Option<Node>>,
    leases: BTreeMap<Bytes, Option<Arc<Lease>>>,
    /// Requests to remember, by the number of their record.
    remembered: BTreeMap<u64, Vec<Remembered>>,
    /// Records on the disk in which nothing is remembered any more.
    forgotten: Vec<u64>,
    sessions: BTreeMap<u64, Option<SessionRecord>>,
    /// What it takes up in memory, about.
    pub(super) bytes: u64,
    /// Bytes of the state's entries at its end.
    pub(super) entry_bytes: u64,
}

impl Delta {
    /// Room for a batch of log entries, which leaves about as many bytes in memory.
    pub(super) fn of_bytes(bytes: u64) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// Adds what a request changed that was applied at a time in the log. Its changes are `revised`.
    pub(super) fn add_applied(&mut self, applied: &Applied, revised: Option<&Arc<Revised>>, time_ms: u64) {
        if let Some(revised) = revised {
            self.revisions.push_back(Made { revised: Arc::clone(revised), time_ms });
        }
        for LeaseChange { name, lease } in &applied.leases {
            self.leases.insert(name.clone(), lease.clone());
        }
    }

    /// Ends a batch of log entries: what it remembered is the record number `record`, and the state is what it is now.
    pub(super) fn end(&mut self, record: u64, remembered: Vec<Remembered>, state: &mut State, header: Header) {
        if !remembered.is_empty() {
            self.remembered.insert(record, remembered);
        }
        self.nodes = state.take_changed_nodes().into_iter().collect();
        self.forgotten = state.sessions.take_dead_records();
        self.sessions = state.sessions.take_changed().into_iter().collect();
        self.header = Some(header);
        self.entry_bytes = state.bytes;
    }

    /// Adds what came after it.
    pub(super) fn append(&mut self, later: Self) {
        self.header = later.header.or_else(|| self.header.take());
        self.entry_bytes = later.entry_bytes;
        self.revisions.append(later.revisions);
        self.nodes.extend(later.nodes);
        self.leases.extend(later.leases);
        self.remembered.extend(later.remembered);
        let forgotten = later.forgotten.into_iter();
        self.forgotten.extend(forgotten.filter(|record| self.remembered.remove(record).is_none()));
        self.sessions.extend(later.sessions);
        self.bytes += later.bytes;
    }

    /// Its revisions. Costs next to nothing.
    pub(super) fn recent(&self) -> Option<Recent> {
        let Header { compacted, revision, .. } = *self.header.as_ref()?;
        Some(Recent { compacted, revision, revisions: self.revisions.clone() })
    }

    /// Drops the payloads of its entries, which are on the disk.
    pub(super) fn evict(&self) {
        let changes = self.revisions.iter().flat_map(|made| &made.revised.changes);
        changes.flat_map(|change| &change.entry).for_each(|entry| entry.evict());
    }

    /// Adds the rows that a disk lacks that holds what `disk` says. What only compacted revisions need is not among them.
    pub(super) fn put_into(&self, rows: &mut Rows, disk: &Header, compacted: u64) -> Result<(), EngineError> {
        let mut records = history::Writer::default();
        for made in &self.revisions {
            put_versions(rows, made, disk.revision, compacted);
            if made.number() > compacted {
                records.add(made.number(), &made.names())?;
            }
        }
        for (last, record) in records.finish() {
            rows.put(history::key(last).to_vec(), record);
        }
        for (key, node) in &self.nodes {
            put_or_remove(rows, node_key(key), node.as_ref())?;
        }
        for (name, lease) in &self.leases {
            put_or_remove(rows, [&[LEASE], &name[..]].concat(), lease.as_deref())?;
        }
        for record in &self.forgotten {
            rows.remove(numbered(REMEMBERED, *record));
        }
        for (record, remembered) in &self.remembered {
            rows.encode(numbered(REMEMBERED, *record), remembered)?;
        }
        for (client, session) in &self.sessions {
            put_or_remove(rows, numbered(SESSION, *client), session.as_ref())?;
        }
        Ok(())
    }
}

/// Puts the versions that a revision made, and takes away those that nobody needs who reads at `compacted` or later.
/// Those up to the revision `disk` are on the disk.
fn put_versions(rows: &mut Rows, made: &Made, disk: u64, compacted: u64) {
    let (number, is_compacted) = (made.number(), made.number() <= compacted);
    for change in &made.revised.changes {
        let mut drop = |revision: u64| {
            let key = version_key::of(&change.key, revision);
            if revision <= disk { rows.remove(key) } else { rows.take_out(&key) }
        };
        if let (true, Some(previous)) = (is_compacted, &change.previous) {
            drop(previous.revision);
        }
        let key = || version_key::of(&change.key, number);
        match &change.entry {
            Some(entry) => rows.put_entry(key(), entry),
            None if is_compacted => {}
            None => rows.put(key(), Vec::new()),
        }
    }
}

fn put_or_remove<T: serde::Serialize>(rows: &mut Rows, key: Vec<u8>, value: Option<&T>) -> Result<(), EngineError> {
    match value {
        Some(value) => rows.encode(key, value),
        None => {
            rows.remove(key);
            Ok(())
        }
    }
}

/// The key of a node's record.
pub(super) fn node_key(key: &Key) -> Vec<u8> {
    [&[NODE], key.as_bytes()].concat()
}

pub(super) fn numbered(kind: u8, number: u64) -> Vec<u8> {
    [&[kind][..], &number.to_be_bytes()].concat()
}
