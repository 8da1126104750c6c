//! Follows the raft core: opens and shuts the read gate, and notices its end.

use std::sync::Arc;

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::ReadPolicy;

use crate::error::EngineError;
use crate::faults;
use crate::health::Health;
use crate::raft::{MemberId, Raft};
use crate::read_gate::ReadGate;

/// Runs until the raft core ends.
pub(super) async fn follow(raft: Raft, me: MemberId, gate: Arc<ReadGate>, health: Arc<Health>) {
    let mut server = raft.server_metrics();
    loop {
        faults::point("raft_watch");
        let leads_alone = {
            let metrics = server.borrow_and_update();
            let mut voters = metrics.membership_config.membership().voter_ids();
            metrics.state == ServerState::Leader && voters.next() == Some(me) && voters.next().is_none()
        };
        // What earlier leaders committed must be applied before the view is authoritative.
        let open = leads_alone && (gate.is_open() || raft.ensure_linearizable(ReadPolicy::ReadIndex).await.is_ok());
        gate.set(open);
        if server.changed().await.is_err() {
            break;
        }
    }
    gate.set(false);
    let ended = raft.metrics().borrow_watched().running_state.clone();
    match ended {
        Ok(()) | Err(openraft::errors::Fatal::Stopped) => {}
        // The first reason given counts: a storage error was mostly reported where it happened.
        Err(fatal) => health.fail(EngineError::Failed(fatal.to_string())),
    }
}
