//! What a store's files take up, measured by a task: whoever asks does not wait for the disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::health::Health;
use crate::runtime::{self, Runtime};
use crate::storage::Directory;

/// Between two measurements.
const PAUSE: Duration = Duration::from_millis(100);

/// The bytes of all files but the log's, whose writer counts them itself.
#[derive(Debug)]
pub(super) struct DiskUsage(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bytes: AtomicU64,
    asked: Notify,
}

impl DiskUsage {
    /// Measures the directory `dir` now, and again when somebody has asked.
    pub(super) fn start(runtime: &Runtime, dir: &Path, health: &Arc<Health>) -> Self {
        let bytes = AtomicU64::new(Directory::disk_bytes_besides_log(dir));
        let shared = Arc::new(Shared { bytes, asked: Notify::new() });
        let (weak, dir) = (Arc::downgrade(&shared), dir.to_path_buf());
        runtime.spawn("disk-usage", health, async move {
            while let Some(shared) = weak.upgrade() {
                shared.asked.notified().await;
                if Arc::strong_count(&shared) == 1 || !measure(&shared, dir.clone()).await {
                    return;
                }
                drop(shared);
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self(shared)
    }

    /// The bytes when they were last measured. They are measured again, for those who ask later.
    pub(super) fn read(&self) -> u64 {
        self.0.asked.notify_one();
        self.0.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for DiskUsage {
    fn drop(&mut self) {
        // The task waits, and ends once it finds nobody else.
        self.0.asked.notify_one();
    }
}

async fn measure(shared: &Arc<Shared>, dir: PathBuf) -> bool {
    let measured = runtime::offload(move || Directory::disk_bytes_besides_log(&dir)).await;
    measured.map(|bytes| shared.bytes.store(bytes, Ordering::Relaxed)).is_ok()
}
