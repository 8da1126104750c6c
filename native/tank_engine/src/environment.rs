//! What a member takes from outside of it: the wall clock, randomness, and tasks.
//!
//! The operating system and tokio give them, unless a simulator takes their place: [`Environment`]. It
//! goes from task to task by itself, since openraft asks for tasks and randomness by functions that
//! know of no member ([`crate::raft_runtime`]).
//!
//! The monotonic clock is tokio's everywhere: a simulator pauses it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinHandle};

/// What a simulator gives a member.
pub trait World: Send + Sync + 'static {
    /// The wall clock, in milliseconds since the epoch.
    fn wall_ms(&self) -> u64;

    /// A random number.
    fn random(&self) -> u64;

    /// The member started a task. It ends with the member, when that is killed.
    fn spawned(&self, task: AbortHandle);

    /// For how long the member was suspended in all, so far.
    fn suspended(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether the member is suspended, as a process can be: then its tasks do nothing, and `task` is to be woken
    /// when it goes on.
    fn suspends(&self, _task: &Waker) -> bool {
        false
    }
}

/// A simulated member's world. Clones are the same.
#[derive(Clone)]
pub struct Environment(Arc<dyn World>);

tokio::task_local! {
    static SIMULATED: Environment;
}

impl Environment {
    /// The environment of a member in `world`.
    pub fn new(world: Arc<dyn World>) -> Self {
        Self(world)
    }

    /// Calls something of the member in it.
    pub fn enter<T>(&self, call: impl FnOnce() -> T) -> T {
        SIMULATED.sync_scope(self.clone(), call)
    }

    /// Runs something of the member in it.
    pub fn run<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        let environment = self.clone();
        SIMULATED.scope(self.clone(), async move {
            let mut future = pin!(future);
            poll_fn(
                move |context| {
                    if environment.0.suspends(context.waker()) { Poll::Pending } else { future.as_mut().poll(context) }
                },
            )
            .await
        })
    }
}

impl Environment {
    /// A random number.
    pub(crate) fn random(&self) -> u64 {
        self.0.random()
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Environment")
    }
}

/// The environment of this task, if it is simulated.
pub(crate) fn current() -> Option<Environment> {
    SIMULATED.try_with(Clone::clone).ok()
}

/// Whether this task is one of a simulated member. All of it happens on one thread then.
pub(crate) fn is_simulated() -> bool {
    SIMULATED.try_with(|_| ()).is_ok()
}

/// For how long this task's member was suspended in all, if it is simulated.
pub(crate) fn suspended() -> Duration {
    SIMULATED.try_with(|simulated| simulated.0.suspended()).unwrap_or_default()
}

/// The wall clock, in milliseconds since the epoch.
pub(crate) fn wall_ms() -> u64 {
    SIMULATED.try_with(|simulated| simulated.0.wall_ms()).unwrap_or_else(|_| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// A random number.
///
/// # Errors
/// The operating system gives none.
pub(crate) fn random() -> Result<u64, getrandom::Error> {
    SIMULATED.try_with(|simulated| simulated.0.random()).map_or_else(|_| getrandom::u64(), Ok)
}

/// Starts a task on `runtime`, in this task's environment.
pub(crate) fn spawn<F>(runtime: &Handle, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let Some(environment) = current() else { return runtime.spawn(future) };
    let task = runtime.spawn(environment.run(future));
    environment.0.spawned(task.abort_handle());
    task
}
