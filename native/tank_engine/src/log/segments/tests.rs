use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use openraft::vote::RaftLeaderIdExt;
use openraft::{EntryPayload, RaftTypeConfig};

mod detached;

use super::*;
use crate::command::{Command, Request, RequestId, Write};
use crate::key::{Component, Key};
use crate::types::{LogId, Types, Vote};

const MEMBER: u64 = 7;

/// A log in a directory of its own, whose segments take about ten entries.
struct Bed(tempfile::TempDir);

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        MarkerFile::create(dir.path(), MEMBER).unwrap();
        SegmentLog::create(dir.path(), MEMBER).unwrap();
        Self(dir)
    }

    fn open(&self) -> Result<(SegmentLog, Recovered), EngineError> {
        self.open_with(2_000)
    }

    fn open_with(&self, segment_bytes: u64) -> Result<(SegmentLog, Recovered), EngineError> {
        self.open_detaching(segment_bytes, DETACHED_BYTES_MIN)
    }

    fn open_detaching(&self, segment_bytes: u64, min: usize) -> Result<(SegmentLog, Recovered), EngineError> {
        let marker = MarkerFile::open(self.0.path(), MEMBER)?;
        let mut log = SegmentLog::new(self.0.path(), MEMBER, Arc::new(marker)).with_segment_bytes(segment_bytes);
        log.detached_bytes_min = min;
        let recovered = log.recover()?;
        Ok((log, recovered))
    }

    fn segments(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.0.path().join(DIR)).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }

    fn marker(&self) -> PathBuf {
        self.0.path().join("SYNCED")
    }
}

fn id(index: u64) -> LogId {
    LogId::new(<Types as RaftTypeConfig>::LeaderId::new_committed(1, 1), index)
}

fn entry(index: u64, value: &str) -> LogEntry {
    let key = Key::of(&[Component::String(b"key".to_vec())]);
    let command = Command::Put(Write::new(key, bytes::Bytes::copy_from_slice(value.as_bytes())));
    let request =
        Request { id: RequestId { client: 1, sequence: index, resolved_below: 0 }, time_ms: 0, command, seen_ms: 0 };
    LogEntry { log_id: id(index), payload: EntryPayload::Normal(Arc::new(request)) }
}

fn append(range: Range<u64>, value: &str) -> LogWrite {
    LogWrite::Append(range.map(|index| entry(index, value)).collect())
}

fn values(log: &SegmentLog, range: Range<u64>) -> Vec<String> {
    let value = |entry: &LogEntry| match &entry.payload {
        EntryPayload::Normal(request) => match &request.command {
            Command::Put(write) => String::from_utf8(write.payload.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    log.read(range, usize::MAX).unwrap().iter().map(value).collect()
}

/// The segment that is written.
fn current(bed: &Bed, log: &SegmentLog) -> PathBuf {
    let number = lock(&log.open).as_ref().unwrap().last.number;
    bed.0.path().join(DIR).join(segment::name(number))
}

/// Where the last segment ends.
fn end(log: &SegmentLog) -> usize {
    lock(&log.open).as_ref().unwrap().end.bytes as usize
}

/// Whether the log goes on in the next segment without waiting.
fn is_ready(log: &SegmentLog) -> bool {
    lock(&log.open).as_mut().unwrap().ahead.is_ready()
}

/// Waits until no segment is being made ready.
fn finish(log: &SegmentLog) {
    lock(&log.open).as_mut().unwrap().ahead.finish();
}

/// Writes entries until purges have left spare files, and the log goes on in one of them. Returns the index of
/// the next entry.
fn fill_until_recycled(bed: &Bed, log: &SegmentLog) -> u64 {
    finish(log);
    let mut known = inodes(bed);
    for index in 0..200 {
        log.write(&[append(index..index + 1, &format!("old {index:0100}"))]).unwrap();
        if index % 20 == 19 {
            log.write(&[LogWrite::Purge(id(index - 9))]).unwrap();
        }
        finish(log);
        let newest = current(bed, log);
        let inode = inodes(bed)[&newest];
        if !known.contains_key(&newest) && known.values().any(|known| *known == inode) {
            return index + 1;
        }
        known.insert(newest, inode);
    }
    panic!("no file was used again: {:?}", bed.segments());
}

fn inodes(bed: &Bed) -> BTreeMap<PathBuf, u64> {
    use std::os::unix::fs::MetadataExt;
    bed.segments().into_iter().map(|path| (path.clone(), fs::metadata(path).unwrap().ino())).collect()
}

#[test]
fn what_an_older_segment_left_in_the_file_never_comes_back() {
    let bed = Bed::new();
    let (log, _) = bed.open().unwrap();
    let next = fill_until_recycled(&bed, &log);
    let path = current(&bed, &log);
    assert!(fs::read(&path).unwrap()[end(&log)..].iter().any(|byte| *byte != 0), "nothing stands behind the end");
    drop(log);
    let crashed = fs::read(&path).unwrap();
    let marker = fs::read(bed.marker()).unwrap();
    for more in 0..8 {
        fs::write(&path, &crashed).unwrap();
        fs::write(bed.marker(), &marker).unwrap();
        let (log, recovered) = bed.open().unwrap();
        assert_eq!(recovered.last, Some(id(next - 1)));
        if more > 0 {
            log.write(&[append(next..next + more, "new")]).unwrap();
        }
        drop(log);
        let (log, recovered) = bed.open().unwrap();
        assert_eq!(recovered.last, Some(id(next + more - 1)));
        assert_eq!(values(&log, next..next + more), vec!["new"; more as usize]);
    }
}

/// As `what_a_crash_left_of_a_batch_is_cut_off_and_never_comes_back`, over what an older segment left.
#[test]
fn a_batch_that_is_torn_over_older_records_is_cut_off() {
    let bed = Bed::new();
    let (log, _) = bed.open().unwrap();
    let next = fill_until_recycled(&bed, &log);
    let path = current(&bed, &log);
    let (before, marker, begin) = (fs::read(&path).unwrap(), fs::read(bed.marker()).unwrap(), end(&log));
    log.write(&[append(next..next + 3, "cut off")]).unwrap();
    let written = end(&log);
    drop(log);
    let whole = fs::read(&path).unwrap();
    for at in begin..=written {
        let torn = [&whole[..at], &before[at.min(before.len())..]].concat();
        let late = [&before[..begin], &before[begin..at.min(before.len())], &whole[at.min(before.len())..]].concat();
        for bytes in [torn, late] {
            fs::write(&path, &bytes).unwrap();
            fs::write(bed.marker(), &marker).unwrap();
            let (log, recovered) = bed.open().unwrap();
            let last = recovered.last.unwrap().index();
            assert!((next - 1..=next + 2).contains(&last), "byte {at}: {last}");
            assert_eq!(values(&log, next..last + 1), vec!["cut off"; (last + 1 - next) as usize], "byte {at}");
        }
    }
}

#[test]
fn damage_in_a_file_that_was_used_before_is_refused() {
    let bed = Bed::new();
    let (log, _) = bed.open().unwrap();
    let next = fill_until_recycled(&bed, &log);
    let path = current(&bed, &log);
    let (marker, begin) = (fs::read(bed.marker()).unwrap(), end(&log));
    log.write(&[append(next..next + 1, "first")]).unwrap();
    let behind = end(&log);
    log.write(&[append(next + 1..next + 2, "second")]).unwrap();
    drop(log);
    let whole = fs::read(&path).unwrap();
    for at in begin..behind {
        fs::write(&path, &whole).unwrap();
        fs::File::options().write(true).open(&path).unwrap().write_all_at(&[whole[at] ^ 1], at as u64).unwrap();
        fs::write(bed.marker(), &marker).unwrap();
        assert!(matches!(bed.open(), Err(EngineError::Corrupt { what: "log", .. })), "byte {at}");
    }
}

#[test]
fn a_file_that_somebody_reads_is_not_written_anew() {
    let bed = Bed::new();
    let (log, _) = bed.open().unwrap();
    for index in 0..30 {
        log.write(&[append(index..index + 1, &format!("old {index:0100}"))]).unwrap();
    }
    // As a read does, between looking up the places and reading them.
    let reading = lock(&log.table).runs(&(0..30), usize::MAX);
    log.write(&[LogWrite::Purge(id(28))]).unwrap();
    for index in 30..90 {
        log.write(&[append(index..index + 1, &format!("new {index:0100}"))]).unwrap();
    }
    let mut entries = Vec::new();
    reading.iter().for_each(|run| run.read(&log.dir, &mut entries).unwrap());
    assert_eq!(entries.iter().map(RaftEntry::index).collect::<Vec<_>>(), (0..30).collect::<Vec<_>>());
}

#[test]
fn a_spare_file_may_be_shorter_than_the_head_that_it_gets() {
    let bed = Bed::new();
    // A segment for each batch: the first one has nothing but its head, which is shorter than one with a purge.
    let (log, _) = bed.open_with(1).unwrap();
    log.write(&[append(0..10, "a")]).unwrap();
    log.write(&[append(10..11, "b")]).unwrap();
    log.write(&[LogWrite::Purge(id(9))]).unwrap();
    for index in 11..20 {
        log.write(&[append(index..index + 1, "b")]).unwrap();
    }
    drop(log);
    let (log, recovered) = bed.open_with(1).unwrap();
    assert_eq!((recovered.purged, recovered.last), (Some(id(9)), Some(id(19))));
    assert_eq!(values(&log, 10..20), ["b"; 10]);
}

#[test]
fn few_files_of_purged_segments_are_kept() {
    let bed = Bed::new();
    let (log, _) = bed.open().unwrap();
    for index in 0..100 {
        log.write(&[append(index..index + 1, &format!("{index:0100}"))]).unwrap();
        finish(&log);
    }
    let before = bed.segments();
    assert!(before.len() > ahead::SPARES_MAX + 3, "{before:?}");
    log.write(&[LogWrite::Purge(id(98))]).unwrap();
    finish(&log);
    let newest = current(&bed, &log);
    let kept = bed.segments().into_iter().filter(|path| *path < newest).count();
    assert_eq!(kept, ahead::SPARES_MAX);
    drop(log);
    let (log, recovered) = bed.open().unwrap();
    assert_eq!((recovered.purged, recovered.last), (Some(id(98)), Some(id(99))));
    assert_eq!(values(&log, 99..100), [format!("{:0100}", 99)]);
}

/// A crash may keep one change of the directory and lose an earlier one.
#[test]
fn files_of_purged_segments_may_be_missing() {
    let bed = Bed::new();
    let (log, _) = bed.open().unwrap();
    for index in 0..100 {
        log.write(&[append(index..index + 1, &format!("{index:0100}"))]).unwrap();
        finish(&log);
    }
    let files: BTreeMap<PathBuf, Vec<u8>> =
        bed.segments().into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    let needed = lock(&log.table).runs(&(60..61), usize::MAX)[0].segment.number;
    log.write(&[LogWrite::Purge(id(59))]).unwrap();
    finish(&log);
    drop(log);
    let marker = fs::read(bed.marker()).unwrap();
    let restore = |path: &PathBuf, bytes: &Vec<u8>| {
        if !path.exists() {
            fs::write(path, bytes).unwrap();
        }
    };
    let kept: BTreeMap<PathBuf, Vec<u8>> =
        bed.segments().into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    for (missing, bytes) in &files {
        files.iter().for_each(|(path, bytes)| restore(path, bytes));
        kept.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
        fs::write(bed.marker(), &marker).unwrap();
        fs::remove_file(missing).unwrap();
        let is_needed = segment::number(missing.file_name().unwrap()).unwrap() >= needed;
        match bed.open() {
            Ok((log, recovered)) if !is_needed => {
                assert_eq!((recovered.purged, recovered.last), (Some(id(59)), Some(id(99))), "{missing:?}");
                assert_eq!(values(&log, 60..100).len(), 40);
            }
            Err(EngineError::Corrupt { what: "log", detail }) if is_needed => {
                assert!(detail.contains("missing"), "{detail}");
            }
            // Made ready, and not begun.
            Ok(_) if files.keys().next_back() == Some(missing) => {}
            other => panic!("{missing:?} ({} bytes): {:?}", bytes.len(), other.map(|(_, recovered)| recovered)),
        }
    }
}

/// What a crash leaves, also while the next segment is being made: each file as it is at some time, and those that are
/// renamed meanwhile under their old names, their new ones, or not at all.
#[test]
fn a_log_that_crashes_while_segments_are_made_and_used_again_is_whole() {
    let bed = Bed::new();
    let (log, _) = bed.open_with(20_000).unwrap();
    let (mut next, mut purged, mut made) = (0, None, 0);
    for step in 0..300 {
        let count = 1 + step % 3;
        log.write(&[append(next..next + count, &"v".repeat(500 + 37 * step as usize % 900))]).unwrap();
        next += count;
        if step % 17 == 16 {
            purged = Some(id(next - 30));
            log.write(&[LogWrite::Purge(id(next - 30))]).unwrap();
        }
        made += u32::from(lock(&log.open).as_ref().unwrap().ahead.is_making());
        let crashed = Bed(tempfile::tempdir().unwrap());
        fs::create_dir(crashed.0.path().join(DIR)).unwrap();
        fs::copy(bed.marker(), crashed.marker()).unwrap();
        for path in bed.segments() {
            let to = crashed.0.path().join(DIR).join(path.file_name().unwrap());
            match fs::copy(&path, to) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
        let (copy, recovered) = crashed.open_with(20_000).unwrap_or_else(|error| panic!("step {step}: {error:?}"));
        assert_eq!((recovered.purged, recovered.last), (purged, Some(id(next - 1))), "step {step}");
        let begin = purged.map_or(0, |id| id.index() + 1);
        assert_eq!(values(&copy, begin..next).len() as u64, next - begin, "step {step}");
    }
    assert!(made > 10, "a segment was being made at {made} of the crashes only");
}

#[test]
fn a_log_without_a_segment_that_is_ready_goes_on() {
    let bed = Bed::new();
    let (log, _) = bed.open().unwrap();
    // As a full disk does, it fails when the next segment is made.
    let obstacle = log.dir.join("00000002.tmp");
    fs::create_dir(&obstacle).unwrap();
    let mut next = 0;
    while current(&bed, &log).ends_with("00000001.segment") {
        log.write(&[append(next..next + 1, &format!("{next:0100}"))]).unwrap();
        finish(&log);
        assert!(!is_ready(&log) || next > 10);
        next += 1;
    }
    assert!(current(&bed, &log).ends_with("00000002.segment"));
    fs::remove_dir(&obstacle).unwrap();
    while !is_ready(&log) {
        log.write(&[append(next..next + 1, &format!("{next:0100}"))]).unwrap();
        finish(&log);
        next += 1;
        assert!(next < 100, "the segment behind it was not made ready");
    }
    log.write(&[append(next..next + 1, &"long".repeat(2_000))]).unwrap();
    assert!(current(&bed, &log).ends_with("00000003.segment"));
    drop(log);
    let (log, recovered) = bed.open().unwrap();
    assert_eq!(recovered.last, Some(id(next)));
    assert_eq!(values(&log, 0..next).len() as u64, next);
}

#[test]
fn writes_do_not_wait_for_a_segment_that_is_being_made() {
    let bed = Bed::new();
    let (log, _) = bed.open().unwrap();
    let (go_on, held) = std::sync::mpsc::channel::<()>();
    lock(&log.open).as_mut().unwrap().ahead.hold(held);
    let mut next = 0;
    while end(&log) <= 3_500 {
        log.write(&[append(next..next + 1, &format!("{next:0100}"))]).unwrap();
        assert!(!log.next_takes_long());
        next += 1;
    }
    assert!(current(&bed, &log).ends_with("00000001.segment"));
    drop(go_on);
    // It came to nothing: the log goes on in an empty file.
    finish(&log);
    assert!(log.next_takes_long());
    log.write(&[append(next..next + 1, "next")]).unwrap();
    assert!(current(&bed, &log).ends_with("00000002.segment"));
    drop(log);
    assert_eq!(bed.open().unwrap().1.last, Some(id(next)));
}

#[test]
fn a_purge_parts_with_the_segments_that_nobody_needs() {
    let bed = Bed::new();
    let (log, _) = bed.open().unwrap();
    log.write(&[LogWrite::Vote(Vote::new(3, 7))]).unwrap();
    for index in 0..100 {
        log.write(&[append(index..index + 1, &format!("{index:0100}")), LogWrite::Committed(Some(id(index)))]).unwrap();
        finish(&log);
    }
    let before = bed.segments();
    assert!(before.len() > 5, "{before:?}");
    log.write(&[LogWrite::Purge(id(89))]).unwrap();
    let mut after = bed.segments();
    after.retain(|path| before.contains(path));
    assert!(after.len() < before.len() - 3 && before.contains(&after[0]), "{after:?}");
    drop(log);
    let (log, recovered) = bed.open().unwrap();
    assert_eq!((recovered.purged, recovered.last, recovered.committed), (Some(id(89)), Some(id(99)), Some(id(99))));
    assert_eq!(recovered.vote, Some(Vote::new(3, 7)), "noted in a segment that is gone");
    assert_eq!(values(&log, 90..100).len(), 10);
    assert!(log.read(89..100, usize::MAX).is_err(), "it is purged");
}

#[test]
fn a_truncated_entry_of_an_older_segment_stays_away() {
    let bed = Bed::new();
    let (log, _) = bed.open().unwrap();
    for index in 0..30 {
        log.write(&[append(index..index + 1, &format!("old {index:0100}"))]).unwrap();
    }
    log.write(&[LogWrite::TruncateFrom(5), append(5..7, "new")]).unwrap();
    assert_eq!(values(&log, 5..7), ["new", "new"]);
    drop(log);
    let (log, recovered) = bed.open().unwrap();
    assert_eq!(recovered.last, Some(id(6)));
    assert_eq!(values(&log, 5..7), ["new", "new"]);
    assert_eq!(log.read(0..7, 1).unwrap().len(), 1, "at least one");
}

/// A batch that is not whole: some bytes of it did not reach the disk any more before the power was cut.
#[test]
fn what_a_crash_left_of_a_batch_is_cut_off_and_never_comes_back() {
    let bed = Bed::new();
    let (log, _) = bed.open().unwrap();
    log.write(&[append(0..3, "durable")]).unwrap();
    let path = current(&bed, &log);
    let marker = fs::read(bed.marker()).unwrap();
    let begin = end(&log);
    log.write(&[append(3..6, "cut off")]).unwrap();
    let written = end(&log);
    drop(log);
    let whole = fs::read(&path).unwrap();
    for at in begin..written {
        for torn in [
            [&whole[..at], &vec![0; whole.len() - at]].concat(),
            [&whole[..at], &[whole[at] ^ 4], &whole[at + 1..]].concat(),
            whole[..at].to_vec(),
        ] {
            fs::write(&path, &torn).unwrap();
            fs::write(bed.marker(), &marker).unwrap();
            let (log, recovered) = bed.open().unwrap();
            let last = recovered.last.unwrap().index();
            assert!((2..=5).contains(&last), "byte {at}: {last}");
            // As long as what was cut off: it would go on with the rest of that.
            log.write(&[append(last + 1..last + 2, "cut 0ff")]).unwrap();
            drop(log);
            let (log, recovered) = bed.open().unwrap();
            assert_eq!(recovered.last, Some(id(last + 1)), "byte {at}");
            assert_eq!(values(&log, last + 1..last + 2), ["cut 0ff"]);
        }
    }
}

/// As above, but behind it there is a batch that was written after a sync.
#[test]
fn damage_before_a_later_batch_is_refused_also_when_the_marker_is_old() {
    let bed = Bed::new();
    let (log, _) = bed.open().unwrap();
    let marker = fs::read(bed.marker()).unwrap();
    let path = current(&bed, &log);
    let begin = end(&log);
    log.write(&[append(0..1, "first")]).unwrap();
    let behind = end(&log);
    log.write(&[append(1..2, "second")]).unwrap();
    drop(log);
    let whole = fs::read(&path).unwrap();
    for at in begin..behind {
        fs::write(&path, &whole).unwrap();
        fs::File::options().write(true).open(&path).unwrap().write_all_at(&[whole[at] ^ 1], at as u64).unwrap();
        fs::write(bed.marker(), &marker).unwrap();
        match bed.open() {
            Err(EngineError::Corrupt { what: "log", .. }) => {}
            other => panic!("byte {at}: {:?}", other.map(|(_, recovered)| recovered)),
        }
    }
}

#[test]
fn a_missing_segment_is_noticed_whichever_it_is() {
    let bed = Bed::new();
    let (log, _) = bed.open().unwrap();
    for index in 0..50 {
        log.write(&[append(index..index + 1, &format!("{index:0100}"))]).unwrap();
    }
    finish(&log);
    drop(log);
    // Without the segment that is not begun.
    drop(bed.open().unwrap());
    for path in bed.segments() {
        let aside = bed.0.path().join("aside");
        fs::rename(&path, &aside).unwrap();
        match bed.open() {
            Err(EngineError::Corrupt { what: "log", detail }) => assert!(detail.contains("missing"), "{detail}"),
            other => panic!("{path:?}: {:?}", other.map(|(_, recovered)| recovered)),
        }
        fs::rename(&aside, &path).unwrap();
    }
    assert_eq!(bed.open().unwrap().1.last, Some(id(49)));
}

/// Writes a megabyte, and until the next segment is ready.
fn write_until_ready(log: &SegmentLog) -> u64 {
    let value = "v".repeat(10_000);
    let began = std::time::Instant::now();
    for index in 0.. {
        log.write(&[append(index..index + 1, &value)]).unwrap();
        if is_ready(log) {
            return index + 1;
        }
        assert!(began.elapsed().as_secs() < 20, "the next segment was not made ready");
    }
    unreachable!()
}

#[test]
fn a_busy_log_goes_on_in_a_file_that_was_written_before() {
    let bed = Bed::new();
    let (log, _) = bed.open_with(SEGMENT_BYTES).unwrap();
    log.write(&[append(0..1, "an idle log needs little")]).unwrap();
    assert!(log.bytes() < 10_000, "{}", log.bytes());
    log.write(&[LogWrite::TruncateFrom(0)]).unwrap();
    let next = write_until_ready(&log);
    log.write(&[append(next..next + 1, "in the next one")]).unwrap();
    let file = fs::File::open(current(&bed, &log)).unwrap();
    let bytes = file.metadata().unwrap().len();
    assert_eq!((lock(&log.open).as_ref().unwrap().last.number, bytes), (2, SEGMENT_BYTES));
    #[cfg(target_os = "linux")]
    assert_eq!(
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap(),
        bytes,
        "what is only reserved is a hole"
    );
    drop(log);
    let (log, recovered) = bed.open().unwrap();
    assert_eq!(recovered.last, Some(id(next)));
    assert_eq!(values(&log, next..next + 1), ["in the next one"]);
}

#[test]
fn a_segment_that_was_not_begun_is_none() {
    let bed = Bed::new();
    let (log, _) = bed.open_with(SEGMENT_BYTES).unwrap();
    let next = write_until_ready(&log);
    assert_eq!(bed.segments().len(), 2);
    drop(log);
    let (log, recovered) = bed.open_with(SEGMENT_BYTES).unwrap();
    assert_eq!((recovered.last, bed.segments().len()), (Some(id(next - 1)), 1));
    log.write(&[append(next..next + 1, "more")]).unwrap();
    drop(log);
    assert_eq!(bed.open().unwrap().1.last, Some(id(next)));
}

/// The first batch of a segment is written with its head.
#[test]
fn what_a_crash_left_of_the_first_batch_of_a_segment_is_dropped() {
    let bed = Bed::new();
    let (log, _) = bed.open().unwrap();
    let mut next = 0;
    while !is_ready(&log) {
        log.write(&[append(next..next + 1, "durable durable durable durable")]).unwrap();
        finish(&log);
        next += 1;
    }
    let marker = fs::read(bed.marker()).unwrap();
    let before: BTreeMap<PathBuf, Vec<u8>> =
        bed.segments().into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    log.write(&[append(next..next + 2, "torn")]).unwrap();
    let (path, written) = (current(&bed, &log), end(&log));
    drop(log);
    let whole = fs::read(&path).unwrap();
    for at in 0..=written {
        for torn in [
            [&whole[..at], &vec![0; whole.len() - at]].concat(),
            [&vec![0; at], &whole[at..]].concat(),
            [&whole[..at], &[whole[at] ^ 4], &whole[at + 1..]].concat(),
        ] {
            bed.segments().iter().for_each(|path| fs::remove_file(path).unwrap());
            before.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
            fs::write(&path, &torn).unwrap();
            fs::write(bed.marker(), &marker).unwrap();
            let (log, recovered) = bed.open().unwrap();
            let last = recovered.last.unwrap().index();
            assert!((next - 1..=next + 1).contains(&last), "byte {at}: {last}");
            log.write(&[append(last + 1..last + 2, "t0rn")]).unwrap();
            drop(log);
            let (log, recovered) = bed.open().unwrap();
            assert_eq!(recovered.last, Some(id(last + 1)), "byte {at}");
            assert_eq!(values(&log, last + 1..last + 2), ["t0rn"], "byte {at}");
        }
    }
}

#[test]
fn a_damaged_head_is_refused_as_soon_as_its_segment_was_noted() {
    let bed = Bed::new();
    let (log, _) = bed.open().unwrap();
    for index in 0..30 {
        log.write(&[append(index..index + 1, &format!("{index:0100}"))]).unwrap();
    }
    let path = current(&bed, &log);
    drop(log);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"damaged", 3).unwrap();
    assert!(matches!(bed.open(), Err(EngineError::Corrupt { what: "log", .. })));
}

#[test]
fn a_read_does_not_wait_while_the_writer_waits_for_the_disk() {
    let bed = Bed::new();
    let (log, _) = bed.open().unwrap();
    log.write(&[append(0..5, "durable")]).unwrap();
    // The writer has it while it writes and syncs.
    let writing = lock(&log.open);
    let (sender, read) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let log = &log;
        scope.spawn(move || sender.send(values(log, 0..5)).unwrap());
        let read = read.recv_timeout(std::time::Duration::from_secs(10));
        drop(writing);
        assert_eq!(read.expect("entries while the disk is busy"), ["durable"; 5]);
    });
}

#[test]
fn entries_that_follow_on_each_other_are_read_at_once() {
    let bed = Bed::new();
    let (log, _) = bed.open_with(SEGMENT_BYTES).unwrap();
    for index in 0..100 {
        log.write(&[append(index..index + 1, "value"), LogWrite::Committed(Some(id(index)))]).unwrap();
    }
    let runs = |range| lock(&log.table).runs(&range, usize::MAX).len();
    assert_eq!((runs(0..100), runs(7..93)), (1, 1));
    // What was truncated is a gap that is not read.
    let large = "l".repeat(100_000);
    log.write(&[append(100..101, &large), LogWrite::TruncateFrom(100), append(100..102, "new")]).unwrap();
    assert_eq!(runs(0..102), 2);
    assert_eq!(values(&log, 98..102), ["value", "value", "new", "new"]);
    drop(log);
    let (log, _) = bed.open_with(1).unwrap();
    log.write(&[append(102..103, "in another segment")]).unwrap();
    assert_eq!(lock(&log.table).runs(&(98..103), usize::MAX).len(), 3);
    assert_eq!(values(&log, 99..103), ["value", "new", "new", "in another segment"]);
}
