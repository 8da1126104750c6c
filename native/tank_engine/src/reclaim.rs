//! A thread that drops what would be costly to drop where it is no longer needed.
//!
//! Dropping the last handle on a large view or on a set of decoded terms frees thousands of
//! objects. Readers run on the BEAM's schedulers and must not pay for that, nor must the task
//! that applies the log. A simulated member has no other thread, and drops them at once.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use once_cell::sync::Lazy;

use crate::environment;
use crate::faults;

/// How long to wait before looking again at values that a reader still holds.
const RECHECK: Duration = Duration::from_millis(20);

static QUEUE: Lazy<Sender<Job>> = Lazy::new(start);

enum Job {
    /// Drop it.
    Now(Box<dyn Any + Send>),
    /// Drop it once nobody else holds it.
    WhenUnused(Box<dyn Shared>),
}

trait Shared: Send {
    fn is_unused(&self) -> bool;
}

impl<T: Send + Sync> Shared for Arc<T> {
    fn is_unused(&self) -> bool {
        Arc::strong_count(self) == 1
    }
}

/// Drops `value` on the reclaiming thread.
pub fn now(value: impl Any + Send) {
    if environment::is_simulated() {
        return drop(value);
    }
    // The thread never ends, so the send does not fail; if it did, the value is dropped here.
    let _ = QUEUE.send(Job::Now(Box::new(value)));
}

/// Drops `value` on the reclaiming thread once no one else holds it. While they hold it, no one
/// else is the last.
pub fn when_unused<T: Send + Sync + 'static>(value: Arc<T>) {
    if environment::is_simulated() {
        return drop(value);
    }
    let _ = QUEUE.send(Job::WhenUnused(Box::new(value)));
}

fn start() -> Sender<Job> {
    let (sender, receiver) = unbounded();
    let body = move || run(&receiver);
    if let Err(error) = std::thread::Builder::new().name("tank-reclaim".to_owned()).spawn(body) {
        tracing::error!(%error, "no thread for reclaiming: values are dropped where they are used last");
    }
    sender
}

fn run(queue: &Receiver<Job>) {
    let mut held: Vec<Box<dyn Shared>> = Vec::new();
    let mut looked = Instant::now();
    loop {
        let job = if held.is_empty() {
            queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            queue.recv_timeout(RECHECK)
        };
        // A destructor that panics must not end the thread.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            faults::point("reclaim");
            match job {
                Ok(Job::Now(value)) => drop(value),
                Ok(Job::WhenUnused(value)) if value.is_unused() => drop(value),
                Ok(Job::WhenUnused(value)) => held.push(value),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
            // Also while jobs keep coming: a store under load never pauses for as long.
            if looked.elapsed() >= RECHECK {
                held.retain(|value| !value.is_unused());
                looked = Instant::now();
            }
            true
        }));
        match outcome {
            Ok(true) => {}
            Ok(false) => return,
            Err(_) => tracing::error!("a panic while reclaiming memory; the thread goes on"),
        }
    }
}
