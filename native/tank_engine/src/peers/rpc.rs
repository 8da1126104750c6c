//! Calls to other members: a message there, a message back, or the word that none will come.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use crate::error::EngineError;
use crate::health::Health;
use crate::raft::{Member, MemberId};
use crate::storage::format::{Identity, random_id};
use crate::sync::lock;

use super::frame::{self, Ack, Frame, Head, Kind, Part};
use super::inbound::{Inbound, Received};
use super::link::{Link, Message, Outgoing};
use super::message::{Answer, Call};
use super::{Channel, Lane, NotSent, Transport};

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

/// A member that was not heard from for so long, or for eight round trips, does not answer.
const SILENT_AFTER: Duration = Duration::from_secs(6);

/// What members are told ([`Rpc::tell`]) is of no use that much later.
const TOLD_WITHIN_MS: u32 = 3_000;

/// How often members are looked at whose answers are waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// When a connection that took no more is tried again.
const BUSY_RETRY: Duration = Duration::from_millis(5);

/// When a link that failed is tried again, if answers are left to send.
const DISCONNECTED_RETRY: Duration = Duration::from_millis(50);

/// Answers older than this are not sent: their callers have given up.
const ANSWER_KEPT: Duration = Duration::from_secs(60);

/// Parts sent before other tasks get a turn.
const PARTS_AT_ONCE: usize = 8;

/// A frame of another opening of the member's store within this time of the last frame is a late one,
/// not a restart.
const RESTART_MIN: Duration = Duration::from_millis(100);

/// How long frames of the opening before the current one are dropped.
const FORMER_KEPT: Duration = Duration::from_secs(10);

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

/// One other member.
struct Peer {
    node: String,
    instance: Option<u64>,
    /// The one before, and when it was replaced.
    former: Option<(u64, Instant)>,
    link: Link,
    /// Its link to this member, and the one before.
    inbound: Vec<Inbound>,
    heard_at: Option<Instant>,
    /// Of calls that are small and urgent, smoothed.
    round_trip: Option<Duration>,
    busy_until: Option<Instant>,
    late: Lateness,
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
pub(super) struct Incoming {
    pub(super) head: Head,
    pub(super) lane: Lane,
    pub(super) body: Vec<u8>,
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

    /// The longest smoothed round trip to a member that was heard from lately; zero when none was.
    pub(crate) fn round_trip_max(&self) -> Duration {
        let now = Instant::now();
        let round_trip = |peer: &Arc<Mutex<Peer>>| {
            let peer = lock(peer);
            let heard = peer.heard_at.is_some_and(|at| now.saturating_duration_since(at) < SILENT_AFTER * 5);
            if heard { peer.round_trip.max(peer.link.round_trip()) } else { None }
        };
        self.all_peers().iter().filter_map(|(_, peer)| round_trip(peer)).max().unwrap_or_default()
    }

    /// Whether the link to a member has nothing to do, or moved in the last `time`.
    pub(super) fn has_moved_within(&self, id: MemberId, time: Duration) -> bool {
        let peer = self.peer(id, None);
        let peer = lock(&peer);
        let now = Instant::now();
        let heard = peer.heard_at.is_some_and(|at| now.saturating_duration_since(at) < time);
        heard && !peer.link.has_waited_for(time, now)
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

    /// As [`Rpc::call`], of a call that was encoded before ([`encode`]).
    pub(super) async fn call_encoded(
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
            let expires = ttl.map(|time| Instant::now() + time);
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

    /// Takes a frame from the transport. Answers go to those that wait for them; calls are returned,
    /// and so are large answers, which take long to decode: see [`Rpc::settle`].
    pub(super) fn receive(&self, node: &str, bytes: &[u8]) -> Vec<Incoming> {
        let Some(Frame { head, part, body }) = frame::decode(bytes) else {
            self.stats.malformed.fetch_add(1, Ordering::Relaxed);
            return Vec::new();
        };
        if head.cluster_id != self.identity.cluster_id || head.to != self.identity.member_id {
            self.stats.foreign.fetch_add(1, Ordering::Relaxed);
            return Vec::new();
        }
        let now = Instant::now();
        let peer = self.peer(head.from, Some(node));
        if !self.knows(&peer, &head, now) {
            self.stats.foreign.fetch_add(1, Ordering::Relaxed);
            return Vec::new();
        }
        let received = {
            let mut peer = lock(&peer);
            peer.heard_at = Some(now);
            let late = peer.late.of(&head, now.saturating_duration_since(self.started));
            let missing = match head.kind {
                Kind::Ack => rmp_serde::from_slice::<Vec<(u64, u64)>>(body).ok(),
                _ => Some(Vec::new()),
            };
            let moved = peer.link.acknowledged(&head.ack, missing.as_deref().unwrap_or_default(), now);
            if moved || part.is_some() {
                self.wake.notify_one();
            }
            let received = match (part, missing) {
                (_, None) => None,
                (Some(part), _) => peer.take_part(head, &part, body, now),
                (None, _) if head.kind == Kind::Ack => Some(Vec::new()),
                (None, _) => Some(vec![Received { head, lane: Lane::Control, body: body.to_vec() }]),
            };
            received.map(|received| (received, late))
        };
        let Some((received, late)) = received else {
            self.stats.malformed.fetch_add(1, Ordering::Relaxed);
            return Vec::new();
        };
        received.into_iter().filter_map(|message| self.take(message, late)).collect()
    }

    /// What a whole message is: an answer for one that waits here, or something for the server.
    fn take(&self, Received { head, lane, body }: Received, late: Duration) -> Option<Incoming> {
        const LARGE: usize = 256 << 10;
        let incoming = Incoming { head, lane, body };
        // Answers never expire: the link has acknowledged them, and somebody may wait as long as it takes.
        if !incoming.is_answer() && head.ttl_ms > 0 && late > Duration::from_millis(u64::from(head.ttl_ms)) {
            self.stats.expired.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        if incoming.is_answer() && incoming.body.len() <= LARGE {
            self.settle(&incoming);
            return None;
        }
        Some(incoming)
    }

    /// Gives an answer to the call that waits for it.
    pub(super) fn settle(&self, incoming: &Incoming) {
        let Some(waiting) = lock(&self.waiting).remove(&incoming.head.call_id) else { return };
        let unknown = || Answer::Failed("an answer that this member does not understand".to_owned());
        let answer = self.decode(&incoming.body).unwrap_or_else(unknown);
        if waiting.lane == Lane::Control {
            let took = waiting.called_at.elapsed();
            let peer = self.peer(waiting.to, None);
            let mut peer = lock(&peer);
            peer.round_trip = Some(peer.round_trip.map_or(took, |mean| (mean * 7 + took) / 8));
        }
        // It gave up a moment ago.
        let _ = waiting.answer.send(Ok(answer));
    }

    /// A call or an answer; `None`, and counted, for bytes that are neither.
    pub(super) fn decode<T: serde::de::DeserializeOwned>(&self, body: &[u8]) -> Option<T> {
        let decoded = rmp_serde::from_slice(body);
        decoded.map_err(|_| self.stats.malformed.fetch_add(1, Ordering::Relaxed)).ok()
    }

    /// Whether a frame is of the opening of its member's store that is the current one.
    fn knows(&self, peer: &Mutex<Peer>, head: &Head, now: Instant) -> bool {
        let restarted = {
            let mut peer = lock(peer);
            let known = peer.instance.is_none_or(|instance| instance == head.instance);
            let replaced = |(former, at): &(u64, Instant)| {
                *former == head.instance && now.saturating_duration_since(*at) < FORMER_KEPT
            };
            let too_soon = peer.heard_at.is_some_and(|at| now.saturating_duration_since(at) < RESTART_MIN);
            if !known && (too_soon || peer.former.is_some_and(|former| replaced(&former))) {
                return false;
            }
            if peer.instance != Some(head.instance) {
                peer.former = peer.instance.map(|former| (former, now));
                peer.instance = Some(head.instance);
                peer.inbound.clear();
                peer.late = Lateness::default();
            }
            !known
        };
        if restarted {
            // What was on its way there is lost, and so are its answers.
            self.fail(head.from, peer, |_| false);
        }
        true
    }

    /// Answers a call. An answer to a small call may get lost, as the call may.
    pub(super) fn answer(&self, node: &str, call: &Head, answer: &Answer) {
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

    /// Sends what may be sent to one member, up to a few parts.
    fn pump(&self, to: MemberId, peer: &Mutex<Peer>) {
        for _ in 0..PARTS_AT_ONCE {
            // The lock is not held while sending: the other side may be in this process, and do the same.
            let (node, head, next) = {
                let mut peer = lock(peer);
                let now = Instant::now();
                if peer.busy_until.is_some_and(|until| now < until) {
                    return;
                }
                peer.busy_until = None;
                let Some(next) = peer.link.next(now) else { return };
                let ttl = next.expires.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
                let ttl_ms = next.expires.map_or(0, |_| u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX).max(1));
                (peer.node.clone(), self.head(&mut peer, next.kind, to, next.call_id, ttl_ms), next)
            };
            let Outgoing { kind, call_id, part, body, again, .. } = next;
            let first = kind == Kind::CallPart && part.offset == 0 && !again;
            if first {
                self.mark_sent(call_id, true);
            }
            match self.transport.send(&node, Channel::Data, frame::encode(&head, Some(&part), &body)) {
                Ok(()) => {}
                // The link has been replaced meanwhile: nothing is left to do.
                Err(_) if lock(peer).link.id() != part.link => return,
                Err(NotSent::Busy) => {
                    let mut peer = lock(peer);
                    peer.link.returned(part.sequence);
                    peer.busy_until = Some(Instant::now() + BUSY_RETRY);
                    return;
                }
                Err(NotSent::Disconnected) => {
                    if first {
                        self.mark_sent(call_id, false);
                    }
                    return self.fail(to, peer, |_| false);
                }
            }
        }
        self.wake.notify_one();
    }

    /// Sends what calls leave behind, acknowledges what came, and ends calls that cannot be answered.
    /// Runs as long as the store's runtime.
    pub(crate) async fn drive(self: Arc<Self>) {
        loop {
            let mut again_at: Option<Instant> = None;
            let awaited = self.awaited();
            for (id, peer) in self.all_peers() {
                self.pump(id, &peer);
                self.acknowledge(id, &peer);
                self.end_if_dead(id, &peer, awaited.contains(&id));
                let next = lock(&peer).look_again_at();
                again_at = again_at.into_iter().chain(next).min();
            }
            if !awaited.is_empty() {
                let look_at = Instant::now() + LOOK_EVERY;
                again_at = Some(again_at.map_or(look_at, |at| at.min(look_at)));
            }
            match again_at {
                None => self.wake.notified().await,
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = self.wake.notified() => {}
                        () = sleep_until(at) => {}
                    }
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// The members that answers to calls over links are waited for from.
    fn awaited(&self) -> std::collections::BTreeSet<MemberId> {
        let waiting = lock(&self.waiting);
        waiting.values().filter(|waiting| waiting.lane != Lane::Control).map(|waiting| waiting.to).collect()
    }

    /// Acknowledges what came in, if no frame that goes there anyway has done so in time.
    fn acknowledge(&self, to: MemberId, peer: &Mutex<Peer>) {
        let (node, frame) = {
            let mut peer = lock(peer);
            let now = Instant::now();
            if peer.inbound.first().and_then(Inbound::acknowledge_at).is_none_or(|at| at > now) {
                return;
            }
            let missing = peer.inbound.first().map(Inbound::missing).unwrap_or_default();
            let head = self.head(&mut peer, Kind::Ack, to, 0, 0);
            let body = rmp_serde::to_vec(&missing).unwrap_or_default();
            (peer.node.clone(), frame::encode(&head, None, &body))
        };
        let _ = self.transport.send(&node, Channel::Control, frame);
    }

    fn end_if_dead(&self, id: MemberId, peer: &Mutex<Peer>, awaited: bool) {
        let now = Instant::now();
        let dead = {
            let peer = lock(peer);
            let silent_after = peer.link.round_trip().map_or(SILENT_AFTER, |trip| SILENT_AFTER.max(trip * 8));
            // Counted from the oldest call when it was never heard from.
            let since = peer.heard_at.or_else(|| self.oldest_call(id));
            let silent = since.is_some_and(|at| now.saturating_duration_since(at) > silent_after);
            peer.link.has_stalled(now)
                || (awaited && silent && self.oldest_call(id).is_some_and(|at| now - at > silent_after))
        };
        if dead {
            self.fail(id, peer, |_| false);
        }
    }

    fn oldest_call(&self, to: MemberId) -> Option<Instant> {
        let waiting = lock(&self.waiting);
        waiting.values().filter(|w| w.to == to && w.lane != Lane::Control).map(|w| w.called_at).min()
    }

    /// The head of a frame that leaves now, with the acknowledgement of what came in.
    fn head(&self, peer: &mut Peer, kind: Kind, to: MemberId, call_id: u64, ttl_ms: u32) -> Head {
        let now = Instant::now();
        let names_missing = kind == Kind::Ack;
        let ack = peer.inbound.first_mut().map_or_else(Ack::default, |link| link.acknowledge(names_missing, now));
        let sent_us = micros(now.saturating_duration_since(self.started));
        let Identity { cluster_id, member_id, .. } = self.identity;
        Head { kind, cluster_id, from: member_id, to, instance: self.instance, call_id, ack, sent_us, ttl_ms }
    }

    fn peer(&self, id: MemberId, node: Option<&str>) -> Arc<Mutex<Peer>> {
        let mut peers = lock(&self.peers);
        let peer = peers.entry(id).or_insert_with(|| {
            Arc::new(Mutex::new(Peer {
                node: String::new(),
                instance: None,
                former: None,
                link: self.new_link(),
                inbound: Vec::new(),
                heard_at: None,
                round_trip: None,
                busy_until: None,
                late: Lateness::default(),
            }))
        });
        let peer = Arc::clone(peer);
        drop(peers);
        if let Some(node) = node {
            let mut known = lock(&peer);
            if known.node != node {
                node.clone_into(&mut known.node);
            }
        }
        peer
    }

    fn all_peers(&self) -> Vec<(MemberId, Arc<Mutex<Peer>>)> {
        lock(&self.peers).iter().map(|(id, peer)| (*id, Arc::clone(peer))).collect()
    }

    fn new_link(&self) -> Link {
        // 0 stands for no link.
        Link::new(self.next_link.fetch_add(1, Ordering::Relaxed).max(1), Instant::now())
    }
}

impl Peer {
    /// Takes a part of one of its links. A late part of the link before changes nothing about the new one.
    fn take_part(&mut self, head: Head, part: &Part, body: &[u8], now: Instant) -> Option<Vec<Received>> {
        const KEPT: usize = 2;
        if !self.inbound.iter().any(|inbound| inbound.link() == part.link) {
            // Ids rise. A part of a link that is older than the current one is late, and of no use.
            let newer = |inbound: &Inbound| part.link.wrapping_sub(inbound.link()) < u64::MAX / 2;
            if !self.inbound.first().is_none_or(newer) {
                return Some(Vec::new());
            }
            self.inbound.insert(0, Inbound::new(part.link));
            self.inbound.truncate(KEPT);
        }
        let inbound = self.inbound.iter_mut().find(|inbound| inbound.link() == part.link);
        inbound.and_then(|inbound| inbound.part(head, part, body, now))
    }

    fn look_again_at(&self) -> Option<Instant> {
        let acknowledge_at = self.inbound.first().and_then(Inbound::acknowledge_at);
        // While the connection is busy, only that counts. The end of that may have passed a moment ago.
        let busy = self.busy_until.filter(|_| self.link.has_something());
        let link = busy.or_else(|| self.link.look_again_at());
        acknowledge_at.into_iter().chain(link).min()
    }
}

impl Incoming {
    pub(super) fn is_answer(&self) -> bool {
        matches!(self.head.kind, Kind::Answer | Kind::AnswerPart)
    }
}

/// How late frames are. No two clocks are compared: what a frame takes is measured against the
/// fastest frame of the last seconds.
#[derive(Debug, Default)]
struct Lateness {
    now: Option<i128>,
    before: Option<i128>,
    since_us: u64,
}

impl Lateness {
    /// A clock that stood still, as in a machine that was suspended, makes all frames late until this has passed.
    const KEPT_US: u64 = 15_000_000;

    fn of(&mut self, head: &Head, here: Duration) -> Duration {
        let here_us = micros(here);
        let took = i128::from(here_us) - i128::from(head.sent_us);
        if self.now.is_none() || here_us.saturating_sub(self.since_us) > Self::KEPT_US {
            (self.before, self.since_us) = (self.now.take(), here_us);
        }
        self.now = Some(self.now.map_or(took, |fastest| fastest.min(took)));
        let fastest = self.now.into_iter().chain(self.before).min().unwrap_or(took);
        Duration::from_micros(u64::try_from(took - fastest).unwrap_or(0))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A call or an answer as bytes.
pub(super) fn encode(message: &impl serde::Serialize) -> Result<Bytes, CallError> {
    let encoded = rmp_serde::to_vec(message);
    encoded.map(Bytes::from).map_err(|error| CallError::Failed(format!("encoding: {error}")))
}

/// As [`encode`], of a message of about `bytes`.
pub(super) fn encode_sized(message: &impl serde::Serialize, bytes: usize) -> Result<Bytes, CallError> {
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

    const ME: MemberId = 1;
    const OTHER: MemberId = 2;

    fn health() -> Arc<Health> {
        Arc::new(Health::new(Box::new(|_| {})))
    }

    fn rpc() -> Rpc {
        let identity = Identity { store_id: "s".to_owned(), cluster_id: 7, member_id: ME };
        Rpc::new(identity, Arc::new(NoPeers), health()).unwrap()
    }

    fn head(kind: Kind, instance: u64, sent_us: u64, ttl_ms: u32) -> Head {
        Head { kind, cluster_id: 7, from: OTHER, to: ME, instance, call_id: 5, ack: Ack::default(), sent_us, ttl_ms }
    }

    fn part(link: u64, sequence: u64) -> Part {
        Part { link, sequence, lane: Lane::Bulk.number(), message: sequence, offset: 0, total: 1 }
    }

    #[test]
    fn a_call_that_comes_too_late_is_dropped_and_an_answer_never_is() {
        let rpc = rpc();
        let minute = 60_000_000;
        let receive = |kind, sent_us, ttl_ms, sequence| {
            let frame = frame::encode(&head(kind, 1, sent_us, ttl_ms), Some(&part(9, sequence)), b"x");
            rpc.receive("n", &frame).len()
        };
        assert_eq!(receive(Kind::CallPart, 10 * minute, 1_000, 0), 1, "in time");
        assert_eq!(receive(Kind::CallPart, 9 * minute, 1_000, 1), 0, "a minute late");
        assert_eq!(receive(Kind::CallPart, 9 * minute, 0, 2), 1, "which may be late");
        assert_eq!(rpc.stats.expired.load(Ordering::Relaxed), 1);
        let (call_id, mut answer, _forget) = rpc.ask(OTHER, Lane::Log);
        let late = Head { call_id, ..head(Kind::AnswerPart, 1, 9 * minute, 1_000) };
        let frame = frame::encode(&late, Some(&Part { total: 3, ..part(9, 3) }), b"bad");
        assert!(rpc.receive("n", &frame).is_empty());
        assert!(
            matches!(answer.try_recv(), Ok(Ok(Answer::Failed(_)))),
            "an answer that is not understood ends its call"
        );
    }

    #[test]
    fn a_late_part_of_an_older_link_does_not_take_its_place() {
        let rpc = rpc();
        let receive = |link, sequence| {
            rpc.receive("n", &frame::encode(&head(Kind::CallPart, 1, 0, 0), Some(&part(link, sequence)), b"x")).len()
        };
        assert_eq!((receive(9, 0), receive(8, 0), receive(9, 1)), (1, 0, 1));
        let acknowledged = |rpc: &Rpc| lock(&rpc.peer(OTHER, None)).inbound.first().map(Inbound::link);
        assert_eq!(acknowledged(&rpc), Some(9));
        assert_eq!((receive(10, 0), receive(9, 2)), (1, 1), "the one before is still understood");
        assert_eq!(acknowledged(&rpc), Some(10));
    }

    #[test]
    fn a_frame_of_another_opening_right_after_one_of_this_is_dropped() {
        let rpc = rpc();
        let receive = |instance| rpc.receive("n", &frame::encode(&head(Kind::Call, instance, 0, 0), None, b"x")).len();
        assert_eq!((receive(1), receive(2), receive(1)), (1, 0, 1));
        assert_eq!(rpc.stats.foreign.load(Ordering::Relaxed), 1);
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
