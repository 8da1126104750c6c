//! The receiving half of the link from one member: parts become messages, in the order of their lane.
//!
//! Parts may arrive twice, late, or in another order. Each counts once, by its sequence number. A message is complete
//! when all its bytes are there. Messages of the log's and the snapshot's lane are passed on in the order in which they
//! were sent, messages of the bulk lane as soon as they are complete.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::time::Instant;

use super::Lane;
use super::frame::{Ack, Head, Kind, PART_BODY_MAX, Part};

/// The largest message. Log entries are smaller ([`crate::options::Options`]).
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// What messages that are not whole may take up, for each member. Beyond that, parts of new ones are
/// dropped, and sent again.
const PARTIAL_BYTES_MAX: usize = 512 << 20;

/// The parts beyond a missing one that are remembered; further ones are dropped, and sent again.
const AHEAD_MAX: usize = 4_096;

/// How many missing ranges one acknowledgement names.
const MISSING_MAX: usize = 32;

/// So many bytes are acknowledged at once; fewer wait for a frame to ride on.
const BYTES_UNACKNOWLEDGED_MAX: usize = PART_BODY_MAX * 2;

/// How long an acknowledgement waits for a frame that goes that way anyway.
const ACK_DELAY: std::time::Duration = std::time::Duration::from_millis(5);

/// A message that is whole.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) head: Head,
    pub(super) lane: Lane,
    pub(super) body: Vec<u8>,
}

/// One link of a member, as seen from its other end.
#[derive(Debug)]
pub(super) struct Inbound {
    link: u64,
    /// All parts below have arrived.
    upto: u64,
    /// Those that arrived beyond.
    ahead: BTreeSet<u64>,
    partial: HashMap<(u8, u64), Partial>,
    partial_bytes: usize,
    /// Messages that were aborted, each with the sequence that said so: parts of them may still come.
    aborted: BTreeMap<u64, (u8, u64)>,
    /// By lane: the next message to hand on, and those that wait for it.
    ordered: BTreeMap<Lane, Ordered>,
    unacknowledged_bytes: usize,
    /// When the first and the last part came that are not acknowledged.
    first_at: Option<Instant>,
    last_at: Option<Instant>,
    /// A part is missing, or came twice: the sender should hear of that soon.
    urgent: bool,
}

#[derive(Debug)]
struct Partial {
    body: Vec<u8>,
    received: usize,
}

#[derive(Debug, Default)]
struct Ordered {
    next: u64,
    /// `None`: aborted.
    waiting: BTreeMap<u64, Option<Received>>,
}

impl Inbound {
    pub(super) fn new(link: u64) -> Self {
        Self {
            link,
            upto: 0,
            ahead: BTreeSet::new(),
            partial: HashMap::new(),
            partial_bytes: 0,
            aborted: BTreeMap::new(),
            ordered: BTreeMap::new(),
            unacknowledged_bytes: 0,
            first_at: None,
            last_at: None,
            urgent: false,
        }
    }

    pub(super) fn link(&self) -> u64 {
        self.link
    }

    /// Takes a part; the messages that are whole with it. `None`: it is malformed.
    pub(super) fn part(&mut self, head: Head, part: &Part, body: &[u8], now: Instant) -> Option<Vec<Received>> {
        let lane = Lane::of(part.lane)?;
        let (offset, total) = (part.offset as usize, part.total as usize);
        let aborted = head.kind == Kind::Abort;
        if total > MESSAGE_BYTES_MAX || (!aborted && (offset + body.len() > total || (body.is_empty() && total > 0))) {
            return None;
        }
        self.unacknowledged_bytes += body.len();
        self.first_at.get_or_insert(now);
        self.last_at = Some(now);
        let key = (part.lane, part.message);
        let whole = aborted || body.len() == total;
        if !whole && !self.partial.contains_key(&key) && self.partial_bytes + total > PARTIAL_BYTES_MAX {
            return Some(Vec::new());
        }
        if !self.note(part.sequence) {
            return Some(Vec::new());
        }
        let was_aborted = self.aborted.values().any(|aborted| *aborted == key);
        self.aborted.retain(|sequence, _| *sequence >= self.upto);
        if aborted {
            if let Some(partial) = self.partial.remove(&key) {
                self.partial_bytes -= partial.body.len();
            }
            if part.sequence >= self.upto {
                self.aborted.insert(part.sequence, key);
            }
            return Some(self.hand_on(lane, part.message, None));
        }
        if was_aborted {
            return Some(Vec::new());
        }
        let body = if body.len() == total { Some(body.to_vec()) } else { self.collect(key, offset, total, body) };
        let Some(body) = body else { return Some(Vec::new()) };
        Some(self.hand_on(lane, part.message, Some(Received { head, lane, body })))
    }

    /// Notes that a part arrived; whether it is new, and may be used.
    fn note(&mut self, sequence: u64) -> bool {
        if sequence < self.upto || self.ahead.contains(&sequence) {
            self.urgent = true;
            return false;
        }
        if sequence > self.upto {
            self.urgent = true;
            return self.ahead.len() < AHEAD_MAX && self.ahead.insert(sequence);
        }
        self.upto += 1;
        while self.ahead.remove(&self.upto) {
            self.upto += 1;
        }
        true
    }

    fn collect(&mut self, key: (u8, u64), offset: usize, total: usize, piece: &[u8]) -> Option<Vec<u8>> {
        let partial = self.partial.entry(key).or_insert_with(|| {
            self.partial_bytes += total;
            Partial { body: vec![0; total], received: 0 }
        });
        // Ignores a part that does not fit the size announced first. Such a message never completes.
        if let Some(place) = partial.body.get_mut(offset..offset + piece.len()) {
            place.copy_from_slice(piece);
            partial.received += piece.len();
        }
        if partial.received < partial.body.len() {
            return None;
        }
        let whole = self.partial.remove(&key)?;
        self.partial_bytes -= whole.body.len();
        Some(whole.body)
    }

    /// What can be handed on once message `number` of a lane is there, or known not to come.
    fn hand_on(&mut self, lane: Lane, number: u64, message: Option<Received>) -> Vec<Received> {
        if !lane.is_ordered() {
            return message.into_iter().collect();
        }
        let ordered = self.ordered.entry(lane).or_default();
        ordered.waiting.insert(number, message);
        let mut ready = Vec::new();
        while let Some(message) = ordered.waiting.remove(&ordered.next) {
            ordered.next += 1;
            ready.extend(message);
        }
        ready
    }

    /// When an acknowledgement has to go by itself.
    pub(super) fn acknowledge_at(&self) -> Option<Instant> {
        let first = self.first_at?;
        let now = self.urgent || self.unacknowledged_bytes >= BYTES_UNACKNOWLEDGED_MAX;
        Some(if now { first } else { first + ACK_DELAY })
    }

    /// The acknowledgement for the head of a frame that leaves now. Only one that also names what is
    /// missing ends the urgency.
    pub(super) fn acknowledge(&mut self, names_missing: bool, now: Instant) -> Ack {
        let held = self.last_at.map_or_else(Default::default, |at| now.saturating_duration_since(at));
        if names_missing || !self.urgent {
            (self.first_at, self.last_at, self.unacknowledged_bytes, self.urgent) = (None, None, 0, false);
        }
        Ack { link: self.link, upto: self.upto, held_us: u32::try_from(held.as_micros()).unwrap_or(u32::MAX) }
    }

    /// The parts that are missing below one that has arrived, as ranges.
    pub(super) fn missing(&self) -> Vec<(u64, u64)> {
        let (mut missing, mut next) = (Vec::new(), self.upto);
        for &sequence in &self.ahead {
            if sequence > next {
                missing.push((next, sequence));
                if missing.len() == MISSING_MAX {
                    break;
                }
            }
            next = sequence + 1;
        }
        missing
    }
}
