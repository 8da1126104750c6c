//! How do a call and its answer meet? A call is a message to another member; the result is a message back, or an error
//! that says that none will arrive.
//!
//! ```text
//! call, answer --queue--> send --parts--> Transport ~~~~> receive --answers--> waiting callers
//!                          ^                                 |
//!                          +-------- acknowledgements <------+----calls--> crate::raft::server
//! ```

mod peer;
mod receive;
mod send;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

use crate::error::EngineError;
use crate::health::Health;
use crate::mutants;
use crate::storage::format::Identity;
use crate::sync::lock;
use crate::types::random_id;
use crate::types::{Member, MemberId};

use super::frame::{self, Head, Kind};
use super::link::Message;
use super::message::{Answer, Call};
use super::{Channel, Lane, Transport};

use peer::{Lateness, Peer};

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// The call was not sent.
    #[error("not connected, or too busy")]
    NotSent,
    /// No answer in time. It may have been received.
    #[error("no answer in time")]
    Timeout,
    /// The member says that it cannot answer.
    #[error("the member cannot answer: {0}")]
    Failed(String),
}

/// How long an answer is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// So long. What arrives later than that is not acted on.
    For(Duration),
    /// Ends about six seconds after the call stops moving or the member is no longer heard from. For
    /// calls that may be large, or whose answer waits for a disk.
    WhileAlive,
}

/// What members are told ([`Rpc::tell`]) is of no use that much later.
const TOLD_WITHIN_MS: u32 = 3_000;

/// When a link that failed is tried again, if answers are left to send.
const DISCONNECTED_RETRY: Duration = Duration::from_millis(50);

/// Answers older than this are not sent: their callers have given up.
const ANSWER_KEPT: Duration = Duration::from_secs(60);

/// Counters of what came in and was not used.
#[derive(Debug, Default)]
pub struct PeerStats {
    /// Frames that could not be decoded.
    pub malformed: AtomicU64,
    /// Frames of another cluster, or for a member that this one is not.
    pub foreign: AtomicU64,
    /// Calls that arrived when their callers had given up.
    pub expired: AtomicU64,
}

/// The calls of one member.
pub(crate) struct Rpc {
    identity: Identity,
    transport: Arc<dyn Transport>,
    /// Which opening of the store this is.
    instance: u64,
    started: Instant,
    peers: Mutex<BTreeMap<MemberId, Arc<Mutex<Peer>>>>,
    waiting: Mutex<BTreeMap<u64, Waiting>>,
    next_id: AtomicU64,
    next_link: AtomicU64,
    /// There is something to send, or to look at.
    wake: Notify,
    stats: PeerStats,
    health: Arc<Health>,
}

/// A call whose answer is waited for.
struct Waiting {
    to: MemberId,
    lane: Lane,
    called_at: Instant,
    /// Whether any of it was handed to the transport.
    sent: bool,
    answer: oneshot::Sender<Result<Answer, CallError>>,
}

/// A call that came in.
pub(crate) struct Incoming {
    pub(crate) head: Head,
    pub(crate) lane: Lane,
    pub(crate) body: Vec<u8>,
}

impl Rpc {
    pub(crate) fn new(
        identity: Identity,
        transport: Arc<dyn Transport>,
        health: Arc<Health>,
    ) -> Result<Self, EngineError> {
        let instance = random_id()?;
        Ok(Self {
            identity,
            transport,
            instance,
            started: Instant::now(),
            peers: Mutex::default(),
            waiting: Mutex::default(),
            // Not where the last opening of the store began: its calls are still being answered.
            next_id: AtomicU64::new(random_id()? >> 1),
            next_link: AtomicU64::new(random_id()?),
            wake: Notify::new(),
            stats: PeerStats::default(),
            health,
        })
    }

    /// What came in and was not used.
    pub(crate) fn stats(&self) -> &PeerStats {
        &self.stats
    }

    /// Asks the member `to`, and waits for the answer.
    pub(crate) async fn call(
        &self,
        to: MemberId,
        member: &Member,
        lane: Lane,
        call: &Call,
        wait: Wait,
    ) -> Result<Answer, CallError> {
        self.call_encoded(to, member, lane, encode(call)?, wait).await
    }

    /// As [`Rpc::call`], of a call that has about so many bytes.
    pub(crate) async fn call_sized(
        &self,
        to: MemberId,
        member: &Member,
        lane: Lane,
        (call, bytes): (&Call, usize),
        wait: Wait,
    ) -> Result<Answer, CallError> {
        self.call_encoded(to, member, lane, encode_sized(call, bytes)?, wait).await
    }

    /// As [`Rpc::call`], of a call that was encoded before ([`encode`]).
    pub(crate) async fn call_encoded(
        &self,
        to: MemberId,
        member: &Member,
        lane: Lane,
        body: Bytes,
        wait: Wait,
    ) -> Result<Answer, CallError> {
        let (call_id, answer, _forget) = self.ask(to, lane);
        let ttl = match wait {
            Wait::For(time) => Some(time),
            Wait::WhileAlive => None,
        };
        let peer = self.peer(to, Some(&member.node));
        if lane == Lane::Control {
            // Raft judges late votes and heartbeats by their terms, and late questions do no harm.
            let head = self.head(&mut lock(&peer), Kind::Call, to, call_id, 0);
            let frame = frame::encode(&head, None, &body);
            self.mark_sent(call_id, true);
            self.transport.send(&member.node, Channel::Control, frame).map_err(|_| CallError::NotSent)?;
        } else {
            let expires = ttl.filter(|_| !mutants::is("late_duplicate")).map(|time| Instant::now() + time);
            lock(&peer).link.queue(Message { kind: Kind::CallPart, call_id, lane, body, expires });
            self.pump(to, &peer);
            // Its timers are the driver's.
            self.wake.notify_one();
        }
        let answered = match ttl {
            Some(time) => timeout(time, answer).await,
            None => Ok(answer.await),
        };
        match answered {
            Ok(Ok(Ok(Answer::Failed(why)))) => Err(CallError::Failed(why)),
            Ok(Ok(Ok(Answer::Refused(refusal)))) => {
                // It says so for as long as it is there.
                self.health.alarms().raise(refusal.alarm(false).about(to).with("node", member.node.clone()));
                Err(CallError::Failed(refusal.error().to_string()))
            }
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(CallError::Timeout),
        }
    }

    /// Tells the member `to`, and waits for nothing. It may not hear, and does not act on what comes late.
    pub(crate) fn tell(&self, to: MemberId, member: &Member, call: &Call) {
        let Ok(body) = encode(call) else { return };
        let peer = self.peer(to, Some(&member.node));
        let head = self.head(&mut lock(&peer), Kind::Call, to, 0, TOLD_WITHIN_MS);
        let _ = self.transport.send(&member.node, Channel::Control, frame::encode(&head, None, &body));
    }

    /// Answers a call. An answer to a small call may get lost, as the call may.
    pub(crate) fn answer(&self, node: &str, call: &Head, answer: &Answer) {
        let Ok(body) = encode(answer) else { return };
        let peer = self.peer(call.from, Some(node));
        if call.kind == Kind::Call {
            let head = self.head(&mut lock(&peer), Kind::Answer, call.from, call.call_id, 0);
            let _ = self.transport.send(node, Channel::Control, frame::encode(&head, None, &body));
            return;
        }
        // Answers pass all that waits on the link.
        let (kind, call_id, lane) = (Kind::AnswerPart, call.call_id, Lane::Control);
        let expires = Some(Instant::now() + ANSWER_KEPT);
        lock(&peer).link.queue(Message { kind, call_id, lane, body, expires });
        self.pump(call.from, &peer);
        self.wake.notify_one();
    }

    /// As [`Rpc::tell`], behind the log entries that were sent before, and again until it arrives.
    pub(crate) fn tell_after_entries(&self, to: MemberId, member: &Member, call: &Call) {
        let Ok(body) = encode(call) else { return };
        let peer = self.peer(to, Some(&member.node));
        let call_id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let expires = Some(Instant::now() + Duration::from_millis(u64::from(TOLD_WITHIN_MS)));
        lock(&peer).link.queue(Message { kind: Kind::CallPart, call_id, lane: Lane::Log, body, expires });
        self.pump(to, &peer);
        self.wake.notify_one();
    }

    fn ask(&self, to: MemberId, lane: Lane) -> (u64, oneshot::Receiver<Result<Answer, CallError>>, Forget<'_>) {
        let call_id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        let waiting = Waiting { to, lane, called_at: Instant::now(), sent: false, answer: sender };
        lock(&self.waiting).insert(call_id, waiting);
        (call_id, answer, Forget { rpc: self, call_id })
    }

    /// Before a call is handed to the transport: the connection may be lost while it is.
    fn mark_sent(&self, call_id: u64, sent: bool) {
        if let Some(waiting) = lock(&self.waiting).get_mut(&call_id) {
            waiting.sent = sent;
        }
    }

    /// The connection to `node` was lost: what was asked there is not waited for any longer.
    pub(crate) fn lost(&self, node: &str) {
        for (id, peer) in self.all_peers() {
            if lock(&peer).node == node {
                self.fail(id, &peer, |_| true);
            }
        }
    }

    /// Ends the link to a member, and the calls over it; of the others, those that `also` says.
    fn fail(&self, id: MemberId, peer: &Mutex<Peer>, also: impl Fn(&Waiting) -> bool) {
        {
            let mut peer = lock(peer);
            let now = Instant::now();
            let failed = std::mem::replace(&mut peer.link, self.new_link());
            failed.unacknowledged_answers(now).into_iter().for_each(|answer| peer.link.queue(answer));
            peer.busy_until = Some(now + DISCONNECTED_RETRY);
            peer.late = Lateness::default();
        }
        // The answers that are left have to be sent.
        self.wake.notify_one();
        let fails = |waiting: &Waiting| waiting.to == id && (waiting.lane != Lane::Control || also(waiting));
        let failed: Vec<Waiting> =
            lock(&self.waiting).extract_if(.., |_, waiting| fails(waiting)).map(|(_, w)| w).collect();
        for waiting in failed {
            let error = if waiting.sent { CallError::Timeout } else { CallError::NotSent };
            // It gave up a moment ago.
            let _ = waiting.answer.send(Err(error));
        }
    }
}

impl Incoming {
    pub(crate) fn is_answer(&self) -> bool {
        matches!(self.head.kind, Kind::Answer | Kind::AnswerPart)
    }
}

/// A call or an answer as bytes.
pub(crate) fn encode(message: &impl serde::Serialize) -> Result<Bytes, CallError> {
    let encoded = rmp_serde::to_vec(message);
    encoded.map(Bytes::from).map_err(|error| CallError::Failed(format!("encoding: {error}")))
}

/// As [`encode`], of a message of about `bytes`.
pub(crate) fn encode_sized(message: &impl serde::Serialize, bytes: usize) -> Result<Bytes, CallError> {
    const HEADS: usize = 256;
    let mut buffer = Vec::with_capacity(bytes + HEADS);
    let encoded = rmp_serde::encode::write(&mut buffer, message);
    encoded.map(|()| Bytes::from(buffer)).map_err(|error| CallError::Failed(format!("encoding: {error}")))
}

/// Takes a call's entry away when the call ends, also when its task is dropped.
struct Forget<'a> {
    rpc: &'a Rpc,
    call_id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        let Some(waiting) = lock(&self.rpc.waiting).remove(&self.call_id) else { return };
        if waiting.lane != Lane::Control {
            lock(&self.rpc.peer(waiting.to, None)).link.cancel(self.call_id);
            self.rpc.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::NoPeers;

    fn health() -> Arc<Health> {
        Arc::new(Health::new(Box::new(|_| {})))
    }

    #[test]
    fn no_opening_of_a_store_waits_for_the_answers_to_another_ones_calls() {
        let identity = Identity { store_id: "tank".to_owned(), cluster_id: 1, member_id: 2 };
        let open = || Rpc::new(identity.clone(), Arc::new(NoPeers), health()).unwrap();
        let calls = |rpc: &Rpc| (0..1_000).map(|_| rpc.ask(3, Lane::Control).0).collect::<Vec<_>>();
        let (first, second) = (calls(&open()), calls(&open()));
        assert!(first.iter().all(|call| !second.contains(call)), "{first:?}");
    }
}
