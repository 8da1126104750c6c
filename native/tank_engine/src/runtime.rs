//! The tokio runtime of all stores of this process, and tasks that cannot fail unnoticed.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use once_cell::sync::Lazy;
use tokio::runtime::{Builder, Runtime};

use crate::health::Health;

/// Enough that one store's blocking step (a snapshot install) does not hold up another's
/// heartbeats; the BEAM's schedulers need the cores too.
const WORKERS: usize = 4;

static RUNTIME: Lazy<std::io::Result<Runtime>> = Lazy::new(|| {
    // Never shut down: the library stays mapped for the life of the process, and dropping a
    // runtime blocks.
    Builder::new_multi_thread().worker_threads(WORKERS).thread_name("tank-raft").enable_time().build()
});

/// The runtime.
///
/// # Errors
/// The operating system gave no threads.
pub fn handle() -> Result<&'static Runtime, crate::error::EngineError> {
    RUNTIME.as_ref().map_err(|error| crate::error::EngineError::Storage(format!("no threads: {error}")))
}

/// Runs `task` on the runtime. When it panics, the store is marked as failed.
pub(crate) fn spawn<F>(name: &'static str, health: Arc<Health>, task: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let Ok(runtime) = self::handle() else { return };
    runtime.spawn(async move {
        if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
            health.panicked(name, panic.as_ref());
        }
    });
}

/// Runs `body` on a thread of its own. When it panics, the store is marked as failed.
pub(crate) fn spawn_thread<F>(
    name: &'static str,
    health: Arc<Health>,
    body: F,
) -> std::io::Result<std::thread::JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    std::thread::Builder::new().name(format!("tank-{name}")).spawn(move || {
        if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(body)) {
            health.panicked(name, panic.as_ref());
        }
    })
}
