//! How do entries and snapshots get to other members? openraft's network, made of calls.
//!
//! openraft replicates over one stream of appends per follower. Many appends are in flight; the link delivers them in
//! order, and their answers return in that order:
//!
//! ```text
//! requests --encode--> link ~~~~> follower, in order
//! results  <--in order-- answers, each when its entries are durable there
//! ```

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend};

use crate::log;
use crate::mutants;
use crate::runtime;
use crate::snapshot::SnapshotData;

use crate::peers::Lane;
use crate::peers::message::{Answer, Append, Ballot, Call, SentEntry};
use crate::peers::rpc::{self, CallError, Rpc, Wait};

use super::authority::Authority;
use super::ledger::Ledger;
use super::seeds::Seeds;
use super::{LogEntry, LogId, Member, MemberId, Progress, Types, Vote, transfer};

/// How long a vote may take. A later one counts for nothing: another election has begun.
const VOTE_TIMEOUT: Duration = Duration::from_secs(5);

/// The bytes of appends to one follower that are not answered yet, and how many. Enough to keep a
/// disk and a long link busy; the link bounds what is on its way.
const UNANSWERED_BYTES_MAX: usize = 8 << 20;
const UNANSWERED_MAX: usize = 256;

/// From this size on, encoding takes a millisecond, and is left to another thread.
const ENCODE_BYTES_MAX: usize = 256 << 10;

/// The default interval of heartbeats, for the planted fault of appends that must not take longer.
const HEARTBEAT: Duration = Duration::from_millis(50);

/// Between two tries to reach a member that cannot be reached.
const UNREACHABLE_RETRY: Duration = Duration::from_millis(200);

/// Makes the way to each member.
pub(crate) struct Network {
    pub(crate) rpc: Arc<Rpc>,
    pub(crate) gate: Arc<Authority>,
    pub(crate) seeds: Arc<Seeds>,
    pub(crate) ledger: Arc<Ledger>,
}

/// The way to one member.
#[derive(Clone)]
pub(crate) struct Peer {
    rpc: Arc<Rpc>,
    gate: Arc<Authority>,
    seeds: Arc<Seeds>,
    ledger: Arc<Ledger>,
    id: MemberId,
    member: Member,
    lane: Lane,
}

impl Network {
    fn peer(&self, id: MemberId, member: &Member, lane: Lane) -> Peer {
        let (rpc, gate, seeds) = (Arc::clone(&self.rpc), Arc::clone(&self.gate), Arc::clone(&self.seeds));
        Peer { rpc, gate, seeds, ledger: Arc::clone(&self.ledger), id, member: member.clone(), lane }
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
    async fn call(&self, call: Call) -> Result<Answer, RPCError<Types>> {
        let wait = Wait::For(VOTE_TIMEOUT);
        self.rpc.call(self.id, &self.member, Lane::Control, &call, wait).await.map_err(|error| failed(&error))
    }

    /// Makes a message of log entries, or of none. Those that are held there are only named.
    async fn encode(self, request: AppendEntriesRequest<Types>) -> Encoded {
        if let Some(committed) = &request.leader_commit {
            // Before it can be seen there.
            self.gate.tell(committed.index());
        }
        let last = last_of(&request);
        let sent = request.entries.iter().map(|entry| self.seeds.pack(self.id, entry.clone())).collect();
        let body = self.encode_entries(&request, sent).await;
        Encoded { request, last, body }
    }

    /// Sends a message of log entries; returns when they are durable there, or refused.
    async fn append(self, encoded: Encoded) -> Appended {
        let Encoded { request, last, body } = encoded;
        let (previous, mut resent) = (request.prev_log_id, false);
        let result = match self.send_append(body).await {
            Ok(Answer::NotHeld) => {
                resent = true;
                self.seeds.forget(self.id, &request.entries);
                let whole = request.entries.iter().cloned().map(SentEntry::Whole).collect();
                self.send_append(self.encode_entries(&request, whole).await).await
            }
            result => result,
        };
        let result = match result {
            Ok(Answer::Append(response)) => {
                self.note(&request.vote, last, &response);
                Ok(response)
            }
            Ok(_) => Err(unexpected()),
            Err(error) => Err(failed(&error)),
        };
        Appended { previous, last, resent, result }
    }

    /// Remembers what the member has acknowledged.
    fn note(&self, vote: &Vote, last: Option<LogId>, response: &AppendEntriesResponse<Types>) {
        let last = match response {
            AppendEntriesResponse::Success => last,
            AppendEntriesResponse::PartialSuccess(upto) => *upto,
            _ => return,
        };
        self.ledger.note(self.id, Progress { vote: *vote, last });
    }

    fn ballot(&self, request: VoteRequest<Types>) -> Ballot {
        Ballot { request, known: self.ledger.of(self.id) }
    }

    async fn encode_entries(
        &self,
        request: &AppendEntriesRequest<Types>,
        entries: Vec<SentEntry>,
    ) -> Result<Bytes, CallError> {
        encode(request, entries, self.ledger.of(self.id)).await
    }

    async fn send_append(&self, body: Result<Bytes, CallError>) -> Result<Answer, CallError> {
        if self.gate.is_sealed() {
            // This member is handing over. Who got one more entry would not vote for the new leader.
            return Err(CallError::NotSent);
        }
        let wait = match self.lane {
            Lane::Control => Wait::For(self.heartbeat_timeout()),
            _ if mutants::is("append_within_a_heartbeat") => Wait::For(HEARTBEAT),
            _ => Wait::WhileAlive,
        };
        self.rpc.call_encoded(self.id, &self.member, self.lane, body?, wait).await
    }

    /// One heartbeat is on its way at a time, so a lost one must not be waited for long; nor may one that comes late be
    /// given up, since its answer would not count.
    fn heartbeat_timeout(&self) -> Duration {
        const LEAST: Duration = Duration::from_millis(500);
        const HEARTBEAT_ROUND_TRIPS: u32 = 8;
        (self.rpc.round_trip_max() * HEARTBEAT_ROUND_TRIPS).clamp(LEAST, VOTE_TIMEOUT)
    }
}

async fn encode(
    request: &AppendEntriesRequest<Types>,
    entries: Vec<SentEntry>,
    known: Option<Progress>,
) -> Result<Bytes, CallError> {
    let bytes: usize = entries.iter().map(sent_size).sum();
    let AppendEntriesRequest { vote, prev_log_id: previous, leader_commit: committed, .. } = *request;
    let call = Call::Append(Append { vote, previous, committed, entries, known });
    let encode = move || rpc::encode_sized(&call, bytes);
    if bytes <= ENCODE_BYTES_MAX {
        return encode();
    }
    runtime::offload(encode).await.unwrap_or_else(|error| Err(CallError::Failed(error.to_string())))
}

fn sent_size(entry: &SentEntry) -> usize {
    const HELD_BYTES: usize = 64;
    match entry {
        SentEntry::Whole(entry) => log::entry_size(entry),
        SentEntry::Held { .. } => HELD_BYTES,
    }
}

fn failed(error: &CallError) -> RPCError<Types> {
    match error {
        // Wait before the next try.
        CallError::NotSent | CallError::Failed(_) => RPCError::Unreachable(Unreachable::new(error)),
        CallError::Timeout => RPCError::Network(NetworkError::new(error)),
    }
}

fn unexpected() -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(&AnyError::error("an answer to another question")))
}

/// An append as a message.
struct Encoded {
    request: AppendEntriesRequest<Types>,
    last: Option<LogId>,
    body: Result<Bytes, CallError>,
}

/// An append that was answered, or failed.
struct Appended {
    previous: Option<LogId>,
    last: Option<LogId>,
    /// Its entries went a second time. The appends sent after the first time came too early and were refused.
    resent: bool,
    result: Result<AppendEntriesResponse<Types>, RPCError<Types>>,
}

type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The appends of one stream that are not answered yet.
struct Pipeline<S> {
    peer: Peer,
    requests: Option<S>,
    /// The next one, and the last entry of it. It has to be on the link before another one is taken: they go in order.
    encoding: Option<(Option<LogId>, Task<Encoded>)>,
    /// Oldest first, each with its bytes.
    unanswered: VecDeque<Unanswered>,
    bytes: usize,
}

struct Unanswered {
    bytes: usize,
    last: Option<LogId>,
    answering: Answering,
}

/// An append whose answer may have come before that of an older one.
enum Answering {
    Waits(Task<Appended>),
    Has(Box<Appended>),
}

impl<S: Stream<Item = AppendEntriesRequest<Types>> + Unpin> Pipeline<S> {
    fn has_room(&self) -> bool {
        self.unanswered.len() < UNANSWERED_MAX && self.bytes < UNANSWERED_BYTES_MAX
    }

    /// Sends requests as they come; the result of the oldest one. `None` when all is sent and answered.
    async fn next(&mut self) -> Option<Appended> {
        std::future::poll_fn(|cx| {
            self.poll_send(cx);
            for Unanswered { answering, .. } in &mut self.unanswered {
                if let Answering::Waits(appending) = answering
                    && let Poll::Ready(appended) = appending.as_mut().poll(cx)
                {
                    *answering = Answering::Has(Box::new(appended));
                }
            }
            loop {
                let again = self.unanswered.front().is_some_and(|first| self.is_repeated(first));
                match self.unanswered.pop_front() {
                    // The answer to the later one says all that this one does.
                    Some(Unanswered { bytes, answering: Answering::Has(appended), .. })
                        if again && appended.result.is_ok() =>
                    {
                        self.bytes -= bytes;
                    }
                    Some(Unanswered { bytes, answering: Answering::Has(appended), .. }) => {
                        self.bytes -= bytes;
                        return Poll::Ready(Some(*appended));
                    }
                    Some(waits) => {
                        self.unanswered.push_front(waits);
                        return Poll::Pending;
                    }
                    None if self.requests.is_none() && self.encoding.is_none() => return Poll::Ready(None),
                    None => return Poll::Pending,
                }
            }
        })
        .await
    }

    /// Whether a later append ends with the same entry, as one does that only brings a newer commit index.
    ///
    /// openraft takes the first answer that names this entry for one to all of them, and counts the time at which the
    /// last of them was sent as heard of: a lease would begin when a request was sent that may never have arrived.
    fn is_repeated(&self, first: &Unanswered) -> bool {
        let later = self.unanswered.iter().skip(1).map(|unanswered| &unanswered.last);
        later.chain(self.encoding.as_ref().map(|(last, _)| last)).any(|last| *last == first.last)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) {
        loop {
            if let Some((_, encoding)) = &mut self.encoding {
                let Poll::Ready(encoded) = encoding.as_mut().poll(cx) else { return };
                self.encoding = None;
                let last = encoded.last;
                let bytes = encoded.request.entries.iter().map(log::entry_size).sum();
                let mut appending: Task<Appended> = Box::pin(self.peer.clone().append(encoded));
                // The first poll puts it on the link.
                let answering = match appending.as_mut().poll(cx) {
                    Poll::Ready(appended) => Answering::Has(Box::new(appended)),
                    Poll::Pending => Answering::Waits(appending),
                };
                self.bytes += bytes;
                self.unanswered.push_back(Unanswered { bytes, last, answering });
            }
            let room = self.has_room();
            let Some(requests) = self.requests.as_mut().filter(|_| room) else { return };
            match requests.poll_next_unpin(cx) {
                Poll::Ready(Some(request)) => {
                    let last = last_of(&request);
                    self.encoding = Some((last, Box::pin(self.peer.clone().encode(request))));
                }
                Poll::Ready(None) => self.requests = None,
                Poll::Pending => return,
            }
        }
    }
}

fn last_of(request: &AppendEntriesRequest<Types>) -> Option<LogId> {
    use openraft::entry::RaftEntry;
    request.entries.last().map(LogEntry::log_id).or(request.prev_log_id)
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.clone().append(self.clone().encode(request).await).await.result
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let unanswered = VecDeque::new();
        let pipeline = Pipeline { peer: self.clone(), requests: Some(input), encoding: None, unanswered, bytes: 0 };
        let results = futures_util::stream::unfold(Some(pipeline), |pipeline| async move {
            let mut pipeline = pipeline?;
            let Appended { previous, last, resent, result } = pipeline.next().await?;
            let response = match result {
                Ok(response) => response,
                Err(error) => return Some((Err(error), None)),
            };
            let partly = matches!(&response, AppendEntriesResponse::PartialSuccess(upto) if *upto != last);
            let result = response.into_stream_result(previous, last);
            // The follower refuses what was sent after a refused append. Another stream begins after the last success.
            let goes_on = result.is_ok() && !partly && !resent;
            Some((Ok(result), goes_on.then_some(pipeline)))
        });
        let results: BoxStream<'s, _> = Box::pin(results);
        Box::pin(async move { Ok(results) })
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(UNREACHABLE_RETRY)))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let vote = request.vote;
        match self.call(Call::Vote(self.ballot(request))).await? {
            Answer::Vote(response) => {
                if response.vote_granted {
                    self.ledger.note(self.id, Progress { vote, last: None });
                }
                Ok(response)
            }
            _ => Err(unexpected()),
        }
    }

    // The default grants: a member cut off from all others would win every pre-vote.
    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.call(Call::PreVote(self.ballot(request))).await? {
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
            result = sending => {
                if result.is_ok() {
                    tracing::info!(node = %self.member.node, "sent a snapshot to another member");
                }
                result.map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match self.call(Call::TransferLeader(request)).await? {
            Answer::TransferLeader(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }
}
