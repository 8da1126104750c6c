//! Does a frame arrive at the end of a link, and when?
//!
//! Nothing is queued here: a link with a rate remembers when its transmitter is idle again. A frame that would wait
//! longer than the queue holds is dropped, as by a router whose buffer is full.

/// How much a link with a rate queues unless told otherwise: 200 ms of its rate, as home routers and switches do.
const QUEUE_NS: u64 = 200_000_000;

/// What a link does to frames. The default passes them on at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Bits a second; 0 is unlimited.
    pub rate_bits: u64,
    /// How long a frame may wait for the transmitter; one that would wait longer is dropped.
    pub queue_ns: u64,
    /// From the end of the transmission to the arrival.
    pub delay_ns: u64,
    /// The delay is longer or shorter by up to this much. Frames keep their order.
    pub jitter_ns: u64,
    /// The share of frames that is lost after the transmission, from 0 to 1.
    pub loss: f64,
    /// The share of frames that arrives twice, from 0 to 1.
    pub duplicate: f64,
    /// Loses all frames, before the transmission.
    pub block: bool,
}

impl Default for Rule {
    fn default() -> Self {
        Self { rate_bits: 0, queue_ns: QUEUE_NS, delay_ns: 0, jitter_ns: 0, loss: 0.0, duplicate: 0.0, block: false }
    }
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// It arrives so many times at that time, in nanoseconds.
    Arrives {
        /// When.
        at_ns: u64,
        /// Once or twice.
        copies: u8,
    },
    /// It was lost by chance.
    Lost,
    /// The queue was full.
    Full,
    /// The link is blocked.
    Blocked,
}

/// One direction between two ports, or from a port to all others.
#[derive(Clone, Debug, Default)]
pub struct Link {
    rule: Rule,
    // When the transmitter has sent all it was given.
    idle_at_ns: u64,
    // When the last frame arrives: none overtakes another.
    last_arrival_ns: u64,
}

impl Link {
    /// From now on this rule holds. Frames under way arrive as the former one said.
    pub fn set(&mut self, rule: Rule) {
        self.rule = rule;
        self.idle_at_ns = 0;
        self.last_arrival_ns = 0;
    }

    /// The rule that holds.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// What becomes of a frame that is given to the link at `now_ns`; times of successive calls never decrease.
    pub fn pass(&mut self, now_ns: u64, bytes: usize, random: &mut Random) -> Passage {
        if self.rule.block {
            return Passage::Blocked;
        }
        let Some(sent_ns) = self.transmit(now_ns, bytes) else {
            return Passage::Full;
        };
        if self.rule.loss > 0.0 && random.chance(self.rule.loss) {
            return Passage::Lost;
        }
        let at_ns = (sent_ns + self.delay(random)).max(self.last_arrival_ns);
        self.last_arrival_ns = at_ns;
        let twice = self.rule.duplicate > 0.0 && random.chance(self.rule.duplicate);
        Passage::Arrives { at_ns, copies: if twice { 2 } else { 1 } }
    }

    // When the last bit has left, or `None` if the frame would wait for too long.
    fn transmit(&mut self, now_ns: u64, bytes: usize) -> Option<u64> {
        if self.rule.rate_bits == 0 {
            return Some(now_ns);
        }
        let begins_ns = self.idle_at_ns.max(now_ns);
        if begins_ns - now_ns > self.rule.queue_ns {
            return None;
        }
        let bits = bytes as u128 * 8;
        let takes_ns = bits * 1_000_000_000 / u128::from(self.rule.rate_bits);
        self.idle_at_ns = begins_ns + u64::try_from(takes_ns).unwrap_or(u64::MAX / 2);
        Some(self.idle_at_ns)
    }

    fn delay(&self, random: &mut Random) -> u64 {
        if self.rule.jitter_ns == 0 {
            return self.rule.delay_ns;
        }
        let least = self.rule.delay_ns.saturating_sub(self.rule.jitter_ns);
        least + random.next() % (self.rule.delay_ns + self.rule.jitter_ns - least + 1)
    }
}

/// Random numbers of a seed (SplitMix64): what is lost depends on the seed and the order of the frames only.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next one.
    #[expect(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn chance(&mut self, share: f64) -> bool {
        // 53 bits are what an f64 holds exactly.
        ((self.next() >> 11) as f64) < share * (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn link(rule: Rule) -> (Link, Random) {
        let mut link = Link::default();
        link.set(rule);
        (link, Random::new(7))
    }

    #[test]
    fn a_link_without_a_rule_passes_frames_on_at_once() {
        let (mut link, mut random) = link(Rule::default());
        let passage = link.pass(5, 1_500, &mut random);
        assert_eq!(passage, Passage::Arrives { at_ns: 5, copies: 1 });
    }

    #[test]
    fn frames_arrive_at_the_rate_and_after_the_delay() {
        // 1,000 bytes take 8 ms at 1 Mbit/s.
        let rule = Rule { rate_bits: 1_000_000, delay_ns: 30 * MS, ..Rule::default() };
        let (mut link, mut random) = link(rule);
        for frame in 1..=10 {
            let passage = link.pass(0, 1_000, &mut random);
            assert_eq!(passage, Passage::Arrives { at_ns: (frame * 8 + 30) * MS, copies: 1 });
        }
        // Idle meanwhile: no credit is saved up.
        let passage = link.pass(1_000 * MS, 1_000, &mut random);
        assert_eq!(passage, Passage::Arrives { at_ns: 1_038 * MS, copies: 1 });
    }

    #[test]
    fn a_frame_that_would_wait_longer_than_the_queue_holds_is_dropped() {
        let rule = Rule { rate_bits: 1_000_000, queue_ns: 80 * MS, ..Rule::default() };
        let (mut link, mut random) = link(rule);
        let passages: Vec<_> = (0..20).map(|_| link.pass(0, 1_000, &mut random)).collect();
        // One is being sent, ten wait for up to 80 ms.
        assert_eq!(passages.iter().filter(|passage| **passage == Passage::Full).count(), 9);
        assert!(matches!(link.pass(80 * MS, 1_000, &mut random), Passage::Arrives { .. }));
    }

    #[test]
    fn the_share_that_is_lost_and_that_arrives_twice_is_the_one_asked_for() {
        let rule = Rule { loss: 0.02, duplicate: 0.1, ..Rule::default() };
        let (mut link, mut random) = link(rule);
        let passages: Vec<_> = (0..100_000).map(|_| link.pass(0, 100, &mut random)).collect();
        let lost = passages.iter().filter(|passage| **passage == Passage::Lost).count();
        let twice = passages.iter().filter(|passage| matches!(passage, Passage::Arrives { copies: 2, .. })).count();
        assert!((1_800..2_200).contains(&lost), "{lost}");
        assert!((9_300..10_300).contains(&twice), "{twice}");
    }

    #[test]
    fn jitter_stays_within_its_bounds_and_keeps_the_order() {
        let rule = Rule { delay_ns: 50 * MS, jitter_ns: 10 * MS, ..Rule::default() };
        let (mut link, mut random) = link(rule);
        let mut last = 0;
        for frame in 0..1_000 {
            let now_ns = frame * 30 * MS;
            let Passage::Arrives { at_ns, .. } = link.pass(now_ns, 100, &mut random) else { unreachable!() };
            assert!((40 * MS..=60 * MS).contains(&(at_ns - now_ns)), "{at_ns} after {now_ns}");
            assert!(at_ns >= last);
            last = at_ns;
        }
    }

    #[test]
    fn a_blocked_link_passes_nothing() {
        let (mut link, mut random) = link(Rule { block: true, ..Rule::default() });
        assert_eq!(link.pass(0, 100, &mut random), Passage::Blocked);
    }
}
