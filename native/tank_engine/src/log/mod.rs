//! The raft log: entries, vote, and what is known of both, on a [`disk::LogDisk`].
//!
//! ```text
//! raft core --append--> tail (readable at once) --queue--> writer thread --one sync--> disk
//!     ^                                                         |
//!     +------------------------ durable ------------------------+
//! ```

pub mod alone;
pub mod disk;
pub mod marker;
pub mod segments;

mod tail;
mod writer;

pub(crate) use tail::size as entry_size;
pub use writer::WriterStats;

use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::{Stream, TryStreamExt, stream};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::{LogState, OptionalSend};
use tokio::sync::oneshot;

use crate::command::{Request, RequestId};
use crate::error::EngineError;
use crate::faults;
use crate::health::Health;
use crate::mutants;
use crate::reclaim;
use crate::runtime;
use crate::sync::lock;
use crate::types::{LogEntry, LogId, Types, Vote};

use disk::{LogDisk, LogWrite, Recovered};
use tail::Tail;
use writer::{Done, Job, Queue, WeakQueue, Writer};

/// From this size on, a command is written ahead of its entry ([`LogDisk::stage`]), and stays in a file of its own.
/// Less takes no longer than a few milliseconds.
pub(crate) const DETACHED_BYTES_MIN: usize = 1 << 20;

/// What is committed is written by itself when nothing else has been written for so long: a member that is killed and
/// started without a leader knows no more than that.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// The bytes of entries that one read for replication gives, about.
const READ_BYTES_MAX: usize = 512 << 10;

/// What the writer and all handles share.
struct Shared<D> {
    disk: D,
    dir: PathBuf,
    tail: Mutex<Tail>,
    vote: Mutex<Option<Vote>>,
    committed: Mutex<Option<LogId>>,
    /// The first error of the disk.
    failure: Mutex<Option<io::Error>>,
    at_once: AtOnce,
    /// Whether the last write took long.
    is_slow: AtomicBool,
    stats: Arc<WriterStats>,
    health: Arc<Health>,
}

/// Asks the log to write the next entries in the raft core's own task, which waits for the disk then.
/// That is quicker when nothing else is on its way, and nobody else has to hear of the entries.
#[derive(Clone, Debug, Default)]
pub struct AtOnce(Arc<AtomicBool>);

impl AtOnce {
    /// Asks for it. It is done only if nothing waits to be written.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// The log, as openraft uses it.
pub struct LogStore<D> {
    shared: Arc<Shared<D>>,
    queue: Queue,
    unwritten: Arc<Mutex<Unwritten>>,
}

/// What is committed, if that is not written yet. It goes with the next write: nobody waits for it.
#[derive(Default)]
struct Unwritten {
    committed: Option<LogWrite>,
    /// How often it was replaced.
    saved: u64,
    /// Whether a task writes it should no other write come.
    is_watched: bool,
}

/// Reads the log. It does not keep the log open.
pub struct LogReader<D>(Arc<Shared<D>>);

/// Writes large commands ahead of their entries. It does not keep the log open.
#[derive(Clone)]
pub(crate) struct Staging(Weak<dyn Stage>);

trait Stage: Send + Sync {
    fn stage(&self, request: &Request);
    fn unstage(&self, id: RequestId);
    fn end(&self);
}

/// Waits for the log's writer to end.
pub struct LogCloser(Writer, Staging);

impl<D: LogDisk> LogStore<D> {
    /// Opens the log that is on `disk`. `dir` is where, for errors.
    ///
    /// # Errors
    /// What the disk finds wrong with what it holds, or that there is no thread.
    pub fn open(disk: D, dir: &Path, health: &Arc<Health>) -> Result<(Self, LogCloser), EngineError> {
        // Opening writes as well, to RocksDB and to the marker: it fails where the log's writes do.
        writer::check_faults().map_err(|error| storage_error(dir, &error))?;
        let Recovered { purged, last, vote, committed } = disk.recover()?;
        let stats = WriterStats { disk_bytes: disk.bytes().into(), ..WriterStats::default() };
        let shared = Arc::new(Shared {
            disk,
            dir: dir.to_path_buf(),
            tail: Mutex::new(Tail::recovered(purged, last)),
            vote: Mutex::new(vote),
            committed: Mutex::new(committed),
            failure: Mutex::default(),
            at_once: AtOnce::default(),
            is_slow: AtomicBool::default(),
            stats: Arc::new(stats),
            health: Arc::clone(health),
        });
        let writer = Writer::start(Arc::clone(&shared), Arc::clone(health))?;
        let log = Self { shared, queue: writer.queue(), unwritten: Arc::default() };
        let staging = log.staging();
        Ok((log, LogCloser(writer, staging)))
    }

    /// How large commands are written ahead of their entries.
    pub(crate) fn staging(&self) -> Staging {
        let shared: Arc<dyn Stage> = Arc::<Shared<D>>::clone(&self.shared);
        Staging(Arc::downgrade(&shared))
    }

    /// Counters of the writer.
    pub fn stats(&self) -> Arc<WriterStats> {
        Arc::clone(&self.shared.stats)
    }

    /// The last entry that was purged.
    pub fn purged(&self) -> Option<LogId> {
        lock(&self.shared.tail).purged()
    }

    /// How entries are asked to be written at once.
    pub fn at_once(&self) -> AtOnce {
        self.shared.at_once.clone()
    }

    fn hand_over(&mut self, write: LogWrite, done: Done) -> io::Result<()> {
        self.queue.push(Job { committed: lock(&self.unwritten).committed.take(), write, done })
    }

    /// Hands a write over, and waits until it is durable.
    async fn make_durable(&mut self, write: LogWrite) -> io::Result<()> {
        let (sender, durable) = oneshot::channel();
        self.hand_over(write, Done::Caller(sender))?;
        durable.await.map_err(|_| io::Error::other("the log's writer has ended"))?
    }

    /// What is committed stays: a leader that wants it gone has lost it.
    fn check_not_committed(&self, from: u64) -> io::Result<()> {
        let committed = lock(&self.shared.committed).map(|id| id.index());
        let Some(committed) = committed.filter(|committed| from <= *committed) else { return Ok(()) };
        let detail = format!("a leader removes it from entry {from} on, and it is committed up to entry {committed}");
        self.shared.health.fail(EngineError::Corrupt { what: "log", detail: detail.clone() });
        Err(io::Error::other(detail))
    }

    /// As `hand_over`, of entries, which may be written at once.
    fn write(&mut self, write: LogWrite, done: Done) -> io::Result<()> {
        // Only the raft core pushes what others depend on, and it is here: none of that can come before this.
        if !self.shared.at_once.take() || !self.queue.is_idle() {
            return self.hand_over(write, done);
        }
        self.shared.stats.syncs_at_once.fetch_add(1, Ordering::Relaxed);
        let writes: Vec<LogWrite> = lock(&self.unwritten).committed.take().into_iter().chain([write]).collect();
        let serve = || writer::serve(&self.shared, &writes, vec![done]);
        // What letting the other tasks go on meanwhile costs is little beside a slow disk.
        if self.shared.is_slow.load(Ordering::Relaxed) || self.shared.disk.next_takes_long() {
            runtime::blocking(serve);
        } else {
            serve();
        }
        Ok(())
    }
}

impl<D> Drop for LogStore<D> {
    /// A log that is closed has what is committed, as one has that goes on.
    fn drop(&mut self) {
        if let Some(write) = lock(&self.unwritten).committed.take() {
            // Without a writer, the log has failed.
            let _ = self.queue.push(Job { committed: None, write, done: Done::Nobody });
        }
    }
}

/// Writes what is committed once nothing else comes, and ends.
async fn write_when_idle(unwritten: Weak<Mutex<Unwritten>>, queue: WeakQueue, mut seen: u64) {
    loop {
        tokio::time::sleep(IDLE_AFTER).await;
        let Some(unwritten) = unwritten.upgrade() else { return };
        let mut unwritten = lock(&unwritten);
        if unwritten.committed.is_some() && unwritten.saved != seen {
            seen = unwritten.saved;
            continue;
        }
        unwritten.is_watched = false;
        // A log that is closed writes it itself.
        if let Some(queue) = queue.upgrade()
            && let Some(write) = unwritten.committed.take()
        {
            let _ = queue.push(Job { committed: None, write, done: Done::Nobody });
        }
        return;
    }
}

impl LogCloser {
    /// Waits until all that was handed over is written and the writer has ended. Every
    /// [`LogStore`] must be dropped, or about to be.
    pub fn join(self) {
        let Self(writer, staging) = self;
        writer.join();
        staging.end();
    }

    /// As [`LogCloser::join`], in a task that may block.
    pub(crate) async fn ended(self) {
        let Self(writer, staging) = self;
        writer.ended().await;
        staging.end();
    }
}

impl<D: LogDisk> Stage for Shared<D> {
    fn stage(&self, request: &Request) {
        self.disk.stage(request);
    }

    fn unstage(&self, id: RequestId) {
        self.disk.unstage(id);
    }

    fn end(&self) {
        self.disk.end_staging();
    }
}

impl Staging {
    /// Writes the command of a request that will come with an entry, if it is large. Whatever goes wrong: it is
    /// written with its entry then.
    pub(crate) async fn stage(&self, request: &Request) {
        if request.command.size() < DETACHED_BYTES_MIN {
            return;
        }
        let (log, request) = (self.0.clone(), request.clone());
        let staged = runtime::offload(move || log.upgrade().into_iter().for_each(|log| log.stage(&request)));
        if let Err(error) = staged.await {
            tracing::error!(%error, "a large command was not written ahead of its log entry");
        }
    }

    /// The entry of this request was written, or does not come.
    pub(crate) fn unstage(&self, id: RequestId) {
        self.0.upgrade().into_iter().for_each(|log| log.unstage(id));
    }

    fn end(&self) {
        self.0.upgrade().into_iter().for_each(|log| log.end());
    }
}

impl<D> Clone for LogReader<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<D: LogDisk> LogReader<D> {
    /// The entries of `range`, as the log is when this returns: the disk is read on another thread, and what is
    /// truncated or purged meanwhile must not be given.
    async fn entries(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<LogEntry>> {
        loop {
            let (on_disk, mut in_memory, removals) = self.look(range.clone(), bytes_max);
            if on_disk.is_empty() {
                return Ok(in_memory);
            }
            let (shared, wanted) = (Arc::clone(&self.0), on_disk.clone());
            let read = runtime::offload(move || shared.disk.read(wanted, bytes_max)).await;
            if lock(&self.0.tail).removals() != removals {
                continue;
            }
            let mut entries = read.map_err(io::Error::other).and_then(|read| read).inspect_err(|error| {
                // The raft core ends with this error. The store is told before that why.
                self.0.health.fail(storage_error(&self.0.dir, error));
            })?;
            if entries.len() as u64 == on_disk.end - on_disk.start {
                let bytes: usize = entries.iter().map(tail::size).sum();
                if bytes < bytes_max {
                    entries.append(&mut in_memory);
                }
            }
            return Ok(entries);
        }
    }

    /// Which entries of `range` are to be read from the disk, and those that are in memory.
    fn look(&self, range: Range<u64>, bytes_max: usize) -> (Range<u64>, Vec<LogEntry>, u64) {
        let tail = lock(&self.0.tail);
        let range = tail.present(range);
        // What is not in memory is durable, so the disk has it.
        let on_disk = range.start..range.end.min(tail.first_index());
        (on_disk, tail.read(range, bytes_max), tail.removals())
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(&index) => index,
        Bound::Excluded(&index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&index) => index.saturating_add(1),
        Bound::Excluded(&index) => index,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl<D: LogDisk> RaftLogReader<Types> for LogReader<D> {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<LogEntry>>
    where
        RB: RangeBounds<u64> + Clone + std::fmt::Debug + OptionalSend,
    {
        self.entries(bounds(&range), usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<LogEntry>> {
        self.entries(start..end, READ_BYTES_MAX).await
    }

    /// Reads as the stream goes on: what is to be applied after a start may be the whole log.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<LogEntry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + std::fmt::Debug + OptionalSend,
    {
        let (reader, range) = (self.clone(), lock(&self.0.tail).present(bounds(&range)));
        let parts = stream::try_unfold(range, move |range: Range<u64>| {
            let reader = reader.clone();
            async move {
                if range.is_empty() {
                    return Ok(None);
                }
                let entries = reader.entries(range.clone(), READ_BYTES_MAX).await?;
                let next = entries.last().map_or(range.end, |last| last.index() + 1);
                Ok::<_, io::Error>(Some((stream::iter(entries.into_iter().map(Ok)), next..range.end)))
            }
        });
        parts.try_flatten()
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(*lock(&self.0.vote))
    }
}

impl<D: LogDisk> RaftLogReader<Types> for LogStore<D> {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<LogEntry>>
    where
        RB: RangeBounds<u64> + Clone + std::fmt::Debug + OptionalSend,
    {
        LogReader(Arc::clone(&self.shared)).entries(bounds(&range), usize::MAX).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(*lock(&self.shared.vote))
    }
}

impl<D: LogDisk> RaftLogStorage<Types> for LogStore<D> {
    type LogReader = LogReader<D>;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let tail = lock(&self.shared.tail);
        Ok(LogState { last_purged_log_id: tail.purged(), last_log_id: tail.last() })
    }

    async fn get_log_reader(&mut self) -> LogReader<D> {
        LogReader(Arc::clone(&self.shared))
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        if mutants::is("unsynced_vote") {
            self.hand_over(LogWrite::Vote(*vote), Done::Nobody)?;
        } else {
            self.make_durable(LogWrite::Vote(*vote)).await?;
        }
        *lock(&self.shared.vote) = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        *lock(&self.shared.committed) = committed;
        if !faults::skipped("log_committed") {
            let mut unwritten = lock(&self.unwritten);
            unwritten.committed = Some(LogWrite::Committed(committed));
            unwritten.saved += 1;
            if !std::mem::replace(&mut unwritten.is_watched, true) {
                let watch = write_when_idle(Arc::downgrade(&self.unwritten), self.queue.downgrade(), unwritten.saved);
                runtime::spawn_here("log-committed", Arc::clone(&self.shared.health), watch);
            }
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(*lock(&self.shared.committed))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries.into_iter().collect();
        {
            let mut tail = lock(&self.shared.tail);
            for entry in &entries {
                tail.append(entry.clone());
            }
        }
        if mutants::is("ack_before_sync") {
            let written = self.write(LogWrite::Append(entries), Done::Nobody);
            callback.io_completed(Ok(()));
            return written;
        }
        self.write(LogWrite::Append(entries), Done::Raft(callback))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.as_ref().map_or(0, |id| id.index() + 1);
        self.check_not_committed(from)?;
        let removed = lock(&self.shared.tail).truncate_from(from, last);
        reclaim::now(removed);
        if mutants::is("lost_truncate") {
            return Ok(());
        }
        if mutants::is("unawaited_truncate") {
            return self.hand_over(LogWrite::TruncateFrom(from), Done::Nobody);
        }
        // A snapshot may be installed next, and become durable first: with the entries that it replaces behind it,
        // the log could not be opened.
        self.make_durable(LogWrite::TruncateFrom(from)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let removed = lock(&self.shared.tail).purge(upto);
        reclaim::now(removed);
        self.hand_over(LogWrite::Purge(upto), Done::Nobody)
    }
}

/// The error of a failed write to the disk of `dir`, or of a failed read from it.
fn storage_error(dir: &Path, error: &io::Error) -> EngineError {
    if let Some(ours) = error.get_ref().and_then(|error| error.downcast_ref::<EngineError>()) {
        return ours.clone();
    }
    let text = error.to_string();
    if error.kind() == io::ErrorKind::StorageFull || text.contains("No space left on device") {
        return EngineError::DiskFull { path: dir.to_path_buf() };
    }
    // RocksDB met damage in the background and refuses all writes since.
    if text.contains("Corruption: ") {
        return EngineError::Corrupt { what: "database", detail: text };
    }
    EngineError::Storage(text)
}
