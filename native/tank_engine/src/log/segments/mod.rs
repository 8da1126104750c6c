//! The log on disk: files of records, written at the end of the last one, and synced.
//!
//! ```text
//! <dir>/log/00000007.segment   head, batch, entry, entry, vote, batch, entry, ...
//! <dir>/log/00000008.segment   head, batch, entry, (zeros, or what an older segment held)   <- written here
//! <dir>/log/00000009.segment   (the same): made ready in the background (ahead.rs)
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
//! When no entry of a segment is needed any more, its file is kept for a later one, or removed (ahead.rs).
//! Everything else that counts (vote, what is committed and what is purged) stands in the head of each
//! segment.
//!
//! Two locks: the writer's is held while the disk writes and syncs, for as long as that takes. Readers
//! take only the table's, which says where each entry is, and is never held while the disk works.

mod ahead;
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
use crate::log::marker::MarkerFile;
use crate::sync::lock;
use crate::types::LogEntry;

use super::disk::{LogDisk, LogWrite, Recovered};
use super::{DETACHED_BYTES_MIN, entry_size};

use ahead::Ahead;
use blobs::{Blob, Blobs, Detached};
use index::{Index, Spot};
use record::{Kind, Place, Record};
use segment::{End, Head, Segment};

/// The directory of the segments, in a store's.
pub(crate) const DIR: &str = "log";

/// Default of [`crate::options::Timing::segment_bytes`].
pub(crate) const SEGMENT_BYTES: u64 = 16 << 20;

/// A log into which so much was written since it was opened gets a segment that is ready: one that does nothing needs
/// no space.
const BUSY_BYTES: u64 = 256 << 10;

/// Bytes between two entries that are read along with them: what else a batch says is little.
const GAP_BYTES_MAX: u64 = 4 << 10;

/// Bytes after which what is read at once ends.
const RUN_BYTES_MAX: usize = 4 << 20;

/// What the buffer of a batch may keep between two of them.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

/// Whether files may be made and removed in the log's directory.
pub(crate) type Check = Arc<dyn Fn() -> io::Result<()> + Send + Sync>;

/// A log in the directory of a store.
pub struct SegmentLog {
    dir: PathBuf,
    member_id: u64,
    marker: Arc<MarkerFile>,
    /// A segment that is longer gets no more batches.
    segment_bytes: u64,
    /// A command of this size and more is in a file of its own.
    detached_bytes_min: usize,
    /// Fails if the store's directory is not at its path any more. Called before files are made or removed in it.
    location: Option<Check>,
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
    /// What the segment begins with, if it is not begun: it is written with the first batch.
    head: Option<Head>,
    ahead: Ahead,
    buffer: Vec<u8>,
    /// Bytes written since the log was opened.
    written_bytes: u64,
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
        Segment::create_first(&segments, &Index::default().head(member_id, 0))?;
        crate::files::sync_dir(dir)
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

    /// As it is, in a directory that another one may take the place of: `location` fails then, and no file is made or
    /// removed there.
    #[must_use]
    pub(crate) fn within(mut self, location: Check) -> Self {
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
        self.location.as_ref().map_or(Ok(()), |location| location())
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

    fn raise_note(&self, segment: u64, writes: &[LogWrite]) -> io::Result<()> {
        self.marker.note(|marker| {
            marker.segment = segment;
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

    /// Goes on in the next segment, if it is time for that before a batch of so many bytes.
    fn rotate(&self, open: &mut Open, batch_bytes: u64) -> io::Result<()> {
        if open.turn(self.segment_bytes, batch_bytes) == Turn::Stay {
            return Ok(());
        }
        self.check_location()?;
        let number = open.last.number + 1;
        let ready = open.ahead.take(&self.dir, number)?;
        open.head = Some(lock(&self.table).index.head(self.member_id, open.end.bytes));
        open.ended_bytes += open.end.file_bytes;
        open.end = End::of(&ready);
        open.last = Arc::new(ready.segment);
        lock(&self.table).segments.insert(number, Arc::clone(&open.last));
        Ok(())
    }

    /// Has the next segment made ready, once it will soon be needed.
    fn look_ahead(&self, open: &mut Open) {
        let half = self.segment_bytes / 2;
        let is_busy = open.end.bytes > half || open.written_bytes > BUSY_BYTES;
        if is_busy && open.end.room() <= half && self.check_location().is_ok() {
            open.ahead.begin(&self.dir, open.last.number + 1, self.segment_bytes);
        }
    }

    /// Parts with the segments before the first one that is needed.
    fn remove_purged(&self, open: &mut Open) -> io::Result<()> {
        self.check_location()?;
        let unneeded = lock(&self.table).take_unneeded(open.last.number);
        for segment in &unneeded {
            open.ended_bytes = open.ended_bytes.saturating_sub(segment.bytes()?);
        }
        open.ahead.retire(unneeded)
    }
}

/// Where the next batch goes.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// Into the same segment.
    Stay,
    /// Into the next one, which is ready.
    GoOn,
    /// Into the next one, which is not ready yet, or will never be.
    Late,
}

impl Open {
    /// Where a batch of so many bytes goes. A segment that has no room in its file takes batches all the same until the
    /// next one is ready: that is slower than other writes, and not as slow as waiting.
    fn turn(&mut self, segment_bytes: u64, batch_bytes: u64) -> Turn {
        let is_full = self.end.bytes > segment_bytes;
        let is_ready = self.ahead.is_ready();
        if is_ready && (is_full || batch_bytes > self.end.room()) {
            return Turn::GoOn;
        }
        let may_wait = self.ahead.is_making() && self.end.bytes <= segment_bytes.saturating_mul(2);
        if is_full && !may_wait { Turn::Late } else { Turn::Stay }
    }

    /// Writes a batch, and returns where its entries are.
    fn write(&mut self, batch: &Batch<'_>) -> io::Result<Vec<Spot>> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let place = self.place();
        if let Some(head) = self.head.take() {
            record::put(&mut buffer, place, Kind::Head, &[], &head)?;
        }
        let spots = batch.encode(&mut buffer, place, self.end.synced)?;
        self.last.append(&mut self.end, &buffer)?;
        self.written_bytes += buffer.len() as u64;
        if !faults::skipped("log_sync") {
            self.last.sync(&mut self.end)?;
        }
        buffer.clear();
        buffer.shrink_to(BUFFER_BYTES_KEPT);
        self.buffer = buffer;
        Ok(spots)
    }

    fn bytes(&self) -> u64 {
        self.ended_bytes + self.end.file_bytes + self.ahead.bytes()
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
        self.rotate(open, batch.about_bytes())?;
        let spots = open.write(&batch)?;
        let unneeded = {
            let mut table = lock(&self.table);
            table.take_over(&batch, spots)?;
            table.index.take_unneeded()
        };
        self.blobs.remove(&unneeded);
        self.raise_note(open.last.number, writes)?;
        self.look_ahead(open);
        if writes.iter().any(|write| matches!(write, LogWrite::Purge(_))) {
            self.remove_purged(open)?;
        }
        Ok(())
    }

    fn next_takes_long(&self) -> bool {
        let is_late = |open: &mut Open| open.turn(self.segment_bytes, 0) == Turn::Late;
        lock(&self.open).as_mut().is_some_and(is_late)
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
        lock(&self.open).as_mut().into_iter().for_each(|open| open.ahead.end());
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

    /// The bytes of its records, about.
    fn about_bytes(&self) -> u64 {
        let entries = self.writes.iter().filter_map(|write| match write {
            LogWrite::Append(entries) => Some(entries),
            _ => None,
        });
        let attached = entries.flatten().filter(|entry| self.detaches(entry).is_none());
        attached.map(|entry| entry_size(entry) as u64).sum()
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
