//! What is known of one other member, and how late its frames are.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::peers::frame::{Ack, Head, Kind, Part};
use crate::peers::inbound::{Inbound, Received};
use crate::peers::link::Link;
use crate::peers::window::{Best, DISTANCE_KEPT};
use crate::storage::format::Identity;
use crate::sync::lock;
use crate::types::MemberId;

use super::Rpc;

/// A member that was not heard from for so long, or for eight round trips, does not answer.
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(6);

/// One other member.
pub(super) struct Peer {
    pub(super) node: String,
    pub(super) instance: Option<u64>,
    /// The one before, and when it was replaced.
    pub(super) former: Option<(u64, Instant)>,
    pub(super) link: Link,
    /// Its link to this member, and the one before.
    pub(super) inbound: Vec<Inbound>,
    pub(super) heard_at: Option<Instant>,
    /// Of calls that are small and urgent, smoothed.
    pub(super) round_trip: Option<Duration>,
    /// The shortest of these in the last seconds.
    pub(super) distance: Best<Duration>,
    pub(super) busy_until: Option<Instant>,
    pub(super) late: Lateness,
}

/// How late frames are. No two clocks are compared: what a frame takes is measured against the
/// fastest frame of the last seconds.
#[derive(Debug, Default)]
pub(super) struct Lateness {
    now: Option<i128>,
    before: Option<i128>,
    since_us: u64,
}

impl Rpc {
    /// The longest smoothed round trip to a member that was heard from lately; zero when none was.
    pub(crate) fn round_trip_max(&self) -> Duration {
        self.longest(|peer| peer.round_trip.max(peer.link.round_trip()))
    }

    /// What a round trip takes to the member that is farthest away, of those that were heard from lately. A member that
    /// was held up, or a segment that was lost, does not lengthen it.
    pub(crate) fn distance_max(&self) -> Duration {
        self.longest(|peer| {
            let shortest = [peer.distance.get(Duration::min), peer.link.distance()];
            shortest.into_iter().flatten().max()
        })
    }

    fn longest(&self, round_trip: impl Fn(&Peer) -> Option<Duration>) -> Duration {
        let now = Instant::now();
        let of = |peer: &Mutex<Peer>| {
            let peer = lock(peer);
            let heard = peer.heard_at.is_some_and(|at| now.saturating_duration_since(at) < SILENT_AFTER * 5);
            if heard { round_trip(&peer) } else { None }
        };
        self.all_peers().iter().filter_map(|(_, peer)| of(peer)).max().unwrap_or_default()
    }

    /// Whether the link to a member has nothing to do, or moved in the last `time`.
    pub(crate) fn has_moved_within(&self, id: MemberId, time: Duration) -> bool {
        let peer = self.peer(id, None);
        let peer = lock(&peer);
        let now = Instant::now();
        let heard = peer.heard_at.is_some_and(|at| now.saturating_duration_since(at) < time);
        heard && !peer.link.has_waited_for(time, now)
    }

    /// The head of a frame that leaves now, with the acknowledgement of what came in.
    pub(super) fn head(&self, peer: &mut Peer, kind: Kind, to: MemberId, call_id: u64, ttl_ms: u32) -> Head {
        let now = Instant::now();
        let names_missing = kind == Kind::Ack;
        let ack = peer.inbound.first_mut().map_or_else(Ack::default, |link| link.acknowledge(names_missing, now));
        let sent_us = micros(now.saturating_duration_since(self.started));
        let Identity { cluster_id, member_id, .. } = self.identity;
        Head { kind, cluster_id, from: member_id, to, instance: self.instance, call_id, ack, sent_us, ttl_ms }
    }

    pub(super) fn peer(&self, id: MemberId, node: Option<&str>) -> Arc<Mutex<Peer>> {
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
                distance: Best::new(DISTANCE_KEPT),
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

    pub(super) fn all_peers(&self) -> Vec<(MemberId, Arc<Mutex<Peer>>)> {
        lock(&self.peers).iter().map(|(id, peer)| (*id, Arc::clone(peer))).collect()
    }

    pub(super) fn new_link(&self) -> Link {
        // 0 stands for no link.
        Link::new(self.next_link.fetch_add(1, Ordering::Relaxed).max(1), Instant::now())
    }
}

impl Peer {
    /// Takes a part of one of its links. A late part of the link before changes nothing about the new one.
    pub(super) fn take_part(&mut self, head: Head, part: &Part, body: &[u8], now: Instant) -> Option<Vec<Received>> {
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

    pub(super) fn look_again_at(&self) -> Option<Instant> {
        let acknowledge_at = self.inbound.first().and_then(Inbound::acknowledge_at);
        // While the connection is busy, only that counts. The end of that may have passed a moment ago.
        let busy = self.busy_until.filter(|_| self.link.has_something());
        let link = busy.or_else(|| self.link.look_again_at());
        acknowledge_at.into_iter().chain(link).min()
    }
}

impl Lateness {
    /// A clock that stood still, as in a machine that was suspended, makes all frames late until this has passed.
    const KEPT_US: u64 = 15_000_000;

    pub(super) fn of(&mut self, head: &Head, here: Duration) -> Duration {
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
