//! Where the applying task leaves what it did, and where watches with nothing to deliver wait.
//!
//! The applying task pays for pushing revisions into the ring, under a lock that is held for
//! microseconds. A task of the hub looks which of the armed watches they concern: by the paths that
//! lead to each change, so that it costs as much as there are changes, not watches.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::error::EngineError;
use crate::faults;
use crate::key::{Key, first_component};
use crate::reclaim;
use crate::sync::lock;

use super::cursor::Waiting;
use super::ring::{Revised, Ring};

/// Revisions that the hub's task looks at with the lock of the armed watches held.
const LOOK_MAX: usize = 256;

/// The newest revisions, and the armed watches.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    ring: Mutex<Ring>,
    armed: Mutex<Armed>,
    /// How many are armed: the applying task wakes nobody for nothing.
    count: AtomicUsize,
    pushed: Notify,
}

/// What the ring has from a revision on.
pub(crate) enum Recent {
    /// These, at least one.
    Revisions(Vec<Arc<Revised>>),
    /// Nothing: the revision is not there yet.
    Ahead,
    /// The revision is not kept any more.
    Gone,
}

#[derive(Debug, Default)]
struct Armed {
    /// Every armed watch has been moved past this revision, or been found.
    seen: u64,
    /// By the path that all a watch passes is at or below.
    by_path: HashMap<Key, Vec<Arc<Waiting>>>,
    closed: bool,
}

impl Hub {
    /// Bounds the bytes of revisions kept in memory.
    pub(crate) fn set_bytes_max(&self, bytes_max: usize) {
        lock(&self.ring).set_bytes_max(bytes_max);
    }

    /// Takes revisions that are published. Never waits for a watch.
    pub(crate) fn publish(&self, mut revised: Vec<Arc<Revised>>) {
        if revised.is_empty() {
            return;
        }
        if faults::skipped("watch_drop") {
            // What the tests of watches must notice.
            revised.iter_mut().for_each(|one| *one = Arc::new(Revised { revision: one.revision, changes: Vec::new() }));
        }
        let out = lock(&self.ring).push(revised);
        if !out.is_empty() {
            reclaim::now(out);
        }
        self.wake_task();
    }

    /// The state was replaced by one of that revision: how it came about is on the disk only.
    pub(crate) fn reset(&self, revision: u64) {
        let out: VecDeque<_> = lock(&self.ring).reset(revision);
        reclaim::now(out);
        self.wake_task();
    }

    /// The newest published revision.
    pub(crate) fn last(&self) -> u64 {
        lock(&self.ring).last()
    }

    /// What is in memory from `revision` on, of `count` revisions at the most.
    pub(crate) fn recent(&self, revision: u64, count: usize) -> Recent {
        let ring = lock(&self.ring);
        if revision > ring.last() {
            return Recent::Ahead;
        }
        ring.from(revision, count).map_or(Recent::Gone, Recent::Revisions)
    }

    /// Looks through new revisions for those that armed watches wait for, until the hub is closed.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            self.pushed.notified().await;
            faults::point("watch_hub");
            while self.look() {
                tokio::task::yield_now().await;
            }
            if lock(&self.armed).closed {
                return;
            }
        }
    }

    /// Wakes all that wait, for good: the store is closed.
    pub(crate) fn close(&self) {
        let woken = {
            let mut armed = lock(&self.armed);
            armed.closed = true;
            self.count.store(0, Ordering::SeqCst);
            armed.take_all()
        };
        self.pushed.notify_one();
        woken.iter().for_each(|waiting| waiting.wake());
    }

    /// Arms a watch that has looked at everything before `next`. `false` when that is not all there
    /// is any more.
    pub(super) fn arm(&self, waiting: &Arc<Waiting>, next: u64) -> Result<bool, EngineError> {
        {
            let mut armed = lock(&self.armed);
            if armed.closed {
                return Err(EngineError::Closed);
            }
            if armed.by_path.is_empty() {
                // Nobody waited, so nobody looked.
                armed.seen = armed.seen.max(self.last());
            }
            if next <= armed.seen {
                return Ok(false);
            }
            waiting.arm(next);
            armed.by_path.entry(waiting.filter.fixed().clone()).or_default().push(Arc::clone(waiting));
            self.count.fetch_add(1, Ordering::SeqCst);
        }
        // What was pushed before the count rose woke nobody.
        if lock(&self.ring).last() >= next {
            self.pushed.notify_one();
        }
        Ok(true)
    }

    /// Where a watch goes on, which is not armed afterwards.
    pub(super) fn disarm(&self, waiting: &Arc<Waiting>) -> u64 {
        let mut armed = lock(&self.armed);
        if waiting.is_armed() {
            if let Some(others) = armed.by_path.get_mut(waiting.filter.fixed()) {
                others.retain(|other| !Arc::ptr_eq(other, waiting));
                if others.is_empty() {
                    armed.by_path.remove(waiting.filter.fixed());
                }
            }
            self.count.fetch_sub(1, Ordering::SeqCst);
            waiting.found(waiting.next().max(armed.seen + 1));
        }
        waiting.next()
    }

    fn wake_task(&self) {
        if self.count.load(Ordering::SeqCst) > 0 {
            self.pushed.notify_one();
        }
    }

    /// Looks at some revisions. Whether there are more.
    pub(super) fn look(&self) -> bool {
        let (woken, more) = {
            let mut armed = lock(&self.armed);
            // In this order also elsewhere: the applying task takes the ring's lock alone.
            let recent = if armed.by_path.is_empty() {
                armed.seen = armed.seen.max(self.last());
                Recent::Ahead
            } else {
                self.recent(armed.seen + 1, LOOK_MAX)
            };
            let (woken, more) = match recent {
                Recent::Ahead => (Vec::new(), false),
                // Too slow, or the state was replaced: they look for themselves, on the disk.
                Recent::Gone => {
                    armed.seen = lock(&self.ring).first() - 1;
                    (armed.take_all(), true)
                }
                Recent::Revisions(revisions) => {
                    let woken = revisions.iter().flat_map(|revised| armed.take_concerned(revised)).collect();
                    (woken, true)
                }
            };
            // While nobody else arms or takes: so it never counts fewer than there are.
            self.count.fetch_sub(woken.len(), Ordering::SeqCst);
            (woken, more)
        };
        woken.iter().for_each(|waiting| waiting.wake());
        more
    }
}

impl Armed {
    fn take_all(&mut self) -> Vec<Arc<Waiting>> {
        let all: Vec<_> = self.by_path.drain().flat_map(|(_, waiting)| waiting).collect();
        for waiting in &all {
            // A watch that began behind a gap has to look into it.
            waiting.found(waiting.next());
        }
        all
    }

    /// Takes out those that wait for something in `revised`; moves on past it.
    fn take_concerned(&mut self, revised: &Revised) -> Vec<Arc<Waiting>> {
        self.seen = revised.revision;
        let mut taken = Vec::new();
        for change in &revised.changes {
            for path in ancestors(change.key.as_bytes()) {
                let Some(at_path) = self.by_path.get_mut(path) else { continue };
                at_path.retain(|waiting| {
                    let concerned = waiting.next() <= revised.revision && waiting.filter.passes(change);
                    if concerned {
                        waiting.found(revised.revision);
                        taken.push(Arc::clone(waiting));
                    }
                    !concerned
                });
                if at_path.is_empty() {
                    self.by_path.remove(path);
                }
            }
            if self.by_path.is_empty() {
                break;
            }
        }
        taken
    }
}

/// The encodings of the root and of all paths down to `key`, itself included.
fn ancestors(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut length = Some(0);
    std::iter::from_fn(move || {
        let path = key.get(..length?)?;
        let rest = key.get(path.len()..)?;
        length = first_component(rest).map(|component| path.len() + component.len());
        Some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestors_are_the_root_and_all_paths_down_to_the_key() {
        let all: Vec<_> = ancestors(b"\x01a\0\x02b\0").collect();
        assert_eq!(all, [&b""[..], b"\x01a\0", b"\x01a\0\x02b\0"]);
        assert_eq!(ancestors(b"").collect::<Vec<_>>(), [b""]);
    }
}
