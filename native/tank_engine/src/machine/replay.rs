//! Reads the history: what changed, with the values before and after.

use std::ops::ControlFlow;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use rocksdb::{BoundColumnFamily, SnapshotWithThreadMode};

use crate::entry::Entry;
use crate::error::EngineError;
use crate::key::Key;
use crate::outcome::Found;
use crate::state::{Cause, Change, Filter, Revised};
use crate::storage::rocks::Db;

use super::checkpoint::{Checkpoints, Kept};
use super::delta::{Made, Recent};
use super::history::{self, ChangeRecord, Kind, Revisions};
use super::past::Past;
use super::versions::Versions;
use super::{Header, version_key};

/// Installing a snapshot drops the column family of the state before: then it is read from the new one.
const TRIES: usize = 10;

/// Reads the history of a store, as long as that is open.
#[derive(Clone)]
pub(crate) struct Replay {
    // Closing a database waits until nobody holds it.
    checkpoints: Weak<Checkpoints>,
}

/// How reading ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Replayed {
    Done,
    /// What comes next is compacted: the oldest revision that can be gone on from.
    Compacted(u64),
}

/// The history at one moment.
struct Moment<'k> {
    snapshot: SnapshotWithThreadMode<'k, Db>,
    family: Arc<BoundColumnFamily<'k>>,
    /// Up to here it is on the disk.
    stored: u64,
    /// What is in memory: all behind that, and perhaps some of it.
    recent: &'k [Recent],
    compacted: u64,
    revision: u64,
}

impl Replay {
    pub(crate) fn new(checkpoints: &Arc<Checkpoints>) -> Self {
        Self { checkpoints: Arc::downgrade(checkpoints) }
    }

    /// Calls `take` with each revision behind `after` up to `until`, with what `filter` passes of it,
    /// until that breaks.
    ///
    /// # Errors
    /// The store is closed, or the history damaged.
    pub(crate) fn each(
        &self,
        after: u64,
        until: u64,
        filter: &Filter,
        take: &mut dyn FnMut(Revised) -> ControlFlow<()>,
    ) -> Result<Replayed, EngineError> {
        self.at_a_moment(|moment| moment.each(after, until, filter, take))
    }

    /// The entry at `key` as it was at `revision`.
    ///
    /// # Errors
    /// The revision is compacted or in the future, the store is closed, or what is there is damaged.
    pub(crate) fn found_at(&self, key: &Key, revision: u64) -> Result<Option<Found>, EngineError> {
        self.at_a_moment(|moment| {
            if revision > moment.revision {
                return Err(EngineError::FutureRevision { current: moment.revision });
            }
            if revision < moment.compacted {
                return Err(EngineError::Compacted { min: moment.compacted });
            }
            moment.found_at(key, revision)
        })
    }

    /// The payload of an entry that is or was at `key`; see [`Versions::payload`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn payload(&self, key: &Key, entry: &Entry) -> Result<Option<Bytes>, EngineError> {
        if let Some(payload) = entry.payload.in_memory() {
            return Ok(Some(payload));
        }
        Versions::new(&self.open()?).payload(key, entry)
    }

    /// The oldest revision that can be gone on from.
    ///
    /// # Errors
    /// The store is closed, or the state's header cannot be read.
    pub(crate) fn compacted(&self) -> Result<u64, EngineError> {
        self.at_a_moment(|moment| Ok(moment.compacted))
    }

    /// The last revision behind `after`, of `count` at the most, that was made before `time_ms`.
    ///
    /// # Errors
    /// The store is closed, or the history damaged.
    pub(crate) fn made_before(&self, time_ms: u64, after: u64, count: u64) -> Result<u64, EngineError> {
        self.at_a_moment(|moment| moment.made_before(time_ms, after, count))
    }

    fn open(&self) -> Result<Arc<Checkpoints>, EngineError> {
        self.checkpoints.upgrade().ok_or(EngineError::Closed)
    }

    fn at_a_moment<T>(&self, read: impl FnOnce(&Moment<'_>) -> Result<T, EngineError>) -> Result<T, EngineError> {
        let checkpoints = self.open()?;
        for _ in 0..TRIES {
            let kept = checkpoints.kept();
            // Gone: another generation counts by now.
            if let Ok(family) = kept.store.family() {
                return read(&Moment::of(&kept, family)?);
            }
        }
        Err(damaged("the state's column family is missing".to_owned()))
    }
}

impl<'k> Moment<'k> {
    fn of(kept: &'k Kept, family: Arc<BoundColumnFamily<'k>>) -> Result<Self, EngineError> {
        let snapshot = kept.store.db().snapshot();
        let record = snapshot.get_cf(&family, Header::key());
        let record = record.map_err(|error| EngineError::from_rocks_read(history::WHAT, &error))?;
        let header = Header::from_record(record.as_deref())?;
        let (stored, mut compacted, mut revision) = (header.revision, header.compacted, header.revision);
        for recent in &kept.recent {
            (compacted, revision) = (compacted.max(recent.compacted), revision.max(recent.revision));
        }
        Ok(Self { snapshot, family, stored, recent: &kept.recent, compacted, revision })
    }

    /// The revisions that are in memory, behind `after` and what is on the disk.
    fn recent(&self, after: u64) -> impl Iterator<Item = &'k Made> + use<'k> {
        let after = after.max(self.stored);
        self.recent.iter().flat_map(move |recent| recent.behind(after))
    }

    fn each(
        &self,
        after: u64,
        until: u64,
        filter: &Filter,
        take: &mut dyn FnMut(Revised) -> ControlFlow<()>,
    ) -> Result<Replayed, EngineError> {
        if after < self.compacted {
            return Ok(Replayed::Compacted(self.compacted));
        }
        let mut iterator = self.snapshot.raw_iterator_cf(&self.family);
        let mut last = after;
        for item in Revisions::after(&mut iterator, after) {
            let (revision, names) = item?;
            if revision > until {
                break;
            }
            last = revision;
            let passed = names.changes.iter().filter(|change| filter.passes_key(&change.key));
            let changes = passed.map(|change| self.change(change, revision)).collect::<Result<Vec<_>, _>>()?;
            let changes = changes.into_iter().filter(|change| filter.passes(change)).collect();
            if take(Revised { revision, changes, nodes: Vec::new() }).is_break() {
                return Ok(Replayed::Done);
            }
        }
        iterator.status().map_err(|error| EngineError::from_rocks_read(history::WHAT, &error))?;
        for Made { revised, .. } in self.recent(after).take_while(|made| made.number() <= until) {
            if revised.revision != last + 1 {
                break;
            }
            last = revised.revision;
            let changes = revised.changes.iter().filter(|change| filter.passes(change)).cloned().collect();
            if take(Revised { revision: last, changes, nodes: filter.steps(revised) }).is_break() {
                return Ok(Replayed::Done);
            }
        }
        // Each revision is somewhere: a reader must not take a missing one for no change.
        if last < until.min(self.revision) {
            return Err(damaged(format!("revision {} is missing", last + 1)));
        }
        Ok(Replayed::Done)
    }

    fn found_at(&self, key: &Key, revision: u64) -> Result<Option<Found>, EngineError> {
        let recent = self.recent(0).take_while(|made| made.number() <= revision);
        let mut past = Past::new(self.snapshot.raw_iterator_cf(&self.family), recent, key, revision);
        let Some(entry) = past.entry(key)? else { return Ok(None) };
        let child_count = past.child_count(key)?;
        let payload = match entry.payload.in_memory() {
            None => self.version(key, entry.revision)?.payload.in_memory(),
            payload => payload,
        };
        Ok(Some(Found { key: key.clone(), entry, payload, child_count }))
    }

    fn made_before(&self, time_ms: u64, after: u64, count: u64) -> Result<u64, EngineError> {
        let from = after.max(self.compacted);
        let mut iterator = self.snapshot.raw_iterator_cf(&self.family);
        let stored =
            Revisions::after(&mut iterator, from).map(|item| item.map(|(number, made)| (number, made.time_ms)));
        let recent = self.recent(from).map(|made| Ok((made.number(), made.time_ms)));
        let mut last = from;
        for item in stored.chain(recent) {
            let (revision, made_ms) = item?;
            if made_ms >= time_ms || revision > from.saturating_add(count) {
                break;
            }
            last = revision;
        }
        Ok(last)
    }

    fn change(&self, change: &ChangeRecord, revision: u64) -> Result<Change, EngineError> {
        let key = change.key.clone();
        let previous = if change.previous == 0 { None } else { Some(self.version(&key, change.previous)?) };
        let (entry, cause) = match change.kind {
            Kind::Written => (Some(self.version(&key, revision)?), Cause::Command),
            Kind::Deleted => (None, Cause::Command),
            Kind::Expired => (None, Cause::Expiry),
        };
        Ok(Change { key, previous, entry, cause })
    }

    fn version(&self, key: &Key, revision: u64) -> Result<Arc<Entry>, EngineError> {
        let record = self.snapshot.get_cf(&self.family, version_key::of(key, revision));
        let record = record.map_err(|error| EngineError::from_rocks_read(history::WHAT, &error))?;
        let missing = || damaged(format!("the version of revision {revision} is missing"));
        let entry = Entry::from_record(key, &record.ok_or_else(missing)?)?;
        Ok(Arc::new(entry))
    }
}

fn damaged(detail: String) -> EngineError {
    EngineError::Corrupt { what: history::WHAT, detail }
}
