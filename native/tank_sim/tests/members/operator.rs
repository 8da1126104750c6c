//! Who replaces members: some as they are, some whose disks were lost or went back in time. And who mounts disks again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tank_engine::peers::MembershipChange;
use tank_sim::Rng;
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, MountPoint};

/// Replaces members by new ones, until it is calm: some as they are, some whose disks were lost or went back in time.
/// Then all are members.
pub async fn operate(cluster: Cluster, calm: Arc<AtomicBool>, mut rng: Rng) -> Result<(), String> {
    let changes = rng.below(2) == 0;
    while !calm.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(500 + rng.below(8_000) as u64)).await;
        let node = rng.below(cluster.count());
        let Some(id) = cluster.member_id(node) else { continue };
        if !changes || calm.load(Ordering::Relaxed) {
            continue;
        }
        match rng.below(5) {
            0 => {
                cluster.trace().note(format_args!("lose the disk of {node}"));
                cluster.oracle().count("wiped");
                cluster.retire(node).await;
                sleep(Duration::from_millis(rng.below(3_000) as u64)).await;
                cluster.change_surely(MembershipChange::Remove(id)).await?;
            }
            1 => {
                if !roll_back(&cluster, node, &calm, &mut rng).await? {
                    continue;
                }
                cluster.change_surely(MembershipChange::Remove(id)).await?;
                cluster.retire(node).await;
            }
            2 => {
                if mount_comes_back(&cluster, node, &mut rng).await {
                    continue;
                }
                cluster.change_surely(MembershipChange::Remove(id)).await?;
                cluster.retire(node).await;
            }
            _ => {
                cluster.change_surely(MembershipChange::Remove(id)).await?;
                // It does not know at once, and is asked as before.
                sleep(Duration::from_millis(rng.below(1_500) as u64)).await;
                cluster.retire(node).await;
                sleep(Duration::from_millis(rng.below(1_000) as u64)).await;
            }
        }
        cluster.join(node).await?;
    }
    Ok(())
}

/// Has the directory of a member not be where it was, for a while. Whether it is back then: it may be lost.
async fn mount_comes_back(cluster: &Cluster, node: usize, rng: &mut Rng) -> bool {
    let other = (node + 1 + rng.below(cluster.count() - 1)) % cluster.count();
    let mount_points = [MountPoint::Missing, MountPoint::Empty, MountPoint::OtherMember(other)];
    cluster.oracle().count("unmounted");
    cluster.unmount(node, mount_points[rng.below(mount_points.len())]);
    sleep(Duration::from_millis(rng.below(8_000) as u64)).await;
    let comes_back = rng.below(4) > 0;
    if comes_back {
        cluster.mount(node);
    }
    comes_back
}

/// How long after they have heard of it members surely have written down how far another one has come.
const WRITTEN_AFTER: Duration = Duration::from_millis(1_500);

/// How long it may take until a member says that its disk went back in time, in the worst weather.
const NOTICED_MAX: Duration = Duration::from_secs(120);

/// Has the disk of a member go back in time, and waits until it says so. Whether it came to that: as long as nobody knows
/// that it has acknowledged more, it cannot be noticed.
async fn roll_back(cluster: &Cluster, node: usize, calm: &AtomicBool, rng: &mut Rng) -> Result<bool, String> {
    let Some(copy) = cluster.copy(node) else { return Ok(false) };
    sleep(Duration::from_millis(rng.below(3_000) as u64)).await;
    while !cluster.know_of_more(node, &copy) {
        if calm.load(Ordering::Relaxed) || cluster.member_id(node) != Some(copy.member_id) {
            return Ok(false);
        }
        sleep(Duration::from_millis(50)).await;
    }
    sleep(WRITTEN_AFTER).await;
    cluster.oracle().count("rolled back");
    cluster.roll_back(node, copy).await;
    sleep(Duration::from_millis(rng.below(1_000) as u64)).await;
    cluster.start_if_wanted(node).await?;
    let deadline = Instant::now() + NOTICED_MAX;
    while !cluster.has_lost_its_log(node) {
        if Instant::now() > deadline {
            return Err(format!("{node} did not notice that its disk went back"));
        }
        sleep(Duration::from_millis(50)).await;
    }
    // It is there for a while, and counts for nothing.
    sleep(Duration::from_millis(rng.below(4_000) as u64)).await;
    Ok(true)
}
