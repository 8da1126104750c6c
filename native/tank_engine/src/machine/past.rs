//! Entries as they were at a revision, from their versions on the disk and from what is newer.

use std::collections::BTreeMap;
use std::sync::Arc;

use rocksdb::DBRawIteratorWithThreadMode;

use crate::entry::Entry;
use crate::error::EngineError;
use crate::key::{Key, first_component};
use crate::storage::rocks::Db;

use super::delta::Made;
use super::version_key::{self, ENTRY};

/// Above every zero that ends a path: where the keys below a path begin.
const BELOW: u8 = 1;

/// A path, and what is below it, at a revision.
pub(super) struct Past<'db> {
    iterator: DBRawIteratorWithThreadMode<'db, Db>,
    revision: u64,
    /// What became of entries by revisions that are not on the disk.
    newer: BTreeMap<Key, Option<Arc<Entry>>>,
}

impl<'db> Past<'db> {
    /// That of `key`. The revisions that are not on the disk, and not behind `revision`, are `recent`.
    pub(super) fn new<'m>(
        iterator: DBRawIteratorWithThreadMode<'db, Db>,
        recent: impl Iterator<Item = &'m Made>,
        key: &Key,
        revision: u64,
    ) -> Self {
        let changes = recent.flat_map(|made| &made.revised.changes).filter(|change| change.key.is_within(key));
        let newer = changes.map(|change| (change.key.clone(), change.entry.clone())).collect();
        Self { iterator, revision, newer }
    }

    /// The entry at `key`, which is the path or below it.
    pub(super) fn entry(&mut self, key: &Key) -> Result<Option<Arc<Entry>>, EngineError> {
        if let Some(entry) = self.newer.get(key) {
            return Ok(entry.clone());
        }
        // The first version behind the revision is the one that was current at it.
        self.iterator.seek(version_key::of(key, self.revision));
        let Some((version, record)) = self.iterator.item() else { return self.end().map(|()| None) };
        let of_key = version_key::parse(version).is_some_and(|(path, _)| path == key.as_bytes());
        if !of_key || record.is_empty() {
            return Ok(None);
        }
        Entry::from_record(key, record).map(|entry| Some(Arc::new(entry)))
    }

    /// Looks at one entry below each child, or at more until one is found that was there.
    pub(super) fn child_count(&mut self, key: &Key) -> Result<u64, EngineError> {
        let child = |path: &Key| {
            let length = key.as_bytes().len();
            let child = path.as_bytes().get(length..).and_then(first_component).map_or(0, <[u8]>::len);
            Key::from_bytes(path.as_bytes().get(..length + child).unwrap_or_default())
        };
        let there = self.newer.iter().filter(|(path, entry)| *path != key && entry.is_some());
        let mut children: std::collections::BTreeSet<Key> = there.map(|(path, _)| child(path)).collect();
        let mut from = [&[ENTRY], key.as_bytes(), &[BELOW]].concat();
        loop {
            self.iterator.seek(&from);
            let path = self.iterator.key().and_then(version_key::parse).map(|(path, _)| Key::from_bytes(path));
            let Some(path) = path.filter(|path| path.is_within(key)) else {
                return self.end().map(|()| children.len() as u64);
            };
            let of = child(&path);
            if !children.contains(&of) && self.entry(&path)?.is_none() {
                // Behind its versions: what is below it is looked at next.
                from = [version_key::of(&path, 0).as_slice(), &[0]].concat();
                continue;
            }
            from = [&[ENTRY], of.after_subtree().as_bytes()].concat();
            children.insert(of);
        }
    }

    /// Whether the iterator ended because there was no more.
    fn end(&self) -> Result<(), EngineError> {
        self.iterator.status().map_err(|error| EngineError::from_rocks_read("state", &error))
    }
}
