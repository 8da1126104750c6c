//! Writes that come in at a follower in numbers.

use std::sync::mpsc::{self, Receiver};

use bytes::Bytes;
use tank_engine::command::{Command, Write};
use tank_engine::engine::{Engine, Reply};
use tank_engine::error::EngineError;
use tank_engine::outcome::Outcome;
use tank_engine::peers::Channel;

use crate::bed::{Cluster, TIMEOUT, eventually, get, key, put, wait};

const ON_THE_WAY: usize = 64;
const WRITES: usize = 640;

/// Puts a value; the answer comes later.
fn begin_put(engine: &Engine, number: usize) -> Receiver<Result<Outcome, EngineError>> {
    let (sender, answer) = mpsc::channel();
    let reply = Reply::new(move |result| drop(sender.send(result)));
    let write = Write::new(key(&format!("{number}")), Bytes::from_static(&[1]));
    if let Err((error, reply)) = engine.write_within(Command::Put(write), TIMEOUT, reply) {
        reply.send(Err(error));
    }
    answer
}

#[test]
fn writes_that_come_together_go_to_the_leader_together() {
    let cluster = Cluster::of(3);
    let leader = cluster.leader();
    let follower = (leader + 1) % 3;
    put(cluster.engine(follower), "before", b"1").unwrap();
    let sent = || cluster.net.sent(&Cluster::name(follower), &Cluster::name(leader), Channel::Data);
    let before = sent();
    // One thread hands them over without a wait: while one message is made, the next writes come.
    let answers: Vec<_> = (0..WRITES).map(|number| begin_put(cluster.engine(follower), number)).collect();
    answers.into_iter().for_each(|answer| assert!(answer.recv_timeout(TIMEOUT).unwrap().is_ok()));
    let frames = sent() - before;
    assert!(frames < WRITES as u64 / 2, "{frames} frames for {WRITES} writes");
    for number in 0..WRITES {
        assert_eq!(get(cluster.engine(follower), &format!("{number}")).unwrap().unwrap()[..], [1]);
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
    let answers: Vec<_> = (0..ON_THE_WAY).map(|number| begin_put(cluster.engine(follower), number)).collect();
    eventually("the writes on their way", || (cluster.net.held() > 0).then_some(()));
    let id = cluster.engine(second).identity().member_id;
    eventually("the leader to hand over", || {
        let leader = cluster.leader();
        (leader == second || wait(|reply| cluster.engine(leader).transfer_leader(id, TIMEOUT, reply)).is_ok())
            .then_some(())
    });
    answers.into_iter().for_each(|answer| assert!(answer.recv_timeout(TIMEOUT).unwrap().is_ok()));
    cluster.net.release();
    put(cluster.engine(follower), "after", b"1").unwrap();
    cluster.agree();
    assert_eq!(revision(follower) - before, ON_THE_WAY as u64 + 1);
}
