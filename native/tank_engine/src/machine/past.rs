//! Entries as they were at a revision, from the versions on disk.

use rocksdb::{DBRawIteratorWithThreadMode, ReadOptions};

use crate::entry::Entry;
use crate::error::EngineError;
use crate::key::{Key, first_component};
use crate::outcome::Found;
use crate::storage::rocks::{self, Db};

use super::store::Header;
use super::version_key::{self, ENTRY};

/// Above every zero that ends a path: where the keys below a path begin.
const BELOW: u8 = 1;

/// The entry at `key` as it was at `revision`.
///
/// # Errors
/// The revision is compacted or in the future, or what is there is damaged.
pub(crate) fn found_at(db: &Db, key: &Key, revision: u64) -> Result<Option<Found>, EngineError> {
    let family = rocks::family(db, &rocks::state_name(rocks::generation(db)?))?;
    // One moment for all: what is compacted meanwhile still stands in it.
    let snapshot = db.snapshot();
    let record = snapshot
        .get_pinned_cf(&family, Header::key())
        .map_err(|error| EngineError::from_rocks_read("state", &error))?;
    let header = Header::from_record(record.as_deref())?;
    if revision > header.revision {
        return Err(EngineError::FutureRevision { current: header.revision });
    }
    if revision < header.compacted {
        return Err(EngineError::Compacted { min: header.compacted });
    }
    let iterator = snapshot.raw_iterator_cf_opt(&family, ReadOptions::default());
    let mut past = Past { iterator, revision };
    let Some(entry) = past.entry(key)? else { return Ok(None) };
    let child_count = past.child_count(key)?;
    let payload = entry.payload.in_memory();
    Ok(Some(Found { key: key.clone(), entry: entry.into(), payload, child_count }))
}

struct Past<'db> {
    iterator: DBRawIteratorWithThreadMode<'db, Db>,
    revision: u64,
}

impl Past<'_> {
    /// The first version behind the revision is the one that was current at it.
    fn entry(&mut self, key: &Key) -> Result<Option<Entry>, EngineError> {
        self.iterator.seek(version_key::of(key, self.revision));
        let Some((version, record)) = self.iterator.item() else { return self.end().map(|()| None) };
        let of_key = version_key::parse(version).is_some_and(|(path, _)| path == key.as_bytes());
        if !of_key || record.is_empty() {
            return Ok(None);
        }
        Entry::from_record(key, record).map(Some)
    }

    /// Looks at one entry below each child, or at more until one is found that was there.
    fn child_count(&mut self, key: &Key) -> Result<u64, EngineError> {
        let mut count = 0;
        let mut from = [&[ENTRY], key.as_bytes(), &[BELOW]].concat();
        loop {
            self.iterator.seek(&from);
            let path = self.iterator.key().and_then(version_key::parse).map(|(path, _)| Key::from_bytes(path));
            let Some(path) = path.filter(|path| path.is_within(key)) else { return self.end().map(|()| count) };
            if self.entry(&path)?.is_none() {
                // Behind its versions: what is below it is looked at next.
                from = [version_key::of(&path, 0).as_slice(), &[0]].concat();
                continue;
            }
            count += 1;
            let length = key.as_bytes().len();
            let child = path.as_bytes().get(length..).and_then(first_component).map_or(0, <[u8]>::len);
            let child = Key::from_bytes(path.as_bytes().get(..length + child).unwrap_or_default());
            from = [&[ENTRY], child.after_subtree().as_bytes()].concat();
        }
    }

    /// Whether the iterator ended because there was no more.
    fn end(&self) -> Result<(), EngineError> {
        self.iterator.status().map_err(|error| EngineError::from_rocks_read("state", &error))
    }
}
