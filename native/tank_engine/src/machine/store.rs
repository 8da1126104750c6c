//! The state on disk: one column family per generation.
//!
//! | key | value |
//! |---|---|
//! | `h` | [`Header`] |
//! | `e` and a path's key | the entry's record ([`crate::entry`]) |
//! | `r` and a log index (u64 big-endian) | the requests applied with the batch that ended there |
//!
//! A snapshot is the whole column family, so whatever joins the state joins it too.

use std::sync::Arc;

use rocksdb::{BoundColumnFamily, IngestExternalFileOptions, WriteBatch};
use serde::{Deserialize, Serialize};

use crate::entry::Entry;
use crate::error::EngineError;
use crate::key::Key;
use crate::raft::{LogId, StoredMembership};
use crate::runtime;
use crate::snapshot::{PinnedSnapshot, ReceivedSnapshot, SnapshotData, SnapshotReceiver};
use crate::state::{Change, Remembered, State};
use crate::storage::rocks::{self, Db};

const HEADER: &[u8] = b"h";
const ENTRY: u8 = b'e';
const REMEMBERED: u8 = b'r';
const HEADER_FORMAT: u8 = 1;

/// What the state is as a whole. Written with every batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    format: u8,
    /// The last log entry that the state contains.
    pub applied: Option<LogId>,
    /// The members as of it.
    pub membership: StoredMembership,
    /// The store's revision.
    pub revision: u64,
    /// How many entries there are.
    pub entries: u64,
    /// The hash of all of them.
    pub digest: u64,
    /// How many records of remembered requests there are: a lost one would let a request be
    /// applied twice.
    pub remembered: u64,
}

impl Header {
    /// The header of a state.
    pub fn new(state: &State, applied: Option<LogId>, membership: StoredMembership) -> Self {
        Self {
            format: HEADER_FORMAT,
            applied,
            membership,
            revision: state.revision,
            entries: state.entries.len() as u64,
            digest: state.digest.value(),
            remembered: state.sessions.records() as u64,
        }
    }

    /// Reads the header among a state's records; that of an empty state when there is none.
    pub(crate) fn from_record(record: Option<&[u8]>) -> Result<Self, EngineError> {
        let Some(record) = record else {
            return Ok(Self::new(&State::default(), None, StoredMembership::default()));
        };
        let header: Self = rocks::decode(record)?;
        if header.format != HEADER_FORMAT {
            return Err(damaged(format!("a header of format {}", header.format)));
        }
        Ok(header)
    }

    /// The key of the header.
    pub(crate) fn key() -> &'static [u8] {
        HEADER
    }

    fn check(&self, state: &State, remembered: u64) -> Result<(), EngineError> {
        if remembered != self.remembered {
            let detail = format!("it had {} records of requests, and has {remembered}", self.remembered);
            return Err(damaged(detail));
        }
        let (entries, digest) = (state.entries.len() as u64, state.digest.value());
        if (entries, digest) == (self.entries, self.digest) {
            return Ok(());
        }
        Err(damaged(format!(
            "it had {} entries with digest {:016x}, and has {entries} with {digest:016x}",
            self.entries, self.digest
        )))
    }
}

/// The state's column family.
#[derive(Clone)]
pub struct StateStore {
    db: Arc<Db>,
    dir: std::path::PathBuf,
    generation: u64,
}

impl StateStore {
    /// The state that counts, in the database of the store in `dir`.
    ///
    /// # Errors
    /// It cannot be found, or a left-over cannot be removed.
    pub fn open(db: Arc<Db>, dir: &std::path::Path) -> Result<Self, EngineError> {
        let generation = rocks::generation(&db)?;
        let store = Self { db, dir: dir.to_path_buf(), generation };
        store.family()?;
        // A crash during an install leaves the next generation, or the one before.
        for other in [generation.checked_sub(1), generation.checked_add(1)].into_iter().flatten() {
            store.drop_generation(other)?;
        }
        Ok(store)
    }

    /// Reads all of it, and checks that it is what was written.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`] when it is not.
    pub fn load(&self) -> Result<(State, Header), EngineError> {
        let mut state = State::default();
        let (mut header, mut remembered) = (None, 0);
        let mut iterator = self.db.raw_iterator_cf(&self.family()?);
        iterator.seek_to_first();
        while let Some((key, record)) = iterator.item() {
            match key.split_first() {
                Some((&ENTRY, key)) => state.load(&Key::from_bytes(key), Entry::from_record(record)?),
                Some((&REMEMBERED, index)) => {
                    load_remembered(&mut state, index, record)?;
                    remembered += 1;
                }
                _ if key == HEADER => header = Some(Header::from_record(Some(record))?),
                _ => return Err(damaged(format!("a record of an unknown kind {:?}", key.first()))),
            }
            iterator.next();
        }
        iterator.status().map_err(|error| damaged(error.to_string()))?;
        let header = header.map_or_else(|| Header::from_record(None), Ok)?;
        header.check(&state, remembered)?;
        state.revision = header.revision;
        Ok((state, header))
    }

    /// Adds `changes` to `batch`.
    ///
    /// # Errors
    /// The column family is missing.
    pub fn put_changes(&self, batch: &mut WriteBatch, changes: &[Change]) -> Result<(), EngineError> {
        let family = self.family()?;
        for Change { key, entry, .. } in changes {
            match entry {
                Some(entry) => batch.put_cf(&family, entry_key(key), entry.to_record()),
                None => batch.delete_cf(&family, entry_key(key)),
            }
        }
        Ok(())
    }

    /// Adds the record number `record` of remembered requests to `batch`.
    ///
    /// # Errors
    /// The column family is missing.
    pub fn put_remembered(
        &self,
        batch: &mut WriteBatch,
        record: u64,
        remembered: &[Remembered],
    ) -> Result<(), EngineError> {
        if !remembered.is_empty() {
            batch.put_cf(&self.family()?, remembered_key(record), rocks::encode(&remembered)?);
        }
        Ok(())
    }

    /// Adds the removal of records of remembered requests to `batch`.
    ///
    /// # Errors
    /// The column family is missing.
    pub fn delete_remembered(&self, batch: &mut WriteBatch, records: &[u64]) -> Result<(), EngineError> {
        let family = self.family()?;
        for record in records {
            batch.delete_cf(&family, remembered_key(*record));
        }
        Ok(())
    }

    /// Adds the header to `batch`.
    ///
    /// # Errors
    /// The column family is missing.
    pub fn put_header(&self, batch: &mut WriteBatch, header: &Header) -> Result<(), EngineError> {
        batch.put_cf(&self.family()?, HEADER, rocks::encode(header)?);
        Ok(())
    }

    /// Writes a batch, without a sync: the log, which is synced, can replay it.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, batch: WriteBatch) -> Result<(), EngineError> {
        let write = || self.db.write_opt(batch, &rocks::unsynced());
        // The raft core, which has heartbeats to send, runs on the same thread.
        let written = if rocks::is_held_up(&self.db) { runtime::blocking(write) } else { write() };
        written.map_err(|error| EngineError::from_rocks(&self.dir, &error))
    }

    /// Pins the state as it is now.
    ///
    /// # Errors
    /// Its header cannot be read.
    pub fn pin(&self) -> Result<PinnedSnapshot, EngineError> {
        PinnedSnapshot::new(Arc::clone(&self.db), rocks::state_name(self.generation))
    }

    /// Puts a snapshot in the place of the state. After a crash it is the old or the new one.
    ///
    /// # Errors
    /// The snapshot is damaged or stands for another log entry than `expected`, or the disk
    /// fails. Then the old state stays.
    pub fn install(
        &self,
        snapshot: SnapshotData,
        expected: Option<LogId>,
    ) -> Result<(Self, State, Header), EngineError> {
        let received = match snapshot {
            SnapshotData::Received(received) => received,
            SnapshotData::Pinned(pinned) => self.copy(&pinned)?,
        };
        let next = Self { generation: self.generation + 1, ..self.clone() };
        next.drop_generation(next.generation)?;
        let (state, header) = next.ingest(&received, expected).inspect_err(|_| {
            // The old state stays; what is left of the new one goes at the next start at the latest.
            let _ = next.drop_generation(next.generation);
        })?;
        next.make_current()?;
        self.drop_generation(self.generation)?;
        Ok((next, state, header))
    }

    fn copy(&self, pinned: &PinnedSnapshot) -> Result<ReceivedSnapshot, EngineError> {
        let mut receiver = SnapshotReceiver::new(&self.dir)?;
        for frame in pinned.frames()? {
            if let Some(received) = receiver.accept(&frame?)? {
                return Ok(received);
            }
        }
        Err(damaged("a snapshot without an end".to_owned()))
    }

    fn ingest(&self, received: &ReceivedSnapshot, expected: Option<LogId>) -> Result<(State, Header), EngineError> {
        let failed = |error: rocksdb::Error| EngineError::from_rocks(&self.dir, &error);
        let name = rocks::state_name(self.generation);
        self.db.create_cf(&name, &rocks::state_options()).map_err(failed)?;
        if !received.files().is_empty() {
            let mut options = IngestExternalFileOptions::default();
            options.set_move_files(true);
            let files = received.files().to_vec();
            self.db.ingest_external_file_cf_opts(&self.family()?, &options, files).map_err(failed)?;
        }
        let (state, header) = self.load()?;
        if header.applied != expected {
            return Err(damaged(format!("a snapshot of {:?} came as one of {expected:?}", header.applied)));
        }
        Ok((state, header))
    }

    fn make_current(&self) -> Result<(), EngineError> {
        let failed = |error: rocksdb::Error| EngineError::from_rocks(&self.dir, &error);
        let mut batch = WriteBatch::default();
        rocks::set_generation(&self.db, &mut batch, self.generation)?;
        self.db.write_opt(batch, &rocks::unsynced()).map_err(failed)?;
        self.db.flush_wal(true).map_err(failed)
    }

    fn drop_generation(&self, generation: u64) -> Result<(), EngineError> {
        let name = rocks::state_name(generation);
        if self.db.cf_handle(&name).is_none() {
            return Ok(());
        }
        self.db.drop_cf(&name).map_err(|error| EngineError::from_rocks(&self.dir, &error))
    }

    fn family(&self) -> Result<Arc<BoundColumnFamily<'_>>, EngineError> {
        rocks::family(&self.db, &rocks::state_name(self.generation))
    }
}

fn load_remembered(state: &mut State, index: &[u8], record: &[u8]) -> Result<(), EngineError> {
    let index = <[u8; 8]>::try_from(index).map_err(|_| damaged("a record without its number".to_owned()))?;
    let remembered: Vec<Remembered> = rocks::decode(record)?;
    for one in remembered {
        state.sessions.remember(one, u64::from_be_bytes(index));
    }
    Ok(())
}

fn entry_key(key: &Key) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + key.as_bytes().len());
    bytes.push(ENTRY);
    bytes.extend_from_slice(key.as_bytes());
    bytes
}

fn remembered_key(record: u64) -> [u8; 9] {
    let [a, b, c, d, e, f, g, h] = record.to_be_bytes();
    [REMEMBERED, a, b, c, d, e, f, g, h]
}

fn damaged(detail: String) -> EngineError {
    EngineError::Corrupt { what: "state", detail }
}
