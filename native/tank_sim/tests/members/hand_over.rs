//! A leader whose disk fails: another member leads before the lease of the first one is over.

use std::future::Future;
use std::time::Duration;

use tank_engine::command::{Command, Write};
use tank_engine::options::Timing;
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, key};
use crate::links::Links;
use crate::oracle::Oracle;
use crate::trace::Trace;

const LEASE: Duration = Duration::from_secs(6);

fn leads(cluster: &Cluster, node: usize) -> bool {
    let (engine, environment) = cluster.engine(node).unwrap();
    environment.enter(|| engine.cluster()).is_ok_and(|status| status.role == "leader")
}

async fn leader_of(cluster: &Cluster, nodes: &[usize]) -> usize {
    loop {
        if let Some(leader) = nodes.iter().find(|node| leads(cluster, **node)) {
            return *leader;
        }
        sleep(Duration::from_millis(1)).await;
    }
}

async fn put(cluster: &Cluster, node: usize, name: &str) -> bool {
    let (engine, environment) = cluster.engine(node).unwrap();
    let (write, within) = (Write::new(key(name), b"1".as_slice().into()), LEASE * 10);
    let call = |reply| {
        environment.enter(|| {
            if let Err((error, reply)) = engine.write_within(Command::Put(write), within, reply) {
                reply.send(Err(error));
            }
        });
    };
    cluster.answer("a put", within, call).await.is_ok()
}

fn simulate<F: Future<Output = ()>>(dir: &std::path::Path, count: usize, seed: u64, test: impl FnOnce(Cluster) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let trace = Trace::new(std::env::var_os("TANK_SIM_TRACE").is_some(), dir);
        let oracle = Oracle::new(trace.clone());
        let links = Links::new(1, trace.clone());
        tokio::spawn(links.clone().run());
        let election_timeout_ms = u64::try_from(LEASE.as_millis()).unwrap();
        let timing = Timing { heartbeat_interval_ms: 1_000, election_timeout_ms, ..Timing::default() };
        let cluster = Cluster::new(count, timing, links, oracle.clone(), trace, dir, seed);
        assert!((0..count).all(|node| !cluster.is_witness(node)), "another seed is needed");
        cluster.form().await.unwrap();
        test(cluster).await;
        assert_eq!(oracle.findings(), Vec::<String>::new());
    });
}

/// Fills the leader's disk, and writes through `through`, which comes as far as that disk and is asked again.
async fn fails_and_another_serves(cluster: &Cluster, leader: usize, through: usize) {
    cluster.behaviour(leader).full(true);
    let began = Instant::now();
    assert!(put(cluster, through, "during").await);
    let took = began.elapsed();
    eprintln!("another member took the write after {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}, with a lease of {LEASE:?}");
}

/// The leader's disk is full.
pub fn comes_before_the_lease_ends(dir: &std::path::Path) {
    simulate(dir, 3, 3, |cluster| async move {
        let old = leader_of(&cluster, &[0, 1, 2]).await;
        let others: Vec<usize> = (0..3).filter(|node| *node != old).collect();
        assert!(put(&cluster, others[0], "before").await);
        fails_and_another_serves(&cluster, old, others[0]).await;
        let new = leader_of(&cluster, &others).await;
        assert!(put(&cluster, new, "after").await);
    });
}

/// The same, and the member that it would have take over is cut off at that moment.
pub fn comes_though_the_named_member_is_cut_off(dir: &std::path::Path) {
    simulate(dir, 5, 3, |cluster| async move {
        let old = leader_of(&cluster, &[0, 1, 2, 3, 4]).await;
        assert!(put(&cluster, old, "before").await);
        // All have as much of the log then.
        sleep(Duration::from_secs(3)).await;
        let named = (0..5).filter(|node| *node != old).max_by_key(|node| cluster.member_id(*node)).unwrap();
        for node in 0..5 {
            cluster.links().change(node, named, |weather| weather.cut = true);
            cluster.links().change(named, node, |weather| weather.cut = true);
        }
        let through = (0..5).find(|node| ![old, named].contains(node)).unwrap();
        fails_and_another_serves(&cluster, old, through).await;
    });
}
