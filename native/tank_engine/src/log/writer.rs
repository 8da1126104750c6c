//! The thread that makes the log durable, many entries with one sync.
//!
//! The raft core hands over what to write and goes on. While the disk syncs, more gathers; the
//! writer then takes all of it as its next batch. So a sync serves one write when one client
//! writes, and hundreds when hundreds do, without a timer.
//!
//! A write that is alone, and has nobody to wait for, is made by the raft thread itself: waking this
//! thread, and being woken by it, took a tenth of such a write.
//!
//! The queue is tokio's, whose waiting thread sleeps at once. Crossbeam's yields its turn a few times
//! first: on a busy machine each of those turns came back after milliseconds, up to 66 of them, while a
//! batch was already there.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use openraft::entry::RaftEntry;
use openraft::storage::IOFlushed;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, WeakUnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::environment;
use crate::error::EngineError;
use crate::faults;
use crate::health::Health;
use crate::metrics::Histogram;
use crate::runtime;
use crate::sync::lock;
use crate::types::Types;

use super::disk::{LogDisk, LogWrite};
use super::{Shared, tail};

/// The bytes of entries written with one sync, at the most: bounds the memory of a batch and the
/// time a vote waits behind it.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// A write on its way to the disk, and who waits for it.
pub(super) struct Job {
    /// What was committed before it, if that is not written yet.
    pub(super) committed: Option<LogWrite>,
    pub(super) write: LogWrite,
    pub(super) done: Done,
}

/// Who is told that a write is durable.
pub(super) enum Done {
    Raft(IOFlushed<Types>),
    Caller(oneshot::Sender<io::Result<()>>),
    Nobody,
}

/// How often the disk was synced, and for how many entries.
#[derive(Debug, Default)]
pub struct WriterStats {
    /// Batches that were synced.
    pub syncs: AtomicU64,
    /// Of these, made by the raft core's own task.
    pub syncs_at_once: AtomicU64,
    /// Log entries written.
    pub entries: AtomicU64,
    /// Bytes of log entries written, before the disk's own overhead.
    pub bytes: AtomicU64,
    /// Bytes of the log's files.
    pub disk_bytes: AtomicU64,
    /// How long writing and syncing a batch took.
    pub times: Histogram,
}

/// The handle on the writer.
pub(super) struct Writer {
    queue: Queue,
    worker: Worker,
}

/// Who writes.
enum Worker {
    Thread(JoinHandle<()>),
    /// A simulated member's.
    Task(tokio::task::JoinHandle<()>),
}

/// What the writer has to do, in order.
#[derive(Clone)]
pub(super) struct Queue {
    jobs: UnboundedSender<Job>,
    /// Those that are not done.
    open: Arc<AtomicUsize>,
}

/// A queue that does not keep the writer from ending.
pub(super) struct WeakQueue {
    jobs: WeakUnboundedSender<Job>,
    open: Arc<AtomicUsize>,
}

impl WeakQueue {
    pub(super) fn upgrade(&self) -> Option<Queue> {
        Some(Queue { jobs: self.jobs.upgrade()?, open: Arc::clone(&self.open) })
    }
}

impl Queue {
    pub(super) fn downgrade(&self) -> WeakQueue {
        WeakQueue { jobs: self.jobs.downgrade(), open: Arc::clone(&self.open) }
    }

    pub(super) fn push(&self, job: Job) -> io::Result<()> {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.jobs.send(job).map_err(|_| io::Error::other("the log's writer has ended"))
    }

    /// Whether all is done that was pushed: who alone pushes may then write in the thread's place.
    pub(super) fn is_idle(&self) -> bool {
        self.open.load(Ordering::Acquire) == 0
    }
}

impl Writer {
    pub(super) fn start<D: LogDisk>(shared: Arc<Shared<D>>, health: Arc<Health>) -> Result<Self, EngineError> {
        let (queue, jobs) = unbounded_channel();
        let queue = Queue { jobs: queue, open: Arc::default() };
        let open = Arc::clone(&queue.open);
        let worker = if environment::is_simulated() {
            Worker::Task(runtime::spawn_simulated(run_simulated(shared, jobs, open)))
        } else {
            let thread = runtime::spawn_thread("log-writer", health, move || run(&shared, jobs, &open));
            Worker::Thread(thread.map_err(|error| EngineError::Storage(format!("no thread for the log: {error}")))?)
        };
        Ok(Self { queue, worker })
    }

    pub(super) fn queue(&self) -> Queue {
        self.queue.clone()
    }

    /// Waits until all that was handed over is on the disk and the thread is gone. Whoever else
    /// has the queue must have let go of it.
    pub(super) fn join(self) {
        drop(self.queue);
        if let Worker::Thread(thread) = self.worker {
            // A panic of the thread was reported where it happened.
            let _ = thread.join();
        }
    }

    /// As [`Writer::join`], in a task that may block.
    pub(super) async fn ended(self) {
        drop(self.queue);
        match self.worker {
            Worker::Thread(thread) => drop(thread.join()),
            Worker::Task(task) => drop(task.await),
        }
    }
}

fn run<D: LogDisk>(shared: &Shared<D>, mut jobs: UnboundedReceiver<Job>, open: &AtomicUsize) {
    while let Some(first) = jobs.blocking_recv() {
        let (writes, waiting) = gather(first, &mut jobs);
        let count = waiting.len();
        serve(shared, &writes, waiting);
        open.fetch_sub(count, Ordering::Release);
    }
}

/// As [`run`], where the disk takes its time by the simulated clock.
async fn run_simulated<D: LogDisk>(shared: Arc<Shared<D>>, mut jobs: UnboundedReceiver<Job>, open: Arc<AtomicUsize>) {
    while let Some(first) = jobs.recv().await {
        let (writes, waiting) = gather(first, &mut jobs);
        let count = waiting.len();
        tokio::time::sleep(shared.disk.begin(&writes)).await;
        serve(&shared, &writes, waiting);
        open.fetch_sub(count, Ordering::Release);
    }
}

/// A write that takes longer is slow: the raft core must not wait for the next one in its own task.
const SLOW: Duration = Duration::from_millis(2);

/// A sync that takes longer is told to the operator: elections begin when a disk hangs.
const HANGS: Duration = Duration::from_secs(1);

fn note_time<D: LogDisk>(shared: &Shared<D>, took: Duration) {
    shared.is_slow.store(took > SLOW, Ordering::Relaxed);
    shared.stats.times.record(took);
    if took > HANGS {
        tracing::warn!(ms = took.as_millis(), "the disk is slow: a sync of the log took this long");
    }
}

/// Makes a batch durable and says so. One thread at a time may.
pub(super) fn serve<D: LogDisk>(shared: &Shared<D>, writes: &[LogWrite], waiting: Vec<Done>) {
    let mut failure = lock(&shared.failure);
    // After one error it is unknown what the disk holds: nothing is reported durable any more.
    let result = match &*failure {
        Some(error) => Err(again(error)),
        None => {
            let began = Instant::now();
            let result = write(shared, writes, &shared.health);
            note_time(shared, began.elapsed());
            result
        }
    };
    if let (Err(error), None) = (&result, &*failure) {
        *failure = Some(again(error));
        shared.health.fail(super::storage_error(&shared.dir, error));
    }
    drop(failure);
    for done in waiting {
        done.report(&result);
    }
}

/// Writes a batch. A panic is a failure like others: whoever waits is told, now and later.
fn write<D: LogDisk>(shared: &Shared<D>, writes: &[LogWrite], health: &Health) -> io::Result<()> {
    let result = catch_unwind(AssertUnwindSafe(|| {
        faults::point("log_writer");
        check_faults()?;
        shared.disk.write(writes)?;
        written(shared, writes);
        shared.stats.disk_bytes.store(shared.disk.bytes(), Ordering::Relaxed);
        Ok(())
    }));
    result.unwrap_or_else(|panic| {
        health.panicked("log-writer", panic.as_ref());
        Err(io::Error::other("panic in the log's writer"))
    })
}

/// The disk's errors that tests ask for.
pub(super) fn check_faults() -> io::Result<()> {
    if faults::skipped("log_full") {
        return Err(io::ErrorKind::StorageFull.into());
    }
    if faults::skipped("log_error") {
        return Err(rustix::io::Errno::IO.into());
    }
    Ok(())
}

/// Takes what has gathered since the last batch.
fn gather(first: Job, jobs: &mut UnboundedReceiver<Job>) -> (Vec<LogWrite>, Vec<Done>) {
    let (mut writes, mut waiting, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut next = Some(first);
    while let Some(job) = next {
        bytes += size(&job.write);
        writes.extend(job.committed);
        writes.push(job.write);
        waiting.push(job.done);
        next = if bytes < BATCH_BYTES_MAX { jobs.try_recv().ok() } else { None };
    }
    (writes, waiting)
}

fn size(write: &LogWrite) -> usize {
    match write {
        LogWrite::Append(entries) => entries.iter().map(tail::size).sum(),
        _ => 0,
    }
}

fn written<D: LogDisk>(shared: &Shared<D>, writes: &[LogWrite]) {
    let stats = &shared.stats;
    stats.syncs.fetch_add(1, Ordering::Relaxed);
    let mut last = None;
    for write in writes {
        if let LogWrite::Append(entries) = write {
            stats.entries.fetch_add(entries.len() as u64, Ordering::Relaxed);
            stats.bytes.fetch_add(size(write) as u64, Ordering::Relaxed);
            last = entries.last().map(RaftEntry::log_id).or(last);
        }
    }
    if let Some(id) = last {
        let removed = lock(&shared.tail).durable_upto(&id);
        // Without the lock, which the raft core takes.
        drop(removed);
    }
}

impl Done {
    fn report(self, result: &io::Result<()>) {
        let result = result.as_ref().map_err(again).copied();
        match self {
            Self::Raft(callback) => callback.io_completed(result),
            // Whoever gave up waiting does not want to know.
            Self::Caller(caller) => drop(caller.send(result)),
            Self::Nobody => {}
        }
    }
}

/// An error like `error`, which cannot be cloned.
fn again(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}
