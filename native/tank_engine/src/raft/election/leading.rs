//! What does a leader do so that it stays one, or stops being one in time?

use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use openraft::vote::RaftLeaderId;
use tokio::time::Instant;

use crate::peers::Call;

use super::super::authority::age;
use super::super::{Progress, Vote, VoteRequest, quorum_lost_after, witness};
use super::Elections;

/// How long the raft core may take to hand on a vote of its own.
const STEP_DOWN_WITHIN: Duration = Duration::from_secs(1);

/// One time of leading.
pub(super) struct LeaderTerm {
    pub(super) vote: Vote,
    pub(super) since: Instant,
    /// Since when this member leads though it is not to.
    pub(super) ill_placed_since: Option<Instant>,
    pub(super) hand_over_at: Instant,
}

impl Elections {
    /// Tells all others that this member leads. One that is not to lead hands over; one that no majority answers, or
    /// that cannot hand over, leads no longer than it takes to be sure.
    pub(super) async fn lead(&self, leading: &mut LeaderTerm) {
        if self.authority.is_sealed() {
            // Its disk failed: it has resigned, and the others are not to wait for it.
            return;
        }
        let now = Instant::now();
        let (others, own, acked, ill_placed, successor) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let members = metrics.membership_config.nodes().filter(|(id, _)| **id != self.me);
            let others: Vec<_> = members.map(|(id, member)| (*id, member.clone())).collect();
            let known = metrics.replication.as_ref().filter(|_| metrics.vote == leading.vote);
            let own = known.and_then(|known| *known.get(&self.me)?);
            let alone = metrics.membership_config.voter_ids().eq([self.me]);
            let acked = metrics.last_quorum_acked.as_deref().map(|at| age(*at));
            let removed = metrics.membership_config == metrics.committed_membership_config
                && metrics.membership_config.voter_ids().all(|id| id != self.me);
            let ill_placed = removed || self.witness.is_one();
            let acked = if alone { Some(Duration::ZERO) } else { acked };
            (others, own, acked, ill_placed, if ill_placed { witness::successor(&metrics) } else { None })
        };
        let lost_after = quorum_lost_after(&self.timing, self.rpc.distance_max());
        if acked.unwrap_or(Duration::MAX).min(leading.since.elapsed()) > lost_after {
            tracing::warn!("no majority has answered for long: this member leads no more");
            // And says nothing: the others would go on to wait for it.
            return self.step_down(&leading.vote).await;
        }
        if let Some(last) = own {
            self.roll_call.ledger().note(self.me, Progress { vote: leading.vote, last: Some(last) });
        }
        let is_member = |id| id == self.me || others.iter().any(|(other, _)| *other == id);
        let leads = Call::Leads { vote: leading.vote, progress: self.roll_call.ledger().all(is_member) };
        for (id, member) in &others {
            self.rpc.tell(*id, member, &leads);
        }
        if !ill_placed {
            leading.ill_placed_since = None;
            return;
        }
        let since = *leading.ill_placed_since.get_or_insert(now);
        if let Some(to) = successor {
            // The others are to hear first that it was removed.
            let told_at = if self.witness.is_one() { since } else { since + self.timing.leader_lease() };
            if now >= leading.hand_over_at.max(told_at) {
                leading.hand_over_at = now + self.hands_over_within();
                let _ = self.authority.hand_over(&self.raft, to).await;
            }
        } else if since.elapsed() > lost_after && !self.witness.is_one() {
            self.step_down(&leading.vote).await;
        }
    }

    /// How long it takes to hand over; then it is tried again.
    pub(crate) fn hands_over_within(&self) -> Duration {
        self.timing.leader_lease() + self.rpc.round_trip_max() * 3
    }

    /// The disk of this member failed, and its raft core is about to end. If this member leads, it tells all others, so that
    /// they need not wait until its lease is over, and names the voter that has most of the log. Waits for nothing: when
    /// what is told does not arrive soon, they do wait.
    pub(crate) fn disk_failed(&self) {
        let (request, others) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            // The only voter goes on to answer from its last view.
            if metrics.state != ServerState::Leader || metrics.membership_config.voter_ids().eq([self.me]) {
                return;
            }
            let (to, matched) = witness::most_advanced(&metrics).map_or((self.me, None), |(id, last)| (id, Some(last)));
            let members = metrics.membership_config.nodes().filter(|(id, _)| **id != self.me);
            let others: Vec<_> = members.map(|(id, member)| (*id, member.clone())).collect();
            (TransferLeaderRequest::new(metrics.vote, to, matched), others)
        };
        // The others vote at once then, whatever they promised.
        self.authority.void(request.from_leader());
        let call = Call::Resign(request);
        // Behind the entries that they were sent, or one that has more than the new leader would not vote for it.
        others.iter().for_each(|(id, member)| self.rpc.tell_after_entries(*id, member, &call));
    }

    /// Ends this member's leading with `vote`, as if another one stood.
    pub(crate) async fn step_down(&self, vote: &Vote) {
        self.authority.void(vote);
        let (other, last_log) = {
            let metrics = self.raft.server_metrics();
            let other = metrics.borrow_watched().membership_config.voter_ids().find(|id| *id != self.me);
            (other, self.last_log())
        };
        let Some(other) = other else { return };
        let mut request = VoteRequest::new(Vote::new(vote.leader_id().term() + 1, other), last_log);
        request.leadership_transfer = true;
        let _ = tokio::time::timeout(STEP_DOWN_WITHIN, self.vote(request)).await;
    }
}

impl LeaderTerm {
    pub(super) fn new(vote: Vote) -> Self {
        let now = Instant::now();
        Self { vote, since: now, ill_placed_since: None, hand_over_at: now }
    }
}
