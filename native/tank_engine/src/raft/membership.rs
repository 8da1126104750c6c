//! How do members come and go? What a change of the members takes, at the member that leads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError};
use openraft::metrics::RaftMetrics;
use openraft::raft::ReadPolicy;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use crate::health::Health;
use crate::peers::{MembershipChange, NotChanged, Rpc};
use crate::runtime;

use super::authority::{Authority, age, leading_vote};
use super::comparison::holds_the_same;
use super::{Member, MemberId, Raft, StoredMembership, Types};

/// How often the leader looks whether others have answered, should nothing else tell it.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What changing the members takes, at the member that may lead.
#[derive(Clone)]
pub(crate) struct Changing {
    pub(crate) raft: Raft,
    pub(crate) rpc: Arc<Rpc>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) health: Arc<Health>,
    pub(crate) in_touch_within: Duration,
}

/// As [`change`], until `deadline`; `None` also when it took longer, and then it may still come.
///
/// A change of the voters is two entries of the log, and the second one is not left out for a caller that has gone: a
/// leader that leaves would lead on, without a lease.
///
/// Several at once get into each other's way, and are then done one after the other.
pub(crate) async fn change_by(
    at: Changing,
    change: MembershipChange,
    deadline: Instant,
) -> Option<Result<(), NotChanged>> {
    if matches!(change, MembershipChange::AddLearner(..)) {
        // It waits for as long as the learner takes to catch up.
        return timeout_at(deadline, self::change(&at, change, deadline)).await.ok()?;
    }
    let (sender, changed) = oneshot::channel();
    let health = Arc::clone(&at.health);
    runtime::spawn_here("change-voters", health, async move {
        let _caller_gone = sender.send(self::change(&at, change, deadline).await);
    });
    timeout_at(deadline, changed).await.ok()?.ok()?
}

/// Changes the members through this member's raft core; `None` when it does not lead, or when it
/// is not in touch with enough members for the change to come about. Until `deadline`,
/// one that is to vote is compared.
async fn change(at: &Changing, change: MembershipChange, deadline: Instant) -> Option<Result<(), NotChanged>> {
    let Changing { raft, rpc, authority, in_touch_within, .. } = at;
    if let MembershipChange::Remove(id) = change
        && is_gone(raft, id).await
    {
        // It was removed by an earlier try.
        return Some(Ok(()));
    }
    if leaves_only_witnesses(&raft.metrics().borrow_watched().membership_config, &change) {
        return Some(Err(NotChanged::OnlyWitnesses));
    }
    if let MembershipChange::Promote(id) = change {
        let member = raft.server_metrics().borrow_watched().membership_config.membership().get_node(&id).cloned();
        if let Some(member) = member
            && id != raft.server_metrics().borrow_watched().id
            && !timeout_at(deadline, holds_the_same(rpc, authority.published(), id, &member)).await.ok()?
        {
            return Some(Err(NotChanged::Differs));
        }
    }
    timeout(*in_touch_within, will_come_about(raft, &change)).await.ok()?;
    let adds = matches!(change, MembershipChange::AddLearner(..));
    // The others may elect a leader once they have it, and this one would be told last.
    let leaves = matches!(change, MembershipChange::Remove(id) | MembershipChange::Demote(id) if id == raft.server_metrics().borrow_watched().id);
    let suspension = leading_vote(raft).filter(|_| leaves).map(|vote| authority.suspend(&vote));
    let changed = match change {
        MembershipChange::AddLearner(id, member) => {
            let added = raft.add_learner(id, member, true).await;
            if let Ok(added) = &added {
                await_matched(raft, id, added.log_id.index()).await;
            }
            added
        }
        MembershipChange::Promote(id) => {
            raft.change_membership(ChangeMembers::AddVoterIds(BTreeSet::from([id])), true).await
        }
        MembershipChange::Demote(id) => {
            raft.change_membership(ChangeMembers::RemoveVoters(BTreeSet::from([id])), true).await
        }
        MembershipChange::Remove(id) => remove(raft, id).await,
        MembershipChange::Rename(id, node) => rename(raft, id, node).await,
    };
    if let (Some(suspension), Err(error)) = (suspension, &changed)
        && is_not_logged(error.api_error())
    {
        suspension.lift();
    }
    match changed {
        // Waiting for a learner to catch up also ends when another member leads: ask that one.
        Ok(_) if adds && !raft.is_leader() => None,
        Ok(_) => Some(Ok(())),
        Err(error) if may_pass(error.api_error()) => None,
        Err(error) => Some(Err(NotChanged::Other(error.to_string()))),
    }
}

/// Returns once the member `id` has the log up to `index`, or this member leads no more. openraft takes a learner for
/// caught up that lacks few entries, also one that has none yet. Promoted then, it may be a voter that never comes.
async fn await_matched(raft: &Raft, id: MemberId, index: u64) {
    let mut metrics = raft.metrics();
    loop {
        let leads_without = {
            let metrics = metrics.borrow_and_update();
            let matched = metrics.replication.as_ref().map(|members| members.get(&id).and_then(Option::as_ref));
            matched.is_some_and(|matched| matched.is_none_or(|log_id| log_id.index() < index))
        };
        if !leads_without || metrics.changed().await.is_err() {
            return;
        }
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

/// Returns once majorities of the voters before and after the change have answered this member, which leads, since this
/// was called. A change that is in the log counts at once, and cannot be taken back: one that no majority can commit
/// would stop the cluster until the missing member is back. So an answer of before does not count: the member may have
/// stopped since.
async fn will_come_about(raft: &Raft, change: &MembershipChange) {
    let began = Instant::now();
    let mut metrics = raft.metrics();
    while !may_come_about(&metrics.borrow_and_update(), change, began.elapsed()) {
        // Without a raft core there is nothing to wait for: the change says so.
        if matches!(timeout(LOOK_AGAIN, metrics.changed()).await, Ok(Err(_))) {
            return;
        }
    }
}

/// Whether majorities of the voters before and after the change answered this member `within` this time.
fn may_come_about(metrics: &RaftMetrics<Types>, change: &MembershipChange, within: Duration) -> bool {
    let before: BTreeSet<MemberId> = metrics.membership_config.voter_ids().collect();
    let after = voters_after(&metrics.membership_config, change);
    let majority = |voters: &BTreeSet<MemberId>| {
        let answering = voters.iter().filter(|id| answers(metrics, **id, within)).count();
        answering * 2 > voters.len()
    };
    majority(&before) && majority(&after)
}

fn voters_after(membership: &StoredMembership, change: &MembershipChange) -> BTreeSet<MemberId> {
    let mut voters: BTreeSet<MemberId> = membership.voter_ids().collect();
    match change {
        MembershipChange::AddLearner(..) | MembershipChange::Rename(..) => {}
        MembershipChange::Promote(id) => drop(voters.insert(*id)),
        MembershipChange::Demote(id) | MembershipChange::Remove(id) => drop(voters.remove(id)),
    }
    voters
}

fn leaves_only_witnesses(membership: &StoredMembership, change: &MembershipChange) -> bool {
    let node = |id| membership.membership().get_node(id);
    voters_after(membership, change).iter().all(|id| node(id).is_some_and(|member| member.witness))
}

/// Whether the member `id` answered this one, which leads, a moment ago.
pub(crate) fn answers(metrics: &RaftMetrics<Types>, id: MemberId, within: Duration) -> bool {
    let heard = || metrics.heartbeat.as_ref()?.get(&id)?.as_ref().map(|at| age(**at));
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

/// Whether a change that was refused is surely not in the log.
fn is_not_logged(error: Option<&ClientWriteError<Types>>) -> bool {
    matches!(error, Some(ClientWriteError::ChangeMembershipError(_) | ClientWriteError::ForwardToLeader(_)))
}

type Changed =
    Result<openraft::raft::ClientWriteResponse<Types>, openraft::errors::RaftError<Types, ClientWriteError<Types>>>;

async fn remove(raft: &Raft, id: MemberId) -> Changed {
    let voter = raft.voter_ids().any(|voter| voter == id);
    let change = if voter {
        ChangeMembers::RemoveVoters(BTreeSet::from([id]))
    } else {
        ChangeMembers::RemoveNodes(BTreeSet::from([id]))
    };
    raft.change_membership(change, false).await
}

async fn rename(raft: &Raft, id: MemberId, node: String) -> Changed {
    let members = raft.metrics().borrow_watched().membership_config.membership().clone();
    let witness = members.get_node(&id).is_some_and(|member| member.witness);
    let renamed = BTreeMap::from([(id, Member { node, witness })]);
    raft.change_membership(ChangeMembers::SetNodes(renamed), true).await
}
