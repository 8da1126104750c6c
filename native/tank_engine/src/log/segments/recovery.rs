//! What the segments hold, when a store is opened.
//!
//! Everything is read, and every checksum looked at. Only the end of the last segment may be less
//! than whole: a crash leaves there what was being written. It is cut off, unless something proves
//! that it had been durable:
//!
//! * a batch behind it, written after a sync that covered it,
//! * the marker, which notes each sync ([`crate::log::marker`]).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use openraft::entry::RaftEntry;

use crate::error::EngineError;
use crate::files::sync_dir;
use crate::log::disk::LogWrite;
use crate::log::marker::{Marker, MarkerFile};
use crate::types::{LogId, Vote};

use super::ahead::Ahead;
use super::blobs::{self, Detached};
use super::index::Index;
use super::record::{self, Kind, Place, Record};
use super::segment::{self, Head, Segment};
use super::{Open, Run, Table, damaged};

/// Reads the log in `dir`: where it ends, and where its entries are. Returns also the id of its last entry; of the
/// last purged one when it has none.
pub(super) fn recover(
    dir: &Path,
    member_id: u64,
    marker: &MarkerFile,
) -> Result<(Open, Table, Option<LogId>), EngineError> {
    let failed = |error: io::Error| EngineError::from_io(dir, &error);
    let numbers = match segment::numbers(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(damaged("it is missing".to_owned())),
        numbers => numbers.map_err(failed)?,
    };
    let noted = marker.current();
    let mut retired = begun(dir, numbers, &noted).map_err(failed)?;
    let numbers = retired.split_off(contiguous_from(&retired));
    let last = check_last(&numbers, &noted)?;
    let mut log: Option<Replayed> = None;
    let mut segments = BTreeMap::new();
    let mut newest = Vec::new();
    for number in numbers {
        let segment = Segment::open(dir, number).map_err(failed)?;
        let bytes = fs::read(dir.join(segment::name(number))).map_err(failed)?;
        log = Some(replay(log, &segment, &bytes, member_id, number == last).map_err(|why| in_segment(number, &why))?);
        segments.insert(number, Arc::new(segment));
        newest = bytes;
    }
    let nothing = || damaged("it has no segment".to_owned());
    let Replayed { mut index, end, synced } = log.ok_or_else(nothing)?;
    let last = segments.last_entry().map(|last| Arc::clone(last.get())).ok_or_else(nothing)?;
    check_begin(&index, &segments, retired.is_empty())?;
    check_blobs(dir, &index)?;
    let last_id = last_id(dir, &index, &segments)?;
    check_marker(&noted, last_id.as_ref(), index.vote.as_ref())?;
    index.take_unneeded();
    for number in retired {
        fs::remove_file(dir.join(segment::name(number))).map_err(failed)?;
    }
    blobs::remove_others(dir, index.blobs().map(|(_, blob)| blob)).map_err(failed)?;
    // What a crash left behind the end must not look like a part of what is written next. And what
    // is there may not have been synced yet: from now on others count on it. It is written again first:
    // after a sync that failed, the kernel may hold it in memory as if it were on the disk, and another
    // sync would write nothing.
    let unsynced = newest.get(offset(synced)..offset(end)).unwrap_or_default();
    let end = last.end_at(end, synced, unsynced).map_err(failed)?;
    let mut ended_bytes = 0;
    for segment in segments.values().filter(|segment| segment.number != last.number) {
        ended_bytes += segment.bytes().map_err(failed)?;
    }
    let (buffer, ahead) = (Vec::new(), Ahead::default());
    let open = Open { last, end, head: None, ahead, buffer, written_bytes: 0, ended_bytes };
    Ok((open, Table { index, segments }, last_id))
}

/// The log up to the end of a segment.
struct Replayed {
    index: Index,
    end: u64,
    /// Up to here the segment was surely durable, as its last batch says.
    synced: u64,
}

fn offset(place: u64) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}

/// The numbers without the last one, if nothing of that was ever durable: it was made ready, and at the most its first
/// batch was being written. Its file is removed.
fn begun(dir: &Path, mut numbers: Vec<u64>, noted: &Marker) -> io::Result<Vec<u64>> {
    let Some(last) = numbers.last().copied().filter(|last| *last > noted.segment.max(1)) else { return Ok(numbers) };
    let path = dir.join(segment::name(last));
    let bytes = fs::read(&path)?;
    let place = Place { segment: last, offset: 0 };
    let has_head = Record::first(&bytes, place).is_some_and(|record| record.kind == Kind::Head);
    if !has_head && check_torn(&bytes, place).is_ok() {
        fs::remove_file(&path)?;
        sync_dir(dir)?;
        numbers.pop();
    }
    Ok(numbers)
}

/// Where the last of the `numbers` begin that follow on each other. The segments before a gap are needed no more, or the
/// log will turn out to begin too late: files of purged segments are removed and used again in no particular order.
fn contiguous_from(numbers: &[u64]) -> usize {
    numbers.windows(2).rposition(|pair| matches!(pair, [one, next] if *next != one + 1)).map_or(0, |at| at + 1)
}

/// The last segment that was noted may not be missing. Returns the number of the last one.
fn check_last(numbers: &[u64], noted: &Marker) -> Result<u64, EngineError> {
    let last = *numbers.last().ok_or_else(|| damaged("it has no segment".to_owned()))?;
    if last < noted.segment { Err(missing(noted.segment)) } else { Ok(last) }
}

fn missing(number: u64) -> EngineError {
    damaged(format!("{} is missing", segment::name(number)))
}

/// Goes through the records of a segment, which follows on `before`.
fn replay(
    before: Option<Replayed>,
    segment: &Segment,
    bytes: &[u8],
    member_id: u64,
    is_last: bool,
) -> Result<Replayed, String> {
    let number = segment.number;
    let head = Record::first(bytes, Place { segment: number, offset: 0 }).filter(|record| record.kind == Kind::Head);
    let head = head.ok_or("its head is damaged")?;
    let at = head.bytes();
    let head: Head = head.decode()?;
    if head.member_id != member_id {
        return Err(format!("it is of member {}, not {member_id}", head.member_id));
    }
    let mut index = match before {
        None => Index::of(&head),
        // What stands behind the end of the segment before it is no part of that.
        Some(before) if before.index.head(member_id, before.end) == head => before.index,
        Some(before) if before.end < head.previous_bytes => {
            return Err(format!("the record at {} of the segment before it is damaged", before.end));
        }
        Some(_) => return Err("the segment before it is not the one that it followed on".to_owned()),
    };
    let (end, synced) = records(&mut index, number, bytes, at)?;
    let behind = bytes.get(end..).unwrap_or_default();
    let place = Place { segment: number, offset: end as u64 };
    if is_last && behind.iter().any(|&byte| byte != 0) {
        check_torn(behind, place)?;
    }
    Ok(Replayed { index, end: place.offset, synced: synced.min(place.offset) })
}

/// Refuses a record at `place` that is not whole, unless a crash cut it off while it was written.
fn check_torn(behind: &[u8], place: Place) -> Result<(), String> {
    let end = place.offset;
    match record::find_batch(behind, place, |synced| synced > end) {
        Some(batch) => {
            Err(format!("the record at {end} is damaged; it was durable before the one at {}", batch.offset))
        }
        None => Ok(()),
    }
}

/// Takes over the records from `at` on, up to the first that is none. Returns where that is, and up to where the
/// segment was durable when its last batch was written.
fn records(index: &mut Index, segment: u64, bytes: &[u8], mut at: usize) -> Result<(usize, u64), String> {
    let mut synced = at as u64;
    loop {
        let place = Place { segment, offset: at as u64 };
        let Some(record) = bytes.get(at..).and_then(|rest| Record::first(rest, place)) else { return Ok((at, synced)) };
        if record.kind == Kind::Batch {
            synced = record.decode()?;
        }
        take_over(index, &record, place)?;
        at += record.bytes();
    }
}

fn take_over(index: &mut Index, record: &Record<'_>, place: Place) -> Result<(), String> {
    let write = match record.kind {
        Kind::Head => return Err(format!("a second head at {}", place.offset)),
        Kind::Batch => return Ok(()),
        Kind::Entry | Kind::Detached => {
            let number = record.body.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
            let number = number.ok_or("an entry without its index")?;
            let next = index.next();
            if !index.append(number, (place, record.bytes())) {
                return Err(format!("log entry {number} stands where {next} is next"));
            }
            if record.kind == Kind::Detached {
                let detached: Detached = record::decode(record.body.get(size_of::<u64>()..).unwrap_or_default())?;
                index.detach(detached.blob);
            }
            return Ok(());
        }
        Kind::TruncateFrom => LogWrite::TruncateFrom(record.decode()?),
        Kind::Purge => LogWrite::Purge(record.decode()?),
        Kind::Vote => LogWrite::Vote(record.decode()?),
        Kind::Committed => LogWrite::Committed(record.decode()?),
    };
    index.note(&write);
    Ok(())
}

/// The entries must begin behind what was purged. Only a log that still has its first segment may
/// begin anywhere.
fn check_begin(index: &Index, segments: &BTreeMap<u64, Arc<Segment>>, has_no_gap: bool) -> Result<(), EngineError> {
    let begin = match &index.purged {
        Some(purged) => purged.index() + 1,
        None if segments.contains_key(&1) => return Ok(()),
        None => 0,
    };
    if index.first() == begin {
        return Ok(());
    }
    let before = segments.first_key_value().map(|(first, _)| first - 1).filter(|_| !has_no_gap);
    Err(before.map_or_else(|| damaged(format!("log entry {begin} is missing")), missing))
}

/// The files of commands were durable before their entries: none may be missing, or have changed.
fn check_blobs(dir: &Path, index: &Index) -> Result<(), EngineError> {
    index.blobs().try_for_each(|(_, blob)| blob.check(dir)).map_err(|error| EngineError::from_io(dir, &error))
}

fn last_id(dir: &Path, index: &Index, segments: &BTreeMap<u64, Arc<Segment>>) -> Result<Option<LogId>, EngineError> {
    let Some(spot) = index.last() else { return Ok(index.purged) };
    let segment = segments.get(&spot.0.segment).ok_or_else(|| damaged("its last entry is nowhere".to_owned()))?;
    let run = Run { segment: Arc::clone(segment), bytes: spot.1, spots: vec![*spot] };
    let mut entries = Vec::new();
    run.read(dir, &mut entries).map_err(|error| EngineError::from_io(dir, &error))?;
    Ok(entries.last().map(RaftEntry::log_id))
}

/// Compares what is there with what was once durable.
fn check_marker(noted: &Marker, last: Option<&LogId>, vote: Option<&Vote>) -> Result<(), EngineError> {
    let found = last.map(LogId::index);
    if noted.synced > found {
        let show = |index: Option<u64>| index.map_or("nothing".to_owned(), |index| format!("log entry {index}"));
        let detail = format!("it was durable up to {}, and holds {}", show(noted.synced), show(found));
        return Err(damaged(detail));
    }
    if noted.vote.is_some() && vote < noted.vote.as_ref() {
        let detail = format!("the vote {:?} was durable, and {vote:?} is there", noted.vote);
        return Err(EngineError::Corrupt { what: "vote", detail });
    }
    Ok(())
}

fn in_segment(number: u64, why: &str) -> EngineError {
    damaged(format!("{}: {why}", segment::name(number)))
}
