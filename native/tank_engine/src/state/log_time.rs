//! The time in the log: the only clock that applying a command knows.
//!
//! The leader stamps each request with its wall clock when it proposes it. Clocks differ between
//! members, jump and stop; the log's time does none of that. It sums up what passes between one
//! stamp and the next, it never goes backwards, and one entry advances it by [`STEP_MS_MAX`] at the
//! most. So a clock that is wrong by hours changes how long things live, by minutes, and nothing
//! else; and all members that have applied the same entries have the same time.

use serde::{Deserialize, Serialize};

/// The most that one entry advances the time. Far below the shortest life that depends on it
/// ([`super::SESSION_MS`]): a clock that is set forward ends nothing by itself.
pub const STEP_MS_MAX: u64 = 600_000;

/// A stamp that is older than the last one by less is late, not of a clock that was set back:
/// requests wait in different queues before they are proposed.
const LATE_MS_MAX: u64 = 10_000;

/// The time in the log, in milliseconds. It begins with the first stamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTime {
    now_ms: u64,
    /// The stamp that the next one is compared with; 0 before the first.
    stamp_ms: u64,
}

impl LogTime {
    /// The time as of the last entry.
    pub fn now_ms(self) -> u64 {
        self.now_ms
    }

    /// The time after an entry with this stamp.
    pub fn at(mut self, stamp_ms: u64) -> u64 {
        self.advance(stamp_ms);
        self.now_ms
    }

    /// Whether an entry with this stamp would advance the time by much: by more, it would lose some.
    pub fn is_behind(self, stamp_ms: u64) -> bool {
        self.at(stamp_ms).saturating_sub(self.now_ms) >= STEP_MS_MAX / 2
    }

    /// Takes in the stamp of an entry; 0 says nothing.
    pub fn advance(&mut self, stamp_ms: u64) {
        if stamp_ms == 0 {
            return;
        }
        if self.stamp_ms == 0 {
            self.now_ms = self.now_ms.max(stamp_ms);
            self.stamp_ms = stamp_ms;
        } else if stamp_ms >= self.stamp_ms {
            let passed = (stamp_ms - self.stamp_ms).min(STEP_MS_MAX);
            self.now_ms = self.now_ms.saturating_add(passed);
            self.stamp_ms = stamp_ms;
        } else if self.stamp_ms - stamp_ms > LATE_MS_MAX {
            // Another leader's clock, or one that was set back: goes on from there.
            self.stamp_ms = stamp_ms;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn after(stamps: &[u64]) -> u64 {
        let mut time = LogTime::default();
        stamps.iter().for_each(|stamp| time.advance(*stamp));
        time.now_ms()
    }

    #[test]
    fn it_begins_with_the_first_stamp_and_counts_what_passes() {
        assert_eq!(after(&[]), 0);
        assert_eq!(after(&[HOUR]), HOUR);
        assert_eq!(after(&[HOUR, HOUR + 5, HOUR + 5, HOUR + 9]), HOUR + 9);
    }

    #[test]
    fn a_late_stamp_is_passed_over() {
        assert_eq!(after(&[HOUR, HOUR + 100, HOUR + 40, HOUR + 101, HOUR + 41, HOUR + 102]), HOUR + 102);
    }

    #[test]
    fn a_clock_that_is_set_forward_counts_for_one_step_and_then_goes_on() {
        let jumped = 50 * HOUR;
        assert_eq!(after(&[HOUR, jumped, jumped + 7]), HOUR + STEP_MS_MAX + 7);
    }

    #[test]
    fn a_clock_that_is_set_back_goes_on_from_there() {
        let back = 2 * HOUR;
        assert_eq!(after(&[50 * HOUR, back, back + 7, back + 9]), 50 * HOUR + 9);
        assert_eq!(after(&[50 * HOUR, 0, 7, 9]), 50 * HOUR + 2, "a clock that has no time yet says nothing");
    }

    #[test]
    fn a_log_without_entries_falls_behind() {
        let mut time = LogTime::default();
        time.advance(HOUR);
        assert!(!time.is_behind(HOUR - 1) && !time.is_behind(HOUR + 200_000) && time.is_behind(HOUR + 300_000));
        // With an entry each time that it is behind, nothing is lost.
        for minute in 0..600 {
            let stamp = HOUR + minute * 60_000;
            if time.is_behind(stamp) {
                time.advance(stamp);
            }
        }
        assert_eq!(time.at(HOUR + 36_000_000), HOUR + 36_000_000);
    }

    #[test]
    fn it_never_goes_back_and_never_leaps() {
        let mut rng = tank_sim::Rng::new(tank_sim::rng::seed("TANK_SEED", 5));
        let (mut time, mut clock) = (LogTime::default(), 1_000 * HOUR);
        for step in 0..10_000 {
            clock = match rng.below(20) {
                0 => clock.saturating_sub(rng.below(5_000) as u64 * HOUR / 10),
                1 => clock + rng.below(5_000) as u64 * HOUR / 10,
                _ => clock + rng.below(50) as u64,
            };
            let before = time.now_ms();
            assert_eq!(time.at(clock), {
                time.advance(clock);
                time.now_ms()
            });
            let passed = time.now_ms().checked_sub(before).unwrap_or_else(|| panic!("step {step} goes back"));
            assert!(before == 0 || passed <= STEP_MS_MAX, "step {step} leaps by {passed}");
        }
    }
}
