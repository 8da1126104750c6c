//! Reads the history's records. A revision that is missing is damage.

use std::vec;

use rocksdb::DBRawIteratorWithThreadMode;

use crate::error::EngineError;
use crate::storage::rocks::{self, Db};

use super::{HISTORY, Revision, damaged, key};

type Iter<'db> = DBRawIteratorWithThreadMode<'db, Db>;

/// A record, not decoded yet.
pub(crate) struct Record<'a> {
    first: u64,
    last: u64,
    revisions: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record where the iterator stands, which must hold the revision `next`; `None` behind
    /// the last record.
    pub(crate) fn holding(next: u64, iterator: &'a Iter<'_>) -> Option<Result<Self, EngineError>> {
        let (key, value) = iterator.item()?;
        let last = u64::from_be_bytes(key.strip_prefix(&[HISTORY])?.try_into().ok()?);
        let Some((first, revisions)) = value.split_first_chunk() else {
            return Some(Err(damaged(format!("the record up to revision {last} is too short"))));
        };
        let record = Self { first: u64::from_be_bytes(*first), last, revisions };
        let holds = (record.first..=record.last).contains(&next);
        Some(if holds { Ok(record) } else { Err(damaged(format!("revision {next} is missing"))) })
    }

    /// The last revision in it.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The revisions in it, with their numbers.
    pub(crate) fn decode(&self) -> Result<Vec<(u64, Revision)>, EngineError> {
        if self.revisions.is_empty() {
            // The revision jumped over them.
            return Ok(Vec::new());
        }
        let mut decoder = rocks::Decoder::new(self.revisions);
        let mut revisions = Vec::new();
        for number in self.first..=self.last {
            revisions.push((number, decoder.decode()?));
        }
        if decoder.is_at_end() {
            return Ok(revisions);
        }
        Err(damaged(format!("more than revision {} in its record", self.last)))
    }
}

/// The revisions behind one, with their numbers.
pub(crate) struct Revisions<'i, 'db> {
    iterator: &'i mut Iter<'db>,
    last: u64,
    /// Of the record before the iterator, those that were not asked for yet.
    decoded: vec::IntoIter<(u64, Revision)>,
}

impl<'i, 'db> Revisions<'i, 'db> {
    pub(crate) fn after(iterator: &'i mut Iter<'db>, revision: u64) -> Self {
        iterator.seek(key(revision + 1));
        Self { iterator, last: revision, decoded: Vec::new().into_iter() }
    }

    fn read(&mut self) -> Option<Result<(), EngineError>> {
        let record = Record::holding(self.last + 1, self.iterator)?;
        let mut revisions = match record.and_then(|record| record.decode()) {
            Ok(revisions) => revisions,
            Err(error) => return Some(Err(error)),
        };
        // The first record may begin before.
        revisions.retain(|(number, _)| *number > self.last);
        self.decoded = revisions.into_iter();
        self.iterator.next();
        Some(Ok(()))
    }
}

impl Iterator for Revisions<'_, '_> {
    type Item = Result<(u64, Revision), EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.decoded.as_slice().is_empty()
            && let Err(error) = self.read()?
        {
            return Some(Err(error));
        }
        let (number, revision) = self.decoded.next()?;
        self.last = number;
        Some(Ok((number, revision)))
    }
}

/// Checks that there is a record of each revision behind `trimmed` and up to `revision`, and none
/// of a later one. What the records say is not looked at.
pub(crate) fn check(iterator: &mut Iter<'_>, trimmed: u64, revision: u64) -> Result<(), EngineError> {
    let mut last = trimmed;
    iterator.seek(key(trimmed + 1));
    while let Some(record) = Record::holding(last + 1, iterator) {
        let record = record?;
        if record.first != last + 1 {
            return Err(damaged(format!("revision {} stands in two records", record.first)));
        }
        last = record.last;
        iterator.next();
    }
    iterator.status().map_err(|error| EngineError::from_rocks_read(super::WHAT, &error))?;
    if last == revision { Ok(()) } else { Err(damaged(format!("it ends at revision {last}, not {revision}"))) }
}
