//! A log disk in memory that loses its power.
//!
//! ```text
//! write --> pending --sync--> durable
//!              |                 |
//!   power cut: lost, or torn     there afterwards
//! ```
//!
//! As on a real disk, what is written can be read at once, and what was not synced may be gone
//! after a power cut, or there in part: always a prefix, since RocksDB's log is one.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tank_engine::error::EngineError;
use tank_engine::log::disk::{LogDisk, LogWrite, Recovered};
use tank_engine::raft::LogEntry;

use crate::contents::Contents;
use crate::control::Control;
use crate::rng::Rng;

/// A simulated disk. Clones are the same disk, since the same start of its machine.
#[derive(Clone, Debug)]
pub struct SimDisk {
    medium: Arc<Mutex<Medium>>,
    control: Control,
    boot: u64,
}

#[derive(Debug, Default)]
struct Medium {
    boot: u64,
    durable: Contents,
    /// What was written since the last sync.
    pending: Vec<LogWrite>,
    /// `durable` with `pending`: what can be read.
    written: Contents,
    lies: bool,
}

/// What a power cut leaves of what was not synced.
#[derive(Debug)]
pub enum Tear<'a> {
    /// Nothing.
    All,
    /// A random prefix.
    Prefix(&'a mut Rng),
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self { medium: Arc::default(), control: Control::default(), boot: 0 }
    }

    /// An empty disk that reports a sync without making one: the control for tests that look for
    /// lost writes.
    pub fn lying() -> Self {
        let disk = Self::new();
        disk.medium().lies = true;
        disk
    }

    /// Another disk, with what can be read on this one.
    #[must_use]
    pub fn copy(&self) -> Self {
        let medium = self.medium();
        let (durable, written) = (medium.written.clone(), medium.written.clone());
        let copied = Medium { boot: 0, durable, pending: Vec::new(), written, lies: medium.lies };
        Self { medium: Arc::new(Mutex::new(copied)), control: Control::default(), boot: 0 }
    }

    /// The hand on its syncs and reads.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// What would be there after a power cut now, at the least.
    pub fn durable(&self) -> Contents {
        self.medium().durable.clone()
    }

    /// Cuts the power. The disk as the next start finds it is returned; this one does nothing any
    /// more but fail.
    #[must_use]
    pub fn crash(&self, tear: Tear<'_>) -> Self {
        let mut medium = self.medium();
        let pending = std::mem::take(&mut medium.pending);
        if let Tear::Prefix(rng) = tear {
            let single = singles(&pending);
            let kept = rng.below(single.len() + 1);
            for write in single.iter().take(kept) {
                // It was applied to `written` already, in the same order.
                let _ = medium.durable.apply(write);
            }
        }
        medium.written = medium.durable.clone();
        medium.boot += 1;
        Self { medium: Arc::clone(&self.medium), control: Control::default(), boot: medium.boot }
    }

    /// Writes without a sync.
    ///
    /// # Errors
    /// The power is off, or the log above has a fault.
    pub fn put(&self, writes: &[LogWrite]) -> io::Result<()> {
        let mut medium = self.powered()?;
        for write in writes {
            medium.written.apply(write)?;
            medium.pending.push(write.clone());
        }
        Ok(())
    }

    /// Makes durable what was written.
    ///
    /// # Errors
    /// The power is off, or the [`Control`] says so.
    pub fn sync(&self) -> io::Result<()> {
        self.control.sync(|| {
            let mut medium = self.powered()?;
            if medium.lies {
                return Ok(());
            }
            let pending = std::mem::take(&mut medium.pending);
            pending.iter().try_for_each(|write| medium.durable.apply(write))
        })
    }

    fn medium(&self) -> MutexGuard<'_, Medium> {
        self.medium.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn powered(&self) -> io::Result<MutexGuard<'_, Medium>> {
        let medium = self.medium();
        if medium.boot == self.boot { Ok(medium) } else { Err(io::Error::other("the power is off")) }
    }
}

/// The writes with appends taken apart, so that a tear may go through one.
fn singles(writes: &[LogWrite]) -> Vec<LogWrite> {
    let apart = |write: &LogWrite| match write {
        LogWrite::Append(entries) => entries.iter().map(|entry| LogWrite::Append(vec![entry.clone()])).collect(),
        other => vec![other.clone()],
    };
    writes.iter().flat_map(apart).collect()
}

impl LogDisk for SimDisk {
    fn recover(&self) -> Result<Recovered, EngineError> {
        let medium = self.powered().map_err(|error| EngineError::Storage(error.to_string()))?;
        medium.written.recover()
    }

    fn write(&self, writes: &[LogWrite]) -> io::Result<()> {
        self.put(writes)?;
        self.sync()
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<LogEntry>> {
        self.control.read(|| self.powered()?.written.read(range, bytes_max))
    }
}
