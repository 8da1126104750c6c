//! The members of the cluster: who they are, and changing that.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::ClientWriteError;
use tokio::time::Instant;

use crate::error::EngineError;
use crate::peers::Change;
use crate::raft::{MemberId, Raft};
use crate::runtime;

use super::Engine;
use super::calls::Reply;

/// A member, as this one knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its id.
    pub id: MemberId,
    /// The node it runs on.
    pub node: String,
    /// Whether it counts for a quorum.
    pub voter: bool,
    /// The last log index it is known to have; only a leader knows.
    pub matched: Option<u64>,
}

/// This member's place in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterStatus {
    /// All members, in the order of their ids.
    pub members: Vec<MemberStatus>,
    /// The leader this member follows, or itself.
    pub leader: Option<MemberId>,
    /// The raft term.
    pub term: u64,
    /// Index of the last log entry here.
    pub last_log_index: Option<u64>,
    /// `leader`, `follower`, `candidate`, `learner`.
    pub role: &'static str,
}

impl Engine {
    /// The cluster as this member knows it, at once.
    ///
    /// # Errors
    /// The store is closed or has failed.
    pub fn cluster(&self) -> Result<ClusterStatus, EngineError> {
        self.check()?;
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<MemberId> = membership.voter_ids().collect();
        let matched = |id: &MemberId| metrics.replication.as_ref()?.get(id)?.as_ref().map(|log_id| log_id.index());
        let members = membership.nodes().map(|(id, member)| MemberStatus {
            id: *id,
            node: member.node.clone(),
            voter: voters.contains(id),
            matched: matched(id),
        });
        Ok(ClusterStatus {
            members: members.collect(),
            leader: metrics.current_leader,
            term: metrics.current_term,
            last_log_index: metrics.last_log_index,
            role: role(metrics.state),
        })
    }

    /// Has the leader change the members, and calls `reply` when that is done. Gives up after
    /// `timeout`; then the change may still come.
    pub fn change_members(&self, change: Change, timeout: Duration, reply: Reply<()>) {
        let engine = self.clone();
        let Ok(runtime) = runtime::handle() else { return reply.send(Err(EngineError::Closed)) };
        runtime.spawn(async move {
            let result = engine.ask_leader_to(change, Instant::now() + timeout).await;
            reply.send(engine.check().and(result));
        });
    }

    /// Has this member, if it leads, make `to` the leader.
    pub fn transfer_leader(&self, to: MemberId, timeout: Duration, reply: Reply<()>) {
        let engine = self.clone();
        let Ok(runtime) = runtime::handle() else { return reply.send(Err(EngineError::Closed)) };
        runtime.spawn(async move {
            let result = engine.give_leadership(to, timeout).await;
            reply.send(engine.check().and(result));
        });
    }

    async fn ask_leader_to(&self, change: Change, deadline: Instant) -> Result<(), EngineError> {
        if change == Change::Remove(self.0.leader.me) || change == Change::Demote(self.0.leader.me) {
            self.0.gate.hold_shut();
        }
        self.0.leader.change(&change, deadline).await
    }

    async fn give_leadership(&self, to: MemberId, timeout: Duration) -> Result<(), EngineError> {
        // The others vote at once then, whatever was promised by the lease.
        self.0.gate.hold_shut();
        let failed = |error: openraft::errors::Fatal<_>| EngineError::Failed(error.to_string());
        self.0.raft.trigger().transfer_leader(to).await.map_err(failed)?;
        let wait = self.0.raft.wait(Some(timeout));
        let led = wait.metrics(|metrics| metrics.current_leader == Some(to), "the other member leads").await;
        self.0.gate.release();
        led.map(drop).map_err(|_| EngineError::Unknown)
    }
}

/// Changes the members through this member's raft core; `None` when it does not lead.
pub(crate) async fn change(raft: &Raft, change: Change) -> Option<Result<(), String>> {
    let changed = match change {
        Change::AddLearner(id, member) => raft.add_learner(id, member, true).await,
        Change::Promote(id) => raft.change_membership(ChangeMembers::AddVoterIds(BTreeSet::from([id])), true).await,
        Change::Demote(id) => raft.change_membership(ChangeMembers::RemoveVoters(BTreeSet::from([id])), true).await,
        Change::Remove(id) => remove(raft, id).await,
    };
    match changed {
        Ok(_) => Some(Ok(())),
        Err(error) => match error.api_error() {
            Some(ClientWriteError::ForwardToLeader(_)) => None,
            _ => Some(Err(error.to_string())),
        },
    }
}

type Changed = Result<
    openraft::raft::ClientWriteResponse<crate::raft::Types>,
    openraft::errors::RaftError<crate::raft::Types, ClientWriteError<crate::raft::Types>>,
>;

async fn remove(raft: &Raft, id: MemberId) -> Changed {
    let voter = raft.voter_ids().any(|voter| voter == id);
    let change = if voter {
        ChangeMembers::RemoveVoters(BTreeSet::from([id]))
    } else {
        ChangeMembers::RemoveNodes(BTreeSet::from([id]))
    };
    raft.change_membership(change, false).await
}

fn role(state: openraft::ServerState) -> &'static str {
    match state {
        openraft::ServerState::Leader => "leader",
        openraft::ServerState::Follower => "follower",
        openraft::ServerState::Candidate => "candidate",
        openraft::ServerState::Learner => "learner",
        openraft::ServerState::Shutdown => "shutdown",
    }
}
