//! What comes in: which member's it is, whether it is in time, and who gets it.

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::peers::Lane;
use crate::peers::frame::{self, Frame, Head, Kind};
use crate::peers::inbound::Received;
use crate::peers::message::Answer;
use crate::sync::lock;

use super::peer::{Lateness, Peer};
use super::{Incoming, Rpc};

/// A frame of another opening of the member's store within this time of the last frame is a late one,
/// not a restart.
const RESTART_MIN: Duration = Duration::from_millis(100);

/// How long frames of the opening before the current one are dropped.
const FORMER_KEPT: Duration = Duration::from_secs(10);

impl Rpc {
    /// The id of the cluster of a frame, if that is another one.
    pub(crate) fn other_cluster(&self, bytes: &[u8]) -> Option<u64> {
        let cluster_id = frame::decode(bytes)?.head.cluster_id;
        (cluster_id != self.identity.cluster_id).then_some(cluster_id)
    }

    /// Takes a frame from the transport. Answers go to those that wait for them; calls are returned,
    /// and so are large answers, which take long to decode: see [`Rpc::settle`].
    pub(crate) fn receive(&self, node: &str, bytes: &[u8]) -> Vec<Incoming> {
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
    pub(crate) fn settle(&self, incoming: &Incoming) {
        let Some(waiting) = lock(&self.waiting).remove(&incoming.head.call_id) else { return };
        let unknown = || Answer::Failed("an answer that this member does not understand".to_owned());
        let answer = self.decode(&incoming.body).unwrap_or_else(unknown);
        if waiting.lane == Lane::Control {
            let now = Instant::now();
            let took = now.saturating_duration_since(waiting.called_at);
            let peer = self.peer(waiting.to, None);
            let mut peer = lock(&peer);
            peer.distance.add(took, now, Duration::min);
            peer.round_trip = Some(peer.round_trip.map_or(took, |mean| (mean * 7 + took) / 8));
        }
        // It gave up a moment ago.
        let _ = waiting.answer.send(Ok(answer));
    }

    /// A call or an answer; `None`, and counted, for bytes that are neither.
    pub(crate) fn decode<T: serde::de::DeserializeOwned>(&self, body: &[u8]) -> Option<T> {
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
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::health::Health;
    use crate::peers::NoPeers;
    use crate::peers::frame::{Ack, Part};
    use crate::peers::inbound::Inbound;
    use crate::storage::format::Identity;
    use crate::types::MemberId;

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
    fn a_member_that_was_held_up_is_no_farther_away() {
        let rpc = rpc();
        for ms in [20, 2_000] {
            let (call_id, _answer, _forget) = rpc.ask(OTHER, Lane::Control);
            lock(&rpc.waiting).get_mut(&call_id).unwrap().called_at -= Duration::from_millis(ms);
            let answer = Head { call_id, ..head(Kind::AnswerPart, 1, 0, 0) };
            rpc.receive("n", &frame::encode(&answer, Some(&part(9, call_id)), b"x"));
        }
        assert!(rpc.round_trip_max() > Duration::from_millis(200), "{:?}", rpc.round_trip_max());
        let distance = rpc.distance_max();
        assert!((20..200).contains(&distance.as_millis()), "{distance:?}");
    }

    #[test]
    fn a_frame_of_another_opening_right_after_one_of_this_is_dropped() {
        let rpc = rpc();
        let receive = |instance| rpc.receive("n", &frame::encode(&head(Kind::Call, instance, 0, 0), None, b"x")).len();
        assert_eq!((receive(1), receive(2), receive(1)), (1, 0, 1));
        assert_eq!(rpc.stats.foreign.load(Ordering::Relaxed), 1);
    }
}
