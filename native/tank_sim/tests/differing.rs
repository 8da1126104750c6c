//! One member skips a log entry, so that its state differs from that of the others: it is found, and serves nobody.

#![cfg(feature = "faults")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub
)]
#![allow(dead_code, reason = "each test binary uses a part of the bed")]

mod bed;

use std::sync::{Mutex, MutexGuard};

use tank_engine::alarms::{Alarm, Detail};
use tank_engine::engine::Engine;
use tank_engine::error::EngineError;
use tank_engine::faults;
use tank_engine::options::Formation;
use tank_engine::peers::MembershipChange;
use tank_engine::raft::Member;
use tank_engine::types::random_id;

use bed::{Cluster, change, eventually, get, put};

/// Fault points are those of all engines of the process.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Has one member, whichever is first, skip a write.
fn plant(writer: &Engine) {
    faults::arm("apply_entry", "1*return").unwrap();
    // The answer may be that of the leader that skipped it.
    let _ = put(writer, "skipped", b"by one");
}

fn alarm(engine: &Engine, name: &str) -> Option<Alarm> {
    engine.alarms().list().into_iter().find(|alarm| alarm.name == name)
}

fn detail(alarm: &Alarm, field: &str) -> Detail {
    alarm.details.iter().find(|(name, _)| *name == field).unwrap().1.clone()
}

fn the_one_that_differs(cluster: &Cluster) -> usize {
    let found = eventually("a member that knows that it differs", || {
        cluster
            .nodes
            .iter()
            .position(|engine| engine.as_ref().is_some_and(|engine| alarm(engine, "state_differs").is_some()))
    });
    faults::arm("apply_entry", "off").unwrap();
    found
}

#[test]
fn the_member_of_three_that_differs_serves_nobody_and_the_others_go_on() {
    let _turn = turn();
    for round in 0..3u8 {
        let cluster = Cluster::of(3);
        for i in 0..20u8 {
            put(cluster.engine(usize::from(i) % 3), &format!("k{i}"), &[i]).unwrap();
        }
        let led = cluster.leader();
        plant(cluster.engine((led + 1) % 3));
        let differs = the_one_that_differs(&cluster);
        eprintln!("round {round}: node {differs} differs, node {led} led");
        let alone = cluster.engine(differs);
        assert_eq!(detail(&alarm(alone, "state_differs").unwrap(), "replace"), Detail::Number(1));
        assert_eq!(alone.view().map(drop), Err(EngineError::Differs));
        assert_eq!(get(alone, "k0"), Err(EngineError::Differs));
        assert_eq!(put(alone, "k0", b"no"), Err(EngineError::Differs));
        let id = alone.identity().member_id;
        let others: Vec<usize> = (0..3).filter(|node| *node != differs).collect();
        let leader = eventually("one of the others to lead and to know", || {
            others.iter().copied().find(|node| {
                let engine = cluster.engine(*node);
                alarm(engine, "member_differs").is_some_and(|alarm| alarm.member == Some(id))
            })
        });
        for node in &others {
            put(cluster.engine(*node), "later", b"1").unwrap();
            assert_eq!(get(cluster.engine(*node), "k7").unwrap().unwrap()[..], [7]);
            assert!(alarm(cluster.engine(*node), "state_differs").is_none());
        }
        change(cluster.engine(leader), MembershipChange::Remove(id)).unwrap();
        eventually("no alarm about a member that is gone", || {
            others.iter().all(|node| cluster.engine(*node).alarms().list().is_empty()).then_some(())
        });
    }
}

#[test]
fn of_two_members_that_differ_the_leader_counts_and_the_operator_decides() {
    let _turn = turn();
    let cluster = Cluster::of(2);
    let led = cluster.leader();
    put(cluster.engine(led), "k", b"1").unwrap();
    plant(cluster.engine(led));
    let differs = the_one_that_differs(&cluster);
    assert_eq!(differs, (led + 1) % 2);
    assert_eq!(detail(&alarm(cluster.engine(differs), "state_differs").unwrap(), "replace"), Detail::Number(0));
    put(cluster.engine(led), "later", b"1").unwrap();
}

#[test]
fn a_learner_that_differs_is_not_promoted() {
    let _turn = turn();
    let mut cluster = Cluster::of(1);
    put(cluster.engine(0), "k", b"1").unwrap();
    cluster.nodes.push(None);
    let cluster_id = cluster.engine(0).identity().cluster_id;
    let member_id = random_id().unwrap();
    cluster.start(1, Formation::Joining { cluster_id, member_id });
    let member = Member { node: Cluster::name(1), witness: false };
    change(cluster.engine(0), MembershipChange::AddLearner(member_id, member)).unwrap();
    plant(cluster.engine(0));
    assert_eq!(change(cluster.engine(0), MembershipChange::Promote(member_id)), Err(EngineError::Differs));
    assert_eq!(the_one_that_differs(&cluster), 1);
    put(cluster.engine(0), "later", b"1").unwrap();
}
