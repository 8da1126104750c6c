//! openraft's network, made of calls.

use std::future::Future;
use std::sync::Arc;

use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend};

use crate::raft::{Member, MemberId, Types, Vote};
use crate::read_gate::ReadGate;
use crate::snapshot::SnapshotData;

use super::message::{Answer, Call};
use super::rpc::{CallError, Rpc};
use super::{Lane, transfer};

/// Makes the way to each member.
pub(crate) struct Network {
    pub(crate) rpc: Arc<Rpc>,
    pub(crate) gate: Arc<ReadGate>,
}

/// The way to one member.
pub(crate) struct Peer {
    rpc: Arc<Rpc>,
    gate: Arc<ReadGate>,
    id: MemberId,
    member: Member,
    lane: Lane,
}

impl Network {
    fn peer(&self, id: MemberId, member: &Member, lane: Lane) -> Peer {
        let (rpc, gate) = (Arc::clone(&self.rpc), Arc::clone(&self.gate));
        Peer { rpc, gate, id, member: member.clone(), lane }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: MemberId, node: &Member) -> Peer {
        self.peer(target, node, Lane::Log)
    }

    async fn new_heartbeat_client(&mut self, target: MemberId, node: &Member) -> Peer {
        self.peer(target, node, Lane::Control)
    }

    async fn new_snapshot_client(&mut self, target: MemberId, node: &Member) -> Peer {
        self.peer(target, node, Lane::Snapshot)
    }
}

impl Peer {
    async fn call(&self, lane: Lane, call: Call, option: &RPCOption) -> Result<Answer, RPCError<Types>> {
        let answer = self.rpc.call(self.id, &self.member, lane, &call, option.hard_ttl()).await;
        answer.map_err(|error| match error {
            // Wait before the next try; the others mostly pass at once.
            CallError::NotSent | CallError::Failed(_) => RPCError::Unreachable(Unreachable::new(&error)),
            CallError::Timeout => RPCError::Network(NetworkError::new(&error)),
        })
    }
}

fn unexpected() -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(&AnyError::error("an answer to another question")))
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        if let Some(committed) = &request.leader_commit {
            // Before it can be seen there.
            self.gate.tell(committed.index());
        }
        match self.call(self.lane, Call::Append(request), &option).await? {
            Answer::Append(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.call(Lane::Control, Call::Vote(request), &option).await? {
            Answer::Vote(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }

    // The default grants: a member cut off from all others would win every pre-vote.
    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.call(Lane::Control, Call::PreVote(request), &option).await? {
            Answer::Vote(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::alias::SnapshotOf<Types, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let SnapshotData::Pinned(pinned) = snapshot.snapshot else {
            let error = AnyError::error("only a member's own snapshot can be sent");
            return Err(StreamingError::Unreachable(Unreachable::new(&error)));
        };
        let sending = transfer::send(&self.rpc, self.id, &self.member, vote, snapshot.meta, &pinned);
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            result = sending => result.map_err(|error| StreamingError::Unreachable(Unreachable::new(&error))),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match self.call(Lane::Control, Call::TransferLeader(request), &option).await? {
            Answer::TransferLeader(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }
}
