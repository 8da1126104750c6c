//! What was applied gets to the disk in bulk, beside the applying task: checkpoints.
//!
//! ```text
//! apply --add--> open delta --cut--> deltas, oldest first --write--> one file of rows --taken over--> RocksDB
//!                      |                     |                                                          |
//!                      +---------------------+---- readers of the history and of payloads --------------+
//! ```
//!
//! Nothing else is written to the state, so the disk holds it as it was at some log entry, with the header that says
//! which. The log has what comes behind it: a start applies that again. So the log may be purged up to a checkpoint and
//! no further: a snapshot that the raft core is told of is one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use crate::error::EngineError;
use crate::metrics::Metrics;
use crate::payload::Memory;
use crate::snapshot::{PinnedSnapshot, SnapshotData};
use crate::state::State;
use crate::sync::lock;
use crate::types::LogId;

use super::delta::{Delta, Recent};
use super::store::{Header, StateStore, damaged};
use super::waste::Waste;

/// With a bound on memory, the part of it that may be applied before a checkpoint is begun: what is not on the disk cannot
/// leave the memory.
const MEMORY_DIVISOR: u64 = 40;

/// A snapshot of the state at the end of a delta, once it is on the disk.
pub(super) type Awaited = Arc<OnceLock<Arc<PinnedSnapshot>>>;

/// Whether a checkpoint should be begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    NotYet,
    Now,
    /// Nothing more should be applied before it is written.
    Overdue,
}

/// The state on the disk, and what it lacks.
pub struct Checkpoints {
    behind: Mutex<Behind>,
    /// Held while one is written.
    writing: Mutex<()>,
    /// Whether disk is being given back.
    shrinks: AtomicBool,
    /// What is applied before one is begun. As much may be applied while it is written.
    bytes_max: u64,
    memory: Arc<Memory>,
    metrics: Arc<Metrics>,
}

/// What the disk lacks.
struct Behind {
    store: StateStore,
    cuts: VecDeque<Cut>,
    open: Delta,
    waste: Waste,
}

struct Cut {
    delta: Arc<Delta>,
    awaited: Option<Awaited>,
}

/// The state's history at one moment, on the disk and in memory: together they lack nothing.
pub(super) struct Kept {
    pub(super) store: StateStore,
    /// Oldest first. The first ones may be on the disk too.
    pub(super) recent: Vec<Recent>,
}

impl Checkpoints {
    /// Those of a state that was loaded from `store`.
    pub(super) fn new(store: StateStore, state: &State, header: &Header, memory: Arc<Memory>, bytes_max: u64) -> Self {
        let waste = waste_of(&store, state, header);
        let behind = Behind { store, cuts: VecDeque::new(), open: Delta::default(), waste };
        let bytes_max = (memory.bytes_max() / MEMORY_DIVISOR).min(bytes_max);
        memory.set_stored(header.revision);
        Self {
            behind: Mutex::new(behind),
            writing: Mutex::default(),
            shrinks: AtomicBool::new(false),
            bytes_max,
            memory,
            metrics: Arc::default(),
        }
    }

    /// Counts in the store's metrics what is written.
    pub(super) fn counting(self, metrics: &Arc<Metrics>) -> Self {
        Self { metrics: Arc::clone(metrics), ..self }
    }

    /// Takes what was applied.
    pub(super) fn add(&self, delta: Delta) {
        let mut behind = lock(&self.behind);
        if let Some(header) = &delta.header {
            behind.waste.applied(header, delta.entry_bytes);
        }
        behind.open.append(delta);
    }

    pub(super) fn due(&self) -> Due {
        let (bytes, is_writing) = {
            let behind = lock(&self.behind);
            (behind.open.bytes, !behind.cuts.is_empty())
        };
        match bytes {
            _ if self.memory.is_scarce() && bytes > 0 => Due::Overdue,
            _ if bytes < self.bytes_max => Due::NotYet,
            _ if !is_writing => Due::Now,
            _ if bytes < self.bytes_max.saturating_mul(2) => Due::NotYet,
            _ => Due::Overdue,
        }
    }

    /// Ends the open delta here. It gets to the disk with [`Checkpoints::write`].
    pub(super) fn cut(&self) {
        lock(&self.behind).cut(None);
    }

    /// As [`Checkpoints::cut`]; it is to be pinned there.
    pub(super) fn cut_to_pin(&self) -> Awaited {
        let awaited = Awaited::default();
        lock(&self.behind).cut(Some(Arc::clone(&awaited)));
        awaited
    }

    /// Writes what was cut. Blocks.
    ///
    /// # Errors
    /// The disk's, or what is there is damaged.
    pub(super) fn write(&self) -> Result<(), EngineError> {
        let _writing = lock(&self.writing);
        self.write_cuts()
    }

    fn write_cuts(&self) -> Result<(), EngineError> {
        loop {
            let next = lock(&self.behind).next();
            let Some((store, delta, awaited)) = next else { return Ok(()) };
            let began = Instant::now();
            let on_disk = store.advance(&delta)?;
            self.metrics.checkpoints.record(began.elapsed());
            if let Some(awaited) = awaited {
                let _first = awaited.set(Arc::new(store.pin()?));
            }
            if let Some(header) = on_disk {
                self.memory.set_stored(header.revision);
                let disk_bytes = store.disk_bytes();
                lock(&self.behind).waste.written(&header, disk_bytes);
            }
            if self.memory.is_scarce() {
                delta.evict();
            }
            drop(delta);
            let written = lock(&self.behind).cuts.pop_front();
            drop(written);
        }
    }

    /// Whether the disk holds much that nothing needs, and nobody gives it back yet: the caller is to, with
    /// [`Checkpoints::shrink`].
    pub(super) fn begin_to_shrink(&self) -> bool {
        lock(&self.behind).waste.is_much() && !self.shrinks.swap(true, Ordering::AcqRel)
    }

    /// Gives back what the disk holds though nothing needs it. `keep` is called with a new snapshot, and tells whether
    /// it took the place of the last one. Returns whether the disk was given back: not while an older snapshot is in use.
    /// Blocks, for seconds when there is much; checkpoints go on meanwhile.
    ///
    /// # Errors
    /// As with [`Checkpoints::pin`].
    pub(super) fn shrink(&self, keep: impl FnOnce(Arc<PinnedSnapshot>) -> bool) -> Result<bool, EngineError> {
        let is_shrunk = self.pin().map(|pinned| {
            let kept = u64::from(keep(pinned));
            let store = self.store();
            let is_free = store.pins() <= kept;
            if is_free {
                lock(&self.behind).waste.merged();
                store.merge();
            }
            is_free
        });
        if !matches!(is_shrunk, Ok(false)) {
            self.shrinks.store(false, Ordering::Release);
        }
        is_shrunk
    }

    /// Brings all that was applied to the disk. Blocks.
    ///
    /// # Errors
    /// The disk's, or what is there is damaged.
    pub fn finish(&self) -> Result<(), EngineError> {
        self.cut();
        self.write()
    }

    /// The state as it is now, which is brought to the disk. Blocks.
    ///
    /// # Errors
    /// The disk's, or what is there is damaged.
    pub fn pin(&self) -> Result<Arc<PinnedSnapshot>, EngineError> {
        let awaited = self.cut_to_pin();
        self.write()?;
        pinned(&awaited)
    }

    /// Puts a snapshot in the place of the state, as [`StateStore::install`] does. Blocks.
    ///
    /// # Errors
    /// As there.
    pub(super) fn install(
        &self,
        snapshot: SnapshotData,
        expected: Option<LogId>,
    ) -> Result<(State, Header, Arc<PinnedSnapshot>), EngineError> {
        let _writing = lock(&self.writing);
        // Somebody may wait for a cut.
        self.write_cuts()?;
        let store = lock(&self.behind).store.clone();
        let (store, state, header) = store.install(snapshot, expected, &self.memory)?;
        let pinned = Arc::new(store.pin()?);
        self.memory.set_stored(header.revision);
        let waste = waste_of(&store, &state, &header);
        let mut behind = lock(&self.behind);
        (behind.store, behind.open, behind.waste) = (store, Delta::default(), waste);
        drop(behind);
        Ok((state, header, pinned))
    }

    /// Which generation of the state counts.
    pub(super) fn store(&self) -> StateStore {
        lock(&self.behind).store.clone()
    }

    /// What is kept of the history.
    pub(super) fn kept(&self) -> Kept {
        let behind = lock(&self.behind);
        let deltas = behind.cuts.iter().map(|cut| cut.delta.as_ref()).chain([&behind.open]);
        // What is on the disk is looked at later than this: it can only have more by then.
        Kept { store: behind.store.clone(), recent: deltas.filter_map(Delta::recent).collect() }
    }
}

impl std::fmt::Debug for Checkpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoints").field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

impl Behind {
    fn cut(&mut self, awaited: Option<Awaited>) {
        let delta = Arc::new(std::mem::take(&mut self.open));
        self.cuts.push_back(Cut { delta, awaited });
    }

    fn next(&self) -> Option<(StateStore, Arc<Delta>, Option<Awaited>)> {
        let Cut { delta, awaited } = self.cuts.front()?;
        Some((self.store.clone(), Arc::clone(delta), awaited.clone()))
    }
}

fn waste_of(store: &StateStore, state: &State, header: &Header) -> Waste {
    let mut waste = Waste::default();
    waste.applied(header, state.bytes);
    waste.written(header, store.disk_bytes());
    waste.merged();
    waste
}

/// What was awaited, when it was written.
pub(super) fn pinned(awaited: &Awaited) -> Result<Arc<PinnedSnapshot>, EngineError> {
    awaited.get().cloned().ok_or_else(|| damaged("it was not pinned where it was to be".to_owned()))
}
