//! How regularly is the leader heard?

use std::time::Duration;

use tokio::time::Instant;

use crate::options::Timing;

use super::super::Vote;

/// A pause in what is heard of the leader makes members more patient for a while, up to so many times the unit of
/// raft's waiting and a round trip.
pub(super) const STRETCH_MAX: u32 = 8;

/// That patience is lost again by one part in so many of the time that passes.
const STRETCH_LOST: u32 = 20;

/// How a leader was heard.
#[derive(Default)]
pub(super) struct Pulse {
    pub(super) vote: Option<Vote>,
    pub(super) last: Option<Instant>,
    /// How much longer than usual pauses have been of late.
    pub(super) stretch: Duration,
}

impl Pulse {
    /// A sign of life of the leader with `vote`. Patience grows up to `longest`.
    pub(super) fn beat(&mut self, vote: &Vote, now: Instant, timing: &Timing, longest: Duration) {
        let pause = self.last.filter(|_| self.vote == Some(*vote)).map_or(Duration::ZERO, |last| now - last);
        let usual = Duration::from_millis(timing.heartbeat_interval_ms);
        let longer = pause.saturating_sub(usual).min(longest);
        self.stretch = longer.max(self.stretch.saturating_sub(pause / STRETCH_LOST));
        (self.vote, self.last) = (Some(*vote), Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn irregular_signs_of_life_make_a_member_patient_for_a_while() {
        let timing = Timing::default();
        let (vote, mut now, mut pulse) = (Vote::new_committed(1, 1), Instant::now(), Pulse::default());
        let mut beat_after = |pulse: &mut Pulse, vote: &Vote, ms: u64| {
            now += Duration::from_millis(ms);
            pulse.beat(vote, now, &timing, timing.leader_lease() * STRETCH_MAX);
            pulse.stretch
        };
        assert_eq!(beat_after(&mut pulse, &vote, 0), Duration::ZERO);
        assert_eq!(beat_after(&mut pulse, &vote, timing.heartbeat_interval_ms), Duration::ZERO);
        assert_eq!(beat_after(&mut pulse, &vote, timing.heartbeat_interval_ms + 700), Duration::from_millis(700));
        for _ in 0..100 {
            beat_after(&mut pulse, &vote, timing.heartbeat_interval_ms);
        }
        assert_eq!(pulse.stretch, Duration::from_millis(450), "5 seconds later");
        for _ in 0..200 {
            beat_after(&mut pulse, &vote, timing.heartbeat_interval_ms);
        }
        assert_eq!(pulse.stretch, Duration::ZERO);
        beat_after(&mut pulse, &Vote::new_committed(2, 2), 5_000);
        assert_eq!(pulse.stretch, Duration::ZERO, "there was no leader to be heard");
        beat_after(&mut pulse, &Vote::new_committed(2, 2), 60_000);
        assert_eq!(pulse.stretch, timing.leader_lease() * STRETCH_MAX);
    }
}
