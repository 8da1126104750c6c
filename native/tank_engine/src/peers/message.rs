//! What members ask of each other.

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::command::Request;
use crate::outcome::Outcome;
use crate::raft::{Member, MemberId, SnapshotMeta, Types, Vote};

/// A question.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<Types>),
    PreVote(VoteRequest<Types>),
    TransferLeader(TransferLeaderRequest<Types>),
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
    Write(Request),
    /// A change of the members, for the leader, which gives up after that time.
    Change {
        change: Change,
        within_ms: u64,
    },
    /// Which log index must be applied for a read to be current?
    ReadIndex(Basis),
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
    Vote(VoteResponse<Types>),
    TransferLeader(TransferLeaderResponse<Types>),
    /// The piece was taken, and more may come.
    SnapshotTaken,
    /// The last piece was taken, and the snapshot is installed or was refused for its vote.
    SnapshotDone(SnapshotResponse<Types>),
    Write(Result<Written, NotWritten>),
    /// `None`: the member does not lead.
    Change(Option<Result<(), NotChanged>>),
    /// `None`: the member does not lead.
    ReadIndex(Option<u64>),
    /// The member cannot answer: it has failed, or the call makes no sense there.
    Failed(String),
}

/// A change of the members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Take a member in that gets the log and does not vote; done when it has caught up.
    AddLearner(MemberId, Member),
    /// Let a learner vote.
    Promote(MemberId),
    /// Let a voter go on as a learner.
    Demote(MemberId),
    /// Part with a member. Its id is never used again.
    Remove(MemberId),
}

/// Why a change of the members was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NotChanged {
    /// Witnesses would be the only voters left.
    OnlyWitnesses,
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
}
