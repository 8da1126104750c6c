//! Elections: on links that are slow, cut or deaf on one side, and how soon there is a leader again.

use std::time::{Duration, Instant};

use tank_engine::options::Formation;
use tank_engine::peers::Channel;

use crate::bed::{Cluster, eventually, get, put};

/// One way.
const SLOW: Duration = Duration::from_millis(150);

fn term(cluster: &Cluster, node: usize) -> u64 {
    cluster.engine(node).cluster().unwrap().term
}

fn leads(cluster: &Cluster, node: usize) -> bool {
    cluster.engine(node).cluster().unwrap().role == "leader"
}

/// Who of `nodes` leads, once one of them does, and how long that took.
fn elected(cluster: &Cluster, nodes: &[usize]) -> (usize, Duration) {
    let started = Instant::now();
    let leader = eventually("a leader", || nodes.iter().copied().find(|node| leads(cluster, *node)));
    (leader, started.elapsed())
}

#[test]
fn a_leader_is_elected_where_a_round_trip_takes_longer_than_an_election() {
    let mut cluster = Cluster::of(3);
    let lost = cluster.leader();
    let before = term(&cluster, lost);
    cluster.net.delay(SLOW);
    cluster.stop(lost);
    let others: Vec<_> = (0..3).filter(|node| *node != lost).collect();
    let (leader, took) = elected(&cluster, &others);
    let terms = term(&cluster, leader) - before;
    eprintln!("elected after {took:?} and {terms} terms");
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(terms <= 3, "{terms} terms");
}

#[test]
fn members_that_never_had_a_leader_elect_one_where_a_round_trip_takes_longer_than_an_election() {
    let mut cluster = Cluster::of(3);
    cluster.leader();
    (0..3).for_each(|node| cluster.stop(node));
    cluster.net.delay(SLOW);
    (0..3).for_each(|node| cluster.start(node, Formation::NewCluster));
    let (_, took) = elected(&cluster, &[0, 1, 2]);
    eprintln!("elected after {took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn a_leader_tells_that_it_leads_without_waiting_for_answers() {
    let cluster = Cluster::of(3);
    let leader = cluster.leader();
    let follower = (leader + 1) % 3;
    cluster.net.delay(SLOW * 4);
    let before = cluster.net.sent(&Cluster::name(leader), &Cluster::name(follower), Channel::Control);
    let told = || cluster.net.sent(&Cluster::name(leader), &Cluster::name(follower), Channel::Control) - before;
    let started = Instant::now();
    // The answer to a heartbeat takes longer.
    eventually("a leader to say twenty times that it leads", || (told() >= 20).then_some(()));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[test]
fn a_leader_is_back_within_a_second_of_its_majority() {
    let cluster = Cluster::of(3);
    let old = cluster.leader();
    (0..3).for_each(|node| cluster.net.isolate(&Cluster::name(node)));
    eventually("the leader to notice that nobody answers", || (!leads(&cluster, old)).then_some(()));
    let before = term(&cluster, old);
    let other = Cluster::name((old + 1) % 3);
    let asked = || cluster.net.sent(&Cluster::name(old), &other, Channel::Control);
    let first = asked();
    eventually("it to ask often whether it may lead", || (asked() >= first + 10).then_some(()));
    assert_eq!(term(&cluster, old), before, "a member that nobody hears costs no terms");
    cluster.net.heal();
    let (leader, took) = elected(&cluster, &[0, 1, 2]);
    eprintln!("elected after {took:?} and {} terms", term(&cluster, leader) - before);
    assert!(took < Duration::from_secs(1), "{took:?}");
    put(cluster.engine(old), "a", b"1").unwrap();
}

#[test]
fn a_leader_that_hears_nobody_is_replaced_though_all_hear_it() {
    let cluster = Cluster::of(3);
    let old = cluster.leader();
    let others: Vec<_> = (0..3).filter(|node| *node != old).collect();
    for other in &others {
        cluster.net.cut(&Cluster::name(*other), &Cluster::name(old));
    }
    let (leader, took) = elected(&cluster, &others);
    eprintln!("elected after {took:?}");
    put(cluster.engine(leader), "a", b"1").unwrap();
}

#[test]
fn a_member_that_hears_nobody_costs_the_others_no_election() {
    let cluster = Cluster::of(3);
    let leader = cluster.leader();
    let deaf = (leader + 1) % 3;
    let before = term(&cluster, leader);
    for other in (0..3).filter(|node| *node != deaf) {
        cluster.net.cut(&Cluster::name(other), &Cluster::name(deaf));
    }
    let asked = || cluster.net.sent(&Cluster::name(deaf), &Cluster::name(leader), Channel::Control);
    let started = asked();
    eventually("the member to ask for votes again and again", || (asked() - started > 10).then_some(()));
    assert_eq!(term(&cluster, leader), before);
    cluster.net.heal();
    eventually("it to follow", || {
        let status = cluster.engine(deaf).cluster().unwrap();
        (status.leader == Some(cluster.engine(leader).identity().member_id) && status.quorum).then_some(())
    });
    assert_eq!(term(&cluster, leader), before);
}

#[test]
fn the_connection_to_the_leader_breaks_and_another_one_leads_soon() {
    for round in 0..5 {
        let mut cluster = Cluster::of(3);
        let lost = cluster.leader();
        let others: Vec<_> = (0..3).filter(|node| *node != lost).collect();
        cluster.net.isolate(&Cluster::name(lost));
        others.iter().for_each(|node| cluster.engine(*node).peer_lost(&Cluster::name(lost)));
        let (_, took) = elected(&cluster, &others);
        eprintln!("round {round}: elected after {took:?}");
        assert!(took < Duration::from_millis(500), "{took:?}");
        cluster.stop(lost);
    }
}

#[test]
fn a_leader_keeps_its_place_and_writes_where_a_round_trip_takes_longer_than_an_election() {
    let cluster = Cluster::of(3);
    let leader = cluster.leader();
    let follower = (leader + 1) % 3;
    put(cluster.engine(leader), "a", b"0").unwrap();
    let before = term(&cluster, leader);
    cluster.net.delay(SLOW);
    let began = Instant::now();
    let mut longest = Duration::ZERO;
    // Longer than a leader without a majority leads on.
    for number in (0..=u8::MAX).take_while(|_| began.elapsed() < Duration::from_secs(8)) {
        let started = Instant::now();
        put(cluster.engine(leader), "a", &[number]).unwrap();
        longest = longest.max(started.elapsed());
        assert_eq!(get(cluster.engine(follower), "a").unwrap().unwrap()[..], [number]);
        let status = cluster.engine(follower).cluster().unwrap();
        assert!(status.quorum, "{status:?}");
    }
    eprintln!("a put at the leader takes up to {longest:?}");
    assert_eq!(term(&cluster, leader), before);
    assert!(longest < SLOW * 2 * 2, "{longest:?}");
}

/// A segment of the leader's connections is lost, and lost again when it is sent again.
#[test]
fn signs_of_life_that_come_four_round_trips_late_cost_no_election() {
    let cluster = Cluster::of(3);
    let leader = cluster.leader();
    cluster.net.delay(SLOW);
    // All have measured the round trip then.
    for number in 0..20 {
        put(cluster.engine(leader), "a", &[number]).unwrap();
    }
    let before = term(&cluster, leader);
    cluster.net.stall(&Cluster::name(leader), SLOW * 2 * 4);
    put(cluster.engine(leader), "a", b"late").unwrap();
    put(cluster.engine(leader), "a", b"later").unwrap();
    assert_eq!(term(&cluster, leader), before);
}
