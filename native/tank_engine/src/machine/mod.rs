//! The replicated state machine: applies the committed log to the state, publishes the new view, and answers.
//!
//! In this order, for a batch of log entries at a time: the state, all in memory, and what it changed by
//! (`delta.rs`, which gets to the disk later), then the view, then the answers, then the watches. So a caller that has its
//! answer sees its write, and so does who is told of it.

mod checkpoint;
mod delta;
pub(crate) mod history;
mod past;
mod replay;
mod rows;
mod store;
#[cfg(test)]
mod tests;
mod trim;
pub(crate) mod version_key;
mod versions;
mod waste;

pub use checkpoint::Checkpoints;
pub(crate) use replay::{Replay, Replayed};
pub use store::{Header, StateStore};
pub use versions::Versions;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures_util::{Stream, StreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};

use crate::entry::Entry;
use crate::error::EngineError;
use crate::faults;
use crate::health::{Health, panic_text};
use crate::key::Key;
use crate::marks::Mark;
use crate::mutants;
use crate::options::CHECKPOINT_BYTES;
use crate::outcome::Outcome;
use crate::reclaim;
use crate::runtime;
use crate::snapshot::{PinnedSnapshot, SnapshotData};
use crate::state::{Applied, Remembered, Revised, State};
use crate::sync::lock;
use crate::types::{LogEntry, LogId, SnapshotMeta, StoredMembership, Types};
use crate::view::{Published, View};

use checkpoint::{Awaited, Due};
use delta::Delta;

type Snapshot = openraft::alias::SnapshotOf<Types, SnapshotData>;

/// Bytes of commands applied before they are answered, about: bounds how long the first of them waits for the last.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Entries that are looked at or changed, and bytes of them, that are applied in a few milliseconds. What takes longer must not
/// keep the thread that heartbeats are sent from.
const QUICK_ENTRIES: usize = 512;
const QUICK_BYTES: usize = 1 << 20;

/// The log that is kept for members that are receiving a snapshot, unless the state is larger: then as
/// many bytes as that.
const LOG_FOR_RECEIVERS: u64 = 64 << 20;

/// The state machine of one member.
pub struct Machine {
    checkpoints: Arc<Checkpoints>,
    versions: Versions,
    state: State,
    applied: Option<LogId>,
    membership: StoredMembership,
    published: Arc<Published>,
    snapshot: Arc<Mutex<Option<Arc<PinnedSnapshot>>>>,
    /// Bytes of the log entries that were applied since.
    since_snapshot: u64,
    health: Arc<Health>,
}

impl Machine {
    /// The state machine of what `store` holds. It is published at once.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`] when what is there is not what was written.
    pub fn open(store: StateStore, published: Arc<Published>, health: Arc<Health>) -> Result<Self, EngineError> {
        Self::open_with(store, published, health, CHECKPOINT_BYTES)
    }

    /// As [`Machine::open`]; begins a checkpoint after about `checkpoint_bytes`.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(
        store: StateStore,
        published: Arc<Published>,
        health: Arc<Health>,
        checkpoint_bytes: u64,
    ) -> Result<Self, EngineError> {
        let (state, header) = store.load(published.memory())?;
        let checkpoints = Arc::new(
            Checkpoints::new(store, &state, &header, Arc::clone(published.memory()), checkpoint_bytes)
                .counting(published.metrics()),
        );
        let mut machine = Self {
            versions: Versions::new(&checkpoints),
            checkpoints,
            state,
            applied: None,
            membership: StoredMembership::default(),
            published,
            snapshot: Arc::default(),
            since_snapshot: 0,
            health,
        };
        machine.take_over(header);
        Ok(machine)
    }

    /// What of it is on the disk, and what is not.
    pub fn checkpoints(&self) -> Arc<Checkpoints> {
        Arc::clone(&self.checkpoints)
    }

    fn take_over(&mut self, header: Header) {
        self.applied = header.applied;
        self.membership = header.membership;
        self.published.last_changed().reset(self.state.revision);
        let mark = self.mark();
        self.published.marks(|marks| marks.restart(mark));
        self.publish();
        self.published.hub().reset(self.state.revision);
    }

    fn publish(&self) {
        self.published.publish(View {
            entries: self.state.entries.clone(),
            nodes: self.state.nodes.clone(),
            leases: self.state.leases.clone(),
            revision: self.state.revision,
            compacted: self.state.compacted,
            history: self.state.history,
            applied: self.applied,
            digest: self.state.whole_digest().value(),
            sessions_digest: self.state.sessions.digest().value(),
            log_time: self.state.log_time,
            bytes: self.state.bytes,
            versions: Some(self.versions.clone()),
        });
    }

    /// What the state is after the last log entry that it contains.
    fn mark(&self) -> Option<Mark> {
        let (digest, sessions) = (self.state.whole_digest().value(), self.state.sessions.digest().value());
        self.applied.map(|id| Mark { id, revision: self.state.revision, digest, sessions })
    }

    fn header(&self) -> Header {
        Header::new(&self.state, self.applied, self.membership.clone(), 0)
    }

    fn apply_batch(&mut self, batch: Vec<EntryResponder<Types>>) -> Result<(), EngineError> {
        faults::point("apply");
        let began = Instant::now();
        let Some(record) = batch.last().map(|(entry, _)| entry.index()) else { return Ok(()) };
        let mut delta = Delta::of_bytes(batch_bytes(&batch) as u64);
        self.since_snapshot = self.since_snapshot.saturating_add(delta.bytes);
        let mut remembered = Vec::with_capacity(batch.len());
        let mut told = Told { jumped_to: None, revised: Vec::with_capacity(batch.len()) };
        let (mut answers, mut marks) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for (entry, responder) in batch {
            let outcome = self.apply_entry(entry, record, &mut delta, &mut remembered, &mut told)?;
            marks.extend(self.mark());
            if let Some(responder) = responder {
                answers.push((responder, outcome));
            }
        }
        let header = self.header();
        delta.end(record, remembered, &mut self.state, header);
        self.checkpoints.add(delta);
        let Told { jumped_to, mut revised } = told;
        if mutants::strikes("gap_in_a_watch", 500) {
            revised.iter_mut().for_each(|one| {
                *one = Arc::new(Revised { revision: one.revision, changes: Vec::new(), nodes: Vec::new() });
            });
        }
        if let Some(revision) = jumped_to {
            self.published.last_changed().reset(revision);
        }
        self.note_changes(&revised);
        self.published.marks(|noted| noted.add(&marks));
        self.publish();
        for (responder, outcome) in answers {
            responder.send(outcome);
        }
        if let Some(revision) = jumped_to {
            self.published.hub().reset(revision);
        }
        self.published.hub().publish(revised);
        self.published.metrics().batches.record(began.elapsed());
        Ok(())
    }

    /// Before the view is published: whoever sees it must not take for current what was there before.
    fn note_changes(&self, revised: &[Arc<Revised>]) {
        for revised in revised {
            let keys = revised.changes.iter().map(|change| &change.key);
            keys.for_each(|key| self.published.last_changed().note(key, revised.revision));
        }
    }

    /// Whether applying `batch` surely takes no more than a few milliseconds, and does not read the disk.
    fn is_quick(&self, batch: &[EntryResponder<Types>]) -> bool {
        let mut left = QUICK_ENTRIES;
        batch_bytes(batch) <= QUICK_BYTES
            && batch.iter().all(|(entry, _)| {
                let weight = match &entry.payload {
                    EntryPayload::Normal(request) => self.state.weight(request, left),
                    _ => 1,
                };
                left.checked_sub(weight).map(|rest| left = rest).is_some()
            })
    }

    fn apply_entry(
        &mut self,
        entry: LogEntry,
        record: u64,
        delta: &mut Delta,
        remembered: &mut Vec<Remembered>,
        told: &mut Told,
    ) -> Result<Outcome, EngineError> {
        let id = entry.log_id();
        self.applied = Some(id);
        match entry.payload {
            EntryPayload::Blank => Ok(Outcome::Nothing),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(id), membership);
                Ok(Outcome::Nothing)
            }
            EntryPayload::Normal(_) if mutants::strikes("skipped_entry", 500) || faults::skipped("apply_entry") => {
                Ok(Outcome::Nothing)
            }
            EntryPayload::Normal(mut request) => {
                if mutants::is("apply_twice") {
                    // Nothing is a retry of anything.
                    Arc::make_mut(&mut request).id.client = id.index();
                }
                let mut applied = self.state.apply(&request, record);
                if !applied.outcome.is_complete() {
                    // It reads the disk.
                    let read = |key: &Key, entry: &Entry| self.versions.payload(key, entry);
                    runtime::blocking(|| applied.outcome.complete(read))?;
                    self.state.complete(&mut applied);
                }
                let revised = told.add(&mut applied);
                delta.add_applied(&applied, revised.as_ref(), self.state.log_time.now_ms());
                remembered.extend(applied.remembered);
                Ok(applied.outcome)
            }
        }
    }

    /// Whether a member is receiving the last snapshot, and the log since then is worth keeping for it.
    ///
    /// A newer snapshot would have that log purged, and the member would need another snapshot after this
    /// one; with enough writes, for ever. A log larger than the state is no help: it takes longer to send.
    fn has_receivers(&self) -> bool {
        let is_sent = lock(&self.snapshot).as_ref().is_some_and(|pinned| Arc::strong_count(pinned) > 1);
        is_sent && self.since_snapshot < self.state.bytes.max(LOG_FOR_RECEIVERS)
    }

    /// Begins a checkpoint when there is enough for one; waits for it when there is too much.
    async fn keep_up(&mut self) -> io::Result<()> {
        waste::begin_to_shrink(&self.checkpoints, &self.snapshot, &self.health);
        let due = self.checkpoints.due();
        if due == Due::NotYet {
            return Ok(());
        }
        self.checkpoints.cut();
        let checkpoints = Arc::clone(&self.checkpoints);
        if due == Due::Overdue {
            let written = runtime::offload(move || checkpoints.write()).await.and_then(|written| written);
            return self.guarded(|_| written);
        }
        let (snapshot, health) = (Arc::clone(&self.snapshot), Arc::clone(&self.health));
        runtime::run_aside("checkpoint", Arc::clone(&self.health), move || {
            checkpoints.write()?;
            waste::begin_to_shrink(&checkpoints, &snapshot, &health);
            Ok(())
        });
        Ok(())
    }

    /// Runs `step`; an error or a panic in it ends the store.
    fn guarded<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T, EngineError>) -> io::Result<T> {
        let result = catch_unwind(AssertUnwindSafe(|| step(self)));
        let error = match result {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(panic) => EngineError::Failed(format!("panic in apply: {}", panic_text(panic.as_ref()))),
        };
        self.health.fail(error.clone());
        Err(io::Error::other(error))
    }
}

/// What a batch did, for those who watch.
struct Told {
    /// A history began at this revision. All before is compacted.
    jumped_to: Option<u64>,
    /// What came after that.
    revised: Vec<Arc<Revised>>,
}

impl Told {
    /// Adds what `applied` changed, and returns it.
    fn add(&mut self, applied: &mut Applied) -> Option<Arc<Revised>> {
        let revision = applied.revision?;
        if applied.jumped_from.is_some() {
            self.jumped_to = Some(revision);
            self.revised.clear();
            return None;
        }
        let (changes, nodes) = (std::mem::take(&mut applied.changes), std::mem::take(&mut applied.nodes));
        let revised = Arc::new(Revised { revision, changes, nodes });
        self.revised.push(Arc::clone(&revised));
        Some(revised)
    }
}

/// About what applying `batch` leaves in memory.
fn batch_bytes(batch: &[EntryResponder<Types>]) -> usize {
    const OVERHEAD: usize = 256;
    let size = |entry: &LogEntry| match &entry.payload {
        EntryPayload::Normal(request) => OVERHEAD + request.command.size(),
        _ => 0,
    };
    OVERHEAD + batch.iter().map(|(entry, _)| size(entry)).sum::<usize>()
}

/// The next entries to apply together; empty at the end of the stream.
async fn next_batch<S>(entries: &mut S) -> io::Result<Vec<EntryResponder<Types>>>
where
    S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
{
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while bytes < BATCH_BYTES_MAX {
        let Some(item) = entries.next().await else { break };
        let (entry, responder) = item?;
        if let EntryPayload::Normal(request) = &entry.payload {
            bytes += request.command.size();
        }
        batch.push((entry, responder));
    }
    Ok(batch)
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        loop {
            let batch = next_batch(&mut entries).await?;
            if batch.is_empty() {
                return Ok(());
            }
            self.guarded(|machine| {
                if machine.is_quick(&batch) {
                    machine.apply_batch(batch)
                } else {
                    runtime::blocking(|| machine.apply_batch(batch))
                }
            })?;
            self.keep_up().await?;
        }
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        if !force && self.has_receivers() {
            return None;
        }
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        // Cut here, between two batches: the builder stands for exactly this state.
        self.since_snapshot = 0;
        Builder {
            awaited: self.checkpoints.cut_to_pin(),
            checkpoints: Arc::clone(&self.checkpoints),
            snapshot: Arc::clone(&self.snapshot),
            health: Arc::clone(&self.health),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        let (checkpoints, expected) = (Arc::clone(&self.checkpoints), meta.last_log_id);
        // Minutes, for a large one: not on a thread that others' heartbeats need.
        let installed = runtime::offload(move || {
            faults::point("snapshot_install");
            checkpoints.install(snapshot, expected)
        });
        let installed = installed.await.and_then(|installed| installed);
        self.guarded(|machine| {
            let (state, header, pinned) = installed?;
            machine.versions = Versions::new(&machine.checkpoints);
            // As large as all requests that are remembered.
            reclaim::now(std::mem::replace(&mut machine.state, state));
            machine.take_over(header);
            machine.since_snapshot = 0;
            keep(&machine.snapshot, pinned);
            machine.published.metrics().snapshots_received.fetch_add(1, Ordering::Relaxed);
            tracing::info!(
                entries = machine.state.entries.len(),
                revision = machine.state.revision,
                "installed a snapshot of another member"
            );
            Ok(())
        })
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(lock(&self.snapshot).as_ref().map(snapshot_of))
    }
}

/// Makes a snapshot of the state as it was when this was made: brings it to the disk, and pins it there.
pub struct Builder {
    awaited: Awaited,
    checkpoints: Arc<Checkpoints>,
    snapshot: Arc<Mutex<Option<Arc<PinnedSnapshot>>>>,
    health: Arc<Health>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let checkpoints = Arc::clone(&self.checkpoints);
        let written = runtime::offload(move || checkpoints.write()).await.and_then(|written| written);
        let pinned = written.and_then(|()| checkpoint::pinned(&self.awaited)).map_err(|error| {
            self.health.fail(error.clone());
            io::Error::other(error)
        })?;
        let snapshot = snapshot_of(&pinned);
        keep(&self.snapshot, pinned);
        waste::begin_to_shrink(&self.checkpoints, &self.snapshot, &self.health);
        Ok(snapshot)
    }
}

/// Lets go of the snapshot before elsewhere: it takes RocksDB's lock.
fn keep(snapshot: &Mutex<Option<Arc<PinnedSnapshot>>>, pinned: Arc<PinnedSnapshot>) {
    let before = lock(snapshot).replace(pinned);
    reclaim::now(before);
}

fn snapshot_of(pinned: &Arc<PinnedSnapshot>) -> Snapshot {
    let header = pinned.header();
    let mut meta = SnapshotMeta { last_log_id: header.applied, last_membership: header.membership.clone() };
    if mutants::is("wrong_snapshot_index") {
        meta.last_log_id = meta.last_log_id.map(|id| LogId::new(*id.committed_leader_id(), id.index() + 1));
    }
    Snapshot { meta, snapshot: SnapshotData::Pinned(Arc::clone(pinned)) }
}
