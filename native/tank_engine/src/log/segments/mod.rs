//! The log on disk: files of records, written at the end of the last one, and synced.
//!
//! ```text
//! <dir>/log/00000007.segment   head, batch, entry, entry, vote, batch, entry, ...
//! <dir>/log/00000008.segment   head, batch, entry, (zeros, or what an older segment held)   <- written here
//! <dir>/log/1f0c9a27b8d3e465.blob   the command of one large entry (blobs.rs)
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
//!
//! Two locks: the writer's is held while the disk writes and syncs, for as long as that takes. Readers
//! take only the table's, which says where each entry is, and is never held while the disk works.

mod blobs;
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

use openraft::EntryPayload;
use openraft::entry::RaftEntry;

use crate::command::{Request, RequestId};
use crate::error::EngineError;
use crate::faults;
use crate::options::SEGMENT_BYTES;
use crate::raft::LogEntry;
use crate::storage::Location;
use crate::storage::marker::MarkerFile;
use crate::sync::lock;

use super::DETACHED_BYTES_MIN;
use super::disk::{LogDisk, LogWrite, Recovered};

use blobs::{Blob, Blobs, Detached};
use index::{Index, Spot};
use record::{Kind, Place, Record};
use segment::{End, Segment, Spare};

/// The directory of the segments, in a store's.
pub(crate) const DIR: &str = "log";

/// Files that are kept for later segments. A purge mostly frees one or two.
const SPARES_MAX: usize = 2;

/// Bytes between two entries that are read along with them: what else a batch says is little.
const GAP_BYTES_MAX: u64 = 4 << 10;

/// Bytes after which what is read at once ends.
const RUN_BYTES_MAX: usize = 4 << 20;

/// What the buffer of a batch may keep between two of them.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

/// A log in the directory of a store.
pub struct SegmentLog {
    dir: PathBuf,
    member_id: u64,
    marker: Arc<MarkerFile>,
    /// A segment that is longer gets no more batches.
    segment_bytes: u64,
    /// A command of this size and more is in a file of its own.
    detached_bytes_min: usize,
    /// Where the store's directory must be when files are made or removed in it.
    location: Option<Arc<Location>>,
    /// None until it is recovered. Held while the disk writes and syncs: only the writer may take it.
    open: Mutex<Option<Open>>,
    /// What readers need. Held for as long as looking takes; taken after `open` where both are.
    table: Mutex<Table>,
    blobs: Blobs,
}

/// Where each durable entry is.
#[derive(Debug, Default)]
struct Table {
    index: Index,
    segments: BTreeMap<u64, Arc<Segment>>,
}

/// The end of the log, where it is written.
struct Open {
    /// The last segment, and where it ends.
    last: Arc<Segment>,
    end: End,
    spares: Vec<Spare>,
    buffer: Vec<u8>,
    /// Bytes of the segments before the last one.
    ended_bytes: u64,
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
        let (open, table) = (Mutex::default(), Mutex::default());
        let (dir, segment_bytes) = (dir.join(DIR), SEGMENT_BYTES);
        let blobs = Blobs::new(dir.clone());
        Self {
            dir,
            member_id,
            marker,
            segment_bytes,
            detached_bytes_min: DETACHED_BYTES_MIN,
            location: None,
            open,
            table,
            blobs,
        }
    }

    /// As it is, with segments of another size ([`crate::options::Timing::segment_bytes`]).
    #[must_use]
    pub fn with_segment_bytes(mut self, segment_bytes: u64) -> Self {
        self.segment_bytes = segment_bytes;
        self
    }

    /// As it is, in a directory that another one may take the place of: then no file is made or removed there.
    #[must_use]
    pub(crate) fn within(mut self, location: Arc<Location>) -> Self {
        self.location = Some(location);
        self
    }

    /// A batch of `writes`. Large commands that are not staged are written now.
    fn batch<'a>(&self, writes: &'a [LogWrite]) -> io::Result<Batch<'a>> {
        let mut batch = Batch { writes, blobs: Vec::new(), detached_bytes_min: self.detached_bytes_min };
        for write in writes {
            let LogWrite::Append(entries) = write else { continue };
            for request in entries.iter().filter_map(|entry| large(entry, self.detached_bytes_min)) {
                self.check_location()?;
                batch.blobs.push(self.blobs.take(request)?);
            }
        }
        Ok(batch)
    }

    fn check_location(&self) -> io::Result<()> {
        self.location.as_ref().map_or(Ok(()), |location| location.check().map_err(io::Error::other))
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
        self.check_location()?;
        // The space reserved behind the end is given back.
        let ended = open.last.end_at(open.end.bytes, open.end.bytes, &[])?;
        let number = open.last.number + 1;
        let head = lock(&self.table).index.head(self.member_id, ended.bytes);
        let (next, end) = Segment::create(&self.dir, number, &head, open.spares.pop())?;
        let next = Arc::new(next);
        lock(&self.table).segments.insert(number, Arc::clone(&next));
        open.ended_bytes += ended.bytes;
        (open.last, open.end) = (next, end);
        self.marker.note(|marker| marker.segment = number)?;
        self.marker.sync()
    }

    /// Parts with the segments before the first one that is needed.
    fn remove_purged(&self, open: &mut Open) -> io::Result<()> {
        self.check_location()?;
        let unneeded = lock(&self.table).take_unneeded(open.last.number);
        for segment in unneeded {
            open.ended_bytes = open.ended_bytes.saturating_sub(segment.bytes()?);
            if open.spares.len() == SPARES_MAX {
                segment.remove()?;
                continue;
            }
            // Somebody may just be reading it.
            match Arc::try_unwrap(segment) {
                Ok(segment) => open.spares.push(segment.into_spare(&self.dir)?),
                Err(segment) => segment.remove()?,
            }
        }
        Ok(())
    }
}

impl Open {
    /// Writes a batch, and returns where its entries are.
    fn write(&mut self, batch: &Batch<'_>) -> io::Result<Vec<Spot>> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let spots = batch.encode(&mut buffer, self.place(), self.end.synced)?;
        self.last.append(&mut self.end, &buffer)?;
        if !faults::skipped("log_sync") {
            self.last.sync(&mut self.end)?;
        }
        buffer.clear();
        buffer.shrink_to(BUFFER_BYTES_KEPT);
        self.buffer = buffer;
        Ok(spots)
    }

    fn bytes(&self) -> u64 {
        self.ended_bytes + self.end.reserved + self.spares.iter().map(Spare::bytes).sum::<u64>()
    }

    fn place(&self) -> Place {
        Place { segment: self.last.number, offset: self.end.bytes }
    }
}

impl Table {
    /// Takes over what was written; `spots` are the places of its entries.
    fn take_over(&mut self, batch: &Batch<'_>, spots: Vec<Spot>) -> io::Result<()> {
        let (mut spots, mut blobs) = (spots.into_iter(), batch.blobs.iter());
        for write in batch.writes {
            self.index.note(write);
            let LogWrite::Append(entries) = write else { continue };
            for (entry, spot) in entries.iter().zip(&mut spots) {
                if !self.index.append(entry.index(), spot) {
                    let next = self.index.next();
                    return Err(io::Error::other(format!("log entry {} came, and {next} is next", entry.index())));
                }
                if batch.detaches(entry).is_some() {
                    blobs.next().into_iter().for_each(|blob| self.index.detach(*blob));
                }
            }
        }
        Ok(())
    }

    /// Takes out the segments before the first one that is needed; `last` always is.
    fn take_unneeded(&mut self, last: u64) -> Vec<Arc<Segment>> {
        let needed = self.index.first_segment().unwrap_or(last);
        let kept = self.segments.split_off(&needed);
        std::mem::replace(&mut self.segments, kept).into_values().collect()
    }

    /// What has to be read for the entries of `range`, until they have `bytes_max` bytes; at least one.
    fn runs(&self, range: &Range<u64>, bytes_max: usize) -> Vec<Run> {
        let mut bytes = 0;
        let spots = (range.start.max(self.index.first())..range.end).zip(self.index.from(range.start));
        let spots = spots.take_while(|(index, (_, size))| {
            let fits = bytes == 0 || bytes < bytes_max;
            bytes += size + self.index.detached_bytes(*index);
            fits
        });
        let mut runs: Vec<Run> = Vec::new();
        for (_, spot) in spots {
            if runs.last_mut().is_some_and(|run| run.extend(*spot)) {
                continue;
            }
            let Some(segment) = self.segments.get(&spot.0.segment) else { break };
            runs.push(Run { segment: Arc::clone(segment), bytes: spot.1, spots: vec![*spot] });
        }
        runs
    }
}

/// Entries of a segment that are read at once: nothing, or little, is between them.
struct Run {
    segment: Arc<Segment>,
    /// From the first one's first byte to the last one's last.
    bytes: usize,
    spots: Vec<Spot>,
}

impl Run {
    /// Adds an entry, if it follows on the last one closely enough.
    fn extend(&mut self, (place, bytes): Spot) -> bool {
        let Some((first, _)) = self.spots.first() else { return false };
        let Some(skipped) = place.offset.checked_sub(first.offset + self.bytes as u64) else { return false };
        let follows = place.segment == first.segment && skipped <= GAP_BYTES_MAX && self.bytes < RUN_BYTES_MAX;
        if follows {
            self.bytes += usize::try_from(skipped).unwrap_or(0) + bytes;
            self.spots.push((place, bytes));
        }
        follows
    }

    /// `dir` is where the files of large commands are.
    fn read(&self, dir: &Path, entries: &mut Vec<LogEntry>) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let Some((first, _)) = self.spots.first() else { return Ok(()) };
        let mut records = vec![0; self.bytes];
        self.segment.file.read_exact_at(&mut records, first.offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::other(damaged("a segment lost its end".to_owned())),
            _ => error,
        })?;
        for spot in &self.spots {
            let at = usize::try_from(spot.0.offset - first.offset).unwrap_or(usize::MAX);
            let record = records.get(at..).and_then(|rest| rest.get(..spot.1)).unwrap_or_default();
            entries.push(decode_entry(record, *spot, dir)?);
        }
        Ok(())
    }
}

impl LogDisk for SegmentLog {
    fn recover(&self) -> Result<Recovered, EngineError> {
        let (open, table, last) = recovery::recover(&self.dir, self.member_id, &self.marker)?;
        let Index { purged, vote, committed, .. } = table.index;
        *lock(&self.open) = Some(open);
        *lock(&self.table) = table;
        Ok(Recovered { purged, last, vote, committed })
    }

    fn write(&self, writes: &[LogWrite]) -> io::Result<()> {
        let mut open = lock(&self.open);
        let open = open.as_mut().ok_or_else(|| io::Error::other("a log that was not recovered"))?;
        self.lower_note(writes)?;
        let batch = self.batch(writes)?;
        if open.end.bytes > self.segment_bytes {
            self.rotate(open)?;
        }
        let spots = open.write(&batch)?;
        let unneeded = {
            let mut table = lock(&self.table);
            table.take_over(&batch, spots)?;
            table.index.take_unneeded()
        };
        self.blobs.remove(&unneeded);
        self.raise_note(writes)?;
        if writes.iter().any(|write| matches!(write, LogWrite::Purge(_))) {
            self.remove_purged(open)?;
        }
        Ok(())
    }

    fn next_takes_long(&self) -> bool {
        // It goes on in another file.
        lock(&self.open).as_ref().is_some_and(|open| open.end.bytes > self.segment_bytes)
    }

    fn bytes(&self) -> u64 {
        let segments = lock(&self.open).as_ref().map_or(0, Open::bytes);
        segments + lock(&self.table).index.blob_bytes() + self.blobs.staged_bytes()
    }

    fn stage(&self, request: &Request) {
        let detached = request.command.size() >= self.detached_bytes_min;
        if detached && !faults::skipped("log_stage") && self.check_location().is_ok() {
            self.blobs.stage(request);
        }
    }

    fn unstage(&self, id: RequestId) {
        self.blobs.unstage(id);
    }

    fn end_staging(&self) {
        self.blobs.end_staging();
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<LogEntry>> {
        let runs = lock(&self.table).runs(&range, bytes_max);
        let mut entries = Vec::with_capacity(runs.iter().map(|run| run.spots.len()).sum());
        runs.iter().try_for_each(|run| run.read(&self.dir, &mut entries))?;
        let found = entries.first().map(RaftEntry::index);
        if found.is_some_and(|found| found != range.start) || (found.is_none() && !range.is_empty()) {
            return Err(io::Error::other(damaged(format!("log entry {} is missing", range.start))));
        }
        Ok(entries)
    }
}

/// What is written with one sync.
struct Batch<'a> {
    writes: &'a [LogWrite],
    /// The files of the commands that are detached from their entries, in order.
    blobs: Vec<Blob>,
    detached_bytes_min: usize,
}

impl Batch<'_> {
    /// The request of an entry whose command is in a file of its own.
    fn detaches<'e>(&self, entry: &'e LogEntry) -> Option<&'e Request> {
        large(entry, self.detached_bytes_min)
    }

    fn encode(&self, buffer: &mut Vec<u8>, place: Place, synced: u64) -> io::Result<Vec<Spot>> {
        let (mut spots, mut blobs) = (Vec::new(), self.blobs.iter());
        record::put(buffer, place, Kind::Batch, &[], &synced)?;
        for write in self.writes {
            match write {
                LogWrite::Append(entries) => {
                    for entry in entries {
                        let at = buffer.len();
                        self.encode_entry(buffer, place, entry, &mut blobs)?;
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

    fn encode_entry<'b>(
        &self,
        buffer: &mut Vec<u8>,
        place: Place,
        entry: &LogEntry,
        blobs: &mut impl Iterator<Item = &'b Blob>,
    ) -> io::Result<()> {
        let index = entry.index().to_be_bytes();
        let Some(request) = self.detaches(entry) else {
            return record::put(buffer, place, Kind::Entry, &index, entry);
        };
        let blob = blobs.next().ok_or_else(|| io::Error::other("a large command without its file"))?;
        record::put(buffer, place, Kind::Detached, &index, &Detached::new(entry.log_id(), request, *blob))
    }
}

/// The request of an entry whose command has so many bytes or more.
fn large(entry: &LogEntry, bytes_min: usize) -> Option<&Request> {
    match &entry.payload {
        EntryPayload::Normal(request) if request.command.size() >= bytes_min => Some(request),
        _ => None,
    }
}

/// The entry of the record `record`, which stands at a spot. `dir` is where the files of large commands are.
fn decode_entry(record: &[u8], (place, bytes): Spot, dir: &Path) -> io::Result<LogEntry> {
    let in_record = |why: String| {
        io::Error::other(damaged(format!("{why} ({} at {})", segment::name(place.segment), place.offset)))
    };
    let record = Record::first(record, place).filter(|record| record.bytes() == bytes);
    let body = record.and_then(|record| Some((record.kind, record.body.get(size_of::<u64>()..)?)));
    match body {
        Some((Kind::Entry, body)) => record::decode(body).map_err(in_record),
        Some((Kind::Detached, body)) => record::decode::<Detached>(body).map_err(in_record)?.read(dir),
        _ => Err(in_record("a record does not match its checksum".to_owned())),
    }
}

fn damaged(detail: String) -> EngineError {
    EngineError::Corrupt { what: "log", detail }
}
