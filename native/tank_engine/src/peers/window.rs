//! How many bytes may be on their way to another member.
//!
//! All that goes to a node shares one connection, so whatever queues up in it delays heartbeats and
//! small writes. The window grows while the link has room and shrinks once a queue forms. It
//! measures the queue by the time that acknowledgements take beyond the shortest one seen, and aims
//! at [`QUEUE_TARGET`]. The idea is LEDBAT's (RFC 6817); the steps are larger, since nothing else here
//! shares the link fairly with us: TCP below does.

use std::time::Duration;

use tokio::time::Instant;

/// The queue that the window aims at. A small write waits behind about this much.
const QUEUE_TARGET: Duration = Duration::from_millis(60);

/// What may be on its way at first.
const BYTES_START: usize = 256 << 10;

/// The least: two parts, 65 ms of 16 Mbit/s. Two followers share their leader's way out.
const BYTES_MIN: usize = 128 << 10;

/// The most: what 500 Mbit/s carry in a round trip of 250 ms.
const BYTES_MAX: usize = 16 << 20;

/// How long the shortest round trip counts: routes change, and so do they.
const SHORTEST_KEPT: Duration = Duration::from_secs(30);

/// The window of one link, and the round trips that it learns from.
#[derive(Debug)]
pub(super) struct Window {
    bytes: usize,
    /// Doubles with each round trip until a queue forms for the first time.
    starting: bool,
    shortest: Shortest,
    /// Smoothed, and its deviation, as TCP computes them (RFC 6298).
    smoothed: Option<(Duration, Duration)>,
    /// The window shrinks once per round trip.
    shrunk_at: Option<Instant>,
}

impl Default for Window {
    fn default() -> Self {
        let shortest = Shortest::default();
        Self { bytes: BYTES_START, starting: true, shortest, smoothed: None, shrunk_at: None }
    }
}

impl Window {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A smoothed round trip; `None` before the first acknowledgement.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.smoothed.map(|(mean, _)| mean)
    }

    /// How long an acknowledgement may take before its part counts as lost.
    pub(super) fn patience(&self) -> Duration {
        // At first nothing is known; the other side may just be starting, and have missed it.
        const FIRST: Duration = Duration::from_millis(300);
        const LEAST: Duration = Duration::from_secs(1);
        self.smoothed.map_or(FIRST, |(mean, deviation)| (mean + deviation * 4 + QUEUE_TARGET * 2).max(LEAST))
    }

    /// `bytes` were acknowledged after `round_trip`. `was_full`: they were sent because the window
    /// allowed no more, so the window is what limits the link.
    pub(super) fn acknowledged(&mut self, bytes: usize, round_trip: Duration, was_full: bool, now: Instant) {
        self.measure(round_trip, now);
        let queue = round_trip.saturating_sub(self.shortest.get());
        if queue > QUEUE_TARGET {
            self.starting = false;
            if self.shrunk_at.is_none_or(|at| now - at > round_trip) {
                // What the link carries in the shortest round trip and the queue that is wanted.
                let wanted = (self.shortest.get() + QUEUE_TARGET).as_secs_f64() / round_trip.as_secs_f64();
                self.bytes = ((self.bytes as f64 * wanted.clamp(0.5, 1.0)) as usize).max(BYTES_MIN);
                self.shrunk_at = Some(now);
            }
        } else if was_full {
            let step = match self.starting {
                true => bytes,
                false if queue < QUEUE_TARGET / 2 => bytes / 4,
                false => bytes / 32,
            };
            self.bytes = (self.bytes + step).min(BYTES_MAX);
        }
    }

    fn measure(&mut self, round_trip: Duration, now: Instant) {
        self.shortest.add(round_trip, now);
        self.smoothed = Some(match self.smoothed {
            None => (round_trip, round_trip / 2),
            Some((mean, deviation)) => {
                let difference = round_trip.abs_diff(mean);
                ((mean * 7 + round_trip) / 8, (deviation * 3 + difference) / 4)
            }
        });
    }
}

/// The shortest round trip of about the last [`SHORTEST_KEPT`].
#[derive(Debug, Default)]
struct Shortest {
    now: Option<Duration>,
    before: Option<Duration>,
    since: Option<Instant>,
}

impl Shortest {
    fn add(&mut self, round_trip: Duration, now: Instant) {
        if self.since.is_none_or(|since| now - since > SHORTEST_KEPT) {
            self.before = self.now.take();
            self.since = Some(now);
        }
        self.now = Some(self.now.map_or(round_trip, |shortest| shortest.min(round_trip)));
    }

    fn get(&self) -> Duration {
        self.now.into_iter().chain(self.before).min().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends parts of 64 KB through a link of `rate` bytes a second until `seconds` have passed;
    /// returns the bytes carried in the second half, and the longest queue met in it.
    fn carry(rate: f64, base: Duration, seconds: u64) -> (f64, Duration) {
        const PART: usize = 64 << 10;
        let start = Instant::now();
        let end = start + Duration::from_secs(seconds);
        let half = start + Duration::from_secs(seconds / 2);
        let mut window = Window::default();
        // The parts on their way: when each was sent and is acknowledged.
        let mut sent = std::collections::VecDeque::new();
        let (mut now, mut free_at) = (start, start);
        let (mut carried, mut longest) = (0.0, Duration::ZERO);
        while now < end {
            while (sent.len() + 1) * PART <= window.bytes() {
                free_at = free_at.max(now) + Duration::from_secs_f64(PART as f64 / rate);
                sent.push_back((now, free_at + base));
            }
            let (sent_at, acknowledged_at) = sent.pop_front().unwrap();
            now = acknowledged_at;
            window.acknowledged(PART, now - sent_at, true, now);
            if now > half {
                carried += PART as f64;
                longest = longest.max((now - sent_at).saturating_sub(base));
            }
        }
        (carried / (end - half).as_secs_f64() / rate, longest)
    }

    #[test]
    fn a_window_fills_its_link_and_keeps_the_queue_short() {
        for megabits in [16.0, 100.0, 1_000.0] {
            for base_ms in [0, 20, 60] {
                let (share, queue) = carry(megabits * 125_000.0, Duration::from_millis(base_ms), 40);
                let what = format!("{megabits} Mbit/s, {base_ms} ms: {share:.2} of the link, queue {queue:?}");
                assert!(share > 0.9, "{what}");
                // The smallest window is 128 ms of the slowest of these links.
                assert!(queue < Duration::from_millis(220), "{what}");
            }
        }
        let (share, _) = carry(12_500_000.0, Duration::from_millis(300), 60);
        assert!(share > 0.9, "100 Mbit/s, 300 ms: {share:.2}");
    }

    #[test]
    fn a_window_that_nobody_fills_does_not_grow() {
        let (mut window, now) = (Window::default(), Instant::now());
        for _ in 0..1_000 {
            window.acknowledged(1 << 10, Duration::from_millis(1), false, now);
        }
        assert_eq!(window.bytes(), BYTES_START);
        assert_eq!(window.round_trip(), Some(Duration::from_millis(1)));
    }
}
