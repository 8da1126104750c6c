//! A watch's place in the history.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::entry::Entry;
use crate::error::EngineError;
use crate::key::Key;
use crate::machine::{Replay, Replayed};
use crate::state::{Filter, Revised};
use crate::sync::lock;

use super::hub::{Hub, Recent};

/// Called once when an armed watch has something to deliver, or its store is closed; on a thread of
/// the engine's. It must not block.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// Revisions taken from the ring at a time.
const TAKE: usize = 64;

/// How much [`Cursor::next`] may give and look at. A revision is never split: the first one may be
/// larger.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Revisions to deliver.
    pub revisions: usize,
    /// Bytes to deliver.
    pub bytes: usize,
    /// Revisions to look at.
    pub look: usize,
    /// Changes of those to look at; somebody patient looks at the first revision whatever it has.
    pub changes: usize,
    /// Whether the disk may be read, and a revision larger than the budget be given.
    pub patient: bool,
}

/// What comes next.
#[derive(Debug)]
pub enum Next {
    /// Revisions that passed the filter, in order; and the revision up to which nothing else did.
    /// None when the budget was spent with looking.
    Changes(Vec<Arc<Revised>>, u64),
    /// Nothing behind this revision; the watch is armed.
    Idle(u64),
    /// To be asked for patiently.
    Large,
    /// What comes next is compacted. The oldest revision that can be gone on from.
    Compacted(u64),
}

/// A watch. Dropping it ends it.
pub struct Cursor {
    hub: Arc<Hub>,
    replay: Replay,
    waiting: Arc<Waiting>,
    /// Held by who asks for what comes next.
    turn: Mutex<()>,
}

/// A watch as the hub knows it. The hub's lock guards what it says while it is armed.
pub(super) struct Waiting {
    pub(super) filter: Filter,
    next: AtomicU64,
    armed: AtomicBool,
    /// Orders those that are armed by when they were.
    number: AtomicU64,
    wake: Wake,
}

impl Cursor {
    /// A watch of what comes behind the revision `after`.
    pub(crate) fn new(hub: Arc<Hub>, replay: Replay, filter: Filter, after: u64, wake: Wake) -> Self {
        let waiting = Arc::new(Waiting::new(filter, after.saturating_add(1), wake));
        Self { hub, replay, waiting, turn: Mutex::new(()) }
    }

    /// What it is about.
    pub fn filter(&self) -> &Filter {
        &self.waiting.filter
    }

    /// What comes next, and moves on behind it.
    ///
    /// # Errors
    /// The store is closed, or the history damaged.
    pub fn next(&self, budget: Budget) -> Result<Next, EngineError> {
        let _turn = lock(&self.turn);
        let next = self.hub.disarm(&self.waiting);
        let mut batch = Batch { budget, revisions: Vec::new(), bytes: 0, looked: 0, changes: 0, next };
        let next = self.fill(&mut batch)?;
        self.waiting.next.store(batch.next, Ordering::Release);
        Ok(next)
    }

    /// Arms it, if there is nothing after what it has given: then it need not be asked to find that out. `false` when
    /// there is something, or the store is closed.
    pub fn rest(&self) -> bool {
        let _turn = lock(&self.turn);
        let next = self.hub.disarm(&self.waiting);
        matches!(self.hub.recent(next, 1), Recent::Ahead) && self.hub.arm(&self.waiting, next).unwrap_or(false)
    }

    /// Goes on behind `revision`, and is not armed: somebody else saw to what came before.
    pub fn go_on_behind(&self, revision: u64) {
        let _turn = lock(&self.turn);
        self.hub.disarm(&self.waiting);
        self.waiting.next.store(revision.saturating_add(1), Ordering::Release);
    }

    /// The payload of an entry of a change, from memory or the disk. `None` when it was compacted
    /// since the change was taken.
    ///
    /// # Errors
    /// The store is closed, or the disk's.
    pub fn payload(&self, key: &Key, entry: &Entry) -> Result<Option<Bytes>, EngineError> {
        self.replay.payload(key, entry)
    }

    /// The oldest revision that can be gone on from.
    ///
    /// # Errors
    /// The store is closed, or the state cannot be read.
    pub fn compacted(&self) -> Result<u64, EngineError> {
        self.replay.compacted()
    }

    /// Ends the watch: it is never woken again.
    pub fn cancel(&self) {
        self.hub.disarm(&self.waiting);
    }

    fn fill(&self, batch: &mut Batch) -> Result<Next, EngineError> {
        loop {
            match self.hub.recent(batch.next, TAKE) {
                Recent::Ahead if !batch.revisions.is_empty() => return Ok(batch.take()),
                Recent::Ahead => {
                    if self.hub.arm(&self.waiting, batch.next)? {
                        return Ok(Next::Idle(batch.next - 1));
                    }
                }
                Recent::Gone if !batch.revisions.is_empty() => return Ok(batch.take()),
                Recent::Gone if !batch.budget.patient => return Ok(Next::Large),
                Recent::Gone => return self.read(batch),
                Recent::Revisions(revisions) => {
                    for revised in &revisions {
                        if !batch.may_look_at(revised.changes.len()) {
                            return Ok(batch.take());
                        }
                        if batch.offer(self.waiting.filter.of(revised), revised.revision).is_break() {
                            return Ok(batch.take());
                        }
                    }
                }
            }
        }
    }

    /// What the ring does not have any more.
    fn read(&self, batch: &mut Batch) -> Result<Next, EngineError> {
        // Not further than what is published: who is told of a revision can read it.
        let (after, until) = (batch.next - 1, self.hub.last());
        let read = self.replay.each(after, until, &self.waiting.filter, &mut |revised| {
            let revision = revised.revision;
            let is_passed = !revised.changes.is_empty() || !revised.nodes.is_empty();
            batch.offer(is_passed.then(|| Arc::new(revised)), revision)
        })?;
        match read {
            Replayed::Compacted(min) => Ok(Next::Compacted(min)),
            Replayed::Done => Ok(batch.take()),
        }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl Waiting {
    pub(super) fn new(filter: Filter, next: u64, wake: Wake) -> Self {
        let (armed, number) = (AtomicBool::new(false), AtomicU64::new(0));
        Self { filter, next: AtomicU64::new(next), armed, number, wake }
    }

    pub(super) fn arm(&self, next: u64, number: u64) {
        self.next.store(next, Ordering::Release);
        self.number.store(number, Ordering::Release);
        self.armed.store(true, Ordering::Release);
    }

    /// No longer armed: it goes on with `next`.
    pub(super) fn found(&self, next: u64) {
        self.next.store(next, Ordering::Release);
        self.armed.store(false, Ordering::Release);
    }

    pub(super) fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Acquire)
    }

    pub(super) fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    pub(super) fn next(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    pub(super) fn wake(&self) {
        (self.wake)();
    }
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("filter", &self.filter).field("next", &self.next).finish_non_exhaustive()
    }
}

/// What is gathered for one answer.
struct Batch {
    budget: Budget,
    revisions: Vec<Arc<Revised>>,
    bytes: usize,
    looked: usize,
    changes: usize,
    /// The first revision that was not looked at.
    next: u64,
}

impl Batch {
    /// Whether `changes` more changes of a revision are still within the budget.
    fn may_look_at(&mut self, changes: usize) -> bool {
        self.changes += changes;
        self.changes <= self.budget.changes || (self.looked == 0 && self.budget.patient)
    }

    /// Takes what passed of `revision`, or leaves it for the next time. Breaks when the budget is spent.
    fn offer(&mut self, passed: Option<Arc<Revised>>, revision: u64) -> ControlFlow<()> {
        if let Some(revised) = passed {
            let bytes = revised.bytes();
            // Somebody patient gets the first one whatever its size.
            let small = self.bytes + bytes <= self.budget.bytes;
            let patient = self.budget.patient;
            // Values that are not in memory are read from the disk, which takes patience too.
            let fits = if patient { small || self.revisions.is_empty() } else { small && !revised.is_evicted() };
            if !fits {
                return ControlFlow::Break(());
            }
            self.bytes += bytes;
            self.revisions.push(revised);
        }
        self.looked += 1;
        self.next = revision + 1;
        let spent = self.revisions.len() >= self.budget.revisions || self.looked >= self.budget.look;
        if spent { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn take(&mut self) -> Next {
        if self.looked == 0 && !self.budget.patient {
            return Next::Large;
        }
        Next::Changes(std::mem::take(&mut self.revisions), self.next - 1)
    }
}
