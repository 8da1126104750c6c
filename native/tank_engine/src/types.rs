//! The types that openraft works with: members, log ids, entries, votes.
//!
//! Low in the layers, so that the log, the disk and the network can name them. The raft core itself is in
//! [`crate::raft`].

use std::sync::Arc;

use openraft::alias;
use openraft::{OptionalSend, RaftTypeConfig};
use serde::{Deserialize, Serialize};

use crate::command::Request;
use crate::environment;
use crate::error::EngineError;
use crate::outcome::Outcome;

/// Random, drawn when a member's directory is made, and never used again once it is gone.
pub type MemberId = u64;

/// A random number that is not 0, from the member's environment.
///
/// # Errors
/// It gives none.
pub fn random_id() -> Result<u64, EngineError> {
    let random = environment::random().map_err(|error| EngineError::Storage(format!("no randomness: {error}")))?;
    Ok(random.max(1))
}

/// What the other members know of a member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The name of the Erlang node it runs on. Only an address: two members never share an id,
    /// but a node's name outlives its members.
    pub node: String,
    /// It votes and keeps the log, and serves nobody ([`crate::engine`]). Left out when it is none:
    /// records of before there were witnesses read the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub witness: bool,
}

/// The types that openraft works with.
#[derive(Debug, Clone, Copy, Default, Eq, PartialEq, Ord, PartialOrd)]
pub struct Types;

impl RaftTypeConfig for Types {
    type D = Arc<Request>;
    type R = Outcome;
    type NodeId = MemberId;
    type Node = Member;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, MemberId>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Arc<Request>, MemberId, Member>;
    type Entry = openraft::Entry<<Self::LeaderId as openraft::vote::RaftLeaderId>::Committed, Self::Payload>;
    type Responder<T>
        = Responder<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type AsyncRuntime = crate::raft_runtime::RaftRuntime;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// Term, leader and index of a log entry.
pub type LogId = alias::LogIdOf<Types>;
/// A log entry.
pub type LogEntry = alias::EntryOf<Types>;
/// A vote.
pub type Vote = alias::VoteOf<Types>;
/// The members as of a log entry.
pub type StoredMembership = alias::StoredMembershipOf<Types>;
/// What a snapshot stands for.
pub type SnapshotMeta = alias::SnapshotMetaOf<Types>;
/// The question for a vote, and the answer.
pub(crate) type VoteRequest = openraft::raft::VoteRequest<Types>;
pub(crate) type VoteResponse = openraft::raft::VoteResponse<Types>;
/// The answer to a write, as openraft gives it.
pub type WriteResult = openraft::raft::ClientWriteResult<Types>;

/// Calls a function with the answer to a write, on the task that has it.
pub struct Responder<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Responder<T> {
    /// Calls `answer` once, unless the raft core dies first: then it is dropped.
    pub fn new(answer: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(answer))
    }
}

impl<T: OptionalSend + 'static> openraft::raft::responder::Responder<Types, T> for Responder<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

/// How far a member has come: its vote, and with it the last entry of its log.
///
/// A later vote may replace entries that no majority had. While the vote is the same, the log only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) vote: Vote,
    pub(crate) last: Option<LogId>,
}

impl Progress {
    /// Whether a member that has come as far as `known` has lost something when it has only this.
    pub(crate) fn is_behind(&self, known: &Self) -> bool {
        // Whether a majority has granted the vote may be forgotten.
        let place = |progress: &Self| (*progress.vote.leader_id(), progress.last);
        place(self) < place(known)
    }
}
