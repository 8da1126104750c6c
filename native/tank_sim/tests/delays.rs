//! Nothing that takes long keeps a member's tasks from running, heartbeats among them: a probe on the runtimes of
//! real members measures how late tasks are woken, while a member catches up.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]
#![allow(missing_docs, unreachable_pub, dead_code)]

mod bed;

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use bytes::Bytes;
use tank_engine::command::{Command, Write};
use tank_engine::engine::{Engine, Reply};
use tank_engine::options::Formation;
use tank_engine::peers::MembershipChange;
use tank_engine::probe::Probe;
use tank_engine::raft::Member;
use tank_engine::types::random_id;
use tank_sim::{Rng, wait};

use bed::Cluster;

/// What is measured, and fault points, which are the process's, are one test's at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// How late a task may be woken.
const DELAY_MAX: Duration = Duration::from_millis(20);

const VALUE_BYTES: usize = 256 << 10;

/// Writes on their way at a time.
const WINDOW: usize = 16;

fn probe(engine: &Engine) -> Probe {
    let probe = engine.probe().unwrap();
    wait::until("the probe", Duration::from_secs(20), || probe.looks(), |looks| *looks > 10).unwrap();
    let _ = probe.take_worst();
    probe
}

fn assert_never_late(probe: &Probe, who: &str) {
    let (worst, looks) = (probe.take_worst(), probe.looks());
    eprintln!("{who}: a task was woken up to {worst:?} late, of {looks} looks");
    assert!(worst <= DELAY_MAX, "{who}: a task was woken {worst:?} late");
}

/// Writes about so many bytes, which cannot be compressed, some at a time.
fn fill(engine: &Engine, bytes: usize) {
    let mut rng = Rng::new(7);
    let mut open = VecDeque::new();
    for number in 0..bytes / VALUE_BYTES {
        let value: Vec<u8> = (0..VALUE_BYTES / 8).flat_map(|_| (rng.below(usize::MAX) as u64).to_be_bytes()).collect();
        let command = Command::Put(Write::new(bed::key(&format!("{number}")), Bytes::from(value)));
        let (sender, written) = mpsc::channel();
        let reply = Reply::new(move |result| drop(sender.send(result)));
        assert!(engine.write_within(command, Duration::from_secs(60), reply).is_ok());
        open.push_back(written);
        if open.len() == WINDOW {
            let written: mpsc::Receiver<_> = open.pop_front().unwrap();
            written.recv_timeout(Duration::from_secs(60)).unwrap().unwrap();
        }
    }
    for written in open {
        written.recv_timeout(Duration::from_secs(60)).unwrap().unwrap();
    }
}

/// A member joins whose snapshot has about so many bytes. It finds what another transfer left: files that it has to
/// remove first.
fn a_snapshot_of(bytes: usize, left_over: usize) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut cluster = Cluster::with_snapshots_after(1, 50);
    fill(cluster.engine(0), bytes);
    let cluster_id = cluster.engine(0).identity().cluster_id;
    let member_id = random_id().unwrap();
    cluster.nodes.push(None);
    cluster.start(1, Formation::Joining { cluster_id, member_id });
    let incoming = cluster.path(1).join("incoming");
    std::fs::create_dir_all(&incoming).unwrap();
    for number in 0..left_over {
        std::fs::write(incoming.join(format!("{number}.sst")), b"left over").unwrap();
    }
    let (sending, receiving) = (probe(cluster.engine(0)), probe(cluster.engine(1)));
    let member = Member { node: Cluster::name(1), witness: false };
    let (sender, added) = mpsc::channel();
    let reply = Reply::new(move |result| drop(sender.send(result)));
    let within = Duration::from_secs(300);
    cluster.engine(0).change_members(MembershipChange::AddLearner(member_id, member), within, reply);
    added.recv_timeout(within).unwrap().unwrap();
    let revisions = || [0, 1].map(|node| cluster.engine(node).status().unwrap().revision);
    wait::until("the snapshot to be installed", within, revisions, |[one, other]| one == other).unwrap();
    assert!(!incoming.join("0.sst").exists(), "it came as a snapshot");
    assert_never_late(&sending, "the member that sends a snapshot");
    assert_never_late(&receiving, "the member that receives a snapshot");
}

#[test]
fn a_snapshot_that_is_sent_and_received_delays_no_task() {
    a_snapshot_of(48 << 20, 20_000);
}

#[test]
#[ignore = "long: a snapshot of a gigabyte"]
fn a_large_snapshot_that_is_sent_and_received_delays_no_task() {
    a_snapshot_of(1 << 30, 100_000);
}

/// What a member lacks is no longer in its leader's memory, and the disks are slow: the leader reads its log, while
/// its log's writer waits for the disk.
#[cfg(feature = "faults")]
#[test]
fn a_member_that_lags_is_served_from_a_slow_disk_without_delay() {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tank_engine::faults;

    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = Cluster::of(3);
    let leader = cluster.leader();
    let lagging = (leader + 1) % 3;
    let engine = cluster.engine(leader);
    cluster.net.isolate(&Cluster::name(lagging));
    // More than the log's tail in memory.
    fill(engine, 64 << 20);
    let behind = cluster.engine(lagging).status().unwrap().revision;
    let probe = probe(engine);
    faults::arm("log_sync", "sleep(500)").unwrap();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // So that the writer waits for the disk all the time.
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let _ = bed::put_within(engine, "meanwhile", b"value", Duration::from_secs(5));
            }
        });
        cluster.net.heal();
        let revision = || cluster.engine(lagging).status().unwrap().revision;
        wait::until("the member to catch up", Duration::from_secs(120), revision, |now| *now >= behind + 200).unwrap();
        ended.store(true, Ordering::Relaxed);
        faults::arm("log_sync", "off").unwrap();
    });
    assert_never_late(&probe, "the leader of a member that lags");
}
