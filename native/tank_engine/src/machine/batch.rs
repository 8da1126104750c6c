//! One write to the database: what a batch of log entries changed, and the header they lead to.

use std::sync::Arc;

use rocksdb::{BoundColumnFamily, WriteBatch};

use crate::entry::Entry;
use crate::error::EngineError;
use crate::key::Key;
use crate::state::{Applied, LeaseChange, Remembered, SessionRecord};
use crate::storage::rocks::{self, Db};

use super::history::{self, Revision};
use super::store::{HEADER, Header, LEASE, REMEMBERED, SESSION, damaged};
use super::version_key;

/// Collects changes of the state. Written by [`super::StateStore::write`].
pub struct StateBatch<'db> {
    pub(super) db: &'db Db,
    pub(super) family: Arc<BoundColumnFamily<'db>>,
    write: WriteBatch,
    history: history::Writer,
    // What is put next: made here, one after the other, without memory of its own for each.
    key: Vec<u8>,
    value: Vec<u8>,
}

impl<'db> StateBatch<'db> {
    /// An empty batch with room for `bytes`: one that grows is copied again and again.
    pub(super) fn new(db: &'db Db, family: Arc<BoundColumnFamily<'db>>, bytes: usize) -> Self {
        let write = WriteBatch::with_capacity_bytes(bytes);
        Self { db, family, write, history: history::Writer::default(), key: Vec::new(), value: Vec::new() }
    }

    /// Adds what `applied` changed.
    ///
    /// # Errors
    /// A new entry's payload is not in memory.
    pub fn put_applied(&mut self, applied: &Applied, time_ms: u64) -> Result<(), EngineError> {
        if let Some(revision) = applied.revision {
            for change in &applied.changes {
                self.put_version(&change.key, revision, change.entry.as_deref())?;
            }
            match applied.jumped_from {
                Some(before) => self.history.jump(&mut self.write, &self.family, before, revision),
                None => {
                    let names = Revision::new(time_ms, &applied.changes);
                    self.history.add(&mut self.write, &self.family, revision, &names)?;
                }
            }
        }
        for LeaseChange { name, lease } in &applied.leases {
            self.set_key(LEASE, name);
            match lease {
                Some(lease) => {
                    self.set_value(lease.as_ref())?;
                    self.write.put_cf(&self.family, &self.key, &self.value);
                }
                None => self.write.delete_cf(&self.family, &self.key),
            }
        }
        Ok(())
    }

    /// An entry that was just written, or the mark that it was deleted.
    fn put_version(&mut self, key: &Key, revision: u64, entry: Option<&Entry>) -> Result<(), EngineError> {
        self.value.clear();
        if let Some(entry) = entry {
            let payload = entry.payload.in_memory();
            let payload = payload.ok_or_else(|| damaged("a new entry without its payload".to_owned()))?;
            entry.write_record(&payload, &mut self.value);
        }
        version_key::write(key, revision, &mut self.key);
        self.write.put_cf(&self.family, &self.key, &self.value);
        Ok(())
    }

    /// Removes the version of `key` that was written at `revision`.
    ///
    /// With a single delete: it and what it removes both vanish where a flush or a compaction
    /// brings them together, while the mark of a plain one goes down to the last level. Had a key
    /// been put twice, the older value would show again. No key of a version or of the history is
    /// put twice, and none is removed twice:
    ///
    /// - Such a key has a revision in it, which one log entry makes, and [`Applied::changes`] has
    ///   each path once. A version is replaced, or is the mark of a deletion, at one revision only.
    /// - Entries are applied again after a crash when what they put was lost. The database loses
    ///   whole batches, the last ones, each with its header: what the header does not count is
    ///   not there. That the same revisions may share other records then does no harm.
    /// - A snapshot or a backup has each key once, and becomes a column family of its own.
    ///
    /// RocksDB refuses a mix: no other kind of removal may be used for these keys.
    pub(super) fn remove_version(&mut self, key: &Key, revision: u64) {
        version_key::write(key, revision, &mut self.key);
        self.write.single_delete_cf(&self.family, &self.key);
    }

    /// Removes the history's record up to the revision `last`. With a single delete, as a version.
    pub(super) fn remove_history(&mut self, last: u64) {
        self.write.single_delete_cf(&self.family, history::key(last));
    }

    /// Adds the record number `record` of remembered requests.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn put_remembered(&mut self, record: u64, remembered: &[Remembered]) -> Result<(), EngineError> {
        if !remembered.is_empty() {
            self.set_key(REMEMBERED, &record.to_be_bytes());
            self.set_value(remembered)?;
            self.write.put_cf(&self.family, &self.key, &self.value);
        }
        Ok(())
    }

    /// Adds the removal of records of remembered requests.
    pub fn delete_remembered(&mut self, records: &[u64]) {
        for record in records {
            self.set_key(REMEMBERED, &record.to_be_bytes());
            self.write.delete_cf(&self.family, &self.key);
        }
    }

    /// Adds the records of sessions, and the removal of those that have ended.
    ///
    /// # Errors
    /// They cannot be encoded.
    pub fn put_sessions(&mut self, sessions: &[(u64, Option<SessionRecord>)]) -> Result<(), EngineError> {
        for (client, session) in sessions {
            self.set_key(SESSION, &client.to_be_bytes());
            match session {
                Some(session) => {
                    self.set_value(session)?;
                    self.write.put_cf(&self.family, &self.key, &self.value);
                }
                None => self.write.delete_cf(&self.family, &self.key),
            }
        }
        Ok(())
    }

    /// Adds the removal of all sessions, and of all records of remembered requests.
    pub(super) fn delete_all_sessions(&mut self) {
        for kind in [REMEMBERED, SESSION] {
            self.write.delete_range_cf(&self.family, [kind], [kind + 1]);
        }
    }

    /// Adds the header.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn put_header(&mut self, header: &Header) -> Result<(), EngineError> {
        self.set_value(header)?;
        self.write.put_cf(&self.family, HEADER, &self.value);
        Ok(())
    }

    /// All of it, to be written.
    pub(super) fn finish(mut self) -> WriteBatch {
        self.history.finish(&mut self.write, &self.family);
        self.write
    }

    fn set_key(&mut self, kind: u8, rest: &[u8]) {
        self.key.clear();
        self.key.push(kind);
        self.key.extend_from_slice(rest);
    }

    fn set_value<T: serde::Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EngineError> {
        self.value.clear();
        rocks::encode_into(&mut self.value, value)
    }
}
