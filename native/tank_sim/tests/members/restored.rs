//! After the calm: a backup is restored, the other members join what it became, and then the leader is lost.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use crate::cluster::{Cluster, End};
use crate::oracle::{path_of, serial_of};
use crate::storm::{agree, leads, serve_everywhere, state_of};

/// How long each step may take.
const STEP_MAX: Duration = Duration::from_secs(60);

/// The path that probes write to.
const PROBE: &str = "probe";

/// Restores a backup of `source` as the first member, and compares what all members have then with `expected`.
pub async fn restore(cluster: &Cluster, expected: &BTreeMap<String, u64>, dir: &Path) -> Result<(), String> {
    let source = (0..cluster.count()).find(|node| !cluster.is_witness(*node)).ok_or("only witnesses")?;
    let file = dir.join("backup");
    cluster.back_up(source, &file)?;
    for node in 0..cluster.count() {
        cluster.stop(node).await;
        cluster.forget(node);
    }
    cluster.oracle().count("restored");
    cluster.restore(0, &file).await?;
    for node in 1..cluster.count() {
        cluster.join(node).await?;
    }
    in_time(cluster, serve_everywhere(cluster)).await??;
    in_time(cluster, agree(cluster)).await?;
    compare(cluster, expected);
    let Some(leader) = (0..cluster.count()).find(|node| leads(cluster, *node)) else { return Ok(()) };
    cluster.end(leader, End::Kill).await;
    compare(cluster, expected);
    cluster.start_if_wanted(leader).await?;
    in_time(cluster, serve_everywhere(cluster)).await?
}

async fn in_time<T>(cluster: &Cluster, step: impl Future<Output = T>) -> Result<T, String> {
    timeout(STEP_MAX, step).await.map_err(|_| format!("restored, after {STEP_MAX:?}: {}", state_of(cluster)))
}

fn compare(cluster: &Cluster, expected: &BTreeMap<String, u64>) {
    let expected: BTreeMap<_, _> = expected.iter().filter(|(path, _)| *path != PROBE).collect();
    for node in (0..cluster.count()).filter(|node| !cluster.is_witness(*node)) {
        let Some((engine, _)) = cluster.engine(node) else { continue };
        let Ok(view) = engine.view() else { continue };
        let held: BTreeMap<String, u64> = view
            .entries
            .iter()
            .filter_map(|(key, entry)| Some((path_of(key), serial_of(&entry.payload.in_memory()?)?)))
            .filter(|(path, _)| path != PROBE)
            .collect();
        if held.iter().collect::<BTreeMap<_, _>>() != expected {
            cluster.oracle().finds(format!("restored, member {node} holds {held:?}, and not {expected:?}"));
        }
    }
}
