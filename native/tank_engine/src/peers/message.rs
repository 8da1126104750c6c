//! What members ask of each other.
use std::sync::Arc;

use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::raft::{
    AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::command::{Command, Request, RequestId};
use crate::marks::{Difference, Mark};
use crate::outcome::Outcome;
use crate::types::{LogEntry, LogId, Member, MemberId, Progress, SnapshotMeta, Types, Vote};

use super::refusal::Refusal;

/// From this size on, commands travel ahead: 64 KB take 32 ms at 16 Mbit/s.
pub(crate) const AHEAD_BYTES_MIN: usize = 64 << 10;

/// A question.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    Append(Append),
    /// A large command that will come as a log entry: to be held until then.
    Hold {
        id: RequestId,
        command: Command,
    },
    /// The sender leads with this vote. It is not answered.
    Leads {
        vote: Vote,
        /// How far the members have come, as it knows.
        progress: Vec<(MemberId, Progress)>,
    },
    Vote(Ballot),
    /// Would the receiver vote?
    PreVote(Ballot),
    /// The sender was just started: what had it before?
    Recall(Question),
    TransferLeader(TransferLeaderRequest<Types>),
    /// The disk of the sender, which led with this vote, failed: it counts on nobody any more. The member that is named in
    /// the request is to take over; should it lack what another one has, that one. It is not answered.
    Resign(TransferLeaderRequest<Types>),
    /// A snapshot follows, under this number.
    SnapshotBegin {
        transfer: u64,
        vote: Vote,
        meta: SnapshotMeta,
    },
    /// A piece of it ([`crate::snapshot::Frame`]).
    SnapshotFrame {
        transfer: u64,
        frame: ByteBuf,
    },
    /// A write that came in at a member that does not lead.
    Write(Arc<Request>),
    /// Small writes that came in at about the same time.
    WriteMany(Vec<Arc<Request>>),
    /// A change of the members, for the leader, which gives up after that time.
    Change {
        change: MembershipChange,
        within_ms: u64,
    },
    /// Which log index must be applied for a read to be current?
    ReadIndex(Basis),
    /// What did the receiver note of its state? It may be told that it differs.
    Marks(Option<Differs>),
}

/// The leader's word that the receiver's state differs from that of the members.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Differs {
    /// What the sender leads with.
    pub(crate) vote: Vote,
    pub(crate) difference: Difference,
    /// A majority of the voters has the other state.
    pub(crate) by_majority: bool,
}

/// A question for a vote.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ballot {
    pub(crate) request: VoteRequest<Types>,
    /// How far the receiver has come, as the sender knows.
    pub(crate) known: Option<Progress>,
}

/// Log entries for a follower, or none: a heartbeat.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Append {
    pub(crate) vote: Vote,
    pub(crate) previous: Option<LogId>,
    pub(crate) committed: Option<LogId>,
    pub(crate) entries: Vec<SentEntry>,
    /// How far the receiver has come, as the sender knows.
    pub(crate) known: Option<Progress>,
}

/// A log entry on its way.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum SentEntry {
    Whole(LogEntry),
    /// Its command was sent ahead ([`Call::Hold`]).
    Held {
        log_id: LogId,
        id: RequestId,
        time_ms: u64,
        seen_ms: u64,
    },
}

impl SentEntry {
    pub(crate) fn log_id(&self) -> LogId {
        match self {
            Self::Held { log_id, .. } => *log_id,
            Self::Whole(entry) => entry.log_id(),
        }
    }

    /// The request of an entry whose command is held, or may be.
    pub(crate) fn large(&self) -> Option<RequestId> {
        match self {
            Self::Held { id, .. } => Some(*id),
            Self::Whole(entry) => match &entry.payload {
                EntryPayload::Normal(request) if request.command.size() >= AHEAD_BYTES_MIN => Some(request.id),
                _ => None,
            },
        }
    }
}

/// What a leader's word about reads rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Basis {
    /// Its lease, while that holds; otherwise a quorum.
    Lease,
    /// A quorum, which answered after the question came.
    Quorum,
}

/// The answer to a call of the same name.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Append(AppendEntriesResponse<Types>),
    /// Some of the commands that were sent ahead are not held any more: they have to come whole.
    NotHeld,
    /// The command is held.
    Held,
    Vote(VoteResponse<Types>),
    TransferLeader(TransferLeaderResponse<Types>),
    /// The piece was taken, and more may come.
    SnapshotTaken,
    /// A piece before this one is missing.
    SnapshotGap,
    /// The last piece was taken, and the snapshot is installed or was refused for its vote.
    SnapshotDone(SnapshotResponse<Types>),
    Write(Result<Written, NotWritten>),
    /// Of each, in order.
    WriteMany(Vec<Result<Written, NotWritten>>),
    /// `None`: the member does not lead.
    Change(Option<Result<(), NotChanged>>),
    /// `None`: the member does not lead.
    ReadIndex(Option<u64>),
    Recall(Known),
    /// The member takes part in nothing any more.
    Refused(Refusal),
    /// What it noted.
    Marks(Vec<Mark>),
    /// The member cannot answer: it has failed, or the call makes no sense there.
    Failed(String),
}

/// What a member that was just started says of itself.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    /// Its last entry that it knows to be committed.
    pub(crate) committed: Option<LogId>,
}

/// What another one knows of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Known {
    /// How far it had come.
    pub(crate) progress: Option<Progress>,
    /// Whether the one that answers surely leads.
    pub(crate) leads: bool,
    /// An entry that is committed where the member that asks has another one committed.
    pub(crate) conflict: Option<LogId>,
}

/// A change of the members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MembershipChange {
    /// Take a member in that gets the log and does not vote; done when it has caught up.
    AddLearner(MemberId, Member),
    /// Let a learner vote.
    Promote(MemberId),
    /// Let a voter go on as a learner.
    Demote(MemberId),
    /// Part with a member. Its id is never used again.
    Remove(MemberId),
    /// Know a member under another name of its node. Only for the only member: others would have to find it.
    Rename(MemberId, String),
}

/// Why a change of the members was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NotChanged {
    /// Witnesses would be the only voters left.
    OnlyWitnesses,
    /// The member's state is not the cluster's.
    Differs,
    /// Something that should not happen.
    Other(String),
}

/// A write that was applied.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Written {
    pub(crate) outcome: Outcome,
    /// Its log index: whoever applied it sees the write.
    pub(crate) index: u64,
}

/// A write that has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NotWritten {
    /// It is surely not in the log.
    NotLeader,
    /// It may or may not come to be applied.
    Unknown,
    /// It is larger than the leader takes, and surely not in the log.
    TooLarge { limit: usize },
}
