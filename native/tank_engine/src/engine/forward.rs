//! Writes for a leader that is another member.
//!
//! ```text
//! what the ingress took at a time --one message--> leader --one answer, once all are committed--> applied here --> callers
//!                                       |
//!                                       +-- what did not come through: each by itself, until its deadline
//! ```

use std::sync::Arc;

use tokio::time::Instant;

use crate::command::{Limits, Request};
use crate::error::EngineError;
use crate::outcome::{Outcome, Refusal};
use crate::peers::{NotWritten, Written};
use crate::runtime;

use super::callers::Woken;
use super::ingress::Pending;
use super::leader::LeaderClient;

/// The bytes of the commands in one message, about: neither side takes a millisecond to encode or to decode it.
const GROUP_BYTES_MAX: usize = 128 << 10;

/// Writes that go with one message. None of them is large.
pub(super) struct Group<'a> {
    leader: &'a Arc<LeaderClient>,
    pending: Vec<Pending>,
    requests: Vec<Arc<Request>>,
    bytes: usize,
}

impl<'a> Group<'a> {
    pub(super) fn new(leader: &'a Arc<LeaderClient>) -> Self {
        Self { leader, pending: Vec::new(), requests: Vec::new(), bytes: 0 }
    }

    pub(super) fn add(&mut self, pending: Pending, request: Arc<Request>) {
        if self.bytes + pending.bytes > GROUP_BYTES_MAX {
            std::mem::replace(self, Self::new(self.leader)).send();
        }
        self.bytes += pending.bytes;
        self.pending.push(pending);
        self.requests.push(request);
    }

    /// Asks the leader, in a task. The deadlines stay with the ingress as long as the group is on its way.
    pub(super) fn send(self) {
        let Self { leader, mut pending, mut requests, bytes } = self;
        if requests.len() <= 1 {
            let Some((pending, request)) = pending.pop().zip(requests.pop()) else { return };
            return Forwarded { pending, request, leader: Arc::clone(leader), maybe_logged: false }.go();
        }
        let Some(deadline) = pending.iter().map(|pending| pending.deadline).max() else { return };
        let Some(health) = pending.first().map(Pending::health) else { return };
        let leader = Arc::clone(leader);
        runtime::spawn_here("forward", health, async move {
            let (requests, written) = leader.try_write_many(requests, bytes, deadline).await;
            let last = written.iter().flatten().map(|written| written.index).max();
            let applied = match last {
                Some(index) => leader.await_applied(index, deadline).await,
                None => Ok(()),
            };
            for ((pending, request), written) in pending.into_iter().zip(requests).zip(written) {
                let forwarded = Forwarded { pending, request, leader: Arc::clone(&leader), maybe_logged: false };
                forwarded.settle(written, applied.clone());
            }
        });
    }
}

/// A write that another member has to log.
pub(super) struct Forwarded {
    pub(super) pending: Pending,
    pub(super) request: Arc<Request>,
    pub(super) leader: Arc<LeaderClient>,
    /// It was handed over before, and its fate was not learned.
    pub(super) maybe_logged: bool,
}

impl Forwarded {
    /// Asks the leader as soon as there is one.
    pub(super) fn go(self) {
        self.pending.leave_deadline();
        // Without a leader, no task is needed to wait for one.
        if self.leader.is_known() { self.start() } else { self.wait() }
    }

    /// Asks the leader, in a task.
    fn start(self) {
        runtime::spawn_here("forward", self.pending.health(), async move {
            let deadline = self.pending.deadline;
            let written = self.leader.try_write(&self.request, deadline).await;
            let applied = match &written {
                Ok(written) if late(&written.outcome).is_none() => {
                    self.leader.await_applied(written.index, deadline).await
                }
                _ => Ok(()),
            };
            self.settle(written, applied);
        });
    }

    /// Answers what the leader wrote and this member has `applied`, and asks again where that may help.
    fn settle(mut self, written: Result<Written, NotWritten>, applied: Result<(), EngineError>) {
        match written {
            Ok(written) => match late(&written.outcome) {
                None => self.end(applied.map(|()| written.outcome)),
                // This member was far behind when it made the request, which nobody has applied.
                Some(Late::MadeBefore(log_ms)) if !self.maybe_logged && Instant::now() < self.pending.deadline => {
                    Arc::make_mut(&mut self.request).seen_ms = log_ms;
                    self.go();
                }
                Some(_) => self.end(Err(EngineError::Unknown)),
            },
            Err(NotWritten::TooLarge { limit }) => {
                let limits = Limits { value_bytes_max: limit, txn_bytes_max: limit, ..Limits::WIDEST };
                let too_large = self.request.command.check_size(limits).err();
                let too_large = too_large.filter(|_| !self.maybe_logged);
                self.end(Err(too_large.unwrap_or(EngineError::Unknown)));
            }
            Err(why) => {
                self.maybe_logged |= why == NotWritten::Unknown;
                self.wait();
            }
        }
    }

    /// Waits for a leader, in the queue of the callers.
    fn wait(self) {
        self.pending.leave_deadline();
        let callers = Arc::clone(&self.leader.callers);
        callers.wait(self.pending.deadline, move |why| match why {
            Woken::Leader if Instant::now() < self.pending.deadline => self.start(),
            _ if self.maybe_logged => self.end(Err(EngineError::Unknown)),
            _ => self.end(Err(EngineError::NoQuorum)),
        });
    }

    fn end(self, result: Result<Outcome, EngineError>) {
        self.leader.seeds.let_go(self.request.id);
        self.pending.reply(result);
    }
}

/// Why an outcome does not tell whether the request was applied before.
pub(super) enum Late {
    /// The store forgot sessions at this time in the log; the request was made before.
    MadeBefore(u64),
    /// The client said that it would not ask any more.
    MovedOn,
}

pub(super) fn late(outcome: &Outcome) -> Option<Late> {
    match outcome {
        Outcome::Refused(Refusal::SessionEnded { log_ms }) => Some(Late::MadeBefore(*log_ms)),
        Outcome::Refused(Refusal::MovedOn) => Some(Late::MovedOn),
        _ => None,
    }
}
