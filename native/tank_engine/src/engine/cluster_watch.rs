//! Tells when the leader, the members or the quorum of a cluster change, as this member sees it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::Notify;

use crate::error::EngineError;
use crate::types::MemberId;
use crate::watch::Wake;

use super::{Engine, Inner};

/// A quorum is lost by time alone: how often it is looked at. A member that is alone has none to lose.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A watch of the cluster. Dropping it ends it.
pub struct ClusterWatch(Arc<Notify>);

/// What is told when it changes.
#[derive(PartialEq)]
struct Seen {
    leader: Option<MemberId>,
    term: u64,
    members: Vec<(MemberId, String)>,
    quorum: bool,
}

impl Engine {
    /// Calls `changed` now, whenever something has changed, and at last when the store is closed or has failed; on
    /// a thread of the engine's. It must not block.
    ///
    /// # Errors
    /// The store is closed or has failed.
    pub fn watch_cluster(&self, changed: Wake) -> Result<ClusterWatch, EngineError> {
        self.check()?;
        let ended = Arc::new(Notify::new());
        let watch = watch(Arc::downgrade(&self.0), Arc::clone(&ended), changed);
        self.0.runtime.spawn("cluster-watch", &self.0.health, watch);
        Ok(ClusterWatch(ended))
    }

    fn seen(&self) -> Result<Seen, EngineError> {
        let cluster = self.cluster()?;
        let members = cluster.members.into_iter().map(|member| (member.id, member.node)).collect();
        Ok(Seen { leader: cluster.leader, term: cluster.term, members, quorum: cluster.quorum })
    }
}

impl Drop for ClusterWatch {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

async fn watch(inner: Weak<Inner>, ended: Arc<Notify>, changed: Wake) {
    let mut told = None;
    loop {
        let Some(engine) = inner.upgrade().map(Engine) else { break };
        let mut server = engine.0.raft.server_metrics();
        server.borrow_and_update();
        let Ok(seen) = engine.seen() else { break };
        drop(engine);
        let alone = seen.members.len() == 1;
        if told.as_ref() != Some(&seen) {
            changed();
            told = Some(seen);
        }
        tokio::select! {
            () = ended.notified() => return,
            changed = server.changed() => if changed.is_err() { break },
            () = tokio::time::sleep(LOOK_EVERY), if !alone => {}
        }
    }
    changed();
}
