//! A consistent read of the whole store at one moment.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::applied::AppliedQueue;
use crate::command::{Op, Write};
use crate::entries::{self, Entries};
use crate::entry::Entry;
use crate::error::EngineError;
use crate::key::Key;
use crate::last_changed::LastChanged;
use crate::machine::Versions;
use crate::marks::Marks;
use crate::metrics::Metrics;
use crate::nodes::{Nodes, Tree};
use crate::outcome::{Refusal, Response};
use crate::payload::Memory;
use crate::reclaim;
use crate::state::{History, Leases, LogTime, Scratch};
use crate::sync::lock;
use crate::types::LogId;
use crate::watch::Hub;

/// The entries at one revision. Taking one costs nothing, and writes do not disturb it.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Every entry, in the order of paths.
    pub entries: Entries,
    /// What nodes have besides their entries.
    pub nodes: Nodes,
    /// The leases that are held.
    pub leases: Leases,
    /// The store's revision.
    pub revision: u64,
    /// The oldest revision that can still be read.
    pub compacted: u64,
    /// Which history it is of.
    pub history: History,
    /// The last log entry that is applied.
    pub applied: Option<LogId>,
    /// A hash of all entries, nodes and leases: equal on members with equal ones.
    pub digest: u64,
    /// A hash of the requests that may be asked again: equal on members that have applied the same log.
    pub sessions_digest: u64,
    /// The time in the log.
    pub log_time: LogTime,
    /// Bytes of keys and payloads, in memory or not.
    pub bytes: u64,
    /// Where the payloads stand that are not in memory; nowhere in a view that no store made.
    pub versions: Option<Versions>,
}

impl View {
    /// Its nodes.
    pub fn tree(&self) -> Tree<'_> {
        Tree { entries: &self.entries, nodes: &self.nodes }
    }

    /// The view as `op` would leave it, and what `op` would answer. What it writes has the next revision, whatever the
    /// store's will be; the view's own revision stays that of what was committed.
    ///
    /// # Errors
    /// What the operation would be refused for, but for a lease that has ended.
    pub fn with(&self, op: &Op) -> Result<(Self, Response), Refusal> {
        let mut scratch = self.scratch();
        let response = scratch.write(op)?;
        Ok((self.of(scratch), response))
    }

    /// The same for a put that takes microseconds: `None` if conditions that keep nodes make it more.
    ///
    /// # Errors
    /// As [`with`](Self::with).
    pub fn with_little(&self, write: &Write) -> Result<Option<(Self, Response)>, Refusal> {
        let mut scratch = self.scratch();
        let response = scratch.write_little(write)?;
        Ok(response.map(|response| (self.of(scratch), response)))
    }

    fn scratch(&self) -> Scratch {
        let (entries, nodes) = (self.entries.clone(), self.nodes.clone());
        Scratch { entries, nodes, revision: self.revision, history: self.history }
    }

    fn of(&self, scratch: Scratch) -> Self {
        Self { entries: scratch.entries, nodes: scratch.nodes, ..self.clone() }
    }

    /// The entry at a path.
    pub fn get(&self, key: &Key) -> Option<&Arc<Entry>> {
        self.entries.get(key)
    }

    /// The entry at the path with this encoding.
    pub fn get_bytes(&self, key: &[u8]) -> Option<&Arc<Entry>> {
        self.entries.get(key)
    }

    /// The payload of an entry of this view, which is at `key`. May read the disk. `None` when the
    /// view is so old that its version was compacted.
    ///
    /// # Errors
    /// The store is closed, or the disk's.
    pub fn payload(&self, key: &Key, entry: &Entry) -> Result<Option<Bytes>, EngineError> {
        match &self.versions {
            Some(versions) => versions.payload(key, entry),
            None => Ok(entry.payload.in_memory()),
        }
    }

    /// The index of the last log entry that is applied; 0 when there is none.
    pub(crate) fn applied_index(&self) -> u64 {
        self.applied.as_ref().map_or(0, |id| id.index())
    }

    /// The entries directly below `prefix`, each with the encoding of its last component.
    pub fn children(&self, prefix: &Key) -> impl Iterator<Item = (&[u8], &Arc<Entry>)> {
        entries::children(&self.entries, prefix)
    }

    /// The entries at `prefix` and below, in order.
    pub fn subtree(&self, prefix: &Key) -> impl Iterator<Item = (&Key, &Arc<Entry>)> {
        entries::subtree(&self.entries, prefix)
    }
}

/// A revision that a task waits for. For one task.
#[derive(Debug)]
struct Awaited {
    /// `u64::MAX` when nobody waits.
    revision: AtomicU64,
    reached: Notify,
}

impl Default for Awaited {
    fn default() -> Self {
        Self { revision: AtomicU64::new(u64::MAX), reached: Notify::new() }
    }
}

/// The current view, which the applying task replaces and any thread reads; and how it came about.
#[derive(Debug, Default)]
pub struct Published {
    view: ArcSwap<View>,
    memory: Arc<Memory>,
    leases_changed: Notify,
    awaited: Awaited,
    applied: AppliedQueue,
    last_changed: LastChanged,
    marks: Mutex<Marks>,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    /// Milliseconds by which the leader's clock of leases is to go on at once.
    skipped_ms: AtomicU64,
}

impl Published {
    /// An empty view, of a store whose payloads count in `memory`.
    pub(crate) fn new(memory: Arc<Memory>) -> Self {
        Self { memory, ..Self::default() }
    }

    /// What counts the payloads in memory.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Has the leader's clock of leases go on by `ms` at once: for tests of users, who do not want to wait.
    pub(crate) fn skip_lease_time(&self, ms: u64) {
        self.skipped_ms.fetch_add(ms, Ordering::Relaxed);
        self.leases_changed.notify_one();
    }

    pub(crate) fn take_skipped_lease_time(&self) -> Duration {
        Duration::from_millis(self.skipped_ms.swap(0, Ordering::Relaxed))
    }

    /// What is counted where the state is made.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The current view, without a lock.
    pub fn load(&self) -> Guard<Arc<View>> {
        self.view.load()
    }

    /// As [`Published::load`], to be kept for longer.
    pub(crate) fn load_full(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Where the newest revisions are, and watches wait for more.
    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Since when entries are what they are.
    pub fn last_changed(&self) -> &LastChanged {
        &self.last_changed
    }

    /// What was noted of the state at recent log entries. Held for as long as `look` takes.
    pub(crate) fn marks<T>(&self, look: impl FnOnce(&mut Marks) -> T) -> T {
        look(&mut lock(&self.marks))
    }

    /// Replaces the view; what it changes was noted in [`Published::last_changed`]. The old one is
    /// dropped elsewhere: what only it held may be much, and neither a reader nor the applying task
    /// should pay for that.
    pub(crate) fn publish(&self, view: View) {
        let view = Arc::new(view);
        let old = self.view.swap(Arc::clone(&view));
        if view.revision >= self.awaited.revision.load(Ordering::SeqCst) {
            self.awaited.reached.notify_one();
        }
        if !old.leases.ptr_eq(&view.leases) {
            self.leases_changed.notify_one();
        }
        self.applied.release(view.applied_index());
        reclaim::when_unused(old);
    }

    /// Returns once a view of this revision or a later one is published. For one task.
    pub(crate) async fn reached(&self, revision: u64) {
        self.awaited.revision.store(revision, Ordering::SeqCst);
        while self.view.load().revision < revision {
            self.awaited.reached.notified().await;
        }
        self.awaited.revision.store(u64::MAX, Ordering::SeqCst);
    }

    /// Returns whether the view shows the log up to `index` before `deadline`.
    pub(crate) async fn await_applied(&self, index: u64, deadline: Instant) -> bool {
        self.applied.wait(index, deadline, || self.load().applied_index()).await
    }

    /// Returns once a view with other leases was published since the last call returned. For one
    /// task.
    pub(crate) async fn leases_changed(&self) {
        self.leases_changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Clear, Delete, How, Relation};
    use crate::key::Key;
    use crate::nodes::{KeepCondition, KeepWhile};
    use crate::pattern::{Condition, Part, Pattern};
    use bytes::Bytes;

    #[test]
    fn what_is_written_is_seen_in_the_new_view_only() {
        let key = |bytes: &[u8]| Key::from_bytes(bytes);
        let put = |at: &[u8]| Op::Put(Write::new(key(at), Bytes::new()));
        let with = |view: &View, op: &Op| view.with(op).unwrap().0;
        let base = View { revision: 7, ..View::default() };
        let written = with(&with(&with(&base, &put(b"\x02a\0")), &put(b"\x02a\0\x02b\0")), &put(b"\x02a\0"));
        assert_eq!((base.entries.len(), written.entries.len(), written.revision), (0, 2, 7));
        let entry = written.get(&key(b"\x02a\0")).unwrap();
        assert_eq!((entry.revision, entry.version, written.tree().child_count(&key(b"\x02a\0"))), (8, 2, 1));
        assert_eq!(with(&written, &Op::Clear(Clear::from(key(b"\x02a\0")))).entries.len(), 1);
        assert_eq!(with(&written, &Op::Delete(Delete::from(key(b"\x02a\0")))).entries.len(), 0);
        assert_eq!(written.entries.len(), 2);
    }
    #[test]
    fn what_makes_a_node_go_is_not_little() {
        let key = |bytes: &[u8]| Key::from_bytes(bytes);
        let write = |at: &[u8]| Write::new(key(at), Bytes::new());
        let view = View::default().with_little(&write(b"\x02owner\0")).unwrap().unwrap().0;
        let pattern = Pattern { parts: vec![Part::one(Condition::Is(b"\x02owner\0".to_vec()))] };
        let condition = Condition::PayloadVersion(Relation::Less, 3);
        let keep_while = Some(KeepWhile::new(vec![KeepCondition { pattern, condition }], Bytes::new()));
        let kept = Write { how: How { keep_while, ..How::default() }, ..write(b"\x02kept\0") };
        let view = view.with_little(&kept).unwrap().unwrap().0;
        let again = view.with_little(&write(b"\x02owner\0")).unwrap().unwrap().0;
        assert_eq!(again.entries.len(), 2);
        assert!(again.with_little(&write(b"\x02owner\0")).unwrap().is_none(), "the third version lets the other go");
        assert_eq!(again.with(&Op::Put(write(b"\x02owner\0"))).unwrap().0.entries.len(), 1);
    }
}
