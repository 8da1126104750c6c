//! Writes that come in at a follower in numbers.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use tank_engine::engine::Engine;
use tank_engine::error::EngineError;
use tank_engine::peers::Channel;

use crate::bed::{Cluster, TIMEOUT, eventually, get, put, put_within, wait};

const WRITERS: usize = 64;

/// Each writer writes so many values of its own, one after the other.
fn write_many(engine: &Engine, rounds: usize) -> Vec<JoinHandle<Result<(), EngineError>>> {
    let writer = |number: usize| {
        let engine = engine.clone();
        thread::spawn(move || {
            (0..rounds).try_for_each(|round| {
                put_within(&engine, &format!("{number}"), &[u8::try_from(round).unwrap()], TIMEOUT).map(drop)
            })
        })
    };
    (0..WRITERS).map(writer).collect()
}

fn all_succeed(writers: Vec<JoinHandle<Result<(), EngineError>>>) {
    writers.into_iter().for_each(|writer| writer.join().unwrap().unwrap());
}

#[test]
fn writes_that_come_together_go_to_the_leader_together() {
    let cluster = Cluster::of(3);
    let leader = cluster.leader();
    let follower = (leader + 1) % 3;
    put(cluster.engine(follower), "before", b"1").unwrap();
    // Those that are answered together write again together.
    cluster.net.delay(Duration::from_millis(20));
    let sent = || cluster.net.sent(&Cluster::name(follower), &Cluster::name(leader), Channel::Data);
    let before = sent();
    let rounds = 10;
    all_succeed(write_many(cluster.engine(follower), rounds));
    let frames = sent() - before;
    // Alone, each would be a frame. How many come together depends on how busy the machine is.
    assert!(frames < (WRITERS * rounds) as u64, "{frames} frames for {} writes", WRITERS * rounds);
    for number in 0..WRITERS {
        assert_eq!(get(cluster.engine(follower), &format!("{number}")).unwrap().unwrap()[..], [9]);
    }
}

#[test]
fn writes_that_are_on_their_way_when_the_leader_changes_are_applied_once() {
    let cluster = Cluster::of(3);
    let first = cluster.leader();
    let (second, follower) = ((first + 1) % 3, (first + 2) % 3);
    put(cluster.engine(follower), "before", b"1").unwrap();
    let revision = |node: usize| cluster.engine(node).view().unwrap().revision;
    let before = revision(follower);
    cluster.net.hold(&Cluster::name(follower), &Cluster::name(first), Channel::Data);
    let writers = write_many(cluster.engine(follower), 1);
    eventually("the writes on their way", || (cluster.net.held() > 0).then_some(()));
    let id = cluster.engine(second).identity().member_id;
    eventually("the leader to hand over", || {
        let leader = cluster.leader();
        (leader == second || wait(|reply| cluster.engine(leader).transfer_leader(id, TIMEOUT, reply)).is_ok())
            .then_some(())
    });
    all_succeed(writers);
    cluster.net.release();
    put(cluster.engine(follower), "after", b"1").unwrap();
    cluster.agree();
    assert_eq!(revision(follower) - before, WRITERS as u64 + 1);
}
