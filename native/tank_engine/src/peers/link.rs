//! The sending half of the link to one member.
//!
//! Messages are cut into parts of bounded size. No more parts are in flight than the connection carries
//! ([`super::window`]), and each is sent until it arrives.
//!
//! ```text
//! messages --> a queue per lane --next part--> in flight --acknowledged--> done
//!                    ^                             |
//!                    +------- missing: again ------+
//! ```
//!
//! Parts are small, so a large message does not delay others for long. The log's lane has three turns for each turn of
//! the other lanes. Messages of the bulk lane take turns with each other. Nothing here reads a clock or sends: `now` is
//! an argument, and parts are results.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Lane;
use super::frame::{Ack, Kind, PART_BODY_MAX, Part};
use super::window::{Sent, Window};

/// A message up to this size goes out although the window is full: it adds little to the queue.
const SMALL_BYTES: usize = 16 << 10;

/// The turns of the log's lane before the others get one.
const LOG_TURNS: u32 = 3;

/// Without an acknowledgement for so long (or for eight round trips) nothing moves any more, and all
/// that waits has failed.
const STALLED_AFTER: Duration = Duration::from_secs(4);

/// Round trips to wait before a part that is reported missing is sent again: its acknowledgement may be
/// on its way.
const AGAIN_AFTER: f64 = 1.25;

/// The most parts that are sent again at a time without being named as missing, and the least time between two times.
const REPEATS_MAX: usize = 64;
const REPEAT_AFTER: Duration = Duration::from_millis(10);

/// What a part costs beside its body.
const PART_OVERHEAD: usize = 128;

/// A message on its way out.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// `CallPart` or `AnswerPart`.
    pub(super) kind: Kind,
    pub(super) call_id: u64,
    pub(super) lane: Lane,
    pub(super) body: Bytes,
    /// From then on it is of no use.
    pub(super) expires: Option<Instant>,
}

/// A part that may be sent now.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) kind: Kind,
    pub(super) call_id: u64,
    pub(super) part: Part,
    pub(super) body: Bytes,
    pub(super) expires: Option<Instant>,
    /// It was sent before.
    pub(super) again: bool,
}

/// A message of which parts were sent.
#[derive(Debug)]
struct Started {
    message: Message,
    number: u64,
}

#[derive(Debug)]
struct InFlight {
    message: Arc<Started>,
    range: Range<usize>,
    abort: bool,
    sent_at: Instant,
    sent: Sent,
    again: bool,
    /// The transport did not take it.
    returned: bool,
}

impl InFlight {
    fn bytes(&self) -> usize {
        self.range.len() + PART_OVERHEAD
    }
}

/// What goes to one member. A new one takes its place when it fails.
#[derive(Debug)]
pub(super) struct Link {
    id: u64,
    next_sequence: u64,
    acknowledged: u64,
    /// By lane; the front message may have been started.
    queues: BTreeMap<Lane, VecDeque<Queued>>,
    next_number: BTreeMap<Lane, u64>,
    log_turns: u32,
    snapshot_next: bool,
    in_flight: BTreeMap<u64, InFlight>,
    in_flight_bytes: usize,
    /// Parts that the other side lacks.
    missing: VecDeque<u64>,
    window: Window,
    /// When an acknowledgement last moved it, or it began to wait for one.
    moved_at: Instant,
    /// When the oldest part was last sent again without being asked for, and how often in a row.
    repeated: Option<(Instant, u32)>,
    losing: Option<Losing>,
}

/// Parts that were sent again have arrived, and so did no part that was sent before them: those are lost. The other side
/// names no part as missing before one behind it has arrived.
#[derive(Clone, Copy, Debug)]
struct Losing {
    /// When the last of those that arrived was sent.
    before: Instant,
    /// How long it took until it was acknowledged.
    took: Duration,
    /// How many of the oldest go again next. It doubles each time that they arrive.
    repeats: usize,
}

#[derive(Debug)]
enum Queued {
    Waiting(Message),
    Started { message: Arc<Started>, offset: usize },
}

impl Link {
    pub(super) fn new(id: u64, now: Instant) -> Self {
        Self {
            id,
            next_sequence: 0,
            acknowledged: 0,
            queues: BTreeMap::new(),
            next_number: BTreeMap::new(),
            log_turns: 0,
            snapshot_next: false,
            in_flight: BTreeMap::new(),
            in_flight_bytes: 0,
            missing: VecDeque::new(),
            window: Window::new(now),
            moved_at: now,
            repeated: None,
            losing: None,
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Whether something is on its way or waits.
    pub(super) fn has_something(&self) -> bool {
        !self.in_flight.is_empty() || self.queues.values().any(|queue| !queue.is_empty())
    }

    /// A smoothed round trip; `None` before the first acknowledgement.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.window.round_trip()
    }

    /// The shortest round trip of the last seconds.
    pub(super) fn distance(&self) -> Option<Duration> {
        self.window.distance()
    }

    pub(super) fn queue(&mut self, message: Message) {
        self.queues.entry(message.lane).or_default().push_back(Queued::Waiting(message));
    }

    /// The answers that may not have arrived, for the link that takes this one's place: those that wait
    /// for them do not know that it failed. A duplicate answer is ignored.
    pub(super) fn unacknowledged_answers(self, now: Instant) -> Vec<Message> {
        let mut answers: BTreeMap<(Lane, u64), Message> = BTreeMap::new();
        let started = self.in_flight.into_values().map(|part| part.message);
        let mut waiting = Vec::new();
        let queued = self.queues.into_values().flatten().filter_map(|queued| match queued {
            Queued::Started { message, .. } => Some(message),
            Queued::Waiting(message) => {
                waiting.push(message);
                None
            }
        });
        for message in started.chain(queued) {
            answers.insert((message.message.lane, message.number), message.message.clone());
        }
        let is_wanted =
            |message: &Message| message.kind == Kind::AnswerPart && message.expires.is_none_or(|expires| now < expires);
        answers.into_values().chain(waiting).filter(is_wanted).collect()
    }

    /// Nobody waits for this call any more: what was not sent of it is not sent.
    pub(super) fn cancel(&mut self, call_id: u64) {
        for queue in self.queues.values_mut() {
            queue.retain_mut(|queued| match queued {
                Queued::Waiting(message) => message.call_id != call_id || message.kind != Kind::CallPart,
                Queued::Started { message, offset } => {
                    if message.message.call_id == call_id && message.message.kind == Kind::CallPart {
                        // What follows is an empty part that says so.
                        *offset = usize::MAX;
                    }
                    true
                }
            });
        }
    }

    /// The next part to send, if one may be sent now.
    pub(super) fn next(&mut self, now: Instant) -> Option<Outgoing> {
        self.next_again(now).or_else(|| self.next_new(now))
    }

    fn next_again(&mut self, now: Instant) -> Option<Outgoing> {
        self.repeat(now);
        let round_trip = self.window.round_trip().unwrap_or(STALLED_AFTER);
        while let Some(sequence) = self.missing.pop_front() {
            let Some(part) = self.in_flight.get_mut(&sequence) else { continue };
            if !part.returned && now - part.sent_at < round_trip.mul_f64(AGAIN_AFTER) {
                continue;
            }
            (part.sent_at, part.again, part.returned) = (now, true, false);
            return self.outgoing(sequence);
        }
        None
    }

    /// Has the oldest parts sent again, once they have not been acknowledged for long.
    fn repeat(&mut self, now: Instant) {
        if self.in_flight.is_empty() || now < self.repeat_at() {
            return;
        }
        let (repeats, before) = self.losing().map_or((1, now), |losing| (losing.repeats, losing.before));
        for (sequence, part) in self.in_flight.iter_mut().take(repeats).take_while(|(_, part)| part.sent_at <= before) {
            part.returned = true;
            if !self.missing.contains(sequence) {
                self.missing.push_back(*sequence);
            }
        }
        self.repeated = Some((now, self.repeated.map_or(1, |(_, times)| times + 1)));
    }

    fn repeat_at(&self) -> Instant {
        let (at, times) = self.repeated.unwrap_or((self.moved_at, 0));
        let patience = self.window.patience();
        let after = self.losing().map_or(patience, |losing| {
            let round_trip = losing.took.max(self.window.round_trip().unwrap_or_default());
            round_trip.mul_f64(AGAIN_AFTER).max(REPEAT_AFTER).min(patience)
        });
        at + after * (1 << times.min(4))
    }

    /// What is known of parts that were lost, while there are any.
    fn losing(&self) -> Option<Losing> {
        let (_, oldest) = self.in_flight.first_key_value()?;
        self.losing.filter(|losing| oldest.sent_at < losing.before)
    }

    fn next_new(&mut self, now: Instant) -> Option<Outgoing> {
        let lane = self.next_lane(now)?;
        self.log_turns = if lane == Lane::Log { self.log_turns + 1 } else { 0 };
        if matches!(lane, Lane::Bulk | Lane::Snapshot) {
            self.snapshot_next = lane == Lane::Bulk;
        }
        let queue = self.queues.get_mut(&lane)?;
        let (message, offset) = match queue.pop_front()? {
            Queued::Started { message, offset } => (message, offset),
            Queued::Waiting(message) => {
                let next = self.next_number.entry(lane).or_default();
                let number = *next;
                *next += 1;
                (Arc::new(Started { message, number }), 0)
            }
        };
        let total = message.message.body.len();
        let abort = offset == usize::MAX;
        let range = if abort { 0..0 } else { offset..total.min(offset + PART_BODY_MAX) };
        if !abort && range.end < total {
            let rest = Queued::Started { message: Arc::clone(&message), offset: range.end };
            // Large messages take turns where their order does not matter.
            if lane == Lane::Bulk { queue.push_back(rest) } else { queue.push_front(rest) }
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        if self.in_flight.is_empty() {
            (self.moved_at, self.repeated) = (now, None);
        }
        self.in_flight_bytes += range.len() + PART_OVERHEAD;
        let sent = self.window.sent(self.in_flight_bytes, PART_BODY_MAX + PART_OVERHEAD, now);
        let part = InFlight { message, range, abort, sent_at: now, sent, again: false, returned: false };
        self.in_flight.insert(sequence, part);
        self.outgoing(sequence)
    }

    /// Whose turn it is among the lanes that have something to send, and may.
    fn next_lane(&mut self, now: Instant) -> Option<Lane> {
        for queue in self.queues.values_mut() {
            // A started message is always finished or aborted, so that its lane's numbers have no gap.
            while matches!(queue.front(), Some(Queued::Waiting(message)) if message.expires.is_some_and(|at| at <= now))
            {
                queue.pop_front();
            }
        }
        let full = self.in_flight_bytes >= self.window.bytes(now);
        let overfull = self.in_flight_bytes >= self.window.bytes(now) * 2;
        let may = |queued: &Queued| match queued {
            _ if !full => true,
            Queued::Waiting(message) => message.body.len() <= SMALL_BYTES && !overfull,
            Queued::Started { .. } => false,
        };
        let ready = |lane: &Lane| self.queues.get(lane).and_then(VecDeque::front).is_some_and(may);
        // Answers first. A snapshot and bulk data take turns.
        let (one, other) = if self.snapshot_next { (Lane::Snapshot, Lane::Bulk) } else { (Lane::Bulk, Lane::Snapshot) };
        let others = [Lane::Control, one, other].into_iter().find(ready);
        let log = ready(&Lane::Log).then_some(Lane::Log);
        if self.log_turns < LOG_TURNS { log.or(others) } else { others.or(log) }
    }

    fn outgoing(&self, sequence: u64) -> Option<Outgoing> {
        let InFlight { message: started, range, abort, again, .. } = self.in_flight.get(&sequence)?;
        let Message { kind, call_id, lane, body, expires } = &started.message;
        let int = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let part = Part {
            link: self.id,
            sequence,
            lane: lane.number(),
            message: started.number,
            offset: int(range.start),
            total: int(body.len()),
        };
        let kind = if *abort { Kind::Abort } else { *kind };
        let body = body.slice(range.clone());
        Some(Outgoing { kind, call_id: *call_id, part, body, expires: *expires, again: *again })
    }

    /// The transport did not take this part: it goes first the next time.
    pub(super) fn returned(&mut self, sequence: u64) {
        if let Some(part) = self.in_flight.get_mut(&sequence) {
            part.returned = true;
            self.missing.push_back(sequence);
        }
    }

    /// Takes an acknowledgement; whether it was for this link.
    pub(super) fn acknowledged(&mut self, ack: &Ack, missing: &[(u64, u64)], now: Instant) -> bool {
        if ack.link != self.id || ack.upto > self.next_sequence {
            return false;
        }
        let rest = self.in_flight.split_off(&ack.upto);
        let arrived = std::mem::replace(&mut self.in_flight, rest);
        self.acknowledged = self.acknowledged.max(ack.upto);
        if let Some((_, newest)) = arrived.last_key_value() {
            let bytes = arrived.values().map(InFlight::bytes).sum();
            self.in_flight_bytes -= bytes;
            (self.moved_at, self.repeated) = (now, None);
            // Of a part that was sent twice, nobody can tell which one arrived.
            let held = Duration::from_micros(u64::from(ack.held_us));
            let took = now - newest.sent_at;
            let repeats = self.losing.map_or(1, |losing| losing.repeats);
            let repeats = (repeats * 2).min(REPEATS_MAX);
            self.losing = newest.again.then_some(Losing { before: newest.sent_at, took, repeats });
            let round_trip = (!newest.again).then(|| took.saturating_sub(held));
            self.window.acknowledged(bytes, &newest.sent, round_trip, now);
        }
        for &(from, to) in missing {
            let lacks = self.in_flight.range(from..to.max(from)).map(|(sequence, _)| *sequence);
            let new: Vec<u64> = lacks.filter(|sequence| !self.missing.contains(sequence)).collect();
            self.missing.extend(new);
        }
        true
    }

    /// Whether what is on its way has not moved for so long that it will not.
    pub(super) fn has_stalled(&self, now: Instant) -> bool {
        !self.in_flight.is_empty() && now - self.moved_at > self.stalled_after()
    }

    /// Whether what is on its way has not moved for `time`.
    pub(super) fn has_waited_for(&self, time: Duration, now: Instant) -> bool {
        !self.in_flight.is_empty() && now.saturating_duration_since(self.moved_at) > time
    }

    fn stalled_after(&self) -> Duration {
        self.window.round_trip().map_or(STALLED_AFTER, |round_trip| STALLED_AFTER.max(round_trip * 8))
    }

    /// When to look again, if nothing happens before.
    pub(super) fn look_again_at(&self) -> Option<Instant> {
        if self.in_flight.is_empty() {
            return None;
        }
        Some(self.repeat_at().min(self.moved_at + self.stalled_after() + Duration::from_millis(1)))
    }
}
