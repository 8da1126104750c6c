//! Asking the leader, wherever it is, until a deadline.
//!
//! A request that surely was not logged is simply asked again. One whose fate is unknown is asked
//! again too: it carries its id, and is applied once.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::{Instant, timeout_at};

use crate::command::Request;
use crate::error::EngineError;
use crate::health::Health;
use crate::peers::{
    Answer, Basis, Call, CallError, Lane, MembershipChange, NotChanged, NotWritten, Rpc, Wait, Written,
};
use crate::raft::Raft;
use crate::raft::authority::Authority;
use crate::raft::membership::{self, Changing};
use crate::raft::seeds::Seeds;
use crate::types::{Member, MemberId};

use super::callers::{Callers, Woken};

/// How long one try waits for the leader's answer: frames may get lost. A request that is asked
/// twice is applied once.
pub(super) const TRY: Duration = Duration::from_secs(2);

/// Finds the leader and asks it.
#[derive(Clone)]
pub(super) struct LeaderClient {
    pub(super) raft: Raft,
    pub(super) authority: Arc<Authority>,
    pub(super) rpc: Arc<Rpc>,
    pub(super) seeds: Arc<Seeds>,
    pub(super) me: MemberId,
    pub(super) callers: Arc<Callers>,
    pub(super) health: Arc<Health>,
    /// How recently a member must have answered to be counted on, where that takes no time.
    pub(super) in_touch_within: Duration,
}

enum Leader {
    Here,
    There(MemberId, Member),
    Unknown,
}

impl LeaderClient {
    /// Returns once the leader has heard from a quorum, asked after this call began, and this member's
    /// view holds every write that was acknowledged before.
    pub(super) async fn await_quorum(&self, deadline: Instant) -> Result<(), EngineError> {
        while Instant::now() < deadline {
            if let Some(index) = self.read_index(Basis::Quorum, remaining(deadline).min(TRY)).await {
                return self.await_applied(index, deadline).await;
            }
            if self.callers.leader(deadline).await == Woken::TimeOver {
                break;
            }
        }
        Err(EngineError::NoQuorum)
    }

    /// Has the leader change the members.
    pub(super) async fn change(&self, change: &MembershipChange, deadline: Instant) -> Result<(), EngineError> {
        while Instant::now() < deadline {
            if let Some(done) = self.try_change(change, deadline).await {
                return done.map_err(|why| match why {
                    NotChanged::OnlyWitnesses => EngineError::OnlyWitnesses,
                    NotChanged::Differs => EngineError::Differs,
                    NotChanged::Other(why) => EngineError::Storage(why),
                });
            }
            if self.callers.leader(deadline).await == Woken::TimeOver {
                break;
            }
        }
        Err(EngineError::NoQuorum)
    }

    /// How recently a member must have answered to be counted on.
    pub(super) fn in_touch_within(&self) -> Duration {
        self.in_touch_within + self.rpc.round_trip_max()
    }

    async fn try_change(&self, change: &MembershipChange, deadline: Instant) -> Option<Result<(), NotChanged>> {
        match self.leader() {
            Leader::Here => {
                let at = Changing {
                    raft: self.raft.clone(),
                    rpc: Arc::clone(&self.rpc),
                    authority: Arc::clone(&self.authority),
                    health: Arc::clone(&self.health),
                    in_touch_within: self.in_touch_within(),
                };
                membership::change_by(at, change.clone(), deadline).await
            }
            Leader::There(id, member) => {
                let within_ms = u64::try_from(remaining(deadline).as_millis()).unwrap_or(u64::MAX);
                let call = Call::Change { change: change.clone(), within_ms };
                match self.ask(id, &member, Lane::Bulk, &call, remaining(deadline)).await {
                    Ok(Answer::Change(done)) => done,
                    _ => None,
                }
            }
            Leader::Unknown => None,
        }
    }

    /// Asks the leader once to write `request`.
    pub(super) async fn try_write(&self, request: &Arc<Request>, deadline: Instant) -> Result<Written, NotWritten> {
        match self.leader() {
            Leader::Here => {
                let writing = self.seeds.write(&self.raft, Arc::clone(request), remaining(deadline));
                let written = timeout_at(deadline, writing).await;
                written.unwrap_or(Err(NotWritten::Unknown))
            }
            Leader::There(id, member) => {
                // A large one that is sent twice would take twice as long.
                let large = Seeds::is_large(request);
                let within = if large { remaining(deadline) } else { remaining(deadline).min(TRY) };
                let call = Call::Write(Arc::clone(request));
                let holding = async {
                    if large {
                        self.seeds.hold(request).await;
                    }
                };
                let ((), answer) = join(holding, self.ask(id, &member, Lane::Bulk, &call, within)).await;
                match answer {
                    Ok(Answer::Write(result)) => result,
                    Ok(_) | Err(CallError::NotSent) => Err(NotWritten::NotLeader),
                    Err(CallError::Timeout | CallError::Failed(_)) => Err(NotWritten::Unknown),
                }
            }
            Leader::Unknown => Err(NotWritten::NotLeader),
        }
    }

    /// Asks the leader, if that is another member, once to write all of `requests`, whose commands have so many bytes.
    /// Returns them, with what became of each.
    pub(super) async fn try_write_many(
        &self,
        requests: Vec<Arc<Request>>,
        bytes: usize,
        deadline: Instant,
    ) -> (Vec<Arc<Request>>, Vec<Result<Written, NotWritten>>) {
        const REQUEST_BYTES: usize = 128;
        let count = requests.len();
        let (bytes, call) = (bytes + count * REQUEST_BYTES, Call::WriteMany(requests));
        let answer = match self.leader() {
            Leader::There(id, member) => {
                let within = remaining(deadline).min(TRY);
                let asking = self.rpc.call_sized(id, &member, Lane::Bulk, (&call, bytes), Wait::For(within));
                self.unless_replaced(id, asking).await
            }
            Leader::Here | Leader::Unknown => Err(CallError::NotSent),
        };
        let written = match answer {
            Ok(Answer::WriteMany(written)) if written.len() == count => written,
            Ok(Answer::WriteMany(_)) => vec![Err(NotWritten::Unknown); count],
            Ok(_) | Err(CallError::NotSent) => vec![Err(NotWritten::NotLeader); count],
            Err(CallError::Timeout | CallError::Failed(_)) => vec![Err(NotWritten::Unknown); count],
        };
        let Call::WriteMany(requests) = call else { return Default::default() };
        (requests, written)
    }

    /// The log index that a view must have for reads that began before this call. Asks once.
    pub(super) async fn read_index(&self, basis: Basis, within: Duration) -> Option<u64> {
        match self.leader() {
            Leader::Here => {
                timeout_at(Instant::now() + within, self.authority.read_index(&self.raft, basis)).await.ok()?
            }
            Leader::There(id, member) => {
                match self.ask(id, &member, Lane::Control, &Call::ReadIndex(basis), within).await {
                    Ok(Answer::ReadIndex(index)) => index,
                    _ => None,
                }
            }
            Leader::Unknown => None,
        }
    }

    /// Asks the leader; gives up as soon as this member knows that another one leads, or none: a
    /// leader that died does not answer any more.
    async fn ask(
        &self,
        id: MemberId,
        member: &Member,
        lane: Lane,
        call: &Call,
        timeout: Duration,
    ) -> Result<Answer, CallError> {
        self.unless_replaced(id, self.rpc.call(id, member, lane, call, Wait::For(timeout))).await
    }

    async fn unless_replaced(
        &self,
        id: MemberId,
        asking: impl Future<Output = Result<Answer, CallError>>,
    ) -> Result<Answer, CallError> {
        tokio::select! {
            answer = asking => answer,
            () = self.replaced(id) => Err(CallError::Timeout),
        }
    }

    /// Returns once this member does not follow the leader `id` any more.
    async fn replaced(&self, id: MemberId) {
        let mut metrics = self.raft.server_metrics();
        while metrics.borrow_and_update().current_leader == Some(id) {
            if metrics.changed().await.is_err() {
                // The raft core has ended; the call's own timeout remains.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns once this member's view shows the log up to `index`.
    pub(super) async fn await_applied(&self, index: u64, deadline: Instant) -> Result<(), EngineError> {
        // The write is applied elsewhere; only this member's view may lack it, and gets nothing more once the core has ended.
        let applied = tokio::select! {
            applied = self.authority.published().await_applied(index, deadline) => applied,
            () = self.ended() => self.has_applied(index),
        };
        if applied { Ok(()) } else { Err(EngineError::Unknown) }
    }

    /// Returns when the raft core has ended.
    async fn ended(&self) {
        let mut metrics = self.raft.server_metrics();
        while metrics.changed().await.is_ok() {}
    }

    pub(super) fn has_applied(&self, index: u64) -> bool {
        self.authority.published().load().applied_index() >= index
    }

    /// The leader, if this member knows it and is another one.
    pub(super) fn elsewhere(&self) -> Option<(MemberId, Member)> {
        match self.leader() {
            Leader::There(id, member) => Some((id, member)),
            Leader::Here | Leader::Unknown => None,
        }
    }

    /// Whether this member knows that another one leads.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.raft.server_metrics().borrow_watched().current_leader.is_some_and(|id| id != self.me)
    }

    /// Whether a leader is known, here or elsewhere.
    pub(super) fn is_known(&self) -> bool {
        !matches!(self.leader(), Leader::Unknown)
    }

    fn leader(&self) -> Leader {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        match metrics.current_leader {
            Some(id) if id == self.me => Leader::Here,
            Some(id) => match metrics.membership_config.membership().get_node(&id) {
                Some(member) => Leader::There(id, member.clone()),
                None => Leader::Unknown,
            },
            None => Leader::Unknown,
        }
    }
}

fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
