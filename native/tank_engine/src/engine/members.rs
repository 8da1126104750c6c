//! The members of the cluster: who they are, and changing that.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError};
use openraft::metrics::RaftMetrics;
use openraft::raft::ReadPolicy;
use tokio::time::Instant;

use crate::error::EngineError;
use crate::peers::{Change, NotChanged};
use crate::raft::{MemberId, Raft, StoredMembership, Types};

use super::Engine;
use super::calls::Reply;

/// A round of votes takes a few milliseconds between nodes of one network.
const HEAD_START: Duration = Duration::from_millis(40);

/// How often a member that lost its leader asks for votes before it waits as any other would.
const ASK_MAX: u32 = 8;

/// Between the first two times; then longer and longer, as the network may need.
const ASK_AGAIN: Duration = Duration::from_millis(15);

/// A promise ends by the raft core's clock, which was read a moment before ours.
const GRACE: Duration = Duration::from_millis(2);

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
    pub in_touch: Option<bool>,
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
    /// The store is closed or has failed.
    pub fn cluster(&self) -> Result<ClusterStatus, EngineError> {
        self.check()?;
        let stats = self.0.leader.rpc.stats();
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<MemberId> = membership.voter_ids().collect();
        let leads = metrics.state == openraft::ServerState::Leader;
        let within = self.0.options.timing.in_touch_within();
        let matched = |id: &MemberId| metrics.replication.as_ref()?.get(id)?.as_ref().map(|log_id| log_id.index());
        let members = membership.nodes().map(|(id, member)| MemberStatus {
            id: *id,
            node: member.node.clone(),
            voter: voters.contains(id),
            witness: member.witness,
            matched: matched(id),
            in_touch: leads.then(|| answers(&metrics, *id, within)),
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
        let within = self.0.options.timing.in_touch_within();
        if metrics.state == openraft::ServerState::Leader {
            let alone = metrics.membership_config.voter_ids().eq([me]);
            let acked = metrics.last_quorum_acked.as_deref();
            return alone || acked.is_some_and(|at| crate::engine::watch::age(*at) < within);
        }
        metrics.current_leader.is_some() && self.0.peers.heard_from_leader().is_some_and(|at| at.elapsed() < within)
    }

    /// The store is not open on `node`, which is connected: what was asked there is not waited for any
    /// longer. It may be open again a moment later.
    pub fn peer_absent(&self, node: &str) {
        self.0.leader.rpc.lost(node);
    }

    /// The connection to `node` was lost. If the leader runs there, this member stands for election
    /// as soon as nobody can rest on that leader's lease any more, without the time that it would
    /// otherwise give a late heartbeat.
    pub fn peer_lost(&self, node: &str) {
        self.0.leader.rpc.lost(node);
        if self.0.witness.is_one() {
            return;
        }
        let Ok(cluster) = self.cluster() else { return };
        let lost = cluster.members.iter().find(|member| Some(member.id) == cluster.leader && member.node == node);
        let Some(leader) = lost.map(|member| member.id).filter(|id| *id != self.0.leader.me) else { return };
        let engine = self.clone();
        self.0.runtime.spawn("peer-lost", &self.0.health, async move { engine.succeed(leader).await });
    }

    async fn succeed(&self, leader: MemberId) {
        let peers = &self.0.peers;
        let follows = || self.0.raft.server_metrics().borrow_watched().current_leader == Some(leader);
        let promised = self.0.options.timing.vote_embargo() + GRACE;
        // One after the other, and mostly the first one wins: those who ask at the same moment split
        // the votes.
        let head_start = HEAD_START * self.place_behind(leader);
        for asked in 1..=ASK_MAX {
            let Some(heard) = peers.heard_from_leader() else { return };
            tokio::time::sleep_until(heard + promised).await;
            if asked == 1 {
                // Those before this member may lack some of its log, and not be able to win.
                let _ = tokio::time::timeout(head_start, peers.asked_by_one_behind()).await;
            }
            if !follows() || self.check().is_err() {
                return;
            }
            // Otherwise frames came late, or the leader is back.
            if peers.heard_from_leader() == Some(heard) {
                // With a pre-vote: others may well hear the leader, or have heard it a moment later.
                let _ = self.0.raft.trigger().elect(true).await;
                tokio::time::sleep(ASK_AGAIN * asked).await;
            }
        }
    }

    /// How many others come before this member when `leader` is to be succeeded.
    fn place_behind(&self, leader: MemberId) -> u32 {
        let metrics = self.0.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let serves = |id: &MemberId| membership.get_node(id).is_some_and(|member| !member.witness);
        let before = membership.voter_ids().filter(|id| *id != leader && *id < self.0.leader.me && serves(id));
        u32::try_from(before.count()).unwrap_or(u32::MAX)
    }

    /// Has the leader change the members, and calls `reply` when that is done. Gives up after
    /// `timeout`; then the change may still come.
    pub fn change_members(&self, change: Change, timeout: Duration, reply: Reply<()>) {
        let engine = self.clone();
        self.0.runtime.spawn("change-members", &self.0.health, async move {
            let result = engine.ask_leader_to(change, Instant::now() + timeout).await;
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

    async fn ask_leader_to(&self, change: Change, deadline: Instant) -> Result<(), EngineError> {
        let leaves = change == Change::Remove(self.0.leader.me) || change == Change::Demote(self.0.leader.me);
        if leaves {
            self.0.gate.hold_shut();
        }
        let changed = self.0.leader.change(&change, deadline).await;
        if leaves && changed.is_err() {
            // Should the change still come, the raft core stops leading first, and shuts the gate.
            self.0.gate.release();
        }
        changed
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

/// As [`change`], until `deadline`; `None` also when it took longer, and then it may still come.
///
/// Several at once get into each other's way, and are then done one after the other.
pub(crate) async fn change_by(
    raft: &Raft,
    change: Change,
    in_touch_within: Duration,
    deadline: Instant,
) -> Option<Result<(), NotChanged>> {
    tokio::time::timeout_at(deadline, self::change(raft, change, in_touch_within)).await.ok()?
}

/// Changes the members through this member's raft core; `None` when it does not lead, or when it
/// is not in touch with enough members for the change to come about.
async fn change(raft: &Raft, change: Change, in_touch_within: Duration) -> Option<Result<(), NotChanged>> {
    if let Change::Remove(id) = change
        && is_gone(raft, id).await
    {
        // It was removed by an earlier try.
        return Some(Ok(()));
    }
    if leaves_only_witnesses(&raft.metrics().borrow_watched().membership_config, &change) {
        return Some(Err(NotChanged::OnlyWitnesses));
    }
    if !may_come_about(&raft.metrics().borrow_watched(), &change, in_touch_within) {
        return None;
    }
    let adds = matches!(change, Change::AddLearner(..));
    let changed = match change {
        Change::AddLearner(id, member) => raft.add_learner(id, member, true).await,
        Change::Promote(id) => raft.change_membership(ChangeMembers::AddVoterIds(BTreeSet::from([id])), true).await,
        Change::Demote(id) => raft.change_membership(ChangeMembers::RemoveVoters(BTreeSet::from([id])), true).await,
        Change::Remove(id) => remove(raft, id).await,
    };
    match changed {
        // Waiting for a learner to catch up also ends when another member leads: ask that one.
        Ok(_) if adds && !raft.is_leader() => None,
        Ok(_) => Some(Ok(())),
        Err(error) if may_pass(error.api_error()) => None,
        Err(error) => Some(Err(NotChanged::Other(error.to_string()))),
    }
}

/// Whether this member leads, as a majority confirms, and `id` is no member, as a majority knows.
/// One that leads no more may not have heard of a member that came since.
async fn is_gone(raft: &Raft, id: MemberId) -> bool {
    let metrics = || raft.metrics().borrow_watched().clone();
    let known = |membership: &StoredMembership| membership.membership().get_node(&id).is_some();
    if known(&metrics().membership_config) || raft.ensure_linearizable(ReadPolicy::ReadIndex).await.is_err() {
        return false;
    }
    let now = metrics();
    !known(&now.membership_config) && !known(&now.committed_membership_config)
}

/// Whether majorities of the voters before and after the change are in touch with this member,
/// which leads. A change that is in the log counts at once, and cannot be taken back: one that no
/// majority can commit would stop the cluster until the missing member is back.
fn may_come_about(metrics: &RaftMetrics<Types>, change: &Change, within: Duration) -> bool {
    let before: BTreeSet<MemberId> = metrics.membership_config.voter_ids().collect();
    let after = voters_after(&metrics.membership_config, change);
    let majority = |voters: &BTreeSet<MemberId>| {
        let answering = voters.iter().filter(|id| answers(metrics, **id, within)).count();
        answering * 2 > voters.len()
    };
    majority(&before) && majority(&after)
}

fn voters_after(membership: &StoredMembership, change: &Change) -> BTreeSet<MemberId> {
    let mut voters: BTreeSet<MemberId> = membership.voter_ids().collect();
    match change {
        Change::AddLearner(..) => {}
        Change::Promote(id) => drop(voters.insert(*id)),
        Change::Demote(id) | Change::Remove(id) => drop(voters.remove(id)),
    }
    voters
}

fn leaves_only_witnesses(membership: &StoredMembership, change: &Change) -> bool {
    let node = |id| membership.membership().get_node(id);
    voters_after(membership, change).iter().all(|id| node(id).is_some_and(|member| member.witness))
}

/// Whether the member `id` answered this one, which leads, a moment ago.
fn answers(metrics: &RaftMetrics<Types>, id: MemberId, within: Duration) -> bool {
    let heard = || metrics.heartbeat.as_ref()?.get(&id)?.as_ref().map(|at| super::watch::age(**at));
    id == metrics.id || heard().is_some_and(|age| age < within)
}

/// Whether asking again may help: another member leads, or another change came in between. All
/// changes may be asked for again, also when they were half done: what is done stays done.
fn may_pass(error: Option<&ClientWriteError<Types>>) -> bool {
    use ChangeMembershipError as C;
    match error {
        Some(ClientWriteError::ChangeMembershipError(why)) => {
            matches!(why, C::InProgress(_) | C::UncommittedLeaderLog(_))
        }
        Some(_) => true,
        None => false,
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
