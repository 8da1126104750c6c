//! Reads the history from the disk: what changed, with the values before and after.

use std::ops::ControlFlow;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use rocksdb::{BoundColumnFamily, SnapshotWithThreadMode};

use crate::entry::Entry;
use crate::error::EngineError;
use crate::key::Key;
use crate::state::{Cause, Change};
use crate::storage::rocks::{self, Db};
use crate::watch::{Filter, Revised};

use super::history::{self, ChangeRecord, Kind, Revisions};
use super::versions::Versions;
use super::{Header, version_key};

/// Installing a snapshot drops the column family of the state before: then it is read from the new one.
const TRIES: usize = 10;

/// Reads the history of a store, as long as that is open.
#[derive(Clone)]
pub(crate) struct Replay {
    // Closing a database waits until nobody holds it.
    db: Weak<Db>,
}

/// How reading ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Replayed {
    Done,
    /// What comes next is compacted: the oldest revision that can be gone on from.
    Compacted(u64),
}

/// The state's column family at one moment.
struct Moment<'db> {
    snapshot: SnapshotWithThreadMode<'db, Db>,
    family: Arc<BoundColumnFamily<'db>>,
    header: Header,
}

impl Replay {
    pub(crate) fn new(db: &Arc<Db>) -> Self {
        Self { db: Arc::downgrade(db) }
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
        let db = self.db.upgrade().ok_or(EngineError::Closed)?;
        let moment = Moment::of(&db)?;
        if after < moment.header.compacted {
            return Ok(Replayed::Compacted(moment.header.compacted));
        }
        let mut iterator = moment.snapshot.raw_iterator_cf(&moment.family);
        let mut last = after;
        for item in Revisions::after(&mut iterator, after) {
            let (revision, names) = item?;
            if revision > until {
                break;
            }
            last = revision;
            let passed = names.changes.iter().filter(|change| filter.passes_key(&change.key));
            let changes = passed.map(|change| moment.change(change, revision)).collect::<Result<Vec<_>, _>>()?;
            let changes = changes.into_iter().filter(|change| filter.passes(change)).collect();
            if take(Revised { revision, changes }).is_break() {
                return Ok(Replayed::Done);
            }
        }
        iterator.status().map_err(|error| EngineError::from_rocks_read(history::WHAT, &error))?;
        // Each revision is in a record: a reader must not take a missing one for no change.
        if last < until.min(moment.header.revision) {
            return Err(damaged(format!("revision {} is missing", last + 1)));
        }
        Ok(Replayed::Done)
    }

    /// The payload of an entry that is or was at `key`; see [`Versions::payload`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn payload(&self, key: &Key, entry: &Entry) -> Result<Option<Bytes>, EngineError> {
        if let Some(payload) = entry.payload.in_memory() {
            return Ok(Some(payload));
        }
        let db = self.db.upgrade().ok_or(EngineError::Closed)?;
        let family = rocks::state_name(rocks::generation(&db)?);
        Versions::new(&db, &family).payload(key, entry)
    }

    /// The oldest revision that can be gone on from.
    ///
    /// # Errors
    /// The store is closed, or the state's header cannot be read.
    pub(crate) fn compacted(&self) -> Result<u64, EngineError> {
        let db = self.db.upgrade().ok_or(EngineError::Closed)?;
        Ok(Moment::of(&db)?.header.compacted)
    }

    /// The last revision behind `after`, of `count` at the most, that was made before `time_ms`.
    ///
    /// # Errors
    /// The store is closed, or the history damaged.
    pub(crate) fn made_before(&self, time_ms: u64, after: u64, count: u64) -> Result<u64, EngineError> {
        let db = self.db.upgrade().ok_or(EngineError::Closed)?;
        let moment = Moment::of(&db)?;
        let from = after.max(moment.header.compacted);
        let mut iterator = moment.snapshot.raw_iterator_cf(&moment.family);
        let mut last = from;
        for item in Revisions::after(&mut iterator, from) {
            let (revision, names) = item?;
            if names.time_ms >= time_ms || revision > from.saturating_add(count) {
                break;
            }
            last = revision;
        }
        Ok(last)
    }
}

impl<'db> Moment<'db> {
    fn of(db: &'db Db) -> Result<Self, EngineError> {
        for _ in 0..TRIES {
            let snapshot = db.snapshot();
            let generation = rocks::generation_at(db, &snapshot)?;
            // Gone: another generation counts by now.
            let Some(family) = db.cf_handle(&rocks::state_name(generation)) else { continue };
            let record = snapshot
                .get_cf(&family, Header::key())
                .map_err(|error| EngineError::from_rocks_read(history::WHAT, &error))?;
            let header = Header::from_record(record.as_deref())?;
            return Ok(Self { snapshot, family, header });
        }
        Err(damaged("the state's column family is missing".to_owned()))
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
