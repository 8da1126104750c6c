use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use openraft::vote::RaftLeaderIdExt;
use openraft::{EntryPayload, RaftTypeConfig};

mod detached;

use super::*;
use crate::command::{Command, Request, RequestId, Write};
use crate::key::{Component, Key};
use crate::raft::{LogId, Types, Vote};

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
    LogEntry { log_id: id(index), payload: EntryPayload::Normal(request) }
}

fn append(range: Range<u64>, value: &str) -> LogWrite {
    LogWrite::Append(range.map(|index| entry(index, value)).collect())
}

fn values(log: &SegmentLog, range: Range<u64>) -> Vec<String> {
    let value = |entry: &LogEntry| match &entry.payload {
        EntryPayload::Normal(Request { command: Command::Put(write), .. }) => {
            String::from_utf8(write.payload.to_vec()).unwrap()
        }
        other => panic!("{other:?}"),
    };
    log.read(range, usize::MAX).unwrap().iter().map(value).collect()
}

/// Where the last segment ends.
fn end(log: &SegmentLog) -> usize {
    lock(&log.open).as_ref().unwrap().end.bytes as usize
}

/// Writes entries until purges have left spare files, and the log goes on in one of them. Returns the index of
/// the next entry.
fn fill_until_recycled(bed: &Bed, log: &SegmentLog) -> u64 {
    for index in 0..200 {
        let files = inodes(bed);
        log.write(&[append(index..index + 1, &format!("old {index:0100}"))]).unwrap();
        if index % 20 == 19 {
            log.write(&[LogWrite::Purge(id(index - 9))]).unwrap();
        }
        let newest = bed.segments().pop().unwrap();
        if newest.extension().unwrap() == "segment" && !files.contains_key(&newest) {
            let inode = inodes(bed)[&newest];
            if files.values().any(|known| *known == inode) {
                return index + 1;
            }
        }
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
    let path = bed.segments().pop().unwrap();
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
    let path = bed.segments().pop().unwrap();
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
    let path = bed.segments().pop().unwrap();
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
    log.write(&[LogWrite::Purge(id(3))]).unwrap();
    let spare = bed.segments().remove(0);
    assert_eq!(spare.extension().unwrap(), "spare");
    let spare_bytes = fs::metadata(&spare).unwrap().len() as usize;
    log.write(&[append(10..11, "b")]).unwrap();
    let bytes = fs::read(bed.segments().pop().unwrap()).unwrap();
    assert!(Record::first(&bytes, Place { segment: 4, offset: 0 }).unwrap().bytes() > spare_bytes);
    drop(log);
    let (log, recovered) = bed.open_with(1).unwrap();
    assert_eq!((recovered.purged, recovered.last), (Some(id(3)), Some(id(10))));
    assert_eq!(values(&log, 10..11), ["b"]);
}

#[test]
fn spare_files_are_few_and_go_when_the_log_is_opened() {
    let bed = Bed::new();
    let (log, _) = bed.open().unwrap();
    for index in 0..100 {
        log.write(&[append(index..index + 1, &format!("{index:0100}"))]).unwrap();
    }
    log.write(&[LogWrite::Purge(id(98))]).unwrap();
    let spares = || bed.segments().into_iter().filter(|path| path.extension().unwrap() == "spare").count();
    assert_eq!(spares(), SPARES_MAX);
    drop(log);
    let (_log, recovered) = bed.open().unwrap();
    assert_eq!((recovered.last, spares()), (Some(id(99)), 0));
}

#[test]
fn a_purge_parts_with_the_segments_that_nobody_needs() {
    let bed = Bed::new();
    let (log, _) = bed.open().unwrap();
    log.write(&[LogWrite::Vote(Vote::new(3, 7))]).unwrap();
    for index in 0..100 {
        log.write(&[append(index..index + 1, &format!("{index:0100}")), LogWrite::Committed(Some(id(index)))]).unwrap();
    }
    let before = bed.segments();
    assert!(before.len() > 5, "{before:?}");
    log.write(&[LogWrite::Purge(id(89))]).unwrap();
    let mut after = bed.segments();
    after.retain(|path| path.extension().unwrap() == "segment");
    assert!(after.len() < before.len() - 3 && before.ends_with(&after), "{after:?}");
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
    let path = bed.segments().pop().unwrap();
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
    let path = bed.segments().pop().unwrap();
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
    drop(log);
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

#[test]
fn small_batches_find_space_that_was_written_before_and_follow_on_large_ones() {
    let bed = Bed::new();
    let (log, _) = bed.open_with(SEGMENT_BYTES).unwrap();
    let (small, large) = ("s".repeat(10_000), "l".repeat(100_000));
    let sizes = [&large, &small, &large, &large, &small, &small];
    let mut written = Vec::new();
    for turn in 0..30 {
        let value = if turn < 10 { &small } else { sizes[turn % sizes.len()] };
        log.write(&[append(turn as u64..turn as u64 + 1, value)]).unwrap();
        written.push(value.clone());
        let file = fs::File::open(&bed.segments()[0]).unwrap();
        let bytes = file.metadata().unwrap().len();
        #[cfg(target_os = "linux")]
        if turn < 10 {
            // What is only reserved is a hole.
            assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap(), bytes, "batch {turn}");
            assert_eq!(bytes % (64 << 10), 0, "batch {turn}");
        }
        assert!(bytes >= end(&log) as u64);
    }
    drop(log);
    let (log, recovered) = bed.open().unwrap();
    assert_eq!(recovered.last, Some(id(29)));
    assert_eq!(values(&log, 0..30), written);
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
