//! Asking the leader, wherever it is, until a deadline.
//!
//! A request that surely was not logged is simply asked again. One whose fate is unknown is asked
//! again too: it carries its id, and is applied once.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::{Instant, timeout_at};

use crate::command::Request;
use crate::error::EngineError;
use crate::outcome::Outcome;
use crate::peers::{
    Answer, Authority, Basis, Call, CallError, Change, Lane, NotChanged, NotWritten, Rpc, Seeds, Wait, Written,
};
use crate::raft::{Member, MemberId, Raft};

use super::members;

/// Between two tries, while no leader is known or it does not lead any more. Leaders change in
/// hundreds of milliseconds; a change that is seen ends the wait at once.
const RETRY: Duration = Duration::from_millis(20);

/// How long one try waits for the leader's answer: frames may get lost. A request that is asked
/// twice is applied once.
pub(super) const TRY: Duration = Duration::from_secs(2);

/// Finds the leader and asks it.
#[derive(Clone)]
pub(super) struct LeaderClient {
    pub(super) raft: Raft,
    pub(super) authority: Authority,
    pub(super) rpc: Arc<Rpc>,
    pub(super) seeds: Arc<Seeds>,
    pub(super) me: MemberId,
    /// How recently a member must have answered to be counted on.
    pub(super) in_touch_within: Duration,
}

enum Leader {
    Here,
    There(MemberId, Member),
    Unknown,
}

impl LeaderClient {
    /// Writes `request`, and returns once its outcome is visible in this member's view.
    pub(super) async fn write(&self, request: Request, deadline: Instant) -> Result<Outcome, EngineError> {
        let outcome = self.write_until(&request, deadline).await;
        self.seeds.let_go(request.id);
        outcome
    }

    async fn write_until(&self, request: &Request, deadline: Instant) -> Result<Outcome, EngineError> {
        let mut maybe_logged = false;
        while Instant::now() < deadline {
            match self.try_write(request, deadline).await {
                Ok(written) => {
                    self.await_applied(written.index, deadline).await?;
                    return Ok(written.outcome);
                }
                Err(NotWritten::NotLeader) => {}
                Err(NotWritten::Unknown) => maybe_logged = true,
            }
            self.pause(deadline).await;
        }
        Err(if maybe_logged { EngineError::Unknown } else { EngineError::NoQuorum })
    }

    /// Returns once the leader has heard from a quorum, asked after this call began, and this member's
    /// view holds every write that was acknowledged before.
    pub(super) async fn await_quorum(&self, deadline: Instant) -> Result<(), EngineError> {
        while Instant::now() < deadline {
            if let Some(index) = self.read_index(Basis::Quorum, remaining(deadline).min(TRY)).await {
                return self.await_applied(index, deadline).await;
            }
            self.pause(deadline).await;
        }
        Err(EngineError::NoQuorum)
    }

    /// Has the leader change the members.
    pub(super) async fn change(&self, change: &Change, deadline: Instant) -> Result<(), EngineError> {
        while Instant::now() < deadline {
            if let Some(done) = self.try_change(change, deadline).await {
                return done.map_err(|why| match why {
                    NotChanged::OnlyWitnesses => EngineError::OnlyWitnesses,
                    NotChanged::Other(why) => EngineError::Storage(why),
                });
            }
            self.pause(deadline).await;
        }
        Err(EngineError::NoQuorum)
    }

    async fn try_change(&self, change: &Change, deadline: Instant) -> Option<Result<(), NotChanged>> {
        match self.leader() {
            Leader::Here => members::change_by(&self.raft, change.clone(), self.in_touch_within, deadline).await,
            Leader::There(id, member) => {
                let within_ms = u64::try_from(remaining(deadline).as_millis()).unwrap_or(u64::MAX);
                let call = Call::Change { change: change.clone(), within_ms };
                match self.ask(id, &member, Lane::Control, &call, remaining(deadline)).await {
                    Ok(Answer::Change(done)) => done,
                    _ => None,
                }
            }
            Leader::Unknown => None,
        }
    }

    async fn try_write(&self, request: &Request, deadline: Instant) -> Result<Written, NotWritten> {
        match self.leader() {
            Leader::Here => {
                let writing = self.seeds.write(&self.raft, request.clone(), remaining(deadline));
                let written = timeout_at(deadline, writing).await;
                written.unwrap_or(Err(NotWritten::Unknown))
            }
            Leader::There(id, member) => {
                // A large one that is sent twice would take twice as long.
                let within = if self.seeds.keep(request) { remaining(deadline) } else { remaining(deadline).min(TRY) };
                let call = Call::Write(request.clone());
                match self.ask(id, &member, Lane::Bulk, &call, within).await {
                    Ok(Answer::Write(result)) => result,
                    Ok(_) | Err(CallError::NotSent) => Err(NotWritten::NotLeader),
                    Err(CallError::Timeout | CallError::Failed(_)) => Err(NotWritten::Unknown),
                }
            }
            Leader::Unknown => Err(NotWritten::NotLeader),
        }
    }

    /// The log index that a view must have for reads that began before this call. Asks once.
    pub(super) async fn read_index(&self, basis: Basis, within: Duration) -> Option<u64> {
        match self.leader() {
            Leader::Here => timeout_at(Instant::now() + within, self.authority.read_index(basis)).await.ok()?,
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
        tokio::select! {
            answer = self.rpc.call(id, member, lane, call, Wait::For(timeout)) => answer,
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
        if self.has_applied(index) {
            return Ok(());
        }
        let wait = self.raft.wait(Some(remaining(deadline)));
        // The write is applied elsewhere; only this member's view may lack it.
        wait.applied_index_at_least(Some(index), "applied here").await.map(drop).map_err(|_| EngineError::Unknown)
    }

    pub(super) fn has_applied(&self, index: u64) -> bool {
        self.authority.published.load().applied_index() >= index
    }

    /// The leader, if this member knows it and is another one.
    pub(super) fn elsewhere(&self) -> Option<(MemberId, Member)> {
        match self.leader() {
            Leader::There(id, member) => Some((id, member)),
            Leader::Here | Leader::Unknown => None,
        }
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

    /// Waits for a moment, or until something about the leader changes.
    pub(super) async fn pause(&self, deadline: Instant) {
        let mut metrics = self.raft.server_metrics();
        let _ = metrics.borrow_and_update();
        let until = deadline.min(Instant::now() + RETRY);
        if !matches!(timeout_at(until, metrics.changed()).await, Ok(Ok(()))) {
            tokio::time::sleep_until(until).await;
        }
    }
}

fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
