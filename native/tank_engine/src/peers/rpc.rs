//! Calls to other members: a frame there, a frame back, or a timeout.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::raft::{Member, MemberId};
use crate::storage::format::Identity;
use crate::sync::lock;

use super::frame::{Head, Kind};
use super::message::{Answer, Call};
use super::{Lane, Transport};

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

/// Counters of what came in and was not used.
#[derive(Debug, Default)]
pub struct PeerStats {
    /// Frames that could not be decoded.
    pub malformed: AtomicU64,
    /// Frames of another cluster, or for a member that this one is not.
    pub foreign: AtomicU64,
}

/// The calls of one member.
pub(crate) struct Rpc {
    identity: Identity,
    transport: Arc<dyn Transport>,
    waiting: Mutex<HashMap<u64, Waiting>>,
    next_id: AtomicU64,
    stats: PeerStats,
}

/// A call whose answer is waited for.
struct Waiting {
    node: String,
    answer: oneshot::Sender<Answer>,
}

/// A call that came in.
pub(super) struct Incoming {
    pub(super) call: Call,
    head: Head,
    lane: Lane,
}

impl Rpc {
    pub(crate) fn new(identity: Identity, transport: Arc<dyn Transport>) -> Self {
        Self { identity, transport, waiting: Mutex::default(), next_id: AtomicU64::new(1), stats: PeerStats::default() }
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
        timeout: Duration,
    ) -> Result<Answer, CallError> {
        let call_id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        lock(&self.waiting).insert(call_id, Waiting { node: member.node.clone(), answer: sender });
        let _forget = Forget { rpc: self, call_id };
        let head = self.head(Kind::Call, to, call_id);
        self.send(&member.node, lane, head, call)?;
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(Answer::Failed(why))) => Err(CallError::Failed(why)),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(CallError::Timeout),
        }
    }

    /// The connection to `node` was lost: what was asked there is not waited for any longer.
    pub(crate) fn lost(&self, node: &str) {
        lock(&self.waiting).retain(|_, waiting| waiting.node != node);
    }

    /// Takes a frame from the transport. Answers go to who waits for them; a call is returned.
    pub(super) fn receive(&self, frame: &[u8], lane: Lane) -> Option<Incoming> {
        let Some((head, body)) = Head::decode(frame) else {
            self.stats.malformed.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        if head.cluster_id != self.identity.cluster_id || head.to != self.identity.member_id {
            self.stats.foreign.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let decoded = match head.kind {
            Kind::Call => rmp_serde::from_slice(body).map(|call| Some(Incoming { call, head, lane })),
            Kind::Answer => rmp_serde::from_slice(body).map(|answer| {
                if let Some(waiting) = lock(&self.waiting).remove(&head.call_id) {
                    // It gave up a moment ago.
                    let _ = waiting.answer.send(answer);
                }
                None
            }),
        };
        decoded.unwrap_or_else(|_| {
            self.stats.malformed.fetch_add(1, Ordering::Relaxed);
            None
        })
    }

    /// Answers a call. An answer that gets lost is the caller's timeout.
    pub(super) fn answer(&self, node: &str, incoming: &Head, lane: Lane, answer: &Answer) {
        let head = self.head(Kind::Answer, incoming.from, incoming.call_id);
        let _ = self.send(node, lane, head, answer);
    }

    fn head(&self, kind: Kind, to: MemberId, call_id: u64) -> Head {
        Head { kind, cluster_id: self.identity.cluster_id, from: self.identity.member_id, to, call_id }
    }

    fn send(&self, node: &str, lane: Lane, head: Head, body: &impl serde::Serialize) -> Result<(), CallError> {
        let mut frame = head.encode(256);
        let encoded = rmp_serde::encode::write(&mut frame, body);
        encoded.map_err(|error| CallError::Failed(format!("encoding: {error}")))?;
        self.transport.send(node, lane, frame).map_err(|_| CallError::NotSent)
    }
}

impl Incoming {
    pub(super) fn split(self) -> (Call, Head, Lane) {
        (self.call, self.head, self.lane)
    }
}

/// Takes a call's entry away when the call ends, also when its task is dropped.
struct Forget<'a> {
    rpc: &'a Rpc,
    call_id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(&self.rpc.waiting).remove(&self.call_id);
    }
}
