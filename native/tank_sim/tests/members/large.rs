//! Small writes at the same time as a large one, on slow disks.

use std::time::Duration;

use tank_engine::command::{Command, Write};
use tank_engine::options::Timing;
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, key};
use crate::links::Links;
use crate::oracle::Oracle;
use crate::trace::Trace;

const LARGE: usize = (16 << 20) - 1_024;

const WITHIN: Duration = Duration::from_secs(60);

/// What the disks write in a second: the large value takes 800 ms.
const DISK_BYTES_PER_S: u64 = 20 << 20;

const LATE_MAX: Duration = Duration::from_millis(300);

async fn put(cluster: &Cluster, node: usize, name: &str, bytes: usize) -> Duration {
    let began = Instant::now();
    let (engine, environment) = cluster.engine(node).unwrap();
    let write = Write::new(key(name), vec![7; bytes].into());
    let call = |reply| {
        environment.enter(|| {
            if let Err((error, reply)) = engine.write_within(Command::Put(write), WITHIN, reply) {
                reply.send(Err(error));
            }
        });
    };
    cluster.answer("a put", WITHIN, call).await.unwrap();
    began.elapsed()
}

/// Writes a large value at one of three members, and small ones at the same one meanwhile. `at` is the member.
pub fn holds_up_no_small_one(dir: &std::path::Path, at: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let trace = Trace::new(std::env::var_os("TANK_SIM_TRACE").is_some(), dir);
        let oracle = Oracle::new(trace.clone());
        let links = Links::new(1, trace.clone());
        tokio::spawn(links.clone().run());
        let cluster = Cluster::new(3, Timing::default(), links, oracle.clone(), trace, dir, 3);
        cluster.form().await.unwrap();
        (0..3).for_each(|node| cluster.behaviour(node).writes(DISK_BYTES_PER_S));
        let large = {
            let cluster = cluster.clone();
            tokio::spawn(async move { put(&cluster, at, "large", LARGE).await })
        };
        let (mut worst, mut count) = (Duration::ZERO, 0);
        while !large.is_finished() {
            worst = worst.max(put(&cluster, at, "small", 1).await);
            count += 1;
            sleep(Duration::from_millis(5)).await;
        }
        eprintln!("{count} small writes took {worst:?} at the most, the large one {:?}", large.await.unwrap());
        assert!(worst < LATE_MAX, "a small write took {worst:?}");
        // The one that got it with its entry writes it for a while.
        sleep(WITHIN).await;
        let staged: Vec<usize> = (0..3).map(|node| cluster.behaviour(node).staged()).collect();
        assert_eq!(staged, [0, 0, 0], "what was logged is not staged any more");
        assert_eq!(oracle.findings(), Vec::<String>::new());
    });
}
