//! When leases end, by a clock that stands still while they cannot be renewed. Pure: told what time
//! it is.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::lease::Lease;

/// How often the time is looked at while there are leases, at the least.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// Longer between two looks: the process was stopped, or had no processor. A loaded machine is
/// late by less.
const GAP_MAX: Duration = Duration::from_millis(250);

/// Until an end that was proposed and did not come is proposed again.
const AGAIN: Duration = Duration::from_secs(1);

/// Time during which renewals could have come in. It never runs faster than real time.
#[derive(Debug)]
pub(super) struct Clock {
    last: Instant,
    worked: Duration,
    /// How long it has been standing still.
    still: Duration,
}

impl Clock {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, worked: Duration::ZERO, still: Duration::ZERO }
    }

    pub(super) fn worked(&self) -> Duration {
        self.worked
    }

    /// Goes on from now: nobody cared for the time before.
    pub(super) fn resume(&mut self, now: Instant) {
        self.last = now;
        self.still = Duration::ZERO;
    }

    /// Goes on by so much at once, for tests of users.
    pub(super) fn skip(&mut self, time: Duration) {
        self.worked = self.worked.saturating_add(time);
    }

    /// Goes on to `now`, or stands still: when nothing is committed (`commits`), or when the last
    /// look is too long ago. Once it goes on again, it returns how long it stood.
    pub(super) fn advance(&mut self, now: Instant, commits: bool) -> Option<Duration> {
        let gap = now.saturating_duration_since(self.last);
        self.last = self.last.max(now);
        if !commits || gap > GAP_MAX {
            self.still += gap;
            return None;
        }
        self.worked += gap;
        let still = std::mem::take(&mut self.still);
        (still > Duration::ZERO).then_some(still)
    }
}

/// The deadlines of all leases, by the clock's `worked`.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    by_name: HashMap<Bytes, Held>,
    by_due: BTreeSet<(Duration, Bytes)>,
}

#[derive(Debug)]
struct Held {
    epoch: u64,
    renewals: u64,
    ttl: Duration,
    due: Duration,
}

/// A lease whose time is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) name: Bytes,
    pub(super) epoch: u64,
    pub(super) renewals: u64,
}

impl Deadlines {
    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Duration> {
        self.by_due.first().map(|(due, _)| *due)
    }

    /// Gives a lease that was granted or renewed its whole time.
    pub(super) fn restart(&mut self, lease: &Lease, worked: Duration) {
        self.remove(&lease.name);
        let ttl = Duration::from_millis(lease.ttl_ms);
        let due = worked.saturating_add(ttl);
        self.by_due.insert((due, lease.name.clone()));
        let held = Held { epoch: lease.epoch, renewals: lease.renewals, ttl, due };
        self.by_name.insert(lease.name.clone(), held);
    }

    /// Forgets a lease that has ended.
    pub(super) fn remove(&mut self, name: &Bytes) {
        if let Some(held) = self.by_name.remove(name) {
            self.by_due.remove(&(held.due, name.clone()));
        }
    }

    /// Gives the leases their whole time again whose holders, for all of it, could not renew them.
    pub(super) fn grant_again(&mut self, still: Duration, worked: Duration) {
        for (name, held) in &mut self.by_name {
            if held.ttl <= still {
                postpone(&mut self.by_due, name, held, worked.saturating_add(held.ttl));
            }
        }
    }

    /// The leases whose time is over, `max` at the most. They come again when they still have not
    /// ended a while later.
    pub(super) fn take_due(&mut self, worked: Duration, max: usize) -> Vec<Due> {
        let over = self.by_due.iter().take_while(|(due, _)| *due <= worked).take(max);
        let names: Vec<Bytes> = over.map(|(_, name)| name.clone()).collect();
        let mut due = Vec::with_capacity(names.len());
        for name in names {
            let Some(held) = self.by_name.get_mut(&name) else { continue };
            postpone(&mut self.by_due, &name, held, worked.saturating_add(AGAIN));
            due.push(Due { name, epoch: held.epoch, renewals: held.renewals });
        }
        due
    }
}

fn postpone(by_due: &mut BTreeSet<(Duration, Bytes)>, name: &Bytes, held: &mut Held, due: Duration) {
    by_due.remove(&(held.due, name.clone()));
    held.due = due;
    by_due.insert((due, name.clone()));
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn lease(name: &'static str, ttl_ms: u64, renewals: u64) -> Lease {
        let (name, holder) = (Bytes::from_static(name.as_bytes()), Bytes::new());
        Lease { name, holder, epoch: 7, ttl_ms, renewals }
    }

    fn names(due: &[Due]) -> Vec<&str> {
        due.iter().map(|due| std::str::from_utf8(&due.name).unwrap()).collect()
    }

    /// A clock and deadlines, driven through a made-up time.
    struct Simulated {
        now: Instant,
        clock: Clock,
        deadlines: Deadlines,
    }

    impl Simulated {
        fn new() -> Self {
            let now = Instant::now();
            Self { now, clock: Clock::new(now), deadlines: Deadlines::default() }
        }

        fn grant(&mut self, lease: &Lease) {
            self.deadlines.restart(lease, self.clock.worked());
        }

        fn look(&mut self, after: Duration, commits: bool) -> Vec<Due> {
            self.now += after;
            if let Some(still) = self.clock.advance(self.now, commits) {
                self.deadlines.grant_again(still, self.clock.worked());
            }
            if commits { self.deadlines.take_due(self.clock.worked(), 100) } else { Vec::new() }
        }

        /// Looks every tick; returns after how long the first lease ended.
        fn until_due(&mut self) -> Duration {
            let start = self.now;
            while self.look(MS * 10, true).is_empty() {
                assert!(self.now - start < Duration::from_secs(3_600), "nothing ended");
            }
            self.now - start
        }
    }

    #[test]
    fn a_lease_ends_at_its_time_and_not_before() {
        let mut sim = Simulated::new();
        sim.grant(&lease("a", 1_000, 0));
        for _ in 0..9 {
            assert!(sim.look(TICK, true).is_empty());
        }
        assert!(sim.look(MS * 99, true).is_empty(), "a millisecond is left");
        let due = sim.look(MS, true);
        assert_eq!(due, [Due { name: Bytes::from_static(b"a"), epoch: 7, renewals: 0 }]);
        assert!(sim.look(TICK, true).is_empty(), "it was proposed, and is not at once again");
        assert_eq!(sim.until_due(), AGAIN - TICK);
    }

    #[test]
    fn a_renewal_gives_the_whole_time_again() {
        let mut sim = Simulated::new();
        sim.grant(&lease("a", 1_000, 0));
        sim.grant(&lease("b", 1_000, 0));
        assert!((0..9).all(|_| sim.look(TICK, true).is_empty()));
        sim.grant(&lease("a", 1_000, 1));
        assert_eq!(names(&sim.look(TICK, true)), ["b"]);
        sim.deadlines.remove(&Bytes::from_static(b"b"));
        assert_eq!(sim.until_due(), MS * 900);
        sim.deadlines.remove(&Bytes::from_static(b"a"));
        assert!(sim.deadlines.is_empty() && sim.deadlines.next().is_none());
    }

    #[test]
    fn a_process_that_was_stopped_takes_no_lease_away() {
        let mut sim = Simulated::new();
        sim.grant(&lease("short", 1_000, 0));
        sim.grant(&lease("long", 60_000, 0));
        assert!((0..9).all(|_| sim.look(TICK, true).is_empty()));
        assert!(sim.look(Duration::from_secs(5), true).is_empty(), "stopped for 5 s");
        assert_eq!(sim.until_due(), MS * 1_010, "the whole time again");
        sim.deadlines.remove(&Bytes::from_static(b"short"));
        // It had 59.1 s left when the process was stopped, and 58.09 s when the short one ended.
        assert_eq!(sim.until_due(), MS * 58_090);
    }

    #[test]
    fn time_without_commits_does_not_count() {
        let mut sim = Simulated::new();
        sim.grant(&lease("a", 1_000, 0));
        sim.grant(&lease("b", 3_000, 0));
        for _ in 0..20 {
            assert!(sim.look(TICK, false).is_empty());
        }
        assert_eq!(sim.until_due(), MS * 1_010);
        sim.deadlines.remove(&Bytes::from_static(b"a"));
        assert_eq!(sim.until_due(), MS * 1_990, "3 s of which 1.01 are over");
    }

    #[test]
    fn no_sequence_of_looks_ends_a_lease_early() {
        let mut rng = tank_sim::Rng::new(tank_sim::rng::seed("TANK_SEED", 11));
        for _ in 0..500 {
            let mut sim = Simulated::new();
            let ttl = 1 + rng.below(2_000) as u64;
            sim.grant(&lease("a", ttl, 0));
            let mut granted = sim.now;
            let mut renewals = 0;
            loop {
                let gap = if rng.below(10) == 0 { rng.below(3_000) } else { rng.below(100) } as u32;
                let due = sim.look(MS * gap, rng.below(4) > 0);
                if let Some(due) = due.first() {
                    assert!(sim.now - granted >= Duration::from_millis(ttl));
                    assert_eq!(due.renewals, renewals);
                    break;
                }
                if rng.below(20) == 0 {
                    renewals += 1;
                    sim.grant(&lease("a", ttl, renewals));
                    granted = sim.now;
                }
            }
        }
    }

    #[test]
    fn the_longest_time_does_not_overflow() {
        let mut sim = Simulated::new();
        sim.grant(&lease("a", u64::MAX, 0));
        assert!((0..100).all(|_| sim.look(TICK, true).is_empty()));
    }

    #[test]
    fn time_that_is_skipped_ends_what_was_not_renewed() {
        let mut time = Simulated::new();
        time.grant(&lease("a", 1_000, 0));
        time.clock.skip(999 * MS);
        assert!(time.deadlines.take_due(time.clock.worked(), 10).is_empty());
        time.grant(&lease("a", 1_000, 1));
        time.clock.skip(2 * MS);
        assert!(time.deadlines.take_due(time.clock.worked(), 10).is_empty(), "it was renewed");
        time.clock.skip(1_000 * MS);
        assert_eq!(time.deadlines.take_due(time.clock.worked(), 10).len(), 1);
    }
}
