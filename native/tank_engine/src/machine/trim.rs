//! Removes compacted revisions from the disk.

use crate::error::EngineError;

use super::history::{self, Record};
use super::rows::Rows;
use super::store::{Header, StateStore};
use super::version_key;

/// Revisions whose removal is put to the disk at once, about: bounds the memory that it takes.
const REVISIONS_MAX: u64 = 50_000;

impl StateStore {
    /// Adds the removal of what only revisions up to `compacted` need. Returns up to where they are gone with `rows`;
    /// `disk` is the header on the disk. Records go whole, so that a few revisions may be left.
    ///
    /// # Errors
    /// The history is damaged; or the disk's, when there is more than fits into `rows`, and some is removed at once.
    pub(super) fn trim(&self, rows: &mut Rows, disk: &mut Header, compacted: u64) -> Result<u64, EngineError> {
        loop {
            let mut removed = Rows::default();
            let trimmed = self.remove_revisions(&mut removed, disk.trimmed, compacted)?;
            if trimmed - disk.trimmed < REVISIONS_MAX {
                *rows = removed;
                // There is no more on the disk.
                return Ok(if trimmed == disk.revision { trimmed.max(compacted) } else { trimmed });
            }
            (disk.trimmed, disk.compacted) = (trimmed, disk.compacted.max(trimmed));
            removed.encode(Header::key().to_vec(), disk)?;
            self.put(&removed)?;
        }
    }

    fn remove_revisions(&self, rows: &mut Rows, trimmed: u64, compacted: u64) -> Result<u64, EngineError> {
        let family = self.family()?;
        let mut iterator = self.db().raw_iterator_cf(&family);
        iterator.seek(history::key(trimmed + 1));
        let mut gone = trimmed;
        while gone - trimmed < REVISIONS_MAX
            && let Some(record) = Record::holding(gone + 1, &iterator)
        {
            let record = record?;
            if record.last() > compacted {
                break;
            }
            for (number, revision) in record.decode()? {
                for (key, version) in revision.replaced(number) {
                    rows.remove(version_key::of(key, version));
                }
            }
            gone = record.last();
            rows.remove(history::key(gone).to_vec());
            iterator.next();
        }
        iterator.status().map_err(|error| EngineError::from_rocks_read(history::WHAT, &error))?;
        Ok(gone)
    }
}
