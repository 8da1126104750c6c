//! Members whose disks went back in time: old copies of their directories.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tank_engine::error::EngineError;
use tank_engine::options::Formation;
use tank_engine::peers::MembershipChange;

use crate::bed::{Cluster, change, eventually, get_within, key, put, put_within};

const LOG_LOST: &str = "log_lost";
const HISTORY_LOST: &str = "history_lost";

/// Longer than it takes to elect a leader, or to notice.
const LONG: Duration = Duration::from_secs(2);

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.metadata().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// Copies the directory of a member, which is restarted for that.
fn copy(cluster: &mut Cluster, node: usize) -> PathBuf {
    let copy = cluster.path(node).with_extension("copy");
    cluster.stop(node);
    copy_dir(&cluster.path(node), &copy);
    start(cluster, node);
    cluster.agree();
    copy
}

/// Puts a copy in the place of the directory of a member that does not run.
fn put_back(cluster: &Cluster, node: usize, copy: &Path) {
    std::fs::remove_dir_all(cluster.path(node)).unwrap();
    copy_dir(copy, &cluster.path(node));
}

fn start(cluster: &mut Cluster, node: usize) {
    cluster.start(node, Formation::NewCluster);
}

fn fill(cluster: &Cluster, through: usize, name: &str) {
    for i in 0..50 {
        put(cluster.engine(through), &format!("{name}{i}"), b"x").unwrap();
    }
}

fn leads(cluster: &Cluster, node: usize) -> bool {
    cluster.engine(node).cluster().unwrap().role == "leader"
}

fn id(cluster: &Cluster, node: usize) -> u64 {
    cluster.engine(node).identity().member_id
}

fn is_raised(cluster: &Cluster, at: usize, name: &'static str, about: u64) -> bool {
    cluster.engine(at).alarms().is_raised(name, Some(about))
}

fn await_alarm(cluster: &Cluster, at: usize, name: &'static str, about: u64) {
    eventually(name, || is_raised(cluster, at, name, about).then_some(()));
}

/// Waits until `at` knows that the member `id` has acknowledged all that `leader` has. It may apply entries before that.
fn await_known(cluster: &Cluster, at: usize, leader: usize, id: u64) {
    let has = cluster.engine(leader).cluster().unwrap().last_log_index;
    eventually("how far the member has come to be known", || {
        (cluster.engine(at).known_progress(id)?.1.map(|last| last.index()) >= has).then_some(())
    });
}

fn no_alarms(cluster: &Cluster) {
    for engine in cluster.running() {
        assert!(engine.alarms().list().is_empty(), "{:?}", engine.alarms());
    }
}

/// The leader and two followers, the first of which can be replaced.
fn roles(cluster: &Cluster) -> (usize, usize, usize) {
    let leader = cluster.leader();
    let back = (1..3).find(|node| *node != leader).unwrap();
    (leader, back, 3 - leader - back)
}

#[test]
fn a_member_that_went_back_counts_for_nothing_until_it_is_replaced() {
    let mut cluster = Cluster::of(3);
    let (leader, back, other) = roles(&cluster);
    let old = copy(&mut cluster, back);
    fill(&cluster, leader, "a");
    cluster.agree();
    let lost = id(&cluster, back);
    await_known(&cluster, leader, leader, lost);
    cluster.stop(back);
    put_back(&cluster, back, &old);
    start(&mut cluster, back);
    await_alarm(&cluster, back, LOG_LOST, lost);
    await_alarm(&cluster, leader, LOG_LOST, lost);
    fill(&cluster, leader, "b");
    assert_eq!(put(cluster.engine(back), "c", b"x"), Err(EngineError::LogLost));

    // It would make a majority, and is none.
    cluster.stop(other);
    assert!(put_within(cluster.engine(leader), "c", b"x", LONG).is_err());
    start(&mut cluster, other);
    eventually("a majority", || put(cluster.engine(other), "c", b"x").ok());

    cluster.stop(back);
    std::fs::remove_dir_all(cluster.path(back)).unwrap();
    change(cluster.engine(0), MembershipChange::Remove(lost)).unwrap();
    cluster.join(back);
    fill(&cluster, back, "d");
    cluster.agree();
    eventually("no alarms", || cluster.running().all(|engine| engine.alarms().list().is_empty()).then_some(()));
}

#[test]
fn a_candidate_does_not_get_the_vote_of_one_that_went_back() {
    let mut cluster = Cluster::of(3);
    let (leader, back, behind) = roles(&cluster);
    let old = copy(&mut cluster, back);
    cluster.net.isolate(&Cluster::name(behind));
    fill(&cluster, leader, "a");
    cluster.net.heal();
    await_known(&cluster, behind, leader, id(&cluster, back));
    let lost = id(&cluster, back);
    cluster.stop(back);
    cluster.stop(leader);
    put_back(&cluster, back, &old);
    start(&mut cluster, back);
    await_alarm(&cluster, back, LOG_LOST, lost);
    assert!(put_within(cluster.engine(behind), "b", b"x", LONG).is_err(), "one of three is no majority");
    await_alarm(&cluster, behind, LOG_LOST, lost);
    start(&mut cluster, leader);
    eventually("a majority", || put(cluster.engine(leader), "b", b"x").ok());
}

#[test]
fn a_copy_from_when_the_member_was_alone_is_told_by_the_others() {
    let mut cluster = Cluster::of(1);
    let old = copy(&mut cluster, 0);
    cluster.nodes.resize(3, None);
    (1..3).for_each(|node| cluster.join(node));
    fill(&cluster, 1, "a");
    cluster.agree();
    let lost = id(&cluster, 0);
    cluster.stop(0);
    let leader = eventually("another leader", || (1..3).find(|node| leads(&cluster, *node)));
    put_back(&cluster, 0, &old);
    start(&mut cluster, 0);
    await_alarm(&cluster, 0, LOG_LOST, lost);
    await_alarm(&cluster, leader, LOG_LOST, lost);
    assert_eq!(put(cluster.engine(0), "c", b"x"), Err(EngineError::LogLost));
    fill(&cluster, leader, "b");
}

#[test]
fn members_that_lost_nothing_go_on() {
    let mut cluster = Cluster::of(3);
    let (leader, back, _) = roles(&cluster);
    fill(&cluster, leader, "a");
    cluster.agree();
    cluster.stop(back);
    let old = cluster.path(back).with_extension("copy");
    copy_dir(&cluster.path(back), &old);
    fill(&cluster, leader, "b");
    put_back(&cluster, back, &old);
    start(&mut cluster, back);
    cluster.agree();
    no_alarms(&cluster);
    for _ in 0..3 {
        (0..3).for_each(|node| cluster.stop(node));
        (0..3).for_each(|node| start(&mut cluster, node));
        fill(&cluster, 0, "c");
        cluster.agree();
        no_alarms(&cluster);
    }
}

/// Three members of which two went back, and the third did not. None runs.
fn most_went_back() -> (Cluster, [usize; 2], usize) {
    let mut cluster = Cluster::of(3);
    let (kept, first, second) = roles(&cluster);
    let copies = [first, second].map(|node| (node, copy(&mut cluster, node)));
    let leader = cluster.leader();
    fill(&cluster, leader, "kept");
    cluster.agree();
    for node in [first, second] {
        await_known(&cluster, kept, leader, id(&cluster, node));
    }
    (0..3).for_each(|node| cluster.stop(node));
    copies.iter().for_each(|(node, old)| put_back(&cluster, *node, old));
    (cluster, [first, second], kept)
}

fn holds(cluster: &Cluster, node: usize, name: &str) -> bool {
    cluster.engine(node).view().unwrap().get(&key(name)).is_some()
}

#[test]
fn a_majority_that_went_back_does_not_count_while_somebody_knows() {
    let (mut cluster, back, kept) = most_went_back();
    start(&mut cluster, kept);
    for node in back {
        start(&mut cluster, node);
        let lost = id(&cluster, node);
        await_alarm(&cluster, node, LOG_LOST, lost);
    }
    assert!(get_within(cluster.engine(kept), "kept49", LONG).is_err(), "there is no majority");
    eventually("all that was acknowledged", || holds(&cluster, kept, "kept49").then_some(()));
}

#[test]
fn what_was_committed_before_a_majority_went_back_stays_with_who_has_it() {
    let (mut cluster, back, kept) = most_went_back();
    back.iter().for_each(|node| start(&mut cluster, *node));
    fill(&cluster, back[0], "other");
    let forgot = cluster.leader_among_running();
    start(&mut cluster, kept);
    let has_kept = id(&cluster, kept);
    await_alarm(&cluster, kept, HISTORY_LOST, has_kept);
    await_alarm(&cluster, forgot, HISTORY_LOST, has_kept);
    assert!(holds(&cluster, kept, "kept49") && !holds(&cluster, kept, "other49"));
    assert_eq!(put(cluster.engine(kept), "c", b"x"), Err(EngineError::HistoryLost));
}
