//! Thousands of callers without a majority: what they cost, and that each is answered in time, and once.

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

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tank_engine::command::{Command, Write};
use tank_engine::engine::{Engine, Reply};
use tank_engine::error::EngineError;

use bed::{Cluster, eventually, key};

const CALLERS: usize = 20_000;

type Answers = Receiver<(Result<(), EngineError>, Instant)>;

/// Hands over as many writes and reads, half of each.
fn call(engine: &Engine, count: usize, timeout: Duration) -> Answers {
    let (sender, answers) = mpsc::channel();
    for number in 0..count {
        let sender: Sender<_> = sender.clone();
        if number % 2 == 0 {
            let write = Write::new(key("a"), Bytes::from_static(b"v"));
            let reply = Reply::new(move |result: Result<_, _>| drop(sender.send((result.map(drop), Instant::now()))));
            assert!(engine.write_within(Command::Put(write), timeout, reply).is_ok());
        } else {
            let reply = Reply::new(move |result| drop(sender.send((result, Instant::now()))));
            assert!(engine.await_readable(timeout, reply).is_ok());
        }
    }
    answers
}

/// The processor time of this process. In hundredths of a second: that is what Linux counts in.
fn used() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().map(|at| fields[*at].parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

fn without_majority(cluster: &Cluster) {
    (0..3).for_each(|node| cluster.net.isolate(&Cluster::name(node)));
    eventually("the leader to notice", || {
        cluster.running().all(|engine| engine.cluster().unwrap().role != "leader").then_some(())
    });
}

#[cfg(target_os = "linux")]
#[test]
fn callers_without_a_majority_cost_little_and_are_answered_when_it_is_back() {
    let cluster = Cluster::of(3);
    let caller = cluster.engine((cluster.leader() + 1) % 3);
    without_majority(&cluster);
    let answers = call(caller, CALLERS, Duration::from_secs(60));
    thread::sleep(Duration::from_secs(1));
    let (began, before) = (Instant::now(), used());
    let while_waiting: u64 = std::env::var("TANK_HERD_SECONDS").map_or(4, |seconds| seconds.parse().unwrap());
    thread::sleep(Duration::from_secs(while_waiting));
    let share = (used() - before).as_secs_f64() / began.elapsed().as_secs_f64();
    eprintln!("{CALLERS} callers take {:.1} % of a core", share * 100.0);
    assert!(share < 0.3, "{share}");
    assert!(answers.try_recv().is_err(), "nobody can be answered yet");
    cluster.net.heal();
    let healed = Instant::now();
    let leads = |engine: &Engine| engine.cluster().unwrap().role == "leader";
    eventually("a leader", || cluster.running().any(leads).then_some(()));
    assert!(healed.elapsed() < Duration::from_secs(1), "{:?}", healed.elapsed());
    for _ in 0..CALLERS {
        let (answer, _) = answers.recv_timeout(Duration::from_secs(20)).expect("an answer");
        assert_eq!(answer, Ok(()));
    }
    eprintln!("all were answered {:?} after the majority was back", healed.elapsed());
    // Each write once.
    let revision = caller.status().unwrap().revision;
    assert_eq!(revision, CALLERS as u64 / 2);
}

#[test]
fn each_caller_without_a_majority_is_told_so_when_its_time_is_over() {
    const TIMEOUT: Duration = Duration::from_secs(1);
    let cluster = Cluster::of(3);
    let caller = cluster.engine((cluster.leader() + 1) % 3);
    without_majority(&cluster);
    let began = Instant::now();
    let answers = call(caller, CALLERS, TIMEOUT);
    let handed_over = began.elapsed();
    for _ in 0..CALLERS {
        let (answer, at) = answers.recv_timeout(TIMEOUT * 10).expect("an answer");
        assert!(matches!(answer, Err(EngineError::NoQuorum | EngineError::Unknown)), "{answer:?}");
        let took = at - began;
        assert!(took >= TIMEOUT - Duration::from_millis(1), "{took:?}");
        assert!(took < TIMEOUT + handed_over + Duration::from_millis(500), "{took:?}");
    }
}

#[test]
fn a_write_that_a_lonely_leader_cannot_commit_is_answered_in_time() {
    const TIMEOUT: Duration = Duration::from_secs(1);
    let cluster = Cluster::of(3);
    let leader = cluster.engine(cluster.leader());
    cluster.net.isolate(&Cluster::name(cluster.leader()));
    let began = Instant::now();
    let write = Write::new(key("a"), Bytes::from_static(b"v"));
    let answer = bed::wait(|reply| drop(leader.write_within(Command::Put(write), TIMEOUT, reply)));
    assert!(matches!(answer, Err(EngineError::Unknown | EngineError::NoQuorum)), "{answer:?}");
    assert!(began.elapsed() < TIMEOUT + Duration::from_millis(500), "{:?}", began.elapsed());
    assert_eq!(leader.status().unwrap().in_flight, 0, "its place is free");
}
