//! Who may answer as the leader while leadership is given away: no read by a lease that may be replaced already.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tank_engine::engine::Engine;
use tank_engine::options::Formation;
use tank_engine::peers::MembershipChange;

use crate::bed::{Cluster, change, eventually, get, put, wait};

fn id(cluster: &Cluster, node: usize) -> u64 {
    cluster.engine(node).identity().member_id
}

fn answers_by_lease(engine: &Engine) -> bool {
    engine.status().unwrap().readable
}

/// A cluster of three whose leader answers by its lease, and that leader.
fn with_a_lease() -> (Cluster, usize) {
    let cluster = Cluster::of(3);
    put(cluster.engine(0), "a", b"1").unwrap();
    let leader = cluster.leader();
    eventually("a lease", || answers_by_lease(cluster.engine(leader)).then_some(()));
    (cluster, leader)
}

fn leads_elsewhere(cluster: &Cluster, old: usize) -> usize {
    let leads = |node: &usize| cluster.engine(*node).cluster().unwrap().role == "leader";
    eventually("another leader", || (0..3).filter(|node| *node != old).find(leads))
}

#[test]
fn a_leader_that_another_node_removes_answers_nothing_from_then_on() {
    let (cluster, old) = with_a_lease();
    let other = (old + 1) % 3;
    change(cluster.engine(other), MembershipChange::Remove(id(&cluster, old))).unwrap();
    assert!(!answers_by_lease(cluster.engine(old)));
    let new = leads_elsewhere(&cluster, old);
    put(cluster.engine(other), "a", b"2").unwrap();
    assert_eq!(get(cluster.engine(new), "a").unwrap().unwrap(), "2");
    eventually("it to lead no more", || (cluster.engine(old).cluster().unwrap().role != "leader").then_some(()));
    assert!(!answers_by_lease(cluster.engine(old)));
}

#[test]
fn a_leader_that_votes_no_more_hands_over() {
    let (cluster, old) = with_a_lease();
    change(cluster.engine(old), MembershipChange::Demote(id(&cluster, old))).unwrap();
    assert!(!answers_by_lease(cluster.engine(old)));
    leads_elsewhere(&cluster, old);
    put(cluster.engine(old), "a", b"2").unwrap();
    cluster.agree();
}

#[test]
fn a_leader_whose_leaving_takes_longer_than_it_is_waited_for_leaves_all_the_same() {
    for ms in [15, 25, 35] {
        let (cluster, old) = with_a_lease();
        cluster.net.delay(Duration::from_millis(15));
        // It is two entries, of which the second one follows a round trip after the first.
        let demote = MembershipChange::Demote(id(&cluster, old));
        let within = Duration::from_millis(ms);
        let result = wait(|reply| cluster.engine(old).change_members(demote, within, reply));
        eprintln!("within {ms} ms: {result:?}");
        let new = leads_elsewhere(&cluster, old);
        eventually("a lease", || answers_by_lease(cluster.engine(new)).then_some(()));
        assert!(!answers_by_lease(cluster.engine(old)));
    }
}

#[test]
fn a_change_that_is_refused_costs_no_lease() {
    let mut cluster = Cluster::of(2);
    cluster.nodes.push(None);
    cluster.join_as(2, true);
    let leader = cluster.leader();
    change(cluster.engine(leader), MembershipChange::Remove(id(&cluster, 1 - leader))).unwrap();
    assert!(change(cluster.engine(leader), MembershipChange::Remove(id(&cluster, leader))).is_err());
    eventually("a lease", || answers_by_lease(cluster.engine(leader)).then_some(()));
}

#[test]
fn a_removal_right_after_another_member_stopped_does_not_stop_the_cluster() {
    for _ in 0..3 {
        let mut cluster = Cluster::of(3);
        let leader = cluster.leader();
        let (stops, stays) = ((leader + 1) % 3, (leader + 2) % 3);
        put(cluster.engine(leader), "a", b"1").unwrap();
        cluster.stop(stops);
        let removal = MembershipChange::Remove(id(&cluster, stays));
        let result = wait(|reply| cluster.engine(leader).change_members(removal, Duration::from_secs(3), reply));
        assert!(result.is_err(), "of the two that were left, one had stopped");
        put(cluster.engine(leader), "a", b"2").unwrap();
    }
}

#[test]
fn a_leader_that_cannot_hand_over_answers_nothing_meanwhile_and_writes_go_on_afterwards() {
    let (cluster, old) = with_a_lease();
    let to = (old + 1) % 3;
    cluster.net.isolate(&Cluster::name(to));
    let (over, ended) = (AtomicBool::new(false), Duration::from_millis(800));
    thread::scope(|scope| {
        let handed_over = scope.spawn(|| {
            let result = wait(|reply| cluster.engine(old).transfer_leader(id(&cluster, to), ended, reply));
            over.store(true, Ordering::SeqCst);
            result
        });
        // It takes a moment to begin.
        eventually("it to give up its lease", || (!answers_by_lease(cluster.engine(old))).then_some(()));
        while !over.load(Ordering::SeqCst) {
            assert!(!answers_by_lease(cluster.engine(old)), "its followers were told to vote");
            thread::yield_now();
        }
        assert!(handed_over.join().unwrap().is_err());
    });
    let began = Instant::now();
    put(cluster.engine(old), "a", b"2").unwrap();
    eprintln!("a write took {:?} after the attempt", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[test]
fn a_witness_answers_nothing_though_it_leads_for_a_moment() {
    // It leads so briefly that whoever looks may miss it.
    let led = (0..5).any(|_| {
        let (led, answered) = leading_witness();
        assert!(!answered, "a witness answered");
        led
    });
    assert!(led, "the witness was not seen leading in five rounds");
}

/// Has a witness elected before the other member, which lacks entries. Gives whether it was seen leading, and whether
/// it answered.
fn leading_witness() -> (bool, bool) {
    let mut cluster = Cluster::of(2);
    cluster.nodes.push(None);
    cluster.join_as(2, true);
    let leader = cluster.leader();
    let lagging = 1 - leader;
    cluster.stop(lagging);
    for i in 0..50 {
        put(cluster.engine(leader), &format!("k{i}"), b"v").unwrap();
    }
    cluster.stop(leader);
    let witness = cluster.engine(2).clone();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watched = scope.spawn(|| {
            let (mut led, mut answered) = (false, false);
            while !over.load(Ordering::SeqCst) {
                led |= witness.cluster().unwrap().role == "leader";
                answered |= answers_by_lease(&witness);
            }
            (led, answered)
        });
        cluster.start(lagging, Formation::NewCluster);
        eventually("the lagging member to take writes", || put(cluster.engine(lagging), "later", b"1").ok());
        over.store(true, Ordering::SeqCst);
        watched.join().unwrap()
    })
}
