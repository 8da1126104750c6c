//! A consistent read of the whole store at one moment.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::Notify;

use crate::entries::{self, Entries};
use crate::entry::Entry;
use crate::key::Key;
use crate::raft::LogId;
use crate::reclaim;
use crate::state::Leases;
use crate::watch::Hub;

/// The entries at one revision. Taking one costs nothing, and writes do not disturb it.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Every entry, in the order of paths.
    pub entries: Entries,
    /// The leases that are held.
    pub leases: Leases,
    /// The store's revision.
    pub revision: u64,
    /// The oldest revision that can still be read.
    pub compacted: u64,
    /// The last log entry that is applied.
    pub applied: Option<LogId>,
    /// A hash of all entries: equal on members with equal entries.
    pub digest: u64,
    /// Bytes of keys and payloads.
    pub bytes: u64,
}

impl View {
    /// The entry at a path.
    pub fn get(&self, key: &Key) -> Option<&Arc<Entry>> {
        self.entries.get(key)
    }

    /// The entry at the path with this encoding.
    pub fn get_bytes(&self, key: &[u8]) -> Option<&Arc<Entry>> {
        self.entries.get(key)
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

/// The current view, which the applying task replaces and any thread reads; and how it came about.
#[derive(Debug, Default)]
pub struct Published {
    view: ArcSwap<View>,
    hub: Arc<Hub>,
    leases_changed: Notify,
}

impl Published {
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

    /// Replaces the view. The old one is dropped elsewhere: what only it held may be much, and
    /// neither a reader nor the applying task should pay for that.
    pub(crate) fn publish(&self, view: View) {
        let view = Arc::new(view);
        let old = self.view.swap(Arc::clone(&view));
        if !old.leases.ptr_eq(&view.leases) {
            self.leases_changed.notify_one();
        }
        reclaim::when_unused(old);
    }

    /// Returns once a view with other leases was published since the last call returned. For one
    /// task.
    pub(crate) async fn leases_changed(&self) {
        self.leases_changed.notified().await;
    }
}
