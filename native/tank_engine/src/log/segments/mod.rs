//! The log on disk: files of records, written at the end of the last one, and synced.
//!
//! ```text
//! <dir>/log/00000007.segment   head, batch, entry, entry, vote, batch, entry, ...
//! <dir>/log/00000008.segment   head, batch, entry, (zeros, or what an older segment held)   <- written here
//! ```
//!
//! Why not in RocksDB, as the state: each entry would be written there twice, to its write-ahead
//! log and, some seconds later, to a file that a purge removes again; and be sorted meanwhile,
//! though it comes in order. Here an entry is encoded, written and synced once.
//!
//! One thread writes, a batch at a time: write, sync, report. So a batch that begins somewhere
//! proves that all before it was durable, unless it says itself that it was not. That is how a
//! record that a crash cut off, which is dropped, is told from one that was damaged later
//! (recovery.rs).
//!
//! When no entry of a segment is needed any more, its file is kept for a later one, or removed.
//! Everything else that counts (vote, what is committed and what is purged) stands in the head of each
//! segment.

mod index;
mod record;
mod recovery;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use openraft::entry::RaftEntry;

use crate::error::EngineError;
use crate::faults;
use crate::options::SEGMENT_BYTES;
use crate::raft::LogEntry;
use crate::storage::marker::MarkerFile;
use crate::sync::lock;

use super::disk::{LogDisk, LogWrite, Recovered};

use index::{Index, Spot};
use record::{Kind, Place, Record};
use segment::{End, Segment, Spare};

/// The directory of the segments, in a store's.
pub(crate) const DIR: &str = "log";

/// Files that are kept for later segments. A purge mostly frees one or two.
const SPARES_MAX: usize = 2;

/// What the buffer of a batch may keep between two of them.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

/// A log in the directory of a store.
pub struct SegmentLog {
    dir: PathBuf,
    member_id: u64,
    marker: Arc<MarkerFile>,
    /// A segment that is longer gets no more batches.
    segment_bytes: u64,
    /// None until it is recovered.
    open: Mutex<Option<Open>>,
}

/// The log, once it is known what is there.
struct Open {
    index: Index,
    segments: BTreeMap<u64, Arc<Segment>>,
    /// The last segment, and where it ends.
    last: Arc<Segment>,
    end: End,
    spares: Vec<Spare>,
    buffer: Vec<u8>,
}

impl SegmentLog {
    /// Makes the log of a new member in `dir`, the store's directory.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn create(dir: &Path, member_id: u64) -> io::Result<()> {
        let segments = dir.join(DIR);
        std::fs::create_dir(&segments)?;
        Segment::create(&segments, 1, &Index::default().head(member_id, 0), None)?;
        crate::storage::sync_dir(dir)
    }

    /// Whether `dir`, which may be anything's, holds a log. Changes nothing.
    pub(crate) fn is_in(dir: &Path) -> bool {
        let Ok(entries) = std::fs::read_dir(dir.join(DIR)) else { return false };
        entries.filter_map(Result::ok).any(|entry| segment::number(&entry.file_name()).is_some())
    }

    /// The log in `dir`, the directory of the store of member `member_id`. `marker` notes what is durable of it.
    pub(crate) fn new(dir: &Path, member_id: u64, marker: Arc<MarkerFile>) -> Self {
        Self { dir: dir.join(DIR), member_id, marker, segment_bytes: SEGMENT_BYTES, open: Mutex::default() }
    }

    /// As it is, with segments of another size ([`crate::options::Timing::segment_bytes`]).
    #[must_use]
    pub fn with_segment_bytes(mut self, segment_bytes: u64) -> Self {
        self.segment_bytes = segment_bytes;
        self
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

    /// Goes on in a new segment.
    fn rotate(&self, open: &mut Open) -> io::Result<()> {
        // What is no entry may not be synced yet. The space reserved behind the end is given back.
        let ended = open.last.end_at(open.end.bytes)?;
        let number = open.last.number + 1;
        let head = open.index.head(self.member_id, ended.bytes);
        let (next, end) = Segment::create(&self.dir, number, &head, open.spares.pop())?;
        let next = Arc::new(next);
        open.segments.insert(number, Arc::clone(&next));
        (open.last, open.end) = (next, end);
        self.marker.note(|marker| marker.segment = number)?;
        self.marker.sync()
    }
}

impl Open {
    fn write(&mut self, writes: &[LogWrite]) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let spots = encode(&mut buffer, self.place(), self.end.synced, writes)?;
        self.last.append(&mut self.end, &buffer)?;
        if writes.iter().any(LogWrite::must_be_durable) && !faults::skipped("log_sync") {
            self.last.sync(&mut self.end)?;
        }
        self.take_over(writes, spots)?;
        buffer.clear();
        buffer.shrink_to(BUFFER_BYTES_KEPT);
        self.buffer = buffer;
        Ok(())
    }

    fn place(&self) -> Place {
        Place { segment: self.last.number, offset: self.end.bytes }
    }

    fn take_over(&mut self, writes: &[LogWrite], spots: Vec<Spot>) -> io::Result<()> {
        let mut spots = spots.into_iter();
        for write in writes {
            self.index.note(write);
            let LogWrite::Append(entries) = write else { continue };
            for (entry, spot) in entries.iter().zip(&mut spots) {
                if !self.index.append(entry.index(), spot) {
                    let next = self.index.next();
                    return Err(io::Error::other(format!("log entry {} came, and {next} is next", entry.index())));
                }
            }
        }
        Ok(())
    }

    /// Parts with the segments before the first one that is needed.
    fn remove_purged(&mut self, dir: &Path) -> io::Result<()> {
        let needed = self.index.first_segment().unwrap_or(self.last.number);
        while let Some(first) = self.segments.first_entry().filter(|first| *first.key() < needed) {
            let segment = first.remove();
            if self.spares.len() == SPARES_MAX {
                segment.remove()?;
                continue;
            }
            // Somebody may just be reading it.
            match Arc::try_unwrap(segment) {
                Ok(segment) => self.spares.push(segment.into_spare(dir)?),
                Err(segment) => segment.remove()?,
            }
        }
        Ok(())
    }

    /// The places of the entries of `range`, until they have `bytes_max` bytes; at least one.
    fn spots(&self, range: &Range<u64>, bytes_max: usize) -> Vec<(Arc<Segment>, Spot)> {
        let mut bytes = 0;
        let count =
            usize::try_from(range.end.saturating_sub(range.start.max(self.index.first()))).unwrap_or(usize::MAX);
        let spots = self.index.from(range.start).take(count).take_while(|(_, size)| {
            let fits = bytes == 0 || bytes < bytes_max;
            bytes += size;
            fits
        });
        let open = |spot: &Spot| self.segments.get(&spot.0.segment).map(|segment| (Arc::clone(segment), *spot));
        spots.filter_map(open).collect()
    }
}

impl LogDisk for SegmentLog {
    fn recover(&self) -> Result<Recovered, EngineError> {
        let (open, last) = recovery::recover(&self.dir, self.member_id, &self.marker)?;
        let Index { purged, vote, committed, .. } = open.index;
        *lock(&self.open) = Some(open);
        Ok(Recovered { purged, last, vote, committed })
    }

    fn write(&self, writes: &[LogWrite]) -> io::Result<()> {
        let mut open = lock(&self.open);
        let open = open.as_mut().ok_or_else(|| io::Error::other("a log that was not recovered"))?;
        self.lower_note(writes)?;
        if open.end.bytes > self.segment_bytes {
            self.rotate(open)?;
        }
        open.write(writes)?;
        if writes.iter().any(LogWrite::must_be_durable) {
            self.raise_note(writes)?;
        }
        if writes.iter().any(|write| matches!(write, LogWrite::Purge(_))) {
            open.remove_purged(&self.dir)?;
        }
        Ok(())
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<LogEntry>> {
        let spots = match lock(&self.open).as_ref() {
            Some(open) => open.spots(&range, bytes_max),
            None => return Err(io::Error::other("a log that was not recovered")),
        };
        let entries = spots.iter().map(|(segment, spot)| read_entry(segment, *spot));
        let entries = entries.collect::<io::Result<Vec<_>>>()?;
        let found = entries.first().map(RaftEntry::index);
        if found.is_some_and(|found| found != range.start) || (found.is_none() && !range.is_empty()) {
            return Err(io::Error::other(damaged(format!("log entry {} is missing", range.start))));
        }
        Ok(entries)
    }
}

fn encode(buffer: &mut Vec<u8>, place: Place, synced: u64, writes: &[LogWrite]) -> io::Result<Vec<Spot>> {
    let mut spots = Vec::new();
    record::put(buffer, place, Kind::Batch, &[], &synced)?;
    for write in writes {
        match write {
            LogWrite::Append(entries) => {
                for entry in entries {
                    let at = buffer.len();
                    record::put(buffer, place, Kind::Entry, &entry.index().to_be_bytes(), entry)?;
                    spots.push((Place { offset: place.offset + at as u64, ..place }, buffer.len() - at));
                }
            }
            LogWrite::TruncateFrom(index) => record::put(buffer, place, Kind::TruncateFrom, &[], index)?,
            LogWrite::Purge(upto) => record::put(buffer, place, Kind::Purge, &[], upto)?,
            LogWrite::Vote(vote) => record::put(buffer, place, Kind::Vote, &[], vote)?,
            LogWrite::Committed(committed) => record::put(buffer, place, Kind::Committed, &[], committed)?,
        }
    }
    Ok(spots)
}

fn read_entry(segment: &Segment, (place, bytes): Spot) -> io::Result<LogEntry> {
    use std::os::unix::fs::FileExt;
    let mut record = vec![0; bytes];
    segment.file.read_exact_at(&mut record, place.offset)?;
    let record = Record::first(&record, place).filter(|record| record.kind == Kind::Entry && record.bytes() == bytes);
    let body = record.and_then(|record| record.body.get(size_of::<u64>()..));
    let entry = body.map_or_else(|| Err("a record does not match its checksum".to_owned()), record::decode);
    entry.map_err(|why| {
        io::Error::other(damaged(format!("{why} ({} at {})", segment::name(place.segment), place.offset)))
    })
}

fn damaged(detail: String) -> EngineError {
    EngineError::Corrupt { what: "log", detail }
}
