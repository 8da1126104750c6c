//! What stands on a simulated disk.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use openraft::entry::RaftEntry;
use tank_engine::error::EngineError;
use tank_engine::log::disk::{LogWrite, Recovered};
use tank_engine::raft::{LogEntry, LogId, Vote};

/// A log, its vote, and what is known to be committed and purged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// By index.
    pub entries: BTreeMap<u64, LogEntry>,
    /// The last purged entry.
    pub purged: Option<LogId>,
    /// The vote.
    pub vote: Option<Vote>,
    /// The last committed entry.
    pub committed: Option<LogId>,
}

impl Contents {
    /// Makes a write.
    ///
    /// # Errors
    /// An append does not follow on the last entry: the log above has a fault.
    pub fn apply(&mut self, write: &LogWrite) -> io::Result<()> {
        match write {
            LogWrite::Append(entries) => return entries.iter().try_for_each(|entry| self.append(entry)),
            LogWrite::TruncateFrom(index) => drop(self.entries.split_off(index)),
            LogWrite::Purge(upto) => {
                self.entries = self.entries.split_off(&(upto.index() + 1));
                self.purged = Some(*upto);
            }
            LogWrite::Vote(vote) => self.vote = Some(*vote),
            LogWrite::Committed(committed) => self.committed = *committed,
        }
        Ok(())
    }

    fn append(&mut self, entry: &LogEntry) -> io::Result<()> {
        let last = self.entries.keys().next_back().copied().or_else(|| self.purged.map(|id| id.index()));
        if let Some(last) = last
            && entry.index() != last + 1
        {
            let text = format!("log entry {} was appended behind log entry {last}", entry.index());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        self.entries.insert(entry.index(), entry.clone());
        Ok(())
    }

    /// The entries of `range`, as [`tank_engine::log::disk::LogDisk::read`] gives them.
    ///
    /// # Errors
    /// One is missing.
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<LogEntry>> {
        let (mut entries, mut bytes) = (Vec::new(), 0usize);
        for index in range {
            let entry = self.entries.get(&index);
            let entry = entry.ok_or_else(|| io::Error::other(format!("log entry {index} is not on the disk")))?;
            bytes = bytes.saturating_add(size(entry));
            entries.push(entry.clone());
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(entries)
    }

    /// What a log finds that is opened on this.
    ///
    /// # Errors
    /// The log has a gap.
    pub fn recover(&self) -> Result<Recovered, EngineError> {
        let mut last = self.purged;
        for (index, entry) in &self.entries {
            let expected = last.map_or(0, |id| id.index() + 1);
            if *index != expected {
                let detail = format!("log entry {expected} is missing");
                return Err(EngineError::Corrupt { what: "log", detail });
            }
            last = Some(entry.log_id());
        }
        Ok(Recovered { purged: self.purged, last, vote: self.vote, committed: self.committed })
    }
}

fn size(entry: &LogEntry) -> usize {
    const HEAD: usize = 64;
    match &entry.payload {
        openraft::EntryPayload::Normal(request) => HEAD + request.command.size(),
        _ => HEAD,
    }
}
