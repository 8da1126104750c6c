//! A request that waits at a member without a leader, for longer than its client's session lasts.

use std::time::Duration;

use tank_engine::command::{Command, Write};
use tank_engine::options::Timing;
use tank_engine::outcome::Outcome;
use tank_engine::state::{SESSION_MS, STEP_MS_MAX};
use tokio::time::timeout;

use crate::cluster::{Cluster, key};
use crate::links::Links;
use crate::oracle::Oracle;
use crate::trace::Trace;

const WITHIN: Duration = Duration::from_secs(120);

async fn put(cluster: &Cluster, node: usize, name: &str, value: &'static [u8]) -> Option<u64> {
    let (engine, environment) = cluster.engine(node).unwrap();
    let write = Write::new(key(name), value.into());
    let call = |reply| {
        environment.enter(|| {
            if let Err((error, reply)) = engine.write_within(Command::Put(write), WITHIN, reply) {
                reply.send(Err(error));
            }
        });
    };
    match cluster.answer("a put", WITHIN, call).await {
        Ok(Outcome::Done { revision }) => Some(revision),
        other => panic!("{name} at {node}: {other:?}"),
    }
}

/// Forms three members. One is suspended with a request in hand, and the others' clocks have the log's time pass its
/// session. The request is refused when it comes, is given the time in the log, and is applied, once.
pub fn is_applied_once_after_all(dir: &std::path::Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let trace = Trace::new(std::env::var_os("TANK_SIM_TRACE").is_some(), dir);
        let oracle = Oracle::new(trace.clone());
        let links = Links::new(1, trace.clone());
        tokio::spawn(links.clone().run());
        let cluster = Cluster::new(3, Timing::default(), links, oracle.clone(), trace, dir, 3);
        assert!((0..3).all(|node| !cluster.is_witness(node)), "another seed is needed");
        cluster.form().await.unwrap();
        // Its session begins.
        put(&cluster, 2, "before", b"1").await;
        let suspended = cluster.clone();
        let request = {
            let cluster = cluster.clone();
            async move { put(&cluster, 2, "late", b"1").await }
        };
        let mut request = std::pin::pin!(request);
        assert!(futures_util::poll!(request.as_mut()).is_pending());
        // Nothing of it was sent: no other task has run since.
        let suspended = tokio::spawn(async move { suspended.suspend(2, WITHIN / 2).await });
        tokio::task::yield_now().await;
        for round in 1..=(SESSION_MS / STEP_MS_MAX + 2) {
            for node in 0..2 {
                cluster.skew(node).set(i64::try_from(round * STEP_MS_MAX).unwrap());
            }
            put(&cluster, 0, "others", b"1").await;
        }
        assert!(!suspended.is_finished());
        let revision = timeout(WITHIN, request).await.unwrap().unwrap();
        let (engine, _) = cluster.engine(2).unwrap();
        let view = engine.view().unwrap();
        let entry = view.get(&key("late")).unwrap();
        assert_eq!((entry.version, entry.revision), (1, revision));
        assert!(revision > SESSION_MS / STEP_MS_MAX, "it came first");
        assert_eq!(oracle.findings(), Vec::<String>::new());
    });
}
