//! Writes the history's records.

use rocksdb::{AsColumnFamilyRef, WriteBatch};

use crate::error::EngineError;
use crate::storage::rocks;

use super::{Revision, key};

/// Revisions, and about as many bytes of them, in a record: what a reader decodes at a time, and
/// how long a compacted revision may stay on the disk because of later ones. A revision is never
/// split: a large one makes a larger record.
const REVISIONS_MAX: u64 = 256;
const BYTES_MAX: usize = 64 << 10;

/// Room for a hundred small revisions.
const BYTES: usize = 4 << 10;

/// Collects revisions, each the next one, into records.
#[derive(Default)]
pub(crate) struct Writer {
    first: u64,
    last: u64,
    /// The record so far; empty: none is begun.
    value: Vec<u8>,
}

impl Writer {
    /// Adds a revision. The record goes into `batch` once it is full.
    pub(crate) fn add(
        &mut self,
        batch: &mut WriteBatch,
        family: &impl AsColumnFamilyRef,
        number: u64,
        revision: &Revision,
    ) -> Result<(), EngineError> {
        if self.value.is_empty() {
            self.first = number;
            self.value.reserve(BYTES);
            self.value.extend_from_slice(&number.to_be_bytes());
        }
        self.last = number;
        rocks::encode_into(&mut self.value, revision)?;
        if self.last - self.first + 1 >= REVISIONS_MAX || self.value.len() >= BYTES_MAX {
            self.finish(batch, family);
        }
        Ok(())
    }

    /// Adds that the revision after `before` is `revision`: there are none between them, and it changed nothing.
    pub(crate) fn jump(&mut self, batch: &mut WriteBatch, family: &impl AsColumnFamilyRef, before: u64, revision: u64) {
        self.finish(batch, family);
        batch.put_cf(family, key(revision), (before + 1).to_be_bytes());
    }

    /// Puts the record that was begun, if one was, into `batch`.
    pub(crate) fn finish(&mut self, batch: &mut WriteBatch, family: &impl AsColumnFamilyRef) {
        if !self.value.is_empty() {
            batch.put_cf(family, key(self.last), &self.value);
            self.value.clear();
        }
    }
}
