//! What the log promises, on every disk that there is.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use tank_engine::error::EngineError;
use tank_engine::health::Health;
use tank_engine::log::LogStore;
use tank_engine::log::disk::{LogDisk, LogWrite, Recovered};
use tank_engine::raft::{LogEntry, LogId, Types};
use tank_sim::{SimDisk, wait};

use crate::support::{Bed, LIMIT, OpenLog, SegmentBed, SimBed, acknowledged, block_on, entries, entry, log_id, vote};

/// One test for each contract and disk.
macro_rules! contracts {
    ($($contract:ident),* $(,)?) => {
        mod on_segments {
            $(#[test] fn $contract() { super::block_on(super::$contract(super::SegmentBed::<10_000_000>::default())); })*
        }
        mod on_a_segment_for_each_write {
            $(#[test] fn $contract() { super::block_on(super::$contract(super::SegmentBed::<1>::default())); })*
        }
        mod on_the_simulated_disk {
            $(#[test] fn $contract() { super::block_on(super::$contract(super::SimBed::default())); })*
        }
    };
}

contracts! {
    an_empty_log_is_empty,
    entries_come_back_before_and_after_a_restart,
    a_limited_read_gives_a_prefix_and_at_least_one_entry,
    a_read_may_go_from_the_disk_into_memory,
    a_purge_is_remembered_and_a_purge_beyond_the_end_moves_it,
    a_truncated_end_is_replaced,
    a_truncation_behind_the_end_does_nothing,
    an_append_and_its_truncation_may_share_a_sync,
    vote_and_committed_come_back,
    entries_can_be_read_before_they_are_durable_and_are_acknowledged_after,
    a_vote_is_saved_when_it_is_durable,
    a_truncation_is_durable_when_it_returns,
    a_read_that_is_overtaken_by_a_truncation_gives_what_is_there_then,
    many_appends_share_a_sync,
    after_a_failed_sync_nothing_is_acknowledged,
    what_is_asked_at_once_is_durable_when_append_returns,
    what_is_asked_at_once_comes_after_what_waits,
    after_a_failed_sync_at_once_nothing_is_acknowledged,
    a_failed_read_is_a_failure_of_the_disk,
}

async fn ids(log: &mut impl RaftLogReader<tank_engine::raft::Types>) -> Vec<LogId> {
    log.try_get_log_entries(..).await.unwrap().iter().map(RaftEntry::log_id).collect()
}

fn ids_of(entries: &[LogEntry]) -> Vec<LogId> {
    entries.iter().map(RaftEntry::log_id).collect()
}

/// Closes and opens again.
fn restart<B: Bed>(bed: &mut B, log: OpenLog<B::Disk>) -> OpenLog<B::Disk> {
    log.close();
    bed.stop();
    OpenLog::open(bed)
}

async fn state<B: Bed>(log: &mut OpenLog<B::Disk>) -> (Option<LogId>, Option<LogId>) {
    let state = log.log.get_log_state().await.unwrap();
    (state.last_purged_log_id, state.last_log_id)
}

async fn an_empty_log_is_empty<B: Bed>(mut bed: B) {
    let mut log = OpenLog::open(&mut bed);
    for _ in 0..2 {
        assert_eq!(state::<B>(&mut log).await, (None, None));
        assert_eq!(log.log.read_vote().await.unwrap(), None);
        assert_eq!(log.log.read_committed().await.unwrap(), None);
        assert_eq!(ids(&mut log.log).await, []);
        log = restart(&mut bed, log);
    }
    log.close();
}

async fn entries_come_back_before_and_after_a_restart<B: Bed>(mut bed: B) {
    let mut log = OpenLog::open(&mut bed);
    let all = [entries(1, 0..3), entries(2, 3..7)].concat();
    log.append_synced(all[..2].to_vec()).await;
    log.append_synced(all[2..].to_vec()).await;
    for _ in 0..3 {
        assert_eq!(log.log.try_get_log_entries(..).await.unwrap(), all);
        let mut reader = log.log.get_log_reader().await;
        assert_eq!(reader.try_get_log_entries(2..=4).await.unwrap(), all[2..5]);
        assert_eq!(reader.try_get_log_entries(5..100).await.unwrap(), all[5..]);
        assert_eq!(reader.try_get_log_entries(7..100).await.unwrap(), []);
        assert_eq!(reader.try_get_log_entries(3..3).await.unwrap(), []);
        assert_eq!(state::<B>(&mut log).await, (None, Some(log_id(2, 6))));
        drop(reader);
        log = restart(&mut bed, log);
    }
    log.append_synced(entries(3, 7..9)).await;
    assert_eq!(ids(&mut log.log).await.len(), 9, "a log goes on where it ended");
    log.close();
}

async fn a_limited_read_gives_a_prefix_and_at_least_one_entry<B: Bed>(mut bed: B) {
    let mut log = OpenLog::open(&mut bed);
    // About 2 MiB are read at a time: two of these, and the third does not fit.
    let large: Vec<_> = (0..4).map(|index| entry(1, index, 1 << 20)).collect();
    let huge = entry(1, 4, 5 << 20);
    log.append_synced(large.clone()).await;
    log.append_synced(vec![huge.clone()]).await;
    for place in ["in memory", "on the disk"] {
        let mut reader = log.log.get_log_reader().await;
        let read = reader.limited_get_log_entries(0, 5).await.unwrap();
        assert!((1..4).contains(&read.len()), "{place}: {} entries of 1 MiB", read.len());
        assert_eq!(read, large[..read.len()], "{place}");
        assert_eq!(reader.limited_get_log_entries(4, 5).await.unwrap(), std::slice::from_ref(&huge), "{place}");
        assert_eq!(reader.limited_get_log_entries(1, 2).await.unwrap(), large[1..2], "{place}");
        drop(reader);
        log = restart(&mut bed, log);
    }
    log.close();
}

async fn a_read_may_go_from_the_disk_into_memory<B: Bed>(mut bed: B) {
    let mut log = OpenLog::open(&mut bed);
    log.append_synced(entries(1, 0..10)).await;
    log = restart(&mut bed, log);
    log.append_synced(entries(2, 10..20)).await;
    let all = [entries(1, 0..10), entries(2, 10..20)].concat();
    let mut reader = log.log.get_log_reader().await;
    for range in [0..20u64, 9..11, 5..15, 10..20, 0..10, 8..10] {
        let expected = &all[range.start as usize..range.end as usize];
        assert_eq!(reader.try_get_log_entries(range.clone()).await.unwrap(), expected, "{range:?}");
        assert_eq!(reader.limited_get_log_entries(range.start, range.end).await.unwrap(), expected, "{range:?}");
    }
    log.close();
}

async fn a_purge_is_remembered_and_a_purge_beyond_the_end_moves_it<B: Bed>(mut bed: B) {
    let mut log = OpenLog::open(&mut bed);
    log.append_synced(entries(1, 0..10)).await;
    log.log.purge(log_id(1, 3)).await.unwrap();
    log.append_synced(entries(1, 10..11)).await;
    for _ in 0..2 {
        assert_eq!(state::<B>(&mut log).await, (Some(log_id(1, 3)), Some(log_id(1, 10))));
        assert_eq!(ids(&mut log.log).await, ids_of(&entries(1, 4..11)));
        log = restart(&mut bed, log);
    }
    // As after a snapshot from another member that is ahead.
    log.log.purge(log_id(2, 50)).await.unwrap();
    log.log.save_vote(&vote(2)).await.unwrap();
    for _ in 0..2 {
        assert_eq!(state::<B>(&mut log).await, (Some(log_id(2, 50)), Some(log_id(2, 50))));
        assert_eq!(ids(&mut log.log).await, []);
        log = restart(&mut bed, log);
    }
    log.append_synced(entries(2, 51..53)).await;
    log = restart(&mut bed, log);
    assert_eq!(ids(&mut log.log).await, ids_of(&entries(2, 51..53)));
    log.close();
}

async fn a_truncated_end_is_replaced<B: Bed>(mut bed: B) {
    let mut log = OpenLog::open(&mut bed);
    log.append_synced(entries(1, 0..10)).await;
    log.log.truncate_after(Some(log_id(1, 5))).await.unwrap();
    assert_eq!(state::<B>(&mut log).await, (None, Some(log_id(1, 5))), "before it is on the disk");
    log.append_synced(entries(2, 6..8)).await;
    for _ in 0..2 {
        assert_eq!(ids(&mut log.log).await, [ids_of(&entries(1, 0..6)), ids_of(&entries(2, 6..8))].concat());
        log = restart(&mut bed, log);
    }
    log.log.truncate_after(None).await.unwrap();
    log.log.save_vote(&vote(3)).await.unwrap();
    for _ in 0..2 {
        assert_eq!(state::<B>(&mut log).await, (None, None));
        log = restart(&mut bed, log);
    }
    log.append_synced(entries(3, 0..2)).await;
    log = restart(&mut bed, log);
    assert_eq!(ids(&mut log.log).await, ids_of(&entries(3, 0..2)));
    log.close();
}

async fn a_truncation_behind_the_end_does_nothing<B: Bed>(mut bed: B) {
    let mut log = OpenLog::open(&mut bed);
    log.append_synced(entries(1, 0..3)).await;
    log.log.truncate_after(Some(log_id(1, 7))).await.unwrap();
    assert_eq!(state::<B>(&mut log).await, (None, Some(log_id(1, 2))));
    log.append_synced(entries(1, 3..4)).await;
    log = restart(&mut bed, log);
    assert_eq!(ids(&mut log.log).await, ids_of(&entries(1, 0..4)));
    log.close();
}

async fn an_append_and_its_truncation_may_share_a_sync<B: Bed>(mut bed: B) {
    let mut log = OpenLog::open(&mut bed);
    log.append_synced(entries(1, 0..3)).await;
    // While a sync is held back, both gather; the writer then takes them as one batch.
    let held = log.control.hold();
    let first = log.append(entries(1, 3..4)).await;
    held.wait_for_sync(LIMIT).unwrap();
    let taken_back = log.append(entries(1, 4..9)).await;
    let mut truncating = log.log;
    let truncation = tokio::spawn(async move {
        truncating.truncate_after(Some(log_id(1, 2))).await.unwrap();
        truncating
    });
    tokio::task::yield_now().await;
    drop(held);
    acknowledged(first).await.unwrap();
    acknowledged(taken_back).await.unwrap();
    log.log = truncation.await.unwrap();
    log = restart(&mut bed, log);
    assert_eq!(ids(&mut log.log).await, ids_of(&entries(1, 0..3)));
    log.append_synced(entries(2, 3..5)).await;
    log = restart(&mut bed, log);
    assert_eq!(ids(&mut log.log).await, [ids_of(&entries(1, 0..3)), ids_of(&entries(2, 3..5))].concat());
    log.close();
}

async fn vote_and_committed_come_back<B: Bed>(mut bed: B) {
    let mut log = OpenLog::open(&mut bed);
    for term in 1..4 {
        log.log.save_vote(&vote(term)).await.unwrap();
        log.log.save_committed(Some(log_id(term, term))).await.unwrap();
        assert_eq!(log.log.read_vote().await.unwrap(), Some(vote(term)));
        assert_eq!(log.log.read_committed().await.unwrap(), Some(log_id(term, term)));
    }
    // What is committed is not synced by itself, but with whatever is next.
    log.append_synced(entries(3, 0..1)).await;
    log = restart(&mut bed, log);
    assert_eq!(log.log.read_vote().await.unwrap(), Some(vote(3)));
    assert_eq!(log.log.read_committed().await.unwrap(), Some(log_id(3, 3)));
    log.close();
}

async fn entries_can_be_read_before_they_are_durable_and_are_acknowledged_after<B: Bed>(mut bed: B) {
    let mut log = OpenLog::open(&mut bed);
    log.append_synced(entries(1, 0..5)).await;
    let held = log.control.hold();
    let mut waiting = log.append(entries(1, 5..8)).await;
    held.wait_for_sync(LIMIT).unwrap();
    let mut later = log.append(entries(1, 8..9)).await;
    assert_eq!(ids(&mut log.log).await, ids_of(&entries(1, 0..9)));
    assert_eq!(state::<B>(&mut log).await, (None, Some(log_id(1, 8))));
    // The sync is under way and does not end: whoever hears of it now hears a lie.
    assert!(waiting.try_recv().is_err() && later.try_recv().is_err(), "acknowledged before the sync");
    drop(held);
    acknowledged(waiting).await.unwrap();
    acknowledged(later).await.unwrap();
    log.close();
}

async fn a_vote_is_saved_when_it_is_durable<B: Bed>(mut bed: B) {
    let mut log = OpenLog::open(&mut bed);
    let held = log.control.hold();
    let mut saver = log.log;
    let saving = tokio::spawn(async move {
        saver.save_vote(&vote(5)).await.unwrap();
        saver
    });
    held.wait_for_sync(LIMIT).unwrap();
    assert!(!saving.is_finished(), "saved before the sync");
    drop(held);
    log.log = saving.await.unwrap();
    assert_eq!(log.log.read_vote().await.unwrap(), Some(vote(5)));
    log.close();
}

/// Otherwise a snapshot that is installed next may be durable first; after a power cut in between, the log ends
/// behind the state with entries that the state contradicts, and cannot be opened.
async fn a_truncation_is_durable_when_it_returns<B: Bed>(mut bed: B) {
    let mut log = OpenLog::open(&mut bed);
    log.append_synced(entries(1, 0..9)).await;
    let held = log.control.hold();
    let mut truncating = log.log;
    let truncation = tokio::spawn(async move {
        truncating.truncate_after(Some(log_id(1, 4))).await.unwrap();
        truncating
    });
    held.wait_for_sync(LIMIT).unwrap();
    assert!(!truncation.is_finished(), "it returned before the sync");
    drop(held);
    log.log = truncation.await.unwrap();
    let mut log = restart(&mut bed, log);
    assert_eq!(ids(&mut log.log).await, ids_of(&entries(1, 0..5)));
    log.close();
}

async fn a_read_that_is_overtaken_by_a_truncation_gives_what_is_there_then<B: Bed>(mut bed: B) {
    let mut log = OpenLog::open(&mut bed);
    log.append_synced(entries(1, 0..9)).await;
    let mut log = restart(&mut bed, log);
    // Nothing is in memory: the entries are read on another thread, while this one truncates.
    let mut reader = log.log.get_log_reader().await;
    let mut reading = std::pin::pin!(reader.try_get_log_entries(0..9));
    if let std::task::Poll::Ready(read) = futures_util::poll!(reading.as_mut()) {
        // The other thread was quicker.
        assert_eq!(read.unwrap(), entries(1, 0..9));
        return;
    }
    log.log.truncate_after(Some(log_id(1, 4))).await.unwrap();
    log.append_synced(entries(2, 5..7)).await;
    let wanted = [entries(1, 0..5), entries(2, 5..7)].concat();
    assert_eq!(ids_of(&reading.await.unwrap()), ids_of(&wanted));
    log.close();
}

async fn a_failed_read_is_a_failure_of_the_disk<B: Bed>(mut bed: B) {
    let mut log = OpenLog::open(&mut bed);
    log.append_synced(entries(1, 0..9)).await;
    // Nothing is in memory afterwards.
    let mut log = restart(&mut bed, log);
    log.control.fail_reads();
    let mut reader = log.log.get_log_reader().await;
    assert!(reader.try_get_log_entries(0..9).await.is_err());
    let failure = log.health.check().unwrap_err();
    assert!(failure.is_of_the_disk(), "the store fails with {failure:?}, which its owner does not wait out");
    log.control.heal();
    assert_eq!(reader.try_get_log_entries(0..9).await.unwrap(), entries(1, 0..9));
    log.close();
}

async fn many_appends_share_a_sync<B: Bed>(mut bed: B) {
    const APPENDS: u64 = 1_000;
    let mut log = OpenLog::open(&mut bed);
    let before = log.control.syncs();
    let held = log.control.hold();
    let mut waiting = Vec::new();
    for index in 0..APPENDS {
        waiting.push(log.append(entries(1, index..index + 1)).await);
    }
    held.wait_for_sync(LIMIT).unwrap();
    drop(held);
    for one in waiting {
        acknowledged(one).await.unwrap();
    }
    let syncs = log.control.syncs() - before;
    // One for what was there when the writer looked, one for what came while it waited.
    assert!((1..=2).contains(&syncs), "{syncs} syncs for {APPENDS} appends");
    assert_eq!(log.log.stats().entries.load(Ordering::Relaxed), APPENDS);
    log.close();
}

async fn what_is_asked_at_once_is_durable_when_append_returns<B: Bed>(mut bed: B) {
    let mut log = OpenLog::open(&mut bed);
    for index in 0..5 {
        log.log.at_once().ask();
        let mut acknowledged = log.append(entries(1, index..index + 1)).await;
        assert!(matches!(acknowledged.try_recv(), Ok(Ok(()))), "it was waited for");
        log.log.save_committed(Some(log_id(1, index))).await.unwrap();
    }
    assert_eq!(log.log.stats().syncs_at_once.load(Ordering::Relaxed), 5);
    // It holds for one append only.
    let held = log.control.hold();
    let waiting = log.append(entries(1, 5..6)).await;
    held.wait_for_sync(LIMIT).unwrap();
    drop(held);
    acknowledged(waiting).await.unwrap();
    let mut log = restart(&mut bed, log);
    assert_eq!(ids(&mut log.log).await, ids_of(&entries(1, 0..6)));
    log.close();
}

async fn what_is_asked_at_once_comes_after_what_waits<B: Bed>(mut bed: B) {
    let mut log = OpenLog::open(&mut bed);
    let held = log.control.hold();
    let first = log.append(entries(1, 0..3)).await;
    held.wait_for_sync(LIMIT).unwrap();
    log.log.at_once().ask();
    let mut second = log.append(entries(1, 3..4)).await;
    assert!(second.try_recv().is_err(), "acknowledged before what stands before it");
    drop(held);
    acknowledged(first).await.unwrap();
    acknowledged(second).await.unwrap();
    assert_eq!(log.log.stats().syncs_at_once.load(Ordering::Relaxed), 0);
    let mut log = restart(&mut bed, log);
    assert_eq!(ids(&mut log.log).await, ids_of(&entries(1, 0..4)));
    log.close();
}

async fn after_a_failed_sync_at_once_nothing_is_acknowledged<B: Bed>(mut bed: B) {
    let mut log = OpenLog::open(&mut bed);
    log.control.fail_from(0);
    log.log.at_once().ask();
    assert!(acknowledged(log.append(entries(1, 0..1)).await).await.is_err(), "the failed sync is reported");
    log.control.heal();
    log.log.at_once().ask();
    assert!(acknowledged(log.append(entries(1, 1..2)).await).await.is_err(), "acknowledged at once after it");
    assert!(acknowledged(log.append(entries(1, 2..3)).await).await.is_err(), "acknowledged by the thread after it");
    assert!(matches!(log.failures.lock().unwrap().as_slice(), [EngineError::Storage(_)]), "reported once");
    let log = restart(&mut bed, log);
    log.close();
}

async fn after_a_failed_sync_nothing_is_acknowledged<B: Bed>(mut bed: B) {
    let mut log = OpenLog::open(&mut bed);
    log.append_synced(entries(1, 0..5)).await;
    log.control.fail_from(0);
    let failed = acknowledged(log.append(entries(1, 5..6)).await).await;
    assert!(failed.is_err(), "the failed sync is reported");
    // The disk is well again, but what it holds is not known.
    log.control.heal();
    let later = acknowledged(log.append(entries(1, 6..7)).await).await;
    assert!(later.is_err(), "acknowledged after a failed sync");
    assert!(log.log.save_vote(&vote(9)).await.is_err(), "a vote was saved after a failed sync");
    assert_ne!(log.log.read_vote().await.unwrap(), Some(vote(9)), "a vote that is not durable is not there");
    let failures = wait::until("the failure", LIMIT, || log.failures.lock().unwrap().clone(), |f| !f.is_empty());
    assert!(matches!(failures.unwrap().as_slice(), [EngineError::Storage(_)]), "reported once");
    assert!(log.health.check().is_err());
    let mut log = restart(&mut bed, log);
    let found = ids(&mut log.log).await;
    assert!(found.len() >= 5 && found == ids_of(&entries(1, 0..7))[..found.len()], "what was acknowledged: {found:?}");
    assert_eq!(log.log.read_vote().await.unwrap(), None);
    log.close();
}

/// A disk that counts what is written at once.
struct Counted(SimDisk, Arc<AtomicUsize>);

impl LogDisk for Counted {
    fn recover(&self) -> Result<Recovered, EngineError> {
        self.0.recover()
    }

    fn write(&self, writes: &[LogWrite]) -> io::Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.write(writes)
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<LogEntry>> {
        self.0.read(range, bytes_max)
    }
}

#[test]
fn what_is_committed_is_written_with_what_comes_next() {
    let (disk, writes) = (SimDisk::new(), Arc::new(AtomicUsize::new(0)));
    let health = Arc::new(Health::new(Box::new(|_| {})));
    let counted = Counted(disk.clone(), Arc::clone(&writes));
    let (mut log, closer) = LogStore::open(counted, Path::new("simulated"), &health).unwrap();
    block_on(async {
        for index in 0..6 {
            if index % 2 == 0 {
                log.at_once().ask();
            }
            let (sender, receiver) = Types::oneshot();
            log.append(entries(1, index..index + 1), IOFlushed::signal(sender)).await.unwrap();
            acknowledged(receiver).await.unwrap();
            log.save_committed(Some(log_id(1, index))).await.unwrap();
            assert_eq!(disk.durable().committed, index.checked_sub(1).map(|before| log_id(1, before)));
        }
        drop(log);
        closer.join();
    });
    assert_eq!(
        (writes.load(Ordering::Relaxed), disk.durable().committed),
        (7, Some(log_id(1, 5))),
        "the end comes next"
    );
}

/// A member that is killed and started without a leader knows no more than what is written.
#[test]
fn what_is_committed_is_written_soon_when_nothing_comes_next() {
    let disk = SimDisk::new();
    let health = Arc::new(Health::new(Box::new(|_| {})));
    let (mut log, closer) = LogStore::open(disk.clone(), Path::new("simulated"), &health).unwrap();
    block_on(async {
        for index in 0..3 {
            let (sender, receiver) = Types::oneshot();
            log.append(entries(1, index..index + 1), IOFlushed::signal(sender)).await.unwrap();
            acknowledged(receiver).await.unwrap();
            log.save_committed(Some(log_id(1, index))).await.unwrap();
        }
        let written = async {
            while disk.durable().committed != Some(log_id(1, 2)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(LIMIT, written).await;
        assert!(in_time.is_ok(), "last written as committed: {:?}", disk.durable().committed);
        drop(log);
        closer.join();
    });
}
