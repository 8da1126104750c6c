//! What the state keeps on the disk though nothing needs it: a store that was emptied gives its disk back.
//!
//! RocksDB removes such rows when it merges files, which it does as files are added. After the last write nobody adds
//! any. So the disk is merged once more rows can go than stay, if that is worth it.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::error::EngineError;
use crate::health::Health;
use crate::runtime;
use crate::snapshot::PinnedSnapshot;
use crate::sync::lock;

use super::checkpoint::Checkpoints;
use super::store::Header;

/// Until the next look at whether a snapshot still holds on to what can go; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A disk that holds so many bytes more than twice its entries is left as it is.
const SPARE_BYTES: u64 = 16 << 20;

type LastSnapshot = Mutex<Option<Arc<PinnedSnapshot>>>;

/// What is there to keep, and what can go.
#[derive(Debug, Default)]
pub(super) struct Waste {
    entries: u64,
    revision: u64,
    compacted: u64,
    /// Bytes of the entries.
    entry_bytes: u64,
    /// Up to which revision rows were removed.
    trimmed: u64,
    /// Rows that were removed since the disk was merged.
    removed: u64,
    disk_bytes: u64,
}

impl Waste {
    /// The state is now what `header` says.
    pub(super) fn applied(&mut self, header: &Header, entry_bytes: u64) {
        (self.entries, self.entry_bytes) = (header.entries, entry_bytes);
        (self.revision, self.compacted) = (header.revision, header.compacted);
    }

    /// The disk is now what `header` says, and takes up `disk_bytes`.
    pub(super) fn written(&mut self, header: &Header, disk_bytes: u64) {
        self.removed += header.trimmed.saturating_sub(self.trimmed);
        (self.trimmed, self.disk_bytes) = (header.trimmed, disk_bytes);
    }

    /// The disk was merged, or is to be.
    pub(super) fn merged(&mut self) {
        self.removed = 0;
    }

    /// Whether the disk should be written and merged.
    pub(super) fn is_much(&self) -> bool {
        let can_go = self.removed + self.compacted.saturating_sub(self.trimmed);
        let stays = self.entries + self.revision.saturating_sub(self.compacted);
        can_go > stays && self.disk_bytes > self.entry_bytes.saturating_mul(2).saturating_add(SPARE_BYTES)
    }
}

/// Gives disk back meanwhile, if that is worth it.
///
/// `snapshot` is the state's last one. It holds on to what was there when it was made, so a new one takes its place.
pub(super) fn begin_to_shrink(checkpoints: &Arc<Checkpoints>, snapshot: &Arc<LastSnapshot>, health: &Arc<Health>) {
    if checkpoints.begin_to_shrink() {
        let shrink = shrink(Arc::downgrade(checkpoints), Arc::downgrade(snapshot));
        let failed = Arc::clone(health);
        runtime::spawn_here("shrink", Arc::clone(health), async move {
            shrink.await.unwrap_or_else(|error| failed.fail(error));
        });
    }
}

/// Gives the disk back, once no snapshot holds on to it that is being sent or backed up. Ends early when the store is
/// closed.
///
/// # Errors
/// As with [`Checkpoints::pin`].
async fn shrink(checkpoints: Weak<Checkpoints>, snapshot: Weak<LastSnapshot>) -> Result<(), EngineError> {
    let mut pause = PAUSE_MIN;
    loop {
        let (Some(checkpoints), Some(snapshot)) = (checkpoints.upgrade(), snapshot.upgrade()) else { return Ok(()) };
        let is_shrunk = runtime::offload(move || {
            checkpoints.shrink(|pinned| {
                let mut last = lock(&snapshot);
                let is_idle = last.as_ref().is_some_and(|last| Arc::strong_count(last) == 1);
                if is_idle {
                    // The one before is dropped here, not elsewhere: it must be gone before the files are merged.
                    *last = Some(pinned);
                }
                is_idle
            })
        });
        if is_shrunk.await?? {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
