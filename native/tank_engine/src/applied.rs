//! Who waits until the view shows the log up to an index.
//!
//! In the order of the indexes, so that a view that is published costs those that still wait nothing.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::sync::lock;

/// The queue of one view.
#[derive(Debug)]
pub(crate) struct AppliedQueue {
    /// The lowest index that is waited for.
    lowest: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By index, and the order in which they came.
    queue: BTreeMap<(u64, u64), oneshot::Sender<()>>,
    came: u64,
}

/// A place in the queue; given up with this.
struct Place<'a> {
    queue: &'a AppliedQueue,
    at: (u64, u64),
}

impl Default for AppliedQueue {
    fn default() -> Self {
        Self { lowest: AtomicU64::new(u64::MAX), waiting: Mutex::default() }
    }
}

impl AppliedQueue {
    /// Returns whether the log is applied up to `index` before `deadline`. `applied` is how far it is now.
    pub(crate) async fn wait(&self, index: u64, deadline: Instant, applied: impl Fn() -> u64) -> bool {
        if applied() >= index {
            return true;
        }
        let (sender, released) = oneshot::channel();
        let place = {
            let mut waiting = lock(&self.waiting);
            let at = (index, waiting.came);
            waiting.came += 1;
            waiting.queue.insert(at, sender);
            self.note_lowest(&waiting);
            Place { queue: self, at }
        };
        // Either the one that publishes sees the place, or this sees what it published.
        fence(Ordering::SeqCst);
        if applied() >= index {
            return true;
        }
        let released = timeout_at(deadline, released).await;
        drop(place);
        matches!(released, Ok(Ok(()))) || applied() >= index
    }

    /// Lets those go that wait for `applied` or less. To be called once that is to be seen.
    pub(crate) fn release(&self, applied: u64) {
        fence(Ordering::SeqCst);
        if applied < self.lowest.load(Ordering::Relaxed) {
            return;
        }
        let released = {
            let mut waiting = lock(&self.waiting);
            let later = match applied.checked_add(1) {
                Some(next) => waiting.queue.split_off(&(next, 0)),
                None => BTreeMap::new(),
            };
            let released = std::mem::replace(&mut waiting.queue, later);
            self.note_lowest(&waiting);
            released
        };
        for sender in released.into_values() {
            // It gave up a moment ago.
            let _ = sender.send(());
        }
    }

    fn note_lowest(&self, waiting: &Waiting) {
        let lowest = waiting.queue.first_key_value().map_or(u64::MAX, |((index, _), _)| *index);
        self.lowest.store(lowest, Ordering::Relaxed);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = lock(&self.queue.waiting);
        if waiting.queue.remove(&self.at).is_some() {
            self.queue.note_lowest(&waiting);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use futures_util::future::join_all;

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test);
    }

    #[test]
    fn those_that_wait_are_released_by_index_and_the_others_wait_on() {
        run(async {
            let (queue, applied) = (AppliedQueue::default(), AtomicU64::new(0));
            let now = || applied.load(Ordering::SeqCst);
            let deadline = Instant::now() + Duration::from_secs(60);
            let mut waits: Vec<_> = (1..=5).map(|index| Box::pin(queue.wait(index, deadline, now))).collect();
            assert!(waits.iter_mut().all(|wait| wait.now_or_never().is_none()));
            applied.store(3, Ordering::SeqCst);
            queue.release(3);
            let later = waits.split_off(3);
            assert!(join_all(waits).await.into_iter().all(|released| released));
            assert_eq!(queue.lowest.load(Ordering::SeqCst), 4);
            drop(later);
            assert_eq!(queue.lowest.load(Ordering::SeqCst), u64::MAX, "who gives up leaves nothing behind");
            assert!(lock(&queue.waiting).queue.is_empty());
        });
    }

    #[test]
    fn what_is_applied_is_not_waited_for_and_what_is_not_ends_in_time() {
        run(async {
            let queue = AppliedQueue::default();
            assert!(queue.wait(7, Instant::now(), || 7).await);
            assert!(!queue.wait(8, Instant::now(), || 7).await);
        });
    }
}
