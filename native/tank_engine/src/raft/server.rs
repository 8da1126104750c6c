//! How are the calls of other members answered?

use std::cmp::Ordering;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use openraft::errors::ClientWriteError;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::command::{Limits, Request};
use crate::environment::wall_ms;
use crate::error::EngineError;
use crate::health::Health;
use crate::runtime::{self, Runtime};
use crate::snapshot::{Frame, SnapshotData, SnapshotReceiver};
use crate::sync::lock;

use crate::peers::Lane;
use crate::peers::frame::{Head, Kind};
use crate::peers::message::{Answer, Append, Ballot, Call, NotWritten, SentEntry, Written};
use crate::peers::rpc::{Incoming, Rpc};

use super::authority::Authority;
use super::comparison::Comparison;
use super::election::Elections;
use super::membership::{self, Changing};
use super::roll_call::RollCall;
use super::seeds::Seeds;
use super::{Raft, SnapshotMeta, Types, Vote};

/// The longest that a change of the members is waited for: catching up can mean a large snapshot.
const CHANGE_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a forwarded write may take that does not say so.
const WRITE_TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// From this size on, decoding takes a millisecond, and is left to another thread.
const DECODE_BYTES_MAX: usize = 256 << 10;

/// The answering side of one member.
pub(crate) struct Server {
    rpc: Arc<Rpc>,
    raft: Raft,
    authority: Arc<Authority>,
    dir: PathBuf,
    health: Arc<Health>,
    elections: Arc<Elections>,
    roll_call: Arc<RollCall>,
    comparison: Arc<Comparison>,
    /// How large the commands of others may be.
    limits: Limits,
    /// Parts of snapshots, which are answered one after the other.
    snapshots: mpsc::UnboundedSender<(String, Incoming)>,
    /// Log entries, which the raft core takes in the order in which they came.
    appends: mpsc::UnboundedSender<(String, Incoming)>,
    seeds: Arc<Seeds>,
    /// The snapshot that is coming in. A new one ends the one before.
    receiving: Mutex<Option<Receiving>>,
    /// The last one that came in, and what became of it: its sender may not have heard.
    received: Mutex<Option<(u64, Installed)>>,
}

type Installed = Result<SnapshotResponse<Types>, String>;

struct Receiving {
    transfer: u64,
    vote: Vote,
    meta: SnapshotMeta,
    receiver: SnapshotReceiver,
}

impl Server {
    pub(crate) fn start(
        runtime: &Runtime,
        (rpc, seeds): (Arc<Rpc>, Arc<Seeds>),
        (raft, authority): (Raft, Arc<Authority>),
        (elections, roll_call, comparison): (Arc<Elections>, Arc<RollCall>, Arc<Comparison>),
        dir: PathBuf,
        health: Arc<Health>,
        limits: Limits,
    ) -> Arc<Self> {
        let (snapshots, mut parts) = mpsc::unbounded_channel::<(String, Incoming)>();
        let (appends, entries) = mpsc::unbounded_channel();
        let (receiving, received) = (Mutex::new(None), Mutex::new(None));
        let server = Arc::new(Self {
            rpc,
            raft,
            authority,
            dir,
            health,
            elections,
            roll_call,
            comparison,
            limits,
            snapshots,
            appends,
            seeds,
            receiving,
            received,
        });
        // Weak: they end with the server.
        let weak = Arc::downgrade(&server);
        runtime.spawn("peer-snapshot", &server.health, async move {
            while let Some((node, incoming)) = parts.recv().await {
                let Some(server) = weak.upgrade() else { return };
                server.serve(&node, incoming).await;
            }
        });
        runtime.spawn("peer-append", &server.health, take_appends(Arc::downgrade(&server), entries));
        runtime.spawn("links", &server.health, Arc::clone(&server.rpc).drive());
        server
    }

    /// Takes a frame that `node` sent; returns the id of its cluster if that is another one. Never blocks.
    pub(crate) fn deliver(self: &Arc<Self>, runtime: &Runtime, node: &str, frame: &[u8]) -> Option<u64> {
        let received = self.rpc.receive(node, frame);
        if received.is_empty() {
            return self.rpc.other_cluster(frame);
        }
        for incoming in received {
            let node = node.to_owned();
            // In the order they came. What has an order comes over a link, which bounds how much there is.
            let _ = match incoming.lane {
                _ if incoming.is_answer() => {
                    let server = Arc::clone(self);
                    // It is large: the others were given to those that wait at once.
                    runtime.spawn("peer-answer", &self.health, async move {
                        drop(runtime::offload(move || server.rpc.settle(&incoming)).await);
                    });
                    Ok(())
                }
                Lane::Snapshot => self.snapshots.send((node, incoming)),
                Lane::Log => self.appends.send((node, incoming)),
                Lane::Control | Lane::Bulk => {
                    let server = Arc::clone(self);
                    runtime.spawn("peer-call", &self.health, async move { server.serve(&node, incoming).await });
                    Ok(())
                }
            };
        }
        None
    }

    async fn serve(self: &Arc<Self>, node: &str, incoming: Incoming) {
        let head = incoming.head;
        let Some(call) = self.decode(incoming).await else { return self.answer_unknown(node, &head) };
        self.hear(node, &head, &call).await;
        if let Some(answer) = self.answer(node, &head, call).await {
            self.rpc.answer(node, &head, &answer);
        }
    }

    /// A call over a link is waited for as long as this member lives.
    fn answer_unknown(&self, node: &str, head: &Head) {
        if head.kind != Kind::Call {
            let why = "a call that this member does not understand".to_owned();
            self.rpc.answer(node, head, &Answer::Failed(why));
        }
    }

    async fn decode(self: &Arc<Self>, incoming: Incoming) -> Option<Call> {
        if incoming.body.len() <= DECODE_BYTES_MAX {
            return self.rpc.decode(&incoming.body);
        }
        let server = Arc::clone(self);
        runtime::offload(move || server.rpc.decode(&incoming.body)).await.ok()?
    }

    /// Notes what is told besides: that a leader may count on this member, before the raft core has what the leader sent;
    /// and how far members have come.
    async fn hear(&self, node: &str, head: &Head, call: &Call) {
        // A snapshot that arrives counts for the leader's lease from when it was begun.
        if let Call::Append(Append { vote, .. }) | Call::Leads { vote, .. } | Call::SnapshotBegin { vote, .. } = call {
            self.elections.hear(vote).await;
        }
        if takes_part(call) {
            self.roll_call.note_caller(head.from, node);
        }
        match call {
            Call::Append(Append { known: Some(known), .. })
            | Call::Vote(Ballot { known: Some(known), .. })
            | Call::PreVote(Ballot { known: Some(known), .. }) => self.roll_call.hear(known, node).await,
            Call::Leads { progress, .. } => {
                for (member, progress) in progress {
                    if *member == head.to {
                        self.roll_call.hear(progress, node).await;
                    } else {
                        self.roll_call.ledger().note(*member, *progress);
                    }
                }
            }
            _ => {}
        }
    }

    /// The answer of a member that must not take part, if this is one and the call asks it to.
    fn refuse(&self, call: &Call) -> Option<Answer> {
        let is_for_leader =
            matches!(call, Call::Write(_) | Call::WriteMany(_) | Call::Change { .. } | Call::ReadIndex(_));
        let concerned = takes_part(call) || (is_for_leader && self.roll_call.refusal().is_some());
        if !concerned || self.roll_call.counts() {
            return None;
        }
        let asks = || Answer::Failed("this member does not know yet whether it has all that it had".to_owned());
        Some(self.roll_call.refusal().map_or_else(asks, Answer::Refused))
    }

    /// `None` for a call that is not answered.
    async fn answer(&self, node: &str, head: &Head, call: Call) -> Option<Answer> {
        if let Some(refused) = self.refuse(&call) {
            return Some(refused);
        }
        Some(match call {
            Call::Append(append) => self.append(node, append).await,
            Call::Hold { id, command } => {
                self.seeds.hold(&Request { id, time_ms: 0, command, seen_ms: 0 }).await;
                Answer::Held
            }
            // Who hears it has noted that.
            Call::Leads { .. } => return None,
            Call::Vote(ballot) => or_failed(self.elections.vote(ballot.request).await, Answer::Vote),
            Call::PreVote(ballot) => Answer::Vote(self.elections.would_vote(&ballot.request)),
            Call::Recall(question) => {
                let leads = self.elections.surely_leads();
                Answer::Recall(self.roll_call.answer(head.from, &question, leads).await)
            }
            Call::TransferLeader(request) => {
                self.elections.release(request.from_leader());
                or_failed(self.raft.handle_transfer_leader(request).await, Answer::TransferLeader)
            }
            Call::Resign(request) => {
                self.elections.leader_resigned(request.from_leader(), *request.to_node_id());
                let _ = self.raft.handle_transfer_leader(request).await;
                return None;
            }
            Call::SnapshotBegin { transfer, vote, meta } => self.begin_snapshot(transfer, vote, meta).await,
            Call::SnapshotFrame { transfer, frame } => return self.take_frame(transfer, frame.into_vec()).await,
            Call::Write(request) => Answer::Write(self.write(request, head).await),
            // The raft core gets them in this order.
            Call::WriteMany(requests) => {
                Answer::WriteMany(join_all(requests.into_iter().map(|request| self.write(request, head))).await)
            }
            Call::Change { change, within_ms } => {
                let deadline = Instant::now() + Duration::from_millis(within_ms).min(CHANGE_TIMEOUT_MAX);
                let at = Changing {
                    raft: self.raft.clone(),
                    rpc: Arc::clone(&self.rpc),
                    authority: Arc::clone(&self.authority),
                    health: Arc::clone(&self.health),
                    in_touch_within: self.elections.in_touch_within(),
                };
                Answer::Change(membership::change_by(at, change, deadline).await)
            }
            Call::Marks(differs) => Answer::Marks(self.comparison.answer(differs.as_ref())),
            Call::ReadIndex(basis) => Answer::ReadIndex(self.authority.read_index(&self.raft, basis).await),
        })
    }

    /// Writes what another member was asked to. Its limits may be others.
    async fn write(&self, request: Arc<Request>, head: &Head) -> Result<Written, NotWritten> {
        if let Err(EngineError::TooLarge { limit, .. }) = request.command.check_size(self.limits) {
            return Err(NotWritten::TooLarge { limit });
        }
        let ttl = Duration::from_millis(u64::from(head.ttl_ms));
        let within = if ttl.is_zero() { WRITE_TIMEOUT_MAX } else { ttl };
        self.seeds.holds(head.from, &request);
        self.seeds.write(&self.raft, request, within).await
    }

    async fn append(&self, node: &str, append: Append) -> Answer {
        let Append { vote, previous, committed, entries, .. } = append;
        self.roll_call.check((vote, node), previous, entries.iter().map(SentEntry::log_id)).await;
        if let Some(refusal) = self.roll_call.refusal() {
            return Answer::Refused(refusal);
        }
        let ids: Vec<_> = entries.iter().filter_map(SentEntry::large).collect();
        let Some(entries) = entries.into_iter().map(|sent| self.seeds.unpack(sent)).collect() else {
            return Answer::NotHeld;
        };
        let request = AppendEntriesRequest { vote, prev_log_id: previous, leader_commit: committed, entries };
        let appended = self.raft.append_entries(request).await;
        if matches!(&appended, Ok(AppendEntriesResponse::Success)) {
            ids.into_iter().for_each(|id| self.seeds.let_go(id));
        }
        or_failed(appended, Answer::Append)
    }

    async fn begin_snapshot(&self, transfer: u64, vote: Vote, meta: SnapshotMeta) -> Answer {
        let before = {
            let mut receiving = lock(&self.receiving);
            if receiving.as_ref().is_some_and(|current| current.transfer == transfer) {
                // Sent again: the answer was lost, or late.
                return Answer::SnapshotTaken;
            }
            receiving.take()
        };
        let dir = self.dir.clone();
        // The new receiver removes the files of the one before, which may be many and large.
        let begin = move || {
            drop(before);
            SnapshotReceiver::new(&dir)
        };
        match runtime::offload(begin).await.and_then(|begun| begun) {
            Ok(receiver) => {
                *lock(&self.receiving) = Some(Receiving { transfer, vote, meta, receiver });
                Answer::SnapshotTaken
            }
            Err(error) => Answer::Failed(error.to_string()),
        }
    }

    async fn take_frame(&self, transfer: u64, frame: Vec<u8>) -> Option<Answer> {
        if let Some((_, installed)) = lock(&self.received).as_ref().filter(|(last, _)| *last == transfer) {
            return Some(or_failed(installed.clone(), Answer::SnapshotDone));
        }
        // Nobody else is after it: parts of snapshots are answered one after the other.
        let mut receiving = lock(&self.receiving).take();
        // It writes to files.
        let taken = runtime::offload(move || {
            let taken = take(&mut receiving, transfer, &frame)?;
            Ok((receiving, taken))
        });
        // After an error the transfer begins again.
        let (vote, snapshot) = match taken.await.and_then(|taken| taken) {
            Ok((_, Taken::All(vote, snapshot))) => (vote, *snapshot),
            Ok((receiving, taken)) => {
                *lock(&self.receiving) = receiving;
                let gap = matches!(taken, Taken::Gap);
                return Some(if gap { Answer::SnapshotGap } else { Answer::SnapshotTaken });
            }
            Err(error) => return Some(Answer::Failed(error.to_string())),
        };
        let installed = self.raft.install_full_snapshot(vote, snapshot).await.map_err(|error| error.to_string());
        *lock(&self.received) = Some((transfer, installed.clone()));
        Some(or_failed(installed, Answer::SnapshotDone))
    }
}

/// Gives log entries to the raft core in the order in which they came, and answers when they are
/// durable. Waits for no disk in between: a leader sends many appends, and each counts when it is there.
async fn take_appends(server: Weak<Server>, mut appends: mpsc::UnboundedReceiver<(String, Incoming)>) {
    let mut appending = FuturesUnordered::new();
    loop {
        let (node, incoming) = tokio::select! {
            biased;
            Some(()) = appending.next(), if !appending.is_empty() => continue,
            append = appends.recv() => match append {
                Some(append) => append,
                None => return,
            },
        };
        let Some(server) = server.upgrade() else { return };
        let head = incoming.head;
        let Some(call) = server.decode(incoming).await else {
            server.answer_unknown(&node, &head);
            continue;
        };
        server.hear(&node, &head, &call).await;
        // In this order they stay.
        server.roll_call.settled().await;
        let mut append = Box::pin(async move {
            if let Some(answer) = server.answer(&node, &head, call).await {
                server.rpc.answer(&node, &head, &answer);
            }
        });
        // The first poll hands it to the raft core.
        if futures_util::poll!(append.as_mut()).is_pending() {
            appending.push(append);
        }
    }
}

/// Whether who answers a call takes part in the cluster: its vote, or its log, counts.
fn takes_part(call: &Call) -> bool {
    matches!(
        call,
        Call::Append(_)
            | Call::Vote(_)
            | Call::PreVote(_)
            | Call::TransferLeader(_)
            | Call::Resign(_)
            | Call::SnapshotBegin { .. }
            | Call::SnapshotFrame { .. }
    )
}

/// What a frame came to.
enum Taken {
    More,
    /// One before it is missing.
    Gap,
    All(Vote, Box<openraft::alias::SnapshotOf<Types, SnapshotData>>),
}

fn take(receiving: &mut Option<Receiving>, transfer: u64, frame: &[u8]) -> Result<Taken, EngineError> {
    let unknown = || EngineError::Storage("a frame of a snapshot that is not being received".to_owned());
    let current = receiving.as_mut().filter(|current| current.transfer == transfer).ok_or_else(unknown)?;
    let frame = Frame::decode(frame)?;
    match frame.sequence.cmp(&current.receiver.next_sequence()) {
        // Sent again.
        Ordering::Less => return Ok(Taken::More),
        Ordering::Equal => {}
        Ordering::Greater => return Ok(Taken::Gap),
    }
    let Some(received) = current.receiver.accept(&frame)? else { return Ok(Taken::More) };
    let Some(Receiving { vote, meta, .. }) = receiving.take() else { return Err(unknown()) };
    let snapshot = openraft::alias::SnapshotOf::<Types, _> { meta, snapshot: SnapshotData::Received(received) };
    Ok(Taken::All(vote, Box::new(snapshot)))
}

/// Writes through this member's raft core, if it leads. The request gets this member's time: that of
/// the member that made the request says nothing here.
pub(crate) async fn write(raft: &Raft, mut request: Arc<Request>) -> Result<Written, NotWritten> {
    Arc::make_mut(&mut request).time_ms = wall_ms();
    match raft.client_write(request).await {
        Ok(response) => Ok(Written { outcome: response.data, index: response.log_id.index() }),
        Err(error) => Err(match error.api_error() {
            Some(ClientWriteError::ForwardToLeader(_)) => NotWritten::NotLeader,
            _ => NotWritten::Unknown,
        }),
    }
}

fn or_failed<T, E: std::fmt::Display>(result: Result<T, E>, answer: impl FnOnce(T) -> Answer) -> Answer {
    result.map_or_else(|error| Answer::Failed(error.to_string()), answer)
}
