//! Until when reads of the local view are linearizable, in one atomic.
//!
//! Answers leave a leader only after its view shows what they promise, so while this member leads
//! and has applied what earlier leaders committed, its view holds every acknowledged write. How
//! long it surely leads depends on the others:
//!
//! - The only voter leads as long as it runs: nobody can elect another one behind its back.
//! - With others, a leader rests on its lease: followers that acknowledged a heartbeat vote for
//!   nobody else for a while after it. The lease is counted from when the heartbeat was sent, by
//!   the monotonic clock, which goes on while the process is stopped.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use once_cell::sync::Lazy;

/// The beginning of this process's time.
static START: Lazy<Instant> = Lazy::new(Instant::now);

const SHUT: u64 = 0;
const FOR_GOOD: u64 = u64::MAX;

/// Open while the local view is authoritative.
#[derive(Debug, Default)]
pub(crate) struct ReadGate {
    /// Nanoseconds since [`START`].
    until: AtomicU64,
    /// Leadership is being given away: the lease no longer protects.
    held_shut: AtomicBool,
}

impl ReadGate {
    pub(crate) fn is_open(&self) -> bool {
        let until = self.until.load(Ordering::Acquire);
        let open = until == FOR_GOOD || (until != SHUT && nanos(Instant::now()) < until);
        open && !self.held_shut.load(Ordering::Acquire)
    }

    pub(crate) fn shut(&self) {
        self.until.store(SHUT, Ordering::Release);
    }

    pub(crate) fn open_for_good(&self) {
        self.until.store(FOR_GOOD, Ordering::Release);
    }

    pub(crate) fn open_until(&self, until: Instant) {
        self.until.store(nanos(until), Ordering::Release);
    }

    /// Shuts the gate whatever the lease says, until [`ReadGate::release`].
    pub(crate) fn hold_shut(&self) {
        self.held_shut.store(true, Ordering::Release);
    }

    pub(crate) fn release(&self) {
        self.held_shut.store(false, Ordering::Release);
    }
}

fn nanos(at: Instant) -> u64 {
    // One more than nothing: 0 means shut.
    let since = at.saturating_duration_since(*START).saturating_add(Duration::from_nanos(1));
    u64::try_from(since.as_nanos()).unwrap_or(FOR_GOOD - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_open_exactly_as_long_as_the_lease() {
        let gate = ReadGate::default();
        assert!(!gate.is_open());
        gate.open_until(Instant::now() + Duration::from_secs(60));
        assert!(gate.is_open());
        gate.hold_shut();
        assert!(!gate.is_open());
        gate.release();
        assert!(gate.is_open());
        gate.open_until(Instant::now());
        assert!(!gate.is_open(), "a lease that has just ended");
        gate.open_for_good();
        assert!(gate.is_open());
        gate.shut();
        assert!(!gate.is_open());
    }
}
