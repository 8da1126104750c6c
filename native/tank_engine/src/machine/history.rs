//! What changed at each revision, on disk: names only. The values stand in the entries' versions.

use rocksdb::DBRawIteratorWithThreadMode;
use serde::{Deserialize, Serialize};

use crate::error::EngineError;
use crate::key::Key;
use crate::state::{Cause, Change};
use crate::storage::rocks::{self, Db};

use super::version_key;

const REVISION: u8 = b'c';

/// What errors call it.
pub(crate) const WHAT: &str = "history";

type Iter<'db> = DBRawIteratorWithThreadMode<'db, Db>;

/// One revision. There is a record for each that is not compacted, also for one that changed no
/// entry: so a missing one is noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RevisionRecord {
    /// The time in the log.
    pub(crate) time_ms: u64,
    /// The changes, in the order of keys.
    pub(crate) changes: Vec<ChangeRecord>,
}

/// One entry's change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChangeRecord {
    /// Which entry.
    pub(crate) key: Key,
    /// The revision of its version before; 0: there was none.
    pub(crate) previous: u64,
    /// What happened.
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Written,
    Deleted,
    Expired,
}

impl RevisionRecord {
    pub(crate) fn new(time_ms: u64, changes: &[Change]) -> Self {
        Self { time_ms, changes: changes.iter().map(ChangeRecord::of).collect() }
    }

    /// The keys of the versions that nobody needs who reads at `revision` or later: those that
    /// this revision replaced, and the marks of what it deleted.
    pub(crate) fn replaced(&self, revision: u64) -> impl Iterator<Item = Vec<u8>> {
        self.changes.iter().flat_map(move |change| {
            let before = (change.previous != 0).then(|| version_key::of(&change.key, change.previous));
            let mark = (change.kind != Kind::Written).then(|| version_key::of(&change.key, revision));
            before.into_iter().chain(mark)
        })
    }
}

impl ChangeRecord {
    fn of(change: &Change) -> Self {
        let kind = match (&change.entry, change.cause) {
            (Some(_), _) => Kind::Written,
            (None, Cause::Command) => Kind::Deleted,
            (None, Cause::Expiry) => Kind::Expired,
        };
        let previous = change.previous.as_ref().map_or(0, |entry| entry.revision);
        Self { key: change.key.clone(), previous, kind }
    }
}

/// The key of a revision's record.
pub(crate) fn key(revision: u64) -> [u8; 9] {
    let [a, b, c, d, e, f, g, h] = revision.to_be_bytes();
    [REVISION, a, b, c, d, e, f, g, h]
}

fn parse(key: &[u8]) -> Option<u64> {
    key.strip_prefix(&[REVISION])?.try_into().ok().map(u64::from_be_bytes)
}

/// The records after a revision, each of the next one: a gap is damage.
pub(crate) struct Records<'i, 'db> {
    iterator: &'i mut Iter<'db>,
    last: u64,
}

impl<'i, 'db> Records<'i, 'db> {
    pub(crate) fn after(iterator: &'i mut Iter<'db>, revision: u64) -> Self {
        iterator.seek(key(revision + 1));
        Self { iterator, last: revision }
    }
}

impl Iterator for Records<'_, '_> {
    type Item = Result<(u64, RevisionRecord), EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (key, record) = self.iterator.item()?;
        let revision = parse(key)?;
        if revision != self.last + 1 {
            return Some(Err(damaged(format!("revision {} is missing", self.last + 1))));
        }
        let record = rocks::decode(record);
        self.last = revision;
        self.iterator.next();
        Some(record.map(|record| (revision, record)))
    }
}

/// Checks that there is a record of each revision behind `trimmed` and up to `revision`.
pub(crate) fn check(iterator: &mut Iter<'_>, trimmed: u64, revision: u64) -> Result<(), EngineError> {
    let mut last = trimmed;
    iterator.seek(key(trimmed + 1));
    while let Some(next) = iterator.key().and_then(parse) {
        if next != last + 1 {
            break;
        }
        last = next;
        iterator.next();
    }
    iterator.status().map_err(|error| damaged(error.to_string()))?;
    if last == revision { Ok(()) } else { Err(damaged(format!("revision {} of {revision} is missing", last + 1))) }
}

fn damaged(detail: String) -> EngineError {
    EngineError::Corrupt { what: WHAT, detail }
}
