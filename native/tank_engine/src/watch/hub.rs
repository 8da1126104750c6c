//! Where the applying task leaves what it did, and where watches with nothing to deliver wait.
//!
//! ```text
//! applying task --push--> ring <--take-- looking thread (worker.rs) --wake--> armed watches
//!                                             |
//!                           schedulers --arm, disarm--> armed
//! ```
//!
//! The applying task pays for pushing revisions into the ring, under a lock that is held for
//! microseconds. A thread looks which of the armed watches they concern: by the paths that
//! lead to each change, so that it costs as much as there are changes, not watches; and once for all
//! watches of the same. It holds no lock while it looks: schedulers arm and disarm watches meanwhile.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use crate::error::EngineError;
use crate::faults;
use crate::health::Health;
use crate::key::{Key, first_component};
use crate::reclaim;
use crate::state::{Change, Filter, NodeStep, Revised};
use crate::sync::lock;

use super::cursor::Waiting;
use super::ring::Ring;
use super::worker;

/// Revisions that the looking thread takes from the ring at a time.
const TAKE: usize = 64;

/// The newest revisions, and the armed watches.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    ring: Mutex<Ring>,
    armed: Mutex<Armed>,
    /// How many are armed: the applying task wakes nobody for nothing.
    count: AtomicUsize,
    /// The looking thread's alone.
    looking: Mutex<Looking>,
    /// Whether the looking thread is asked to look here.
    queued: AtomicBool,
    health: OnceLock<Arc<Health>>,
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
    /// The last revision that the thread has begun to look at: a watch that is armed now would be found by a part
    /// of its changes only.
    begun: u64,
    /// What the armed watches wait for, by the path that it is at or below. Shared with the thread that looks.
    by_path: HashMap<Key, Arc<Vec<Filter>>>,
    waiting: HashMap<Filter, Vec<Arc<Waiting>>>,
    /// How often one was armed.
    arms: u64,
    closed: bool,
}

/// How far the thread is.
#[derive(Debug, Default)]
struct Looking {
    revisions: VecDeque<Arc<Revised>>,
    /// Changes of the first of them that it has looked at, and what became of nodes behind those.
    changes: usize,
}

impl Hub {
    /// Looks through new revisions from now on, for those that armed watches wait for. Should that panic, `health`
    /// is told.
    pub(crate) fn start(&self, health: &Arc<Health>) {
        let _ = self.health.set(Arc::clone(health));
    }

    /// Bounds the bytes of revisions kept in memory.
    pub(crate) fn set_bytes_max(&self, bytes_max: usize) {
        lock(&self.ring).set_bytes_max(bytes_max);
    }

    /// Takes revisions that are published. Never waits for a watch.
    pub(crate) fn publish(self: &Arc<Self>, mut revised: Vec<Arc<Revised>>) {
        if revised.is_empty() {
            return;
        }
        if faults::skipped("watch_drop") {
            // What the tests of watches must notice.
            revised.iter_mut().for_each(|one| {
                *one = Arc::new(Revised { revision: one.revision, changes: Vec::new(), nodes: Vec::new() });
            });
        }
        let sized: Vec<_> = revised.into_iter().map(|one| (one.bytes(), one)).collect();
        let out = lock(&self.ring).push(sized);
        if !out.is_empty() {
            reclaim::now(out);
        }
        self.wake_if_armed();
    }

    /// The state was replaced by one of that revision: how it came about is on the disk only.
    pub(crate) fn reset(self: &Arc<Self>, revision: u64) {
        let out = lock(&self.ring).reset(revision);
        reclaim::now(out);
        self.wake_if_armed();
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

    /// Wakes all that wait, for good: the store is closed.
    pub(crate) fn close(&self) {
        let woken = {
            let mut armed = lock(&self.armed);
            armed.closed = true;
            self.count.store(0, Ordering::SeqCst);
            armed.take_all()
        };
        woken.iter().for_each(|waiting| waiting.wake());
    }

    /// Arms a watch that has looked at everything before `next`. `false` when that is not all there
    /// is any more.
    pub(super) fn arm(self: &Arc<Self>, waiting: &Arc<Waiting>, next: u64) -> Result<bool, EngineError> {
        {
            let mut armed = lock(&self.armed);
            if armed.closed {
                return Err(EngineError::Closed);
            }
            if armed.by_path.is_empty() {
                // Nobody waited, so nobody looked.
                armed.pass(self.last());
            }
            if next <= armed.begun {
                return Ok(false);
            }
            armed.arms += 1;
            waiting.arm(next, armed.arms);
            armed.add(waiting);
            self.count.fetch_add(1, Ordering::SeqCst);
        }
        // What was pushed before the count rose woke nobody.
        if lock(&self.ring).last() >= next {
            self.wake_thread();
        }
        Ok(true)
    }

    /// Where a watch goes on, which is not armed afterwards.
    pub(super) fn disarm(&self, waiting: &Arc<Waiting>) -> u64 {
        let mut armed = lock(&self.armed);
        if waiting.is_armed() {
            armed.remove(waiting);
            self.count.fetch_sub(1, Ordering::SeqCst);
            waiting.found(waiting.next().max(armed.seen + 1));
        }
        waiting.next()
    }

    fn wake_if_armed(self: &Arc<Self>) {
        if self.count.load(Ordering::SeqCst) > 0 {
            self.wake_thread();
        }
    }

    fn wake_thread(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            worker::look_at(Arc::clone(self));
        }
    }

    /// Called by the looking thread, one call at a time: looks at what is new, for about `budget` looks at whether
    /// something passes a filter. Whether there is more.
    pub(super) fn look(&self, budget: usize) -> bool {
        // From here on, what is pushed asks again.
        self.queued.store(false, Ordering::Release);
        faults::point("watch_hub");
        let mut looking = lock(&self.looking);
        let mut left = budget;
        loop {
            if looking.revisions.is_empty() && !self.take(&mut looking) {
                return false;
            }
            let Some(revised) = looking.revisions.front().cloned() else { return false };
            if looking.changes == 0 {
                lock(&self.armed).begin(revised.revision);
            }
            while let Some(one) = One::of(&revised, looking.changes) {
                if self.count.load(Ordering::SeqCst) == 0 {
                    // Whoever is armed from now on waits for what comes later.
                    *looking = Looking::default();
                    break;
                }
                if left == 0 {
                    return true;
                }
                // One change is not split: it costs as much as there are filters.
                left = left.saturating_sub(self.look_at(&revised, one));
                looking.changes += 1;
            }
            if looking.revisions.pop_front().is_some() {
                lock(&self.armed).pass(revised.revision);
            }
            looking.changes = 0;
            if left == 0 {
                return true;
            }
        }
    }

    /// Asks to be looked at again; told by the looking thread that there is more.
    pub(super) fn again(self: &Arc<Self>) {
        self.wake_thread();
    }

    /// Ends the watches' store, since looking at it panicked. It is not looked at again.
    pub(super) fn panicked(&self, panic: &(dyn std::any::Any + Send)) {
        self.queued.store(true, Ordering::Release);
        if let Some(health) = self.health.get() {
            health.panicked("watch-hub", panic);
        }
    }

    /// Takes the next revisions, if there are any that somebody waits for.
    fn take(&self, looking: &mut Looking) -> bool {
        loop {
            let woken = {
                let mut armed = lock(&self.armed);
                if armed.by_path.is_empty() {
                    armed.pass(self.last());
                    return false;
                }
                // In this order also elsewhere: the applying task takes the ring's lock alone.
                match self.recent(armed.seen + 1, TAKE) {
                    Recent::Ahead => return false,
                    Recent::Revisions(revisions) => {
                        looking.revisions = revisions.into();
                        return true;
                    }
                    // Too slow, or the state was replaced: they look for themselves, on the disk.
                    Recent::Gone => {
                        let first = lock(&self.ring).first();
                        armed.pass(first - 1);
                        let woken = armed.take_all();
                        // While nobody else arms or takes: so it never counts fewer than there are.
                        self.count.fetch_sub(woken.len(), Ordering::SeqCst);
                        woken
                    }
                }
            };
            woken.iter().for_each(|waiting| waiting.wake());
        }
    }

    /// Wakes those that wait for a part of `revised`. Returns how many filters it was held against.
    fn look_at(&self, revised: &Revised, one: One<'_>) -> usize {
        let mut looks = 1;
        for path in ancestors(one.key().as_bytes()) {
            let Some(filters) = lock(&self.armed).by_path.get(path).cloned() else { continue };
            looks += filters.len();
            for filter in filters.iter().filter(|filter| one.passes(filter)) {
                let woken = {
                    let mut armed = lock(&self.armed);
                    let woken = armed.take_waiting(filter, revised.revision);
                    self.count.fetch_sub(woken.len(), Ordering::SeqCst);
                    woken
                };
                woken.iter().for_each(|waiting| waiting.wake());
            }
        }
        looks
    }
}

/// A part of a revision.
#[derive(Clone, Copy)]
enum One<'r> {
    Change(&'r Change),
    Step(&'r NodeStep),
}

impl<'r> One<'r> {
    /// The changes come first.
    fn of(revised: &'r Revised, at: usize) -> Option<Self> {
        let step = || revised.nodes.get(at - revised.changes.len()).map(Self::Step);
        revised.changes.get(at).map(Self::Change).or_else(step)
    }

    fn key(self) -> &'r Key {
        match self {
            Self::Change(change) => &change.key,
            Self::Step(step) => &step.key,
        }
    }

    fn passes(self, filter: &Filter) -> bool {
        match self {
            Self::Change(change) => filter.passes(change),
            Self::Step(step) => filter.passes_step(step),
        }
    }
}

impl Armed {
    /// A look at `revision` begins.
    fn begin(&mut self, revision: u64) {
        self.begun = self.begun.max(revision);
    }

    /// All that are armed have been looked at up to `revision`.
    fn pass(&mut self, revision: u64) {
        self.seen = self.seen.max(revision);
        self.begun = self.begun.max(self.seen);
    }

    fn add(&mut self, waiting: &Arc<Waiting>) {
        let alike = self.waiting.entry(waiting.filter.clone()).or_default();
        if alike.is_empty() {
            let at_path = self.by_path.entry(waiting.filter.fixed().clone()).or_default();
            Arc::make_mut(at_path).push(waiting.filter.clone());
        }
        alike.push(Arc::clone(waiting));
    }

    fn remove(&mut self, waiting: &Arc<Waiting>) {
        let Some(alike) = self.waiting.get_mut(&waiting.filter) else { return };
        if let Some(at) = alike.iter().position(|other| Arc::ptr_eq(other, waiting)) {
            alike.swap_remove(at);
        }
        if alike.is_empty() {
            self.forget(&waiting.filter);
        }
    }

    /// Nobody waits for what passes `filter` any more.
    fn forget(&mut self, filter: &Filter) {
        self.waiting.remove(filter);
        let Some(at_path) = self.by_path.get_mut(filter.fixed()) else { return };
        let filters = Arc::make_mut(at_path);
        if let Some(at) = filters.iter().position(|other| other == filter) {
            filters.swap_remove(at);
        }
        if filters.is_empty() {
            self.by_path.remove(filter.fixed());
        }
    }

    /// Takes out those that wait for what passes `filter`, at `revision` or before.
    fn take_waiting(&mut self, filter: &Filter, revision: u64) -> Vec<Arc<Waiting>> {
        let Some(alike) = self.waiting.get_mut(filter) else { return Vec::new() };
        // One that was armed a moment ago waits for what comes later.
        let taken: Vec<_> = alike.extract_if(.., |waiting| waiting.next() <= revision).collect();
        let nobody = alike.is_empty();
        taken.iter().for_each(|waiting| waiting.found(revision));
        if nobody {
            self.forget(filter);
        }
        taken
    }

    fn take_all(&mut self) -> Vec<Arc<Waiting>> {
        self.by_path.clear();
        let mut all: Vec<_> = self.waiting.drain().flat_map(|(_, waiting)| waiting).collect();
        // Not in the order of a hash, which differs from run to run.
        all.sort_unstable_by_key(|waiting| waiting.number());
        for waiting in &all {
            // A watch that began behind a gap has to look into it.
            waiting.found(waiting.next());
        }
        all
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

    use bytes::Bytes;

    use crate::entry::Entry;
    use crate::key::Component;
    use crate::pattern::{Condition, Part, Pattern};
    use crate::state::{Cause, Change};

    fn key(name: &str) -> Key {
        Key::of(&[Component::String(b"items".to_vec()), Component::String(name.as_bytes().to_vec())])
    }

    fn revised(revision: u64, names: &[&str]) -> Arc<Revised> {
        let change = |name: &&str| {
            let entry = Entry::created(&key(name), Bytes::from_static(b"value"), revision, 0);
            Change { key: key(name), previous: None, entry: Some(Arc::new(entry)), cause: Cause::Command }
        };
        Arc::new(Revised { revision, changes: names.iter().map(change).collect(), nodes: vec![] })
    }

    /// A hub that only this test looks at: it counts as asked to be looked at already.
    fn hub() -> Arc<Hub> {
        let hub = Arc::new(Hub::default());
        hub.queued.store(true, Ordering::SeqCst);
        hub
    }

    fn look(hub: &Arc<Hub>, budget: usize) -> bool {
        let more = hub.look(budget);
        hub.queued.store(true, Ordering::SeqCst);
        more
    }

    fn watch(hub: &Arc<Hub>, filter: Filter, next: u64) -> (Arc<Waiting>, Arc<AtomicUsize>, bool) {
        let woken = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&woken);
        let wake = Box::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        let waiting = Arc::new(Waiting::new(filter, next, wake));
        let armed = hub.arm(&waiting, next).unwrap();
        (waiting, woken, armed)
    }

    #[test]
    fn a_revision_is_looked_at_in_parts_and_a_watch_that_comes_between_misses_nothing() {
        let hub = hub();
        let (_, last, armed) = watch(&hub, Filter::prefix(key("c")), 1);
        assert!(armed);
        hub.publish(vec![revised(1, &["a", "b", "c"])]);
        assert!(look(&hub, 1), "there is more");
        // The thread is past the change that it waits for.
        let (_, _, armed) = watch(&hub, Filter::prefix(key("a")), 1);
        assert!(!armed, "it has to look for itself");
        let (later, woken, armed) = watch(&hub, Filter::prefix(key("b")), 2);
        assert!(armed);
        while look(&hub, 1) {}
        assert_eq!((last.load(Ordering::SeqCst), woken.load(Ordering::SeqCst)), (1, 0));
        hub.publish(vec![revised(2, &["a"]), revised(3, &["b"])]);
        while look(&hub, 1) {}
        assert_eq!((woken.load(Ordering::SeqCst), later.next()), (1, 3));
        assert_eq!(hub.count.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn watches_of_the_same_are_found_together_and_others_stay() {
        let hub = hub();
        let pattern = |name: &str| {
            let condition = Condition::Is(Key::of(&[Component::String(name.as_bytes().to_vec())]).as_bytes().to_vec());
            Filter::pattern(Pattern { parts: vec![Part::one(Condition::Any), Part::one(condition)] }).unwrap()
        };
        let concerned: Vec<_> = (0..3).map(|_| watch(&hub, pattern("a"), 1)).collect();
        let (other, not_woken, _) = watch(&hub, pattern("b"), 1);
        assert_eq!(lock(&hub.armed).by_path.values().map(|filters| filters.len()).collect::<Vec<_>>(), [2]);
        hub.publish(vec![revised(1, &["a", "c"])]);
        assert!(!look(&hub, 100));
        assert!(concerned.iter().all(|(waiting, woken, _)| woken.load(Ordering::SeqCst) == 1 && !waiting.is_armed()));
        assert_eq!((not_woken.load(Ordering::SeqCst), other.is_armed()), (0, true));
        // It goes on behind what was looked at for it.
        assert_eq!(hub.disarm(&other), 2);
        assert_eq!(hub.count.load(Ordering::SeqCst), 0);
        assert!(lock(&hub.armed).by_path.is_empty());
    }

    #[test]
    fn ancestors_are_the_root_and_all_paths_down_to_the_key() {
        let all: Vec<_> = ancestors(b"\x01a\0\x02b\0").collect();
        assert_eq!(all, [&b""[..], b"\x01a\0", b"\x01a\0\x02b\0"]);
        assert_eq!(ancestors(b"").collect::<Vec<_>>(), [b""]);
    }
}
