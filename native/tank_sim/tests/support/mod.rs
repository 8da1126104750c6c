//! Beds for logs: a disk of each kind, that a test opens, closes and opens again.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::vote::RaftLeaderIdExt;
use openraft::{EntryPayload, RaftTypeConfig};
use tank_engine::command::{Command, Request, RequestId, Write};
use tank_engine::error::EngineError;
use tank_engine::health::Health;
use tank_engine::key::{Component, Key};
use tank_engine::log::disk::LogDisk;
use tank_engine::log::segments::SegmentLog;
use tank_engine::log::{LogCloser, LogStore};
use tank_engine::raft::{LogEntry, LogId, Types, Vote};
use tank_engine::storage::Directory;
use tank_sim::disk::Tear;
use tank_sim::{Control, Controlled, SimDisk};

/// Longer than anything here takes.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A disk that outlives the logs on it.
pub trait Bed: Default {
    type Disk: LogDisk;

    /// The disk, for the next start of the log, with what controls its syncs.
    fn start(&mut self) -> (Self::Disk, Control);

    /// Ends the use of the disk. The log on it is closed.
    fn stop(&mut self);

    /// Where the disk is, for errors.
    fn dir(&self) -> PathBuf;
}

/// The simulated disk. Every stop is a power cut.
#[derive(Default)]
pub struct SimBed(Option<SimDisk>);

impl Bed for SimBed {
    type Disk = SimDisk;

    fn start(&mut self) -> (SimDisk, Control) {
        let disk = self.0.get_or_insert_default().clone();
        let control = disk.control().clone();
        (disk, control)
    }

    fn stop(&mut self) {
        self.0 = self.0.as_ref().map(|disk| disk.crash(Tear::All));
    }

    fn dir(&self) -> PathBuf {
        PathBuf::from("simulated")
    }
}

/// Files in a directory that goes with the test.
pub struct SegmentBed<const SEGMENT_BYTES: u64> {
    dir: tempfile::TempDir,
    open: Option<Directory>,
}

impl<const SEGMENT_BYTES: u64> Default for SegmentBed<SEGMENT_BYTES> {
    fn default() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), open: None }
    }
}

impl<const SEGMENT_BYTES: u64> Bed for SegmentBed<SEGMENT_BYTES> {
    type Disk = Controlled<SegmentLog>;

    fn start(&mut self) -> (Self::Disk, Control) {
        let directory = Directory::open(self.dir.path(), "tank").unwrap();
        let log = directory.log().with_segment_bytes(SEGMENT_BYTES);
        self.open = Some(directory);
        let control = Control::default();
        (Controlled::new(log, control.clone()), control)
    }

    fn stop(&mut self) {
        let directory = self.open.take().unwrap();
        assert_eq!(Arc::strong_count(&directory.db), 1, "the closed log let go of the database");
        directory.close().unwrap();
    }

    fn dir(&self) -> PathBuf {
        self.dir.path().to_path_buf()
    }
}

/// An open log.
pub struct OpenLog<D: LogDisk> {
    pub log: LogStore<D>,
    pub control: Control,
    pub health: Arc<Health>,
    pub failures: Arc<Mutex<Vec<EngineError>>>,
    closer: LogCloser,
}

impl<D: LogDisk> OpenLog<D> {
    pub fn open(bed: &mut impl Bed<Disk = D>) -> Self {
        let (disk, control) = bed.start();
        let failures = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&failures);
        let health = Arc::new(Health::new(Box::new(move |error| seen.lock().unwrap().push(error.clone()))));
        let (log, closer) = LogStore::open(disk, &bed.dir(), &health).unwrap();
        Self { log, control, health, failures, closer }
    }

    pub fn close(self) {
        drop(self.log);
        self.closer.join();
    }

    /// Hands entries over; the receiver hears when they are durable.
    pub async fn append(&mut self, entries: Vec<LogEntry>) -> Acknowledged {
        let (sender, receiver) = Types::oneshot();
        self.log.append(entries, IOFlushed::signal(sender)).await.unwrap();
        receiver
    }

    /// Appends and waits until the entries are durable.
    pub async fn append_synced(&mut self, entries: Vec<LogEntry>) {
        acknowledged(self.append(entries).await).await.unwrap();
    }
}

pub type Acknowledged = openraft::type_config::alias::OneshotReceiverOf<Types, Result<(), std::io::Error>>;

/// Waits for the callback of an append.
pub async fn acknowledged(receiver: Acknowledged) -> std::io::Result<()> {
    let result = tokio::time::timeout(LIMIT, receiver).await;
    result.expect("the callback of an append within 20 s").expect("a callback that is called, not dropped")
}

pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(<Types as RaftTypeConfig>::LeaderId::new_committed(term, 1), index)
}

pub fn vote(term: u64) -> Vote {
    Vote::new(term, 1)
}

/// A log entry with a payload of some bytes that differ from index to index.
pub fn entry(term: u64, index: u64, bytes: usize) -> LogEntry {
    let payload = Bytes::from(index.to_be_bytes().repeat(bytes.div_ceil(8)));
    let key = Key::of(&[Component::String(b"k".to_vec())]);
    let command = Command::Put(Write::new(key, payload));
    let id = RequestId { client: 1, sequence: index, resolved_below: 0 };
    LogEntry::new(log_id(term, index), EntryPayload::Normal(Arc::new(Request { id, time_ms: 0, command, seen_ms: 0 })))
}

pub fn entries(term: u64, indexes: std::ops::Range<u64>) -> Vec<LogEntry> {
    indexes.map(|index| entry(term, index, 8)).collect()
}

/// Runs a future on a runtime of its own.
pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}
