//! What goes out: parts as the links allow, acknowledgements, and the end of links that move no more.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::peers::frame::{self, Kind};
use crate::peers::inbound::Inbound;
use crate::peers::link::Outgoing;
use crate::peers::{Channel, Lane, NotSent};
use crate::sync::lock;
use crate::types::MemberId;

use super::Rpc;
use super::peer::{Peer, SILENT_AFTER};

/// How often members are looked at whose answers are waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// When a connection that took no more is tried again.
const BUSY_RETRY: Duration = Duration::from_millis(5);

/// Parts sent before other tasks get a turn.
const PARTS_AT_ONCE: usize = 8;

impl Rpc {
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

    /// Sends what may be sent to one member, up to a few parts.
    pub(super) fn pump(&self, to: MemberId, peer: &Mutex<Peer>) {
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

    /// The members that answers to calls over links are waited for from.
    fn awaited(&self) -> BTreeSet<MemberId> {
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
}
