//! Installing a snapshot: killed in the middle, it leaves the old state or the new one; a damaged
//! one is refused, and the old state stays.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use tank_engine::command::{Request, RequestId};
use tank_engine::error::EngineError;
use tank_engine::snapshot::{Frame, SnapshotData};
use tank_sim::{Rng, rng};

use crate::support::{Member, Victim, block_on, open, put, write_all};

/// A closed store of some entries.
fn store(dir: &Path, name: &str, entries: usize, bytes: usize) {
    let engine = open(dir);
    let mut rng = Rng::new(bytes as u64);
    let payload = |rng: &mut Rng| (0..bytes / 8).flat_map(|_| rng.next_u64().to_be_bytes()).collect::<Vec<u8>>();
    write_all(&engine, (0..entries).map(|i| put(&format!("{name}-{i:04}"), &payload(&mut rng))));
    engine.close().unwrap();
}

#[test]
fn a_damaged_snapshot_is_refused_and_the_old_state_stays() {
    let root = tempfile::tempdir().unwrap();
    let (from, to) = (root.path().join("from"), root.path().join("to"));
    store(&from, "new", 300, 1_000);
    store(&to, "old", 10, 10);
    let source = Member::open(&from).unwrap();
    let mut target = Member::open(&to).unwrap();
    let old = target.held();
    let (frames, header) = source.frames();
    assert!(frames.len() > 3, "{} frames", frames.len());

    let stays = |target: &Member, when: &str| {
        assert_eq!(target.held(), old, "{when}");
        assert_eq!(
            target.store().load(&std::sync::Arc::default()).unwrap().0.whole_digest().value(),
            old.digest,
            "{when}: on the disk"
        );
        assert_eq!(target.generations(), ["state_0"], "{when}: what was begun is gone");
    };
    let refused = |result: Result<_, EngineError>, when: &str| match result {
        Err(EngineError::Corrupt { .. }) => {}
        other => panic!("{when}: {:?}", other.map(|_| "was taken")),
    };
    // On the way: a frame is lost, comes twice, or stands for another.
    refused(target.receive(&[&frames[..1], &frames[2..]].concat()), "a lost frame");
    refused(target.receive(&[&frames[..2], &frames[1..]].concat()), "a frame that comes twice");
    let mut cut = frames[..frames.len() - 1].to_vec();
    cut.last_mut().unwrap().last = true;
    refused(target.receive(&cut), "an end within a record");
    let mut short = frames.clone();
    let body = short[1].body.clone();
    short[1] = Frame { body: body.slice(..body.len() - 1), ..short[1].clone() };
    let received = target.receive(&short);
    assert!(received.is_err(), "a byte that is missing shifts all records behind it");
    stays(&target, "after frames that were refused");

    // Whole records that are not the state: nothing but the digest shows it.
    let mut missing: Vec<u8> = frames.iter().flat_map(|frame| frame.body.to_vec()).collect();
    let second = 8 + record_length(&missing);
    missing.drain(second..second + 8 + record_length(&missing[second..]));
    let missing = Frame { sequence: 0, last: true, body: Bytes::from(missing) };
    let mut receiver = tank_engine::snapshot::SnapshotReceiver::new(target.dir()).unwrap();
    let received = receiver.accept(&missing).unwrap().unwrap();
    assert!(target.machine_install(received, &header).is_err(), "a snapshot without one of its entries");
    stays(&target, "after a snapshot without one of its entries");

    // In its file, between the last frame and the install.
    let mut rng = Rng::new(rng::seed("TANK_SEED", 7));
    let size = fs::metadata(&target.receive(&frames).unwrap().unwrap().files()[0]).unwrap().len() as usize;
    let mut offsets: Vec<usize> = (0..12).map(|_| rng.below(size)).collect();
    offsets.extend([0, size / 2, size - 1]);
    for offset in offsets {
        target = reopen(target, &to);
        let received = target.receive(&frames).unwrap().unwrap();
        let mut bytes = fs::read(&received.files()[0]).unwrap();
        bytes[offset] ^= 1 << rng.below(8);
        fs::write(&received.files()[0], bytes).unwrap();
        match target.machine_install(received, &header) {
            Err(_) => stays(&target, &format!("after a flipped bit in byte {offset} of the file")),
            // A bit that nobody reads. Then all is as it was sent.
            Ok(()) => {
                assert_eq!(target.held(), source.held(), "byte {offset}");
                target.close();
                fs::remove_dir_all(&to).unwrap();
                store(&to, "old", 10, 10);
                target = Member::open(&to).unwrap();
            }
        }
    }
    target = reopen(target, &to);
    // The state of another log id than the raft core was told.
    let received = target.receive(&frames).unwrap().unwrap();
    let mut other = header.clone();
    other.applied = old_header(&target).applied;
    assert!(target.machine_install(received, &other).is_err(), "a snapshot of another log entry");
    stays(&target, "after a snapshot of another log entry");

    target = reopen(target, &to);
    let received = target.receive(&frames).unwrap().unwrap();
    target.machine_install(received, &header).unwrap();
    assert_eq!(target.held(), source.held(), "a whole one is taken after all that");
    target.close();
    source.close();
}

impl Member {
    fn machine_install(
        &mut self,
        received: tank_engine::snapshot::ReceivedSnapshot,
        header: &tank_engine::machine::Header,
    ) -> std::io::Result<()> {
        self.install(SnapshotData::Received(received), header)
    }
}

fn old_header(member: &Member) -> tank_engine::machine::Header {
    member.store().load(&std::sync::Arc::default()).unwrap().1
}

/// A member that failed is opened anew, as its supervisor would.
fn reopen(member: Member, dir: &Path) -> Member {
    let before = member.held();
    member.close();
    let member = Member::open(dir).unwrap();
    assert_eq!(member.held(), before, "another start gives the same state");
    member
}

fn record_length(records: &[u8]) -> usize {
    let length = |at: usize| u32::from_be_bytes(records[at..at + 4].try_into().unwrap()) as usize;
    length(0) + length(4)
}

const KILLS: usize = 24;

#[test]
fn killed_while_installing_it_holds_the_old_state_or_the_new_one() {
    let seed = rng::seed("TANK_SEED", 11);
    eprintln!("TANK_SEED={seed}");
    let mut rng = Rng::new(seed);
    let root = tempfile::tempdir().unwrap();
    let names = ["one", "two"];
    store(&root.path().join("one"), "one", 40, 2_000);
    store(&root.path().join("two"), "two", 300, 1_000);
    let target = root.path().join("target");
    store(&target, "old", 10, 10);
    let digests = names.map(|name| {
        let member = Member::open(&root.path().join(name)).unwrap();
        let digest = member.held().digest;
        member.close();
        digest
    });
    let (mut new, mut left_over) = (0, 0);
    let mut last = None;
    for round in 0..KILLS {
        let victim = Victim::start("snapshots::installs_until_it_is_killed", root.path(), &[]);
        // At least one whole install; then at any moment of the next ones.
        let mut said = victim.hear();
        for _ in 0..rng.below(3) {
            said = victim.hear();
        }
        let moment = Duration::from_micros(rng.below(20_000) as u64);
        std::thread::sleep(moment);
        said = victim.kill().pop().unwrap_or(said);
        let names = rocksdb::DB::list_cf(&rocksdb::Options::default(), target.join("db")).unwrap();
        left_over += usize::from(names.iter().filter(|name| name.starts_with("state_")).count() > 1);
        let member = Member::open(&target).unwrap_or_else(|error| panic!("TANK_SEED={seed}, round {round}: {error}"));
        let found = member.held().digest;
        let installed: u64 = said.parse().unwrap();
        assert!(digests.contains(&found), "TANK_SEED={seed}, round {round}: neither state");
        // The one that was reported, or the one after it, not yet reported.
        assert!(digests.contains(&installed));
        new += usize::from(found != installed);
        assert_eq!(member.generations().len(), 1, "round {round}: left-over generations are gone");
        assert!(!target.join("incoming").exists(), "round {round}: parts of a snapshot are gone");
        member.close();
        last = Some(found);
    }
    eprintln!("{KILLS} kills: the unreported state was there {new} times, a left-over generation {left_over} times");
    assert!(last.is_some());
}

/// Installs one state after the other on the same member, and says which.
#[test]
#[ignore = "started by other tests, to be killed"]
fn installs_until_it_is_killed() {
    let Some(root) = Victim::dir() else { return };
    let sources: Vec<PathBuf> = ["one", "two"].iter().map(|name| root.join(name)).collect();
    // Copies: this process is killed, and its sources are to stay as they are.
    let copies = tempfile::tempdir_in(&root).unwrap();
    let members: Vec<Member> = sources
        .iter()
        .enumerate()
        .map(|(number, source)| {
            let copy = copies.path().join(number.to_string());
            crate::support::copy_dir(source, &copy);
            Member::open(&copy).unwrap()
        })
        .collect();
    let mut target = Member::open(&root.join("target")).unwrap();
    for source in members.iter().cycle() {
        let (frames, header) = source.frames();
        let received = target.receive(&frames).unwrap().unwrap();
        target.machine_install(received, &header).unwrap();
        Victim::say(&target.held().digest.to_string());
    }
}

#[test]
fn a_snapshot_of_this_members_own_is_installed_too() {
    let root = tempfile::tempdir().unwrap();
    let (from, to) = (root.path().join("from"), root.path().join("to"));
    store(&from, "new", 50, 500);
    let source = Member::open(&from).unwrap();
    let mut target = Member::open(&to).unwrap();
    let pinned = Arc::new(source.store().pin().unwrap());
    let header = pinned.header().clone();
    target.install(SnapshotData::Pinned(pinned), &header).unwrap();
    assert_eq!(target.held(), source.held());
    assert_eq!(target.failures.lock().unwrap().len(), 0);
    target.close();
    source.close();
}

#[test]
fn while_a_snapshot_is_sent_the_log_since_then_is_kept_up_to_a_bound() {
    let dir = tempfile::tempdir().unwrap();
    let mut member = Member::open(dir.path()).unwrap();
    let mut index = 1;
    let mut write = |member: &mut Member, bytes: usize| {
        let id = RequestId { client: 1, sequence: index, resolved_below: index };
        let command = put("k", &vec![1; bytes]);
        member.apply(index, &[Request { id, time_ms: 1_000, command, seen_ms: 0 }]).unwrap();
        index += 1;
    };
    let build = |member: &mut Member, force: bool| {
        block_on(async {
            let builder = member.machine.try_create_snapshot_builder(force).await;
            match builder {
                Some(mut builder) => builder.build_snapshot().await.unwrap().meta.last_log_id.map(|id| id.index),
                None => None,
            }
        })
    };
    write(&mut member, 10);
    assert_eq!(build(&mut member, false), Some(1));
    write(&mut member, 10);
    let sent = block_on(member.machine.get_current_snapshot()).unwrap().unwrap();
    assert_eq!(build(&mut member, false), None, "a new one would have the log purged that its receiver needs next");
    drop(sent);
    assert_eq!(build(&mut member, false), Some(2), "it was sent");

    let sent = block_on(member.machine.get_current_snapshot()).unwrap().unwrap();
    write(&mut member, 10);
    assert_eq!(build(&mut member, true), Some(3), "one is needed at any rate");
    drop(sent);

    let sent = block_on(member.machine.get_current_snapshot()).unwrap().unwrap();
    for _part in 0..5 {
        assert_eq!(build(&mut member, false), None);
        write(&mut member, 14 << 20);
    }
    assert_eq!(build(&mut member, false), Some(8), "the log since then is larger than the state, and than 64 MiB");
    drop(sent);
    assert_eq!(member.failures.lock().unwrap().len(), 0);
    member.close();
}
