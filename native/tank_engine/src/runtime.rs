//! A store's tokio runtime, and tasks and threads that cannot fail unnoticed.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::runtime::{Builder, Handle, RuntimeFlavor};

use crate::environment::{self, Environment};
use crate::error::EngineError;
use crate::health::Health;
use crate::label;

/// The thread that runs a store's tasks: raft core, ingress, applying, timers. Each store has its
/// own, so that one that is held up holds up no other.
///
/// A single one: a write passes through all of these tasks, one after the other, and with more
/// threads each step wakes another one. That took a quarter of a write's processor time. Whatever
/// takes long must let the others have another thread meanwhile (`blocking`): they have heartbeats
/// to send.
/// Only the log may wait for the disk here, when there is nobody to send them to, and nothing else to
/// write ([`crate::log::AtOnce`]).
pub struct Runtime {
    handle: Handle,
    /// Gone only while this is dropped; none for a simulated member, which runs on its simulator's.
    owned: Option<tokio::runtime::Runtime>,
    simulated: Option<Environment>,
}

const WORKERS: usize = 1;

impl Runtime {
    /// Starts the thread, for the store that this thread works for ([`label`]).
    ///
    /// # Errors
    /// The operating system gave none.
    pub fn start() -> Result<Self, EngineError> {
        let store = label::current();
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("tank-raft")
            .on_thread_start(move || label::set(store.clone()))
            .enable_time()
            .build();
        let failed = |error: std::io::Error| EngineError::Storage(format!("no threads: {error}"));
        let runtime = runtime.map_err(failed)?;
        Ok(Self { handle: runtime.handle().clone(), owned: Some(runtime), simulated: None })
    }

    /// The runtime of a simulated member: that of its simulator's task, which this is.
    pub(crate) fn simulated(environment: Environment) -> Self {
        Self { handle: Handle::current(), owned: None, simulated: Some(environment) }
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Waits for `future`, on a thread that may block.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.handle.block_on(future)
    }

    /// Runs `task`. When it panics, the store is marked as failed.
    pub(crate) fn spawn<F>(&self, name: &'static str, health: &Arc<Health>, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = guarded(name, Arc::clone(health), task);
        match &self.simulated {
            None => drop(self.handle.spawn(task)),
            Some(environment) => environment.enter(|| drop(environment::spawn(&self.handle, task))),
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.owned.take() {
            // The last handle on a store may be a task's: it cannot wait for itself.
            runtime.shutdown_background();
        }
    }
}

/// As [`Runtime::spawn`], from a task of a store, on its runtime. Anywhere else `task` is dropped.
pub(crate) fn spawn_here<F>(name: &'static str, health: Arc<Health>, task: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    if let Ok(handle) = Handle::try_current() {
        environment::spawn(&handle, guarded(name, health, task));
    }
}

async fn guarded(name: &'static str, health: Arc<Health>, task: impl Future<Output = ()> + Send) {
    if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
        health.panicked(name, panic.as_ref());
    }
}

/// Runs `step`, which may block or take long, so that the other tasks of this runtime go on meanwhile.
pub(crate) fn blocking<T>(step: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(step),
        _ => step(),
    }
}

/// Runs `step`, which may block or take long, on a thread that may. A simulated member runs it at once.
///
/// # Errors
/// It panicked.
pub(crate) async fn offload<T: Send + 'static>(step: impl FnOnce() -> T + Send + 'static) -> Result<T, EngineError> {
    if environment::is_simulated() {
        return Ok(step());
    }
    let done = tokio::task::spawn_blocking(step).await;
    done.map_err(|error| EngineError::Failed(error.to_string()))
}

/// As [`offload`], from a task of a store, which does not wait for it. When it fails, the store has.
pub(crate) fn run_aside<F>(name: &'static str, health: Arc<Health>, step: F)
where
    F: FnOnce() -> Result<(), EngineError> + Send + 'static,
{
    let step = move || match std::panic::catch_unwind(AssertUnwindSafe(step)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => health.fail(error),
        Err(panic) => health.panicked(name, panic.as_ref()),
    };
    if environment::is_simulated() {
        drop(spawn_simulated(async { step() }));
    } else if let Ok(handle) = Handle::try_current() {
        drop(handle.spawn_blocking(step));
    }
}

/// Runs what has a thread of its own elsewhere as a task of a simulated member.
pub(crate) fn spawn_simulated(body: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
    environment::spawn(&Handle::current(), body)
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
    let store = label::current();
    std::thread::Builder::new().name(format!("tank-{name}")).spawn(move || {
        label::set(store);
        if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(body)) {
            health.panicked(name, panic.as_ref());
        }
    })
}
