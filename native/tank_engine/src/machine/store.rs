//! The state on disk: one column family per generation.
//!
//! | key | value |
//! |---|---|
//! | `c` and a revision | what changed at it, and at those applied with it ([`super::history`]) |
//! | `e`, a path's key and a revision | the entry's record ([`crate::entry`]); empty: it was deleted then |
//! | `h` | [`Header`] |
//! | `l` and a lease's name | the lease |
//! | `n` and a path's key | what a node has besides its entry ([`crate::nodes`]) |
//! | `r` and a log index (u64 big-endian) | the requests applied with the batch that ended there |
//! | `s` and a client's id (u64 big-endian) | the client's session |
//!
//! Of an entry's records the newest comes first ([`super::version_key`]). The others are history:
//! they go when the revision that replaced them is compacted.
//!
//! A snapshot is the whole column family, so whatever joins the state joins it too.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocksdb::{BottommostLevelCompaction, BoundColumnFamily, CompactOptions, IngestExternalFileOptions};
use serde::{Deserialize, Serialize};

use crate::entry::Entry;
use crate::error::EngineError;
use crate::files::remove_dir;
use crate::key::Key;
use crate::lease::Lease;
use crate::nodes::Node;
use crate::payload::Memory;
use crate::snapshot::{PinnedSnapshot, ReceivedSnapshot, SnapshotData, SnapshotReceiver};
use crate::state::{History, LogTime, Remembered, SessionRecord, Sessions, State};
use crate::storage::Tables;
use crate::storage::rocks::{self, Db};
use crate::types::{LogId, StoredMembership};

use super::delta::{Delta, node_key, numbered};
use super::history;
use super::rows::Rows;
use super::version_key::{self, ENTRY};

pub(super) const HEADER: &[u8] = b"h";
pub(super) const LEASE: u8 = b'l';
pub(super) const NODE: u8 = b'n';
pub(super) const REMEMBERED: u8 = b'r';
pub(super) const SESSION: u8 = b's';
const HEADER_FORMAT: u8 = 4;
/// The first format that can be read. It has no history.
const HEADER_FORMAT_MIN: u8 = 2;
/// The first format with records of nodes.
const HEADER_FORMAT_NODES: u8 = 4;

/// In the database's directory: what is to be put there next.
const NEXT: &str = "next";

/// What the state is as a whole. It goes to the disk together with what it is the header of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    format: u8,
    /// The last log entry that the state contains.
    pub applied: Option<LogId>,
    /// The members as of it.
    pub membership: StoredMembership,
    /// The store's revision.
    pub revision: u64,
    /// The oldest revision that can still be read.
    pub compacted: u64,
    /// Up to here, compacted revisions are gone from the disk.
    pub trimmed: u64,
    /// How many entries there are.
    pub entries: u64,
    /// How many leases are held.
    pub leases: u64,
    /// The hash of all of them.
    pub digest: u64,
    /// How many records of remembered requests there are: a lost one would let a request be
    /// applied twice.
    pub remembered: u64,
    /// How many sessions there are.
    pub sessions: u64,
    /// The hash of all of them, and of the requests that are remembered.
    pub sessions_digest: u64,
    /// Up to where sessions may have been forgotten, by the time in the log.
    pub horizon_ms: u64,
    /// The time in the log.
    pub log_time: LogTime,
    /// Which history the state is in.
    #[serde(default)]
    pub history: History,
    /// How many records of nodes there are.
    #[serde(default)]
    pub nodes: u64,
}

impl Header {
    /// The header of a state.
    pub fn new(state: &State, applied: Option<LogId>, membership: StoredMembership, trimmed: u64) -> Self {
        Self {
            format: HEADER_FORMAT,
            applied,
            membership,
            revision: state.revision,
            compacted: state.compacted,
            trimmed,
            entries: state.entries.len() as u64,
            leases: state.leases.len() as u64,
            digest: state.whole_digest().value(),
            remembered: state.sessions.records() as u64,
            sessions: state.sessions.clients() as u64,
            sessions_digest: state.sessions.digest().value(),
            horizon_ms: state.sessions.horizon_ms(),
            log_time: state.log_time,
            history: state.history,
            nodes: state.nodes.len() as u64,
        }
    }

    /// Reads the header among a state's records; that of an empty state when there is none.
    pub(crate) fn from_record(record: Option<&[u8]>) -> Result<Self, EngineError> {
        let Some(record) = record else {
            return Ok(Self::new(&State::default(), None, StoredMembership::default(), 0));
        };
        let header: Self = rocks::decode(record)?;
        if !(HEADER_FORMAT_MIN..=HEADER_FORMAT).contains(&header.format) {
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
        let (sessions, digest) = (state.sessions.clients() as u64, state.sessions.digest().value());
        if (sessions, digest) != (self.sessions, self.sessions_digest) {
            return Err(damaged(format!(
                "it had {} sessions with digest {:016x}, and has {sessions} with {digest:016x}",
                self.sessions, self.sessions_digest
            )));
        }
        let (entries, leases) = (state.entries.len() as u64, state.leases.len() as u64);
        let (nodes, digest) = (state.nodes.len() as u64, state.whole_digest().value());
        if (entries, leases, nodes, digest) == (self.entries, self.leases, self.nodes, self.digest) {
            return Ok(());
        }
        Err(damaged(format!(
            "it had {} entries, {} leases and {} records of nodes with digest {:016x}, and has {entries}, {leases} and \
             {nodes} with {digest:016x}",
            self.entries, self.leases, self.nodes, self.digest
        )))
    }
}

/// The state's column family.
#[derive(Clone)]
pub struct StateStore {
    db: Arc<Db>,
    dir: Arc<Path>,
    generation: u64,
}

impl StateStore {
    /// The state that counts, in the database of the store in `dir`.
    ///
    /// # Errors
    /// It cannot be found, or a left-over cannot be removed.
    pub fn open(db: Arc<Db>, dir: &Path) -> Result<Self, EngineError> {
        let generation = rocks::generation(&db)?;
        let store = Self { db, dir: dir.into(), generation };
        store.family()?;
        remove_dir(&store.next())?;
        // A crash during an install leaves the next generation, or the one before.
        for other in [generation.checked_sub(1), generation.checked_add(1)].into_iter().flatten() {
            store.drop_generation(other)?;
        }
        Ok(store)
    }

    pub(super) fn db(&self) -> &Db {
        &self.db
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The header on the disk.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn header(&self) -> Result<Header, EngineError> {
        let record = self.db.get_pinned_cf(&self.family()?, HEADER);
        Header::from_record(record.map_err(|error| EngineError::from_rocks_read("state", &error))?.as_deref())
    }

    fn next(&self) -> PathBuf {
        self.db.path().join(NEXT)
    }

    /// Reads all of it, and checks that it is what was written.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`] when it is not.
    pub fn load(&self, memory: &Arc<Memory>) -> Result<(State, Header), EngineError> {
        let mut state = State::new(Arc::clone(memory));
        let (mut header, mut remembered) = (None, 0);
        let family = self.family()?;
        let mut iterator = self.db.raw_iterator_cf(&family);
        // Before the requests: the sessions tell which of them were forgotten.
        load_sessions(&mut state, &mut iterator)?;
        // Behind the history, which nothing needs now.
        iterator.seek([ENTRY]);
        let mut newest = None;
        while let Some((key, record)) = iterator.item() {
            match key.split_first() {
                Some((&ENTRY, _)) => load_version(&mut state, &mut newest, key, record)?,
                Some((&LEASE, _)) => state.load_lease(rocks::decode::<Lease>(record)?),
                Some((&NODE, path)) => state.load_node(&Key::from_bytes(path), rocks::decode::<Node>(record)?),
                Some((&REMEMBERED, index)) => {
                    load_remembered(&mut state, index, record)?;
                    remembered += 1;
                }
                Some((&SESSION, _)) => {}
                _ if key == HEADER => header = Some(Header::from_record(Some(record))?),
                _ => return Err(damaged(format!("a record of an unknown kind {:?}", key.first()))),
            }
            iterator.next();
        }
        iterator.status().map_err(|error| EngineError::from_rocks_read("state", &error))?;
        let mut header = header.map_or_else(|| Header::from_record(None), Ok)?;
        if header.format < HEADER_FORMAT_NODES {
            state.make_nodes();
            header.nodes = state.nodes.len() as u64;
            header.digest = header.digest.wrapping_add(state.nodes.digest().value());
        }
        state.sessions.loaded(header.horizon_ms);
        (state.log_time, state.history) = (header.log_time, header.history);
        header.check(&state, remembered)?;
        history::check(&mut iterator, header.trimmed, header.revision)?;
        (state.revision, state.compacted) = (header.revision, header.compacted);
        Ok((state, header))
    }

    /// Brings the disk to where `delta` ends, which begins where the disk is. After a crash it is there, or as before.
    /// Returns the header that is there then, if there was anything to write.
    ///
    /// # Errors
    /// The disk's, or what is there is damaged.
    pub(super) fn advance(&self, delta: &Delta) -> Result<Option<Header>, EngineError> {
        let Some(header) = &delta.header else { return Ok(None) };
        let mut disk = self.header()?;
        let mut rows = Rows::default();
        let trimmed = self.trim(&mut rows, &mut disk, header.compacted)?;
        delta.put_into(&mut rows, &disk, header.compacted)?;
        let header = Header { trimmed, ..header.clone() };
        rows.encode(HEADER.to_vec(), &header)?;
        self.put(&rows)?;
        Ok(Some(header))
    }

    /// What its files take up; zero when RocksDB does not say.
    pub(super) fn disk_bytes(&self) -> u64 {
        let Ok(family) = self.family() else { return 0 };
        let bytes = self.db.property_int_value_cf(&family, rocksdb::properties::LIVE_SST_FILES_SIZE);
        bytes.ok().flatten().unwrap_or_default()
    }

    /// How many snapshots of the database there are. Zero when RocksDB does not say.
    pub(super) fn pins(&self) -> u64 {
        let pins = self.db.property_int_value(rocksdb::properties::NUM_SNAPSHOTS);
        pins.ok().flatten().unwrap_or_default()
    }

    /// Merges its files, so that rows which were removed take up no disk. Ends early when the store is closed.
    pub(super) fn merge(&self) {
        let Ok(family) = self.family() else { return };
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        self.db.compact_range_cf_opt(&family, None::<&[u8]>, None::<&[u8]>, &options);
    }

    /// Puts the header of a state in the place of the one on the disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn put_header(&self, header: &Header) -> Result<(), EngineError> {
        let mut rows = Rows::default();
        rows.encode(HEADER.to_vec(), header)?;
        self.put(&rows)
    }

    /// Puts all rows to the disk, durably: after a crash all of them are there, or none.
    pub(super) fn put(&self, rows: &Rows) -> Result<(), EngineError> {
        let mut tables = Tables::new(self.next(), &self.dir)?;
        rows.write(&mut tables)?;
        self.take_over(tables.finish()?)
    }

    fn take_over(&self, files: Vec<PathBuf>) -> Result<(), EngineError> {
        if files.is_empty() {
            return Ok(());
        }
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        let taken = self.db.ingest_external_file_cf_opts(&self.family()?, &options, files);
        taken.map_err(|error| EngineError::from_rocks(&self.dir, &error))
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
        memory: &Arc<Memory>,
    ) -> Result<(Self, State, Header), EngineError> {
        let received = match snapshot {
            SnapshotData::Received(received) => received,
            SnapshotData::Pinned(pinned) => self.copy(&pinned)?,
        };
        let next = Self { generation: self.generation + 1, ..self.clone() };
        next.drop_generation(next.generation)?;
        let (state, header) = next.ingest(&received, Some(expected), memory).inspect_err(|_| {
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

    /// `expected` is the log id that it must stand for, when that is known.
    fn ingest(
        &self,
        received: &ReceivedSnapshot,
        expected: Option<Option<LogId>>,
        memory: &Arc<Memory>,
    ) -> Result<(State, Header), EngineError> {
        let created = self.db.create_cf(rocks::state_name(self.generation), &rocks::state_options());
        created.map_err(|error| EngineError::from_rocks(&self.dir, &error))?;
        self.take_over(received.files().to_vec())?;
        let (state, header) = self.load(memory)?;
        if expected.is_some_and(|expected| header.applied != expected) {
            return Err(damaged(format!("a snapshot of {:?} came as one of {expected:?}", header.applied)));
        }
        Ok((state, header))
    }

    /// Puts the state of a backup in the place of the empty one of a new member. What tied it to
    /// its old cluster goes: its log id and members, which become `applied` and `membership`, and the requests that were
    /// remembered.
    ///
    /// # Errors
    /// As [`StateStore::install`].
    pub fn restore(
        &self,
        received: &ReceivedSnapshot,
        applied: LogId,
        membership: StoredMembership,
    ) -> Result<(), EngineError> {
        let next = Self { generation: self.generation + 1, ..self.clone() };
        let (mut state, header) = next.ingest(received, None, &Arc::new(Memory::without_room()))?;
        let mut rows = Rows::default();
        state.sessions.record_numbers().for_each(|record| rows.remove(numbered(REMEMBERED, record)));
        state.sessions.client_ids().for_each(|client| rows.remove(numbered(SESSION, client)));
        state.sessions = Sessions::default();
        for (key, node) in state.take_changed_nodes() {
            node.map_or(Ok(()), |node| rows.encode(node_key(&key), &node))?;
        }
        rows.encode(HEADER.to_vec(), &Header::new(&state, Some(applied), membership, header.trimmed))?;
        next.put(&rows)?;
        next.make_current()?;
        self.drop_generation(self.generation)
    }

    fn make_current(&self) -> Result<(), EngineError> {
        rocks::set_generation(&self.db, &self.dir, self.generation)
    }

    fn drop_generation(&self, generation: u64) -> Result<(), EngineError> {
        let name = rocks::state_name(generation);
        if self.db.cf_handle(&name).is_none() {
            return Ok(());
        }
        self.db.drop_cf(&name).map_err(|error| EngineError::from_rocks(&self.dir, &error))
    }

    pub(super) fn family(&self) -> Result<Arc<BoundColumnFamily<'_>>, EngineError> {
        rocks::family(&self.db, &rocks::state_name(self.generation))
    }
}

fn load_sessions(
    state: &mut State,
    iterator: &mut rocksdb::DBRawIteratorWithThreadMode<'_, Db>,
) -> Result<(), EngineError> {
    iterator.seek([SESSION]);
    while let Some((key, record)) = iterator.item()
        && let Some(client) = key.strip_prefix(&[SESSION])
    {
        let client = <[u8; 8]>::try_from(client).map_err(|_| damaged("a session without its client".to_owned()))?;
        state.sessions.load(u64::from_be_bytes(client), rocks::decode::<SessionRecord>(record)?);
        iterator.next();
    }
    iterator.status().map_err(|error| EngineError::from_rocks_read("state", &error))
}

fn load_remembered(state: &mut State, index: &[u8], record: &[u8]) -> Result<(), EngineError> {
    let index = <[u8; 8]>::try_from(index).map_err(|_| damaged("a record without its number".to_owned()))?;
    let remembered: Vec<Remembered> = rocks::decode(record)?;
    for one in remembered {
        state.sessions.remember(one, u64::from_be_bytes(index));
    }
    Ok(())
}

/// Takes the newest version of an entry, and passes over the older ones behind it.
fn load_version(state: &mut State, newest: &mut Option<Vec<u8>>, key: &[u8], record: &[u8]) -> Result<(), EngineError> {
    let (path, _revision) = version_key::parse(key).ok_or_else(|| damaged("a version without its key".to_owned()))?;
    if newest.as_deref() == Some(path) {
        return Ok(());
    }
    let last = newest.get_or_insert_default();
    last.clear();
    last.extend_from_slice(path);
    if !record.is_empty() {
        let key = Key::from_bytes(path);
        let entry = Entry::from_record(&key, record)?;
        state.load(&key, entry);
    }
    Ok(())
}

pub(super) fn damaged(detail: String) -> EngineError {
    EngineError::Corrupt { what: "state", detail }
}
