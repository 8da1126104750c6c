//! How many bytes may be in flight to another member?
//!
//! All messages to a node share one connection, so a queue in it delays heartbeats and small writes. The window is what
//! the link carries in its shortest round trip plus a queue of [`QUEUE_TARGET`]. If the link can carry more,
//! acknowledgements arrive sooner and the measured rate rises. On a distant link that loses segments, the window is up
//! to twice as large, because TCP holds back everything after a lost segment. The rate is measured as in BBR (Cardwell
//! et al., "BBR: Congestion-Based Congestion Control", 2016): bytes acknowledged per time, the best value of the last
//! seconds. A lost segment or a delayed process delays acknowledgements, but does not lower the rate.
//!
//! ```text
//! idle --something to send--> starting: doubles each round trip --the rate stops rising--> measured
//!   ^                                                                                         |
//!   +--------------------------------- nothing sent for a while ------------------------------+
//! ```
//!
//! TCP also starts slowly after a pause. What it gets before it is ready waits in a queue.

use std::time::Duration;

use tokio::time::Instant;

/// The queue that the window aims at. A small write waits behind about this much.
const QUEUE_TARGET: Duration = Duration::from_millis(50);

/// The least that may be on its way: one part and a few small messages.
const BYTES_MIN: usize = 32 << 10;

/// Bytes a second that a link is taken to carry before it has shown more. Where a round trip takes long, a window of
/// [`BYTES_MIN`] at first would cost many of them.
const RATE_MIN: f64 = 1_000_000.0;

/// The most: what 500 Mbit/s carry in a round trip of 250 ms.
const BYTES_MAX: usize = 16 << 20;

/// A pause after which the window starts again, beside a round trip.
const PAUSE: Duration = Duration::from_millis(200);

/// How long a rate counts.
const RATE_KEPT: Duration = Duration::from_secs(5);

/// The link is full when the rate has not risen by this factor in so many round trips (BBR's startup).
const RISES: f64 = 1.25;
const FLAT_MAX: u32 = 3;

/// How long the shortest round trip counts: routes change. After this time the window shrinks for one
/// round trip, because a full link hides its shortest round trip.
const SHORTEST_KEPT: Duration = Duration::from_secs(30);

/// How long a round trip counts for how far away the other side is.
pub(super) const DISTANCE_KEPT: Duration = Duration::from_secs(2);

/// The window of one link, and what it learns from.
#[derive(Debug)]
pub(super) struct Window {
    /// While starting, what may be on its way.
    start: usize,
    filling: Filling,
    /// Bytes a second.
    rate: Best<f64>,
    shortest: Best<Duration>,
    distance: Best<Duration>,
    /// Smoothed, and its deviation, as TCP computes them (RFC 6298).
    smoothed: Option<(Duration, Duration)>,
    /// The window is small until then, to see a short round trip.
    small_until: Option<Instant>,
    delivered: u64,
    delivered_at: Instant,
    /// When the newest part that has arrived was sent.
    first_sent_at: Instant,
    last_sent_at: Instant,
}

/// The window's counters at the time a part was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    at: Instant,
    delivered: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    /// The window allowed no more: it is what limits the link.
    full: bool,
}

impl Window {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            start: BYTES_MIN,
            filling: Filling::default(),
            rate: Best::new(RATE_KEPT),
            shortest: Best::new(SHORTEST_KEPT),
            distance: Best::new(DISTANCE_KEPT),
            smoothed: None,
            small_until: None,
            delivered: 0,
            delivered_at: now,
            first_sent_at: now,
            last_sent_at: now,
        }
    }

    pub(super) fn bytes(&self, now: Instant) -> usize {
        if self.small_until.is_some_and(|until| now < until) {
            return BYTES_MIN;
        }
        let measured = self.measured();
        // What little was sent so far says nothing about what the link carries.
        self.start.min(if self.filling.is_over() { measured } else { measured.max(self.first()) })
    }

    /// What may be on its way after a pause.
    fn first(&self) -> usize {
        let shortest = self.shortest.get(Duration::min).unwrap_or_default();
        ((RATE_MIN * shortest.as_secs_f64()) as usize).clamp(BYTES_MIN, BYTES_MAX)
    }

    /// What the link carries, as far as it has shown.
    fn measured(&self) -> usize {
        let (Some(rate), Some(shortest)) = (self.rate.get(f64::max), self.shortest.get(Duration::min)) else {
            return BYTES_MAX;
        };
        let carried = shortest + self.held_back(shortest);
        // While the link is not full, twice of it: on a long link the queue alone would let the rate rise slowly.
        let carried = if self.filling.is_over() { carried } else { carried * 2 };
        let bytes = rate * (carried + QUEUE_TARGET).as_secs_f64();
        (bytes as usize).clamp(BYTES_MIN, BYTES_MAX)
    }

    /// How long TCP holds parts back at present because one before them was lost: nothing that follows is delivered until
    /// it was sent again, a round trip later. A window that leaves this out is empty for much of that time, and the rate
    /// falls with it. A queue delays all parts alike, and so does not count.
    fn held_back(&self, shortest: Duration) -> Duration {
        let deviation = self.smoothed.map_or(Duration::ZERO, |(_, deviation)| deviation);
        deviation.mul_f64(1.5).saturating_sub(QUEUE_TARGET).min(shortest)
    }

    /// A smoothed round trip; `None` before the first acknowledgement.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.smoothed.map(|(mean, _)| mean)
    }

    /// The shortest round trip of the last seconds.
    pub(super) fn distance(&self) -> Option<Duration> {
        self.distance.get(Duration::min)
    }

    /// How long an acknowledgement may take before its part counts as lost.
    pub(super) fn patience(&self) -> Duration {
        // At first nothing is known; the other side may just be starting, and have missed it.
        const FIRST: Duration = Duration::from_millis(300);
        const LEAST: Duration = Duration::from_secs(1);
        self.smoothed.map_or(FIRST, |(mean, deviation)| (mean + deviation * 4 + QUEUE_TARGET * 2).max(LEAST))
    }

    /// A part is sent. `in_flight`: the bytes on their way, with it.
    pub(super) fn sent(&mut self, in_flight: usize, part_max: usize, now: Instant) -> Sent {
        let pause = PAUSE + self.round_trip().unwrap_or_default();
        if in_flight <= part_max {
            if now.saturating_duration_since(self.last_sent_at) > pause {
                (self.start, self.filling) = (self.first(), Filling::default());
            }
            (self.delivered_at, self.first_sent_at) = (now, now);
        }
        self.last_sent_at = now;
        let full = in_flight + part_max > self.bytes(now);
        let Self { delivered, delivered_at, first_sent_at, .. } = *self;
        Sent { at: now, delivered, delivered_at, first_sent_at, full }
    }

    /// `bytes` were acknowledged, the newest of them `sent`. `round_trip` is missing where nobody can
    /// tell which of two tries arrived.
    pub(super) fn acknowledged(&mut self, bytes: usize, sent: &Sent, round_trip: Option<Duration>, now: Instant) {
        self.delivered += bytes as u64;
        self.delivered_at = now;
        let Some(round_trip) = round_trip else { return };
        self.rate.kept = RATE_KEPT.max(round_trip * 16);
        if self.shortest.add(round_trip, now, Duration::min) {
            self.small_until = Some(now + round_trip);
        }
        if !self.filling.is_over() {
            self.start = self.start.max(self.first());
        }
        self.distance.add(round_trip, now, Duration::min);
        self.smooth(round_trip);
        // Acknowledgements may come in a bunch: no link is faster than it was sent to.
        let took = (now - sent.delivered_at).max(sent.at.saturating_duration_since(sent.first_sent_at));
        self.first_sent_at = sent.at;
        let shortest = self.shortest.get(Duration::min).unwrap_or_default();
        if took >= shortest && !took.is_zero() {
            let rate = (self.delivered - sent.delivered) as f64 / took.as_secs_f64();
            if sent.full || self.rate.get(f64::max).is_none_or(|best| rate > best) {
                self.rate.add(rate, now, f64::max);
            }
        }
        if sent.full {
            self.start = (self.start + bytes).min(BYTES_MAX);
            self.filling.acknowledged(sent.delivered, self.delivered, self.rate.get(f64::max).unwrap_or_default());
        }
    }

    fn smooth(&mut self, round_trip: Duration) {
        self.smoothed = Some(match self.smoothed {
            None => (round_trip, round_trip / 2),
            Some((mean, deviation)) => {
                let difference = round_trip.abs_diff(mean);
                ((mean * 7 + round_trip) / 8, (deviation * 3 + difference) / 4)
            }
        });
    }
}

/// Notices that a link is full: the rate rises no more.
#[derive(Debug, Default)]
struct Filling {
    /// A round trip ends with a part that was sent when so much was delivered.
    ends_at: u64,
    rate: f64,
    flat: u32,
}

impl Filling {
    fn is_over(&self) -> bool {
        self.flat >= FLAT_MAX
    }

    fn acknowledged(&mut self, delivered_when_sent: u64, delivered: u64, rate: f64) {
        if self.is_over() || delivered_when_sent < self.ends_at {
            return;
        }
        self.ends_at = delivered;
        if rate > self.rate * RISES {
            (self.rate, self.flat) = (rate, 0);
        } else {
            self.flat += 1;
        }
    }
}

/// The best of about the last `kept` to twice that.
#[derive(Debug)]
pub(super) struct Best<T> {
    kept: Duration,
    now: Option<T>,
    before: Option<T>,
    since: Option<Instant>,
}

impl<T: Copy> Best<T> {
    pub(super) fn new(kept: Duration) -> Self {
        Self { kept, now: None, before: None, since: None }
    }

    /// Whether a new period has begun, after one.
    pub(super) fn add(&mut self, value: T, now: Instant, better: impl Fn(T, T) -> T) -> bool {
        let begins = self.since.is_none_or(|since| now.saturating_duration_since(since) > self.kept);
        if begins {
            (self.before, self.since) = (self.now.take(), Some(now));
        }
        self.now = Some(self.now.map_or(value, |best| better(best, value)));
        begins && self.before.is_some()
    }

    pub(super) fn get(&self, better: impl Fn(T, T) -> T) -> Option<T> {
        self.now.into_iter().chain(self.before).reduce(better)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: usize = 30 << 10;

    /// A link in a model: a queue that drains at a rate, then a round trip. A share of the parts is lost, and takes a
    /// round trip longer, or several; all that follow wait: TCP sends a lost segment again.
    struct Model {
        rate: f64,
        base: Duration,
        loss: f64,
    }

    /// What became of a transfer.
    struct Carried {
        took: Duration,
        /// The share of the link that was used in the second half of the bytes, and the longest queue met then.
        share: f64,
        queue: Duration,
    }

    impl Model {
        fn new(megabits: f64, base_ms: u64, loss: f64) -> Self {
            Self { rate: megabits * 125_000.0, base: Duration::from_millis(base_ms), loss }
        }

        fn carry(&self, bytes: usize, seed: u64) -> Carried {
            let start = Instant::now();
            let mut window = Window::new(start);
            let mut on_the_way = std::collections::VecDeque::new();
            let (mut now, mut free_at, mut in_order_at, mut half_at) = (start, start, start, start);
            let (mut carried, mut queue, mut random) = (0, Duration::ZERO, seed);
            let mut is_lost = || {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ((random >> 33) as f64) < self.loss * (1_u64 << 31) as f64
            };
            while carried < bytes {
                while on_the_way.is_empty() || on_the_way.len() * PART < window.bytes(now) {
                    let sent = window.sent((on_the_way.len() + 1) * PART, PART, now);
                    free_at = free_at.max(now) + Duration::from_secs_f64(PART as f64 / self.rate);
                    let mut at = free_at + self.base;
                    while is_lost() {
                        at += self.base + Duration::from_millis(10);
                    }
                    in_order_at = in_order_at.max(at);
                    on_the_way.push_back((sent, in_order_at, free_at - now));
                }
                let (sent, at, queued) = on_the_way.pop_front().unwrap();
                now = now.max(at);
                window.acknowledged(PART, &sent, Some(now - sent.at), now);
                carried += PART;
                if carried < bytes / 2 {
                    half_at = now;
                } else {
                    queue = queue.max(queued);
                }
            }
            let share = (bytes / 2) as f64 / (now - half_at).as_secs_f64() / self.rate;
            Carried { took: now - start, share, queue }
        }
    }

    fn megabytes(count: usize) -> usize {
        count * 1_000_000
    }

    #[test]
    fn a_window_fills_its_link_and_keeps_the_queue_short() {
        for (megabits, count) in [(16.0, 80), (100.0, 500), (1_000.0, 5_000)] {
            for base_ms in [0, 20, 60, 100] {
                let Carried { share, queue, .. } = Model::new(megabits, base_ms, 0.0).carry(megabytes(count), 0);
                let what = format!("{megabits} Mbit/s, {base_ms} ms: {share:.2} of the link, queue {queue:?}");
                assert!(share > 0.9, "{what}");
                assert!(queue < Duration::from_millis(200), "{what}");
            }
        }
        let share = Model::new(100.0, 300, 0.0).carry(megabytes(750), 0).share;
        assert!(share > 0.9, "100 Mbit/s, 300 ms: {share:.2}");
    }

    /// A part is 20 segments, which a virtual interface passes on in three pieces, of which 2 % are lost.
    const LOSS: f64 = 0.06;

    #[test]
    fn a_link_that_loses_segments_is_still_used() {
        for (megabits, base_ms, count, least) in [(100.0, 60, 200, 0.6), (16.0, 300, 60, 0.6), (100.0, 300, 100, 0.3)] {
            for seed in 0..20 {
                let share = Model::new(megabits, base_ms, LOSS).carry(megabytes(count), seed).share;
                assert!(share > least, "{megabits} Mbit/s, {base_ms} ms, seed {seed}: {share:.2} of the link");
            }
        }
    }

    #[test]
    fn a_value_soon_crosses_a_long_link_that_loses_segments() {
        for seed in 0..20 {
            let took = Model::new(100.0, 300, LOSS).carry(16 << 20, seed).took;
            assert!(took < Duration::from_millis(7_500), "seed {seed}: 16 MiB took {took:?}");
        }
    }

    #[test]
    fn a_window_starts_again_after_a_pause() {
        let start = Instant::now();
        let mut window = Window::new(start);
        let mut now = start;
        for _ in 0..50 {
            let sent = window.sent(window.bytes(now), PART, now);
            now += Duration::from_millis(10);
            window.acknowledged(PART, &sent, Some(Duration::from_millis(10)), now);
        }
        assert!(window.bytes(now) > 2 * BYTES_MIN, "{}", window.bytes(now));
        now += Duration::from_secs(1);
        window.sent(PART, PART, now);
        assert_eq!(window.bytes(now), BYTES_MIN);
    }
}
