//! The one place that names openraft's types: an upgrade of it changes this module, [`crate::log`],
//! [`crate::machine`] and `crate::network`, and nothing else.

pub(crate) mod authority;
pub(crate) mod comparison;
pub(crate) mod election;
pub(crate) mod ledger;
pub(crate) mod refusal;
pub(crate) mod roll_call;
pub(crate) mod witness;

use std::sync::Arc;
use std::time::Duration;

use openraft::alias;
use openraft::{OptionalSend, RaftTypeConfig};
use serde::{Deserialize, Serialize};

use crate::command::Request;
use crate::options::Timing;
use crate::outcome::Outcome;

/// Random, drawn when a member's directory is made, and never used again once it is gone.
pub type MemberId = u64;

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
    type D = Request;
    type R = Outcome;
    type NodeId = MemberId;
    type Node = Member;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, MemberId>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Request, MemberId, Member>;
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

/// The raft core with our state machine.
pub type Raft = openraft::Raft<Types, crate::machine::Machine>;
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

/// After so long without a word of a majority, and some round trips, a leader takes no more writes, and leads no more.
const QUORUM_LOST_AFTER: Duration = Duration::from_secs(3);

/// A connection that loses segments delivers nothing while TCP sends one of them again, and again with doubled pauses.
/// What takes longer than so many round trips cannot be written to.
const QUORUM_LOST_ROUND_TRIPS: u32 = 10;

/// The most that both come to. openraft takes writes for so long; it cannot be told of round trips that change.
const QUORUM_LOST_MAX: Duration = Duration::from_secs(15);

/// How long a leader does without a word of a majority, where a round trip takes `round_trip`.
pub(crate) fn quorum_lost_after(timing: &Timing, round_trip: Duration) -> Duration {
    let least = QUORUM_LOST_AFTER.max(timing.vote_embargo() * 2);
    (least + round_trip * QUORUM_LOST_ROUND_TRIPS).min(quorum_lost_max(timing))
}

fn quorum_lost_max(timing: &Timing) -> Duration {
    QUORUM_LOST_MAX.max(timing.vote_embargo() * 2)
}

/// openraft's settings for a store.
///
/// Its elections and leases are not used ([`election`], [`authority`]), but for the time that a leader takes
/// writes after a majority has answered, and its calls for votes and for handing over.
///
/// # Errors
/// What openraft finds wrong with the timing.
pub(crate) fn config(timing: &Timing) -> Result<Arc<openraft::Config>, openraft::ConfigError> {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX - 1);
    let votes_ms = ms(quorum_lost_after(timing, Duration::ZERO));
    let writes_ms = ms(quorum_lost_max(timing));
    openraft::Config {
        cluster_name: "tank_store".to_owned(),
        heartbeat_interval: timing.heartbeat_ms,
        enable_elect: false,
        // A leader that was removed hands over as any other does.
        removed_leader_step_down: openraft::StepDownPolicy::Never,
        // The time of a call for votes.
        election_timeout_min: votes_ms,
        // The time that a leader takes writes.
        election_timeout_max: writes_ms.saturating_add(1),
        // Unsafe when, as here, applying does not sync: a leader could answer from a state that
        // lost its tail.
        enable_leader_restore: Some(false),
        // The default of 200 ms is for one chunk; a whole snapshot takes as long as it takes, and
        // the transport ends one that makes no progress.
        install_snapshot_timeout: 600_000,
        max_payload_entries: 2048,
        snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(timing.snapshot_after),
        max_in_snapshot_log_to_keep: timing.log_keep,
        // Each purge leaves a range tombstone that later seeks step over.
        purge_batch_size: timing.purge_batch,
        ..Default::default()
    }
    .validate()
    .map(Arc::new)
}
