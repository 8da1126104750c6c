//! Stops raft's clock while it has nothing to do: a member that nobody else is with sends no heartbeats and waits for
//! no election. So a store that does nothing costs nothing.

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;

use crate::raft::Raft;
use crate::types::MemberId;

/// Runs until the raft core ends.
pub(super) async fn follow(raft: Raft, me: MemberId) {
    let mut server = raft.server_metrics();
    loop {
        let alone = {
            let metrics = server.borrow_and_update();
            let members = metrics.membership_config.membership().nodes();
            metrics.state == ServerState::Leader && members.map(|(id, _)| *id).eq([me])
        };
        raft.runtime_config().tick(!alone);
        if server.changed().await.is_err() {
            return;
        }
    }
}
