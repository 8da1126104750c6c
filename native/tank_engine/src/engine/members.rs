//! The members of the cluster: who they are, and changing that.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftMetrics;
use tokio::time::{Instant, timeout_at};

use crate::error::EngineError;
use crate::peers::MembershipChange;
use crate::raft::authority::{age, leading_vote};
use crate::raft::membership::answers;
use crate::types::{LogId, MemberId, Types, Vote};

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
    /// Whether it serves nobody.
    pub witness: bool,
    /// The last log index it is known to have; only a leader knows.
    pub matched: Option<u64>,
    /// Whether it answered the leader a moment ago; only a leader knows.
    pub reachable: Option<bool>,
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
    /// Index of the last log entry that was purged: a member that lacks it is sent a snapshot.
    pub purged_index: Option<u64>,
    /// `leader`, `follower`, `candidate`, `learner`.
    pub role: &'static str,
    /// Whether this member was in touch with a majority, by itself or by its leader, a moment ago.
    pub quorum: bool,
    /// Frames from other nodes that could not be decoded.
    pub malformed_frames: u64,
    /// Frames of other clusters, or for members that are gone.
    pub foreign_frames: u64,
}

impl Engine {
    /// The cluster as this member knows it, at once.
    ///
    /// # Errors
    /// The store is closed or has failed, other than at its disk.
    pub fn cluster(&self) -> Result<ClusterStatus, EngineError> {
        self.check_shows()?;
        let stats = self.0.leader.rpc.stats();
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<MemberId> = membership.voter_ids().collect();
        let leads = metrics.state == openraft::ServerState::Leader;
        let within = self.0.elections.in_touch_within();
        let matched = |id: &MemberId| metrics.replication.as_ref()?.get(id)?.as_ref().map(|log_id| log_id.index());
        let members = membership.nodes().map(|(id, member)| MemberStatus {
            id: *id,
            node: member.node.clone(),
            voter: voters.contains(id),
            witness: member.witness,
            matched: matched(id),
            reachable: leads.then(|| answers(&metrics, *id, within)),
        });
        Ok(ClusterStatus {
            members: members.collect(),
            leader: metrics.current_leader,
            term: metrics.current_term,
            last_log_index: metrics.last_log_index,
            purged_index: metrics.purged.map(|log_id| log_id.index()),
            role: role(metrics.state),
            quorum: self.in_touch(&metrics),
            malformed_frames: stats.malformed.load(Ordering::Relaxed),
            foreign_frames: stats.foreign.load(Ordering::Relaxed),
        })
    }

    fn in_touch(&self, metrics: &RaftMetrics<Types>) -> bool {
        let me = self.0.leader.me;
        let within = self.0.elections.in_touch_within();
        if metrics.state == openraft::ServerState::Leader {
            let alone = metrics.membership_config.voter_ids().eq([me]);
            let acked = metrics.last_quorum_acked.as_deref();
            return alone || acked.is_some_and(|at| age(*at) < within);
        }
        metrics.current_leader.is_some() && self.0.elections.heard().is_some_and(|at| at.elapsed() < within)
    }

    /// How far a member had come, as this one knows: its vote, and with it the last entry of its log.
    pub fn known_progress(&self, member: MemberId) -> Option<(Vote, Option<LogId>)> {
        self.0.roll_call.ledger().of(member).map(|progress| (progress.vote, progress.last))
    }

    /// The store is not open on `node`, which is connected: what was asked there is not waited for any
    /// longer. It may be open again a moment later.
    pub fn peer_absent(&self, node: &str) {
        self.0.leader.rpc.lost(node);
    }

    /// The connection to `node` was lost: what was asked there is not waited for, and if the leader runs there,
    /// another one is elected soon.
    pub fn peer_lost(&self, node: &str) {
        self.0.leader.rpc.lost(node);
        self.0.elections.connection_lost(node);
    }

    /// Has the leader change the members, and calls `reply` when that is done. Gives up after
    /// `timeout`; then the change may still come.
    pub fn change_members(&self, change: MembershipChange, timeout: Duration, reply: Reply<()>) {
        let engine = self.clone();
        self.0.runtime.spawn("change-members", &self.0.health, async move {
            let result = engine.0.leader.change(&change, Instant::now() + timeout).await;
            reply.send(engine.check().and(result));
        });
    }

    /// Has this member, if it leads, make `to` the leader.
    pub fn transfer_leader(&self, to: MemberId, timeout: Duration, reply: Reply<()>) {
        let engine = self.clone();
        self.0.runtime.spawn("give-leadership", &self.0.health, async move {
            let result = engine.give_leadership(to, timeout).await;
            reply.send(engine.check().and(result));
        });
    }

    async fn give_leadership(&self, to: MemberId, timeout: Duration) -> Result<(), EngineError> {
        let deadline = Instant::now() + timeout;
        let raft = &self.0.raft;
        let mut server = raft.server_metrics();
        let given = leading_vote(raft);
        while Instant::now() < deadline {
            let (leader, leads) = {
                let metrics = server.borrow_and_update();
                (metrics.current_leader, given == Some(metrics.vote))
            };
            if leader == Some(to) {
                return Ok(());
            }
            if leads {
                let handed_over = self.0.authority.hand_over(raft, to).await;
                handed_over.map_err(|error| EngineError::Failed(error.to_string()))?;
            }
            let until = deadline.min(Instant::now() + self.0.elections.hands_over_within());
            if matches!(timeout_at(until, server.changed()).await, Ok(Err(_))) {
                break;
            }
        }
        // It takes no writes any more, since it was asked to hand over.
        if let Some(vote) = given.filter(|vote| leading_vote(raft) == Some(*vote)) {
            self.0.elections.step_down(&vote).await;
        }
        Err(EngineError::Unknown)
    }
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
