//! What the log needs of a disk. Files are one ([`super::segments`]), the simulated one another.

use std::io;
use std::ops::Range;
use std::time::Duration;

use crate::command::{Request, RequestId};
use crate::error::EngineError;
use crate::types::{LogEntry, LogId, Vote};

/// One change of what is on the disk. They take effect in the order they are given.
#[derive(Clone, Debug)]
pub enum LogWrite {
    /// Add entries. Their indexes follow on the last one.
    Append(Vec<LogEntry>),
    /// Remove all entries from this index on.
    TruncateFrom(u64),
    /// Remove all entries up to this one, and remember it.
    Purge(LogId),
    /// Replace the vote.
    Vote(Vote),
    /// Replace the last log entry known to be committed. It comes with others: nobody counts on it, and an older value
    /// after a crash costs only time.
    Committed(Option<LogId>),
}

/// What a disk holds when it is opened.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The last entry that was purged.
    pub purged: Option<LogId>,
    /// The last entry there is.
    pub last: Option<LogId>,
    /// The vote.
    pub vote: Option<Vote>,
    /// The last committed entry, as far as it was saved.
    pub committed: Option<LogId>,
}

/// A disk for one log.
pub trait LogDisk: Send + Sync + 'static {
    /// What is there.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`] when what is there cannot be all that was once reported durable.
    fn recover(&self) -> Result<Recovered, EngineError>;

    /// Makes all of `writes`, in order; when it returns they are durable. One writer calls this, and never again after an
    /// error.
    ///
    /// # Errors
    /// The disk's. Then it is not known which of them are durable.
    fn write(&self, writes: &[LogWrite]) -> io::Result<()>;

    /// A write of these begins; it ends with [`LogDisk::write`], after the time that this returns. Asked
    /// only of a simulated disk: others take their time in the write.
    fn begin(&self, _writes: &[LogWrite]) -> Duration {
        Duration::ZERO
    }

    /// Whether the next write surely takes longer than most. Asked between two writes.
    fn next_takes_long(&self) -> bool {
        false
    }

    /// Bytes of what is there and of what is reserved. Asked between two writes.
    fn bytes(&self) -> u64 {
        0
    }

    /// Writes a large command ahead of its entry, which then takes no longer to write than a small one. Returns
    /// when that is done, or has failed: then the command is written with its entry. Called from many threads.
    fn stage(&self, _request: &Request) {}

    /// The entry of this request was written, or does not come.
    fn unstage(&self, _id: RequestId) {}

    /// The log is closed: nothing is staged any more when this returns.
    fn end_staging(&self) {}

    /// The entries of `range` that are on the disk, in order, up to about `bytes_max` bytes, at
    /// least one if there is one.
    ///
    /// # Errors
    /// The disk's, or that an entry is damaged or missing.
    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<LogEntry>>;
}
