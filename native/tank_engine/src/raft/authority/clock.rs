//! The clock of leases: it also counts the time for which the machine is suspended.
//!
//! The raft core measures with the monotonic clock, which does not advance during suspension. After a resume, a lease
//! would seem to hold although the other members had time to elect another leader.
//!
//! One case remains: the host stops or moves a virtual machine without updating the guest's clock of suspension. Then
//! reads may be old for the rest of a lease, 150 ms by default. On systems without such a clock, the monotonic clock
//! counts suspension (macOS, FreeBSD), or reads may be old in the same way.

use std::time::Duration;

use once_cell::sync::Lazy;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::environment;
use crate::mutants;

/// Before any time of this process, simulated ones included.
static START: Lazy<Instant> =
    Lazy::new(|| Instant::now().checked_sub(Duration::from_secs(24 * 60 * 60)).unwrap_or_else(Instant::now));

#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK: ClockId = ClockId::Monotonic;

/// Two readings of the clocks differ by less than this, one after the other.
const NOISE: i128 = 1_000_000;

/// Nanoseconds; never 0.
pub(super) fn now() -> u64 {
    if environment::is_simulated() {
        let now = Instant::now();
        let stands_still = mutants::is("lease_clock_stands_still");
        return monotonic(if stands_still { now.checked_sub(environment::suspended()).unwrap_or(now) } else { now });
    }
    let now = clock_gettime(CLOCK);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or_default()).max(1)
}

fn monotonic(at: Instant) -> u64 {
    let since = at.saturating_duration_since(*START).saturating_add(Duration::from_nanos(1));
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX / 2)
}

/// Converts instants of the monotonic clock.
pub(super) struct Clock {
    /// How far ahead of the monotonic clock this one is, at least, since the machine was last suspended.
    ahead: i128,
    /// Since when, by the monotonic clock.
    since: u64,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self::at(now(), monotonic(Instant::now()))
    }

    fn at(now: u64, monotonic_now: u64) -> Self {
        Self { ahead: i128::from(now) - i128::from(monotonic_now), since: monotonic_now }
    }

    /// `at` on this clock; if anything, earlier. `None` when `acknowledged` is from before the machine was suspended.
    pub(super) fn convert(&mut self, at: Instant, acknowledged: Instant) -> Option<u64> {
        // In this order: what passes between the two makes the result earlier.
        let now = now();
        self.convert_at(now, monotonic(Instant::now()), monotonic(at), monotonic(acknowledged))
    }

    fn convert_at(&mut self, now: u64, monotonic_now: u64, at: u64, acknowledged: u64) -> Option<u64> {
        let read = Self::at(now, monotonic_now);
        if read.ahead > self.ahead + NOISE {
            *self = read;
        }
        let at = u64::try_from(i128::from(at) + self.ahead).unwrap_or_default();
        (acknowledged >= self.since).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_lease_from_before_a_suspension_does_not_count_and_a_later_one_does() {
        let (ahead, lease) = (5_000 * MS, 150 * MS);
        let mut clock = Clock::at(1_000 * MS + ahead, 1_000 * MS);
        let until = clock.convert_at(1_100 * MS + ahead, 1_100 * MS, 1_090 * MS + lease, 1_090 * MS);
        assert_eq!(until, Some(1_090 * MS + ahead + lease));
        // Suspended for 2 seconds, after the append was acknowledged.
        let ahead = ahead + 2_000 * MS;
        assert_eq!(clock.convert_at(1_110 * MS + ahead, 1_110 * MS, 1_095 * MS + lease, 1_095 * MS), None);
        let until = clock.convert_at(1_130 * MS + ahead, 1_130 * MS, 1_120 * MS + lease, 1_120 * MS);
        assert_eq!(until, Some(1_120 * MS + ahead + lease));
    }

    #[test]
    fn either_clock_may_be_ahead() {
        let mut clock = Clock::at(1_000 * MS, 5_000 * MS);
        assert_eq!(clock.convert_at(1_100 * MS, 5_100 * MS, 5_200 * MS, 5_050 * MS), Some(1_200 * MS));
    }

    #[test]
    fn the_clock_goes_on() {
        let (mut clock, before) = (Clock::start(), now());
        let at = Instant::now();
        let converted = clock.convert(at, at).unwrap();
        // If anything, earlier: by what passes between two readings.
        assert!(before < converted + 20 * MS && converted <= now(), "{before} {converted}");
    }
}
