//! The log in RocksDB.
//!
//! Column family `log`: index (u64 big-endian) to record; a record is
//! `format u8 | crc32c u32 big-endian | MessagePack of the log entry`. Vote, committed and purged
//! stand in `meta`. What is read starts behind what was purged, never at the beginning: the range
//! tombstones of purges are slow to step over.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use openraft::entry::RaftEntry;
use rocksdb::{BoundColumnFamily, ReadOptions, WriteBatch};

use crate::error::EngineError;
use crate::faults;
use crate::raft::{LogEntry, LogId, Vote};
use crate::storage::marker::{Marker, MarkerFile};
use crate::storage::rocks::{self, Db};

use super::disk::{LogDisk, LogWrite, Recovered};

const RECORD_FORMAT: u8 = 1;
const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";

/// A log in a store's database.
pub struct RocksLog {
    db: Arc<Db>,
    marker: Arc<MarkerFile>,
}

impl RocksLog {
    /// The log in `db`, whose durable end `marker` notes.
    pub fn new(db: Arc<Db>, marker: Arc<MarkerFile>) -> Self {
        Self { db, marker }
    }

    fn log(&self) -> Result<Arc<BoundColumnFamily<'_>>, EngineError> {
        rocks::family(&self.db, rocks::LOG)
    }

    /// Calls `each` with the entries of `range`, in order, until it returns false.
    fn scan(&self, range: Range<u64>, mut each: impl FnMut(LogEntry, usize) -> bool) -> Result<(), EngineError> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(range.start.to_be_bytes());
        if range.end < u64::MAX {
            options.set_iterate_upper_bound(range.end.to_be_bytes());
        }
        let mut next = range.start;
        let mut iterator = self.db.raw_iterator_cf_opt(&self.log()?, options);
        iterator.seek(range.start.to_be_bytes());
        while let Some((key, record)) = iterator.item() {
            let entry = decode(record)?;
            if key != next.to_be_bytes() || entry.index() != next {
                return Err(damaged(format!("log entry {next} is missing")));
            }
            next += 1;
            if !each(entry, record.len()) {
                return Ok(());
            }
            iterator.next();
        }
        iterator.status().map_err(|error| damaged(error.to_string()))
    }

    fn add(&self, batch: &mut WriteBatch, write: &LogWrite) -> Result<(), EngineError> {
        let (log, meta) = (self.log()?, rocks::family(&self.db, rocks::META)?);
        match write {
            LogWrite::Append(entries) => {
                for entry in entries {
                    batch.put_cf(&log, entry.index().to_be_bytes(), encode(entry)?);
                }
            }
            LogWrite::TruncateFrom(index) => batch.delete_range_cf(&log, index.to_be_bytes(), u64::MAX.to_be_bytes()),
            LogWrite::Purge(upto) => {
                // From 0: one tombstone that grows covers those of earlier purges.
                batch.delete_range_cf(&log, 0u64.to_be_bytes(), (upto.index() + 1).to_be_bytes());
                batch.put_cf(&meta, PURGED, rocks::encode(upto)?);
            }
            LogWrite::Vote(vote) => batch.put_cf(&meta, VOTE, rocks::encode(vote)?),
            LogWrite::Committed(committed) => batch.put_cf(&meta, COMMITTED, rocks::encode(committed)?),
        }
        Ok(())
    }

    /// Lowers the note before a truncation, durably: after it the log ends below what was noted.
    fn lower_note(&self, writes: &[LogWrite]) -> io::Result<()> {
        let lowest = writes.iter().filter_map(|write| match write {
            LogWrite::TruncateFrom(index) => Some(*index),
            _ => None,
        });
        let Some(index) = lowest.min() else { return Ok(()) };
        self.marker.note(|marker| marker.truncate_from(index))?;
        self.marker.sync()
    }

    fn raise_note(&self, writes: &[LogWrite]) -> io::Result<()> {
        self.marker.note(|marker| {
            for write in writes {
                match write {
                    LogWrite::Append(entries) => marker.synced = entries.last().map(RaftEntry::index),
                    LogWrite::Vote(vote) => marker.vote = Some(*vote),
                    LogWrite::Purge(upto) => marker.synced = marker.synced.max(Some(upto.index())),
                    // Entries may be appended and truncated in one batch.
                    LogWrite::TruncateFrom(index) => marker.truncate_from(*index),
                    LogWrite::Committed(_) => {}
                }
            }
        })
    }
}

impl LogDisk for RocksLog {
    fn recover(&self) -> Result<Recovered, EngineError> {
        let purged: Option<LogId> = rocks::read_meta(&self.db, PURGED)?;
        let vote: Option<Vote> = rocks::read_meta(&self.db, VOTE)?;
        let committed: Option<Option<LogId>> = rocks::read_meta(&self.db, COMMITTED)?;
        let mut last = purged;
        let start = purged.as_ref().map_or(0, |id| id.index() + 1);
        // Reads all of it: every record's checksum is looked at, and that none is missing.
        self.scan(start..u64::MAX, |entry, _| {
            last = Some(entry.log_id());
            true
        })?;
        check_marker(&self.marker.current(), last.as_ref(), vote.as_ref())?;
        Ok(Recovered { purged, last, vote, committed: committed.flatten() })
    }

    fn write(&self, writes: &[LogWrite]) -> io::Result<()> {
        self.lower_note(writes)?;
        let mut batch = WriteBatch::with_capacity_bytes(writes.iter().map(batch_bytes).sum());
        for write in writes {
            self.add(&mut batch, write).map_err(io::Error::other)?;
        }
        self.db.write_opt(batch, &rocks::unsynced()).map_err(io::Error::other)?;
        if !writes.iter().any(LogWrite::must_be_durable) {
            return Ok(());
        }
        if !faults::skipped("log_sync") {
            // Not `write` with sync: that would hold up the state's writes for the whole sync.
            self.db.flush_wal(true).map_err(io::Error::other)?;
        }
        self.raise_note(writes)
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<LogEntry>> {
        let wanted = range.end - range.start;
        let (mut entries, mut bytes, mut full) = (Vec::new(), 0usize, false);
        self.scan(range, |entry, size| {
            entries.push(entry);
            bytes = bytes.saturating_add(size);
            full = bytes >= bytes_max;
            !full
        })
        .map_err(io::Error::other)?;
        if !full && (entries.len() as u64) < wanted {
            return Err(io::Error::other(damaged(format!("{} of {wanted} log entries are there", entries.len()))));
        }
        Ok(entries)
    }
}

/// Compares what a database holds with what was once durable.
fn check_marker(marker: &Marker, last: Option<&LogId>, vote: Option<&Vote>) -> Result<(), EngineError> {
    let found = last.map(LogId::index);
    if marker.synced > found {
        let show = |index: Option<u64>| index.map_or("nothing".to_owned(), |index| format!("log entry {index}"));
        let detail = format!("it was durable up to {}, and holds {}", show(marker.synced), show(found));
        return Err(damaged(detail));
    }
    if marker.vote.is_some() && vote < marker.vote.as_ref() {
        let detail = format!("the vote {:?} was durable, and {vote:?} is there", marker.vote);
        return Err(EngineError::Corrupt { what: "vote", detail });
    }
    Ok(())
}

/// About what a write takes up in a batch: one that grows is copied again and again.
fn batch_bytes(write: &LogWrite) -> usize {
    const OVERHEAD: usize = 64;
    match write {
        LogWrite::Append(entries) => entries.iter().map(|entry| OVERHEAD + super::tail::size(entry)).sum(),
        _ => OVERHEAD,
    }
}

fn encode(entry: &LogEntry) -> Result<Vec<u8>, EngineError> {
    const HEAD: [u8; 5] = [RECORD_FORMAT, 0, 0, 0, 0];
    let mut record = Vec::with_capacity(HEAD.len() + super::tail::size(entry));
    record.extend_from_slice(&HEAD);
    rmp_serde::encode::write(&mut record, entry)
        .map_err(|error| EngineError::Storage(format!("encoding a log entry: {error}")))?;
    let crc = record.get(HEAD.len()..).map_or(0, crc32c::crc32c);
    for (to, from) in record.iter_mut().skip(1).zip(crc.to_be_bytes()) {
        *to = from;
    }
    Ok(record)
}

fn decode(record: &[u8]) -> Result<LogEntry, EngineError> {
    let (&format, rest) = record.split_first().ok_or_else(|| damaged("an empty record".to_owned()))?;
    if format != RECORD_FORMAT {
        return Err(damaged(format!("a record of format {format}")));
    }
    let (crc, body) = rest.split_first_chunk::<4>().ok_or_else(|| damaged("a short record".to_owned()))?;
    if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
        return Err(damaged("a record does not match its checksum".to_owned()));
    }
    rmp_serde::from_slice(body).map_err(|error| damaged(format!("a record cannot be decoded: {error}")))
}

fn damaged(detail: String) -> EngineError {
    EngineError::Corrupt { what: "log", detail }
}
