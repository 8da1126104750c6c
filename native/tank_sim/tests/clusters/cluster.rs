//! Three engines in one process: writes through any of them, a leader cut off, a member that comes
//! back by snapshot.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tank_engine::command::{Command, Op, Txn, Write};
use tank_engine::engine::{Engine, MemberStatus};
use tank_engine::error::EngineError;
use tank_engine::options::Formation;
use tank_engine::outcome::Outcome;
use tank_engine::peers::{Channel, MembershipChange};
use tank_engine::raft::Member;
use tank_engine::types::random_id;

use crate::bed::{Cluster, change, eventually, get, key, put, put_within, wait};

#[test]
fn every_member_writes_and_reads_what_was_written_anywhere() {
    let cluster = Cluster::of(3);
    for (i, engine) in cluster.running().enumerate() {
        assert!(matches!(put(engine, "a", &[i as u8]), Ok(Outcome::Done { .. })));
        assert_eq!(
            engine.view().unwrap().get(&key("a")).unwrap().payload.in_memory().unwrap()[..],
            [i as u8],
            "its own write, at once"
        );
        for reader in cluster.running() {
            assert_eq!(get(reader, "a").unwrap().unwrap()[..], [i as u8]);
        }
    }
    cluster.agree();
}

#[test]
fn a_leader_with_others_waits_for_no_disk_while_they_could_be_told() {
    let cluster = Cluster::of(3);
    let at_once = |engine: &tank_engine::engine::Engine| engine.status().unwrap().fsyncs_at_once;
    let leader = cluster.engine(cluster.leader());
    let before = at_once(leader);
    for i in 0..50u32 {
        put(leader, "a", &i.to_be_bytes()).unwrap();
    }
    assert_eq!(at_once(leader), before);
    cluster.agree();
}

#[test]
fn a_leader_that_is_cut_off_neither_writes_nor_answers_stale() {
    let cluster = Cluster::of(3);
    put(cluster.engine(0), "a", b"old").unwrap();
    let old = cluster.leader();
    cluster.net.isolate(&Cluster::name(old));
    let other = (old + 1) % 3;
    eventually("the others to take a write", || put(cluster.engine(other), "a", b"new").ok());
    let stale = cluster.engine(old).authoritative_view().unwrap().map(|view| view.get(&key("a")).cloned());
    assert!(stale.is_none(), "the old leader's lease must be over: {stale:?}");
    let started = Instant::now();
    let refused = put_within(cluster.engine(old), "a", b"lost", Duration::from_secs(1));
    assert!(matches!(refused, Err(EngineError::NoQuorum | EngineError::Unknown)), "{refused:?}");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    cluster.net.heal();
    assert_eq!(get(cluster.engine(old), "a").unwrap().unwrap(), "new");
    cluster.agree();
}

#[test]
fn a_member_that_was_away_comes_back_by_snapshot_while_writes_go_on() {
    let mut cluster = Cluster::with_snapshots_after(3, 200);
    let away = (cluster.leader() + 1) % 3;
    cluster.stop(away);
    let writer = cluster.leader_among_running();
    for i in 0..2_000u32 {
        put(cluster.engine(writer), &format!("k{}", i % 500), &[7; 500]).unwrap();
    }
    cluster.start(away, Formation::NewCluster);
    for i in 0..100u32 {
        put(cluster.engine(writer), &format!("k{i}"), b"later").unwrap();
    }
    cluster.agree();
    assert_eq!(get(cluster.engine(away), "k99").unwrap().unwrap(), "later");
}

#[test]
fn a_snapshot_arrives_also_when_frames_of_it_are_lost() {
    let mut cluster = Cluster::with_snapshots_after(3, 200);
    let away = (cluster.leader() + 1) % 3;
    cluster.stop(away);
    let writer = cluster.leader_among_running();
    for i in 0..1_000u32 {
        put(cluster.engine(writer), &format!("k{}", i % 500), &[7; 200]).unwrap();
    }
    // There are about ten, answers included: the first one that is lost is sent again, and so on.
    cluster.net.lose_one_of(4, 3, Channel::Data);
    cluster.start(away, Formation::NewCluster);
    cluster.agree();
}

#[test]
fn a_dead_member_is_removed_and_a_new_one_takes_its_node() {
    let mut cluster = Cluster::of(3);
    let dead = (cluster.leader() + 1) % 3;
    let id = cluster.engine(dead).identity().member_id;
    cluster.stop(dead);
    std::fs::remove_dir_all(cluster.path(dead)).unwrap();
    let alive = (dead + 1) % 3;
    change(cluster.engine(alive), MembershipChange::Remove(id)).unwrap();
    put(cluster.engine(alive), "a", b"1").unwrap();
    let cluster_id = cluster.engine(alive).identity().cluster_id;
    let member_id = random_id().unwrap();
    cluster.start(dead, Formation::Joining { cluster_id, member_id });
    change(
        cluster.engine(alive),
        MembershipChange::AddLearner(member_id, Member { node: Cluster::name(dead), witness: false }),
    )
    .unwrap();
    change(cluster.engine(alive), MembershipChange::Promote(member_id)).unwrap();
    assert_eq!(get(cluster.engine(dead), "a").unwrap().unwrap(), "1");
    assert_eq!(cluster.engine(dead).cluster().unwrap().members.len(), 3);
    cluster.agree();
}

#[test]
fn a_member_that_ends_before_the_cluster_reached_it_founds_no_other_one() {
    let mut cluster = Cluster::of(2);
    cluster.nodes.push(None);
    let cluster_id = cluster.engine(0).identity().cluster_id;
    let member_id = random_id().unwrap();
    let formation = Formation::Joining { cluster_id, member_id };
    cluster.start(2, formation);
    cluster.engine(2).discard_aside(false).unwrap();
    cluster.stop(2);
    // As it was promised to the cluster, it comes back as what it is: with nothing, and not on its own.
    cluster.start(2, Formation::NewCluster);
    assert_eq!(cluster.engine(2).identity().member_id, member_id);
    assert!(cluster.engine(2).cluster().unwrap().members.is_empty());
    let refused = put_within(cluster.engine(2), "a", b"1", Duration::from_millis(300));
    assert_eq!(refused, Err(EngineError::NoQuorum));
    let member = Member { node: Cluster::name(2), witness: false };
    change(cluster.engine(0), MembershipChange::AddLearner(member_id, member)).unwrap();
    change(cluster.engine(0), MembershipChange::Promote(member_id)).unwrap();
    put(cluster.engine(2), "a", b"2").unwrap();
    cluster.agree();
}

/// Member 2 of `cluster` is taken in as a learner, and ends before its promotion.
fn end_before_promotion(cluster: &mut Cluster, is_to_vote: bool) -> u64 {
    cluster.nodes.push(None);
    let cluster_id = cluster.engine(0).identity().cluster_id;
    let member_id = random_id().unwrap();
    cluster.start(2, Formation::Joining { cluster_id, member_id });
    let member = Member { node: Cluster::name(2), witness: false };
    change(cluster.engine(0), MembershipChange::AddLearner(member_id, member)).unwrap();
    cluster.engine(2).discard_aside(is_to_vote).unwrap();
    cluster.stop(2);
    cluster.start(2, Formation::NewCluster);
    member_id
}

/// Waits until all members, as each of them knows, are members, with so many votes.
fn await_voters(cluster: &Cluster, votes: usize) {
    eventually("all to know the voters", || {
        let mut all = cluster.running().map(|engine| engine.cluster().unwrap().members);
        let fits = |members: Vec<MemberStatus>| {
            members.len() == 3 && members.iter().filter(|member| member.voter).count() == votes
        };
        all.all(fits).then_some(())
    });
}

#[test]
fn a_learner_that_ended_before_its_promotion_is_promoted_after_its_restart() {
    let mut cluster = Cluster::of(2);
    let member_id = end_before_promotion(&mut cluster, true);
    await_voters(&cluster, 3);
    // It forgets that it was to vote, a moment later: it stays what its operator makes it.
    eventually("a learner that stays one", || {
        change(cluster.engine(0), MembershipChange::Demote(member_id)).unwrap();
        cluster.stop(2);
        cluster.start(2, Formation::NewCluster);
        stays_learner(&cluster, member_id).then_some(())
    });
}

#[test]
fn a_learner_that_is_to_stay_one_does_after_its_restart() {
    let mut cluster = Cluster::of(2);
    let member_id = end_before_promotion(&mut cluster, false);
    assert!(stays_learner(&cluster, member_id));
}

/// For longer than a learner that is to vote takes to ask for that.
fn stays_learner(cluster: &Cluster, member_id: u64) -> bool {
    let votes = |engine: &Engine| {
        let members = engine.cluster().unwrap().members;
        members.iter().any(|member| member.id == member_id && member.voter)
    };
    let until = Instant::now() + Duration::from_millis(2_500);
    while Instant::now() < until {
        if votes(cluster.engine(0)) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

#[test]
fn a_witness_serves_nobody_and_never_stays_the_leader() {
    let mut cluster = Cluster::of(2);
    cluster.nodes.push(None);
    cluster.join_as(2, true);
    put(cluster.engine(0), "a", b"1").unwrap();
    let refused = |result: EngineError| assert_eq!(result, EngineError::Witness);
    refused(put(cluster.engine(2), "a", b"2").unwrap_err());
    refused(cluster.engine(2).view().map(drop).unwrap_err());
    refused(cluster.engine(2).authoritative_view().map(drop).unwrap_err());
    // Also after a restart, when nobody tells it.
    cluster.stop(2);
    cluster.start(2, Formation::NewCluster);
    refused(put(cluster.engine(2), "a", b"2").unwrap_err());

    // Either of the others goes on with it alone.
    for lost in [0, 1] {
        cluster.stop(lost);
        let other = 1 - lost;
        put(cluster.engine(other), "a", b"3").unwrap();
        assert_eq!(cluster.leader_among_running(), other);
        cluster.start(lost, Formation::NewCluster);
        cluster.agree();
    }
    // Nobody could lead without them.
    let leader = cluster.leader();
    let ids: Vec<_> = (0..2).map(|node| cluster.engine(node).identity().member_id).collect();
    change(cluster.engine(leader), MembershipChange::Remove(ids[1 - leader])).unwrap();
    assert_eq!(change(cluster.engine(leader), MembershipChange::Remove(ids[leader])), Err(EngineError::OnlyWitnesses));
    assert_eq!(change(cluster.engine(leader), MembershipChange::Demote(ids[leader])), Err(EngineError::OnlyWitnesses));
    put(cluster.engine(leader), "a", b"4").unwrap();
}

/// What only the lost leader and the witness have must not be lost with the leader, and must not
/// stop the cluster: the witness brings the other member up to date, and hands over.
fn a_lagging_member_leads_after(writes: u32, snapshot_interval_entries: u64) {
    let mut cluster = Cluster::with_snapshots_after(2, snapshot_interval_entries);
    cluster.nodes.push(None);
    cluster.join_as(2, true);
    let leader = cluster.leader();
    let lagging = 1 - leader;
    cluster.stop(lagging);
    for i in 0..writes {
        put(cluster.engine(leader), &format!("k{i}"), &[7; 100]).unwrap();
    }
    cluster.stop(leader);
    cluster.start(lagging, Formation::NewCluster);
    eventually("the lagging member to take writes", || put(cluster.engine(lagging), "later", b"1").ok());
    eventually("the witness to hand over", || (cluster.leader_among_running() == lagging).then_some(()));
    for i in 0..writes {
        assert!(get(cluster.engine(lagging), &format!("k{i}")).unwrap().is_some(), "k{i} was acknowledged");
    }
    cluster.start(leader, Formation::NewCluster);
    cluster.agree();
}

#[test]
fn a_witness_hands_on_what_it_alone_has() {
    a_lagging_member_leads_after(50, 20_000);
}

#[test]
fn a_witness_hands_on_what_is_in_its_log_no_more() {
    a_lagging_member_leads_after(1_000, 200);
}

#[test]
fn a_survivor_of_a_lost_quorum_goes_on_alone_with_all_it_has() {
    let mut cluster = Cluster::of(3);
    let survivor = (cluster.leader() + 1) % 3;
    for i in 0..50u8 {
        put(cluster.engine(survivor), &format!("k{i}"), &[i]).unwrap();
    }
    let before = cluster.engine(survivor).identity().clone();
    for node in 0..3 {
        cluster.stop(node);
    }
    let cluster_id = random_id().unwrap();
    cluster.start(survivor, Formation::ForceNew { cluster_id });
    let alone = cluster.engine(survivor);
    assert_eq!((alone.identity().cluster_id, alone.identity().member_id), (cluster_id, before.member_id));
    assert_eq!(alone.cluster().unwrap().members.len(), 1);
    for i in 0..50u8 {
        assert_eq!(get(alone, &format!("k{i}")).unwrap().unwrap()[..], [i]);
    }
    put(alone, "k0", b"later").unwrap();
    // The others, should they come back, cannot reach it; nor take its place.
    for node in (0..3).filter(|node| *node != survivor) {
        cluster.start(node, Formation::NewCluster);
    }
    put(cluster.engine(survivor), "k1", b"later").unwrap();
    cluster.stop(survivor);
    cluster.start(survivor, Formation::NewCluster);
    assert_eq!(get(cluster.engine(survivor), "k1").unwrap().unwrap(), "later");
    assert_eq!(cluster.engine(survivor).cluster().unwrap().members.len(), 1);
}

#[test]
fn a_leader_refuses_what_is_over_its_limit_though_another_member_would_take_it() {
    let mut cluster = Cluster::of(3);
    let generous = (cluster.leader() + 1) % 3;
    cluster.stop(generous);
    cluster.start_with(generous, Formation::NewCluster, |options| options.txn_bytes_max = 64 << 20);
    put(cluster.engine(generous), "a", b"1").unwrap();
    let large = |count: usize| {
        let put = |i| Op::Put(Write::new(key(&format!("k{i}")), Bytes::from(vec![7; 10 << 20])));
        let txn = Txn { compare: vec![], then: (0..count).map(put).collect(), otherwise: vec![] };
        wait(|reply| {
            if let Err((error, reply)) = cluster.engine(generous).write(Command::Txn(txn), reply) {
                reply.send(Err(error));
            }
        })
    };
    let refused = large(4);
    assert!(
        matches!(refused, Err(EngineError::TooLarge { what: "txn", limit, .. }) if limit == 32 << 20),
        "{:?}",
        refused.map(drop)
    );
    assert!(cluster.engine(generous).view().unwrap().get(&key("k0")).is_none());
    put(cluster.engine(generous), "a", b"2").unwrap();
    cluster.agree();
}
