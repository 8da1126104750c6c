//! Writes the history's records.

use crate::error::EngineError;
use crate::storage::rocks;

use super::Revision;

/// Revisions, and about as many bytes of them, in a record: what a reader decodes at a time, and
/// how long a compacted revision may stay on the disk because of later ones. A revision is never
/// split: a large one makes a larger record.
const REVISIONS_MAX: u64 = 256;
const BYTES_MAX: usize = 64 << 10;

/// Collects revisions, each the next one, into records.
#[derive(Default)]
pub(crate) struct Writer {
    /// The last revision and the value of each that is full.
    full: Vec<(u64, Vec<u8>)>,
    first: u64,
    last: u64,
    /// The record so far; empty: none is begun.
    value: Vec<u8>,
}

impl Writer {
    /// Adds a revision.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub(crate) fn add(&mut self, number: u64, revision: &Revision) -> Result<(), EngineError> {
        if self.value.is_empty() {
            self.first = number;
            self.value.extend_from_slice(&number.to_be_bytes());
        }
        self.last = number;
        rocks::encode_into(&mut self.value, revision)?;
        if self.last - self.first + 1 >= REVISIONS_MAX || self.value.len() >= BYTES_MAX {
            self.full.push((self.last, std::mem::take(&mut self.value)));
        }
        Ok(())
    }

    /// The last revision and the value of each record.
    pub(crate) fn finish(mut self) -> Vec<(u64, Vec<u8>)> {
        if !self.value.is_empty() {
            self.full.push((self.last, self.value));
        }
        self.full
    }
}
