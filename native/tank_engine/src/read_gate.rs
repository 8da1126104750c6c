//! Until when reads of the local view are linearizable, in one atomic.
//!
//! Answers leave a leader only after its view shows what they promise, so while this member leads
//! and has applied what earlier leaders committed, its view holds every acknowledged write. How
//! long it surely leads depends on the others:
//!
//! - The only voter leads as long as it runs: nobody can elect another one behind its back.
//! - With others, a leader rests on its lease: followers that acknowledged a heartbeat vote for
//!   nobody else for a while after it ([`crate::options::Timing`]). The lease is counted from when
//!   the heartbeat was sent, by the monotonic clock, which goes on while the process is stopped.
//!
//! A member that asks the leader may rest on the lease as well: it reads once its own view has what
//! the leader's view had, at a moment after the question came in and before the lease was over.
//! Clocks are compared with nobody's; only their rates count, and followers keep the promise a third
//! longer than the leader rests on it.
//!
//! What is committed may be seen before it is acknowledged: by a member that applied it sooner than
//! the leader, which told it to. Whoever reads after such a reader must not see less. So the leader
//! notes what it tells others, and answers from nothing older.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::Guard;
use once_cell::sync::Lazy;
use tokio::time::Instant;

use crate::view::{Published, View};

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
    /// Up to this log index, other members may have heard that the log is committed.
    told: AtomicU64,
}

impl ReadGate {
    /// The published view, if it is authoritative.
    pub(crate) fn view(&self, published: &Published) -> Option<Guard<Arc<View>>> {
        // In this order: what is looked at after the gate is no older than the gate's word.
        if !self.is_open() {
            return None;
        }
        let told = self.told.load(Ordering::Acquire);
        let view = published.load();
        (view.applied_index() >= told).then_some(view)
    }

    /// The log index from which on any member's view is authoritative for who asks now.
    pub(crate) fn read_index(&self, published: &Published) -> Option<u64> {
        // The order, as above.
        self.is_open().then(|| self.told.load(Ordering::Acquire).max(published.load().applied_index()))
    }

    /// Other members are about to hear that the log is committed up to `index`.
    pub(crate) fn tell(&self, index: u64) {
        self.told.fetch_max(index, Ordering::AcqRel);
    }

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

    /// Whether this is the only voter.
    pub(crate) fn is_open_for_good(&self) -> bool {
        self.until.load(Ordering::Acquire) == FOR_GOOD
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
    use openraft::vote::RaftLeaderIdExt;

    use crate::raft::LogId;

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

    fn published_at(index: u64) -> Published {
        let leader = openraft::impls::leader_id_adv::LeaderId::<u64, u64>::new_committed(1, 1);
        let published = Published::default();
        published.publish(View { applied: Some(LogId::new(leader, index)), ..View::default() });
        published
    }

    #[test]
    fn a_view_that_lacks_what_others_may_show_is_not_authoritative() {
        let gate = ReadGate::default();
        let published = published_at(7);
        assert!(gate.view(&published).is_none() && gate.read_index(&published).is_none(), "it is shut");
        gate.open_for_good();
        assert!(gate.view(&published).is_some());
        assert_eq!(gate.read_index(&published), Some(7), "what is applied may be acknowledged");
        gate.tell(9);
        assert!(gate.view(&published).is_none(), "another member may show 9 already");
        assert_eq!(gate.read_index(&published), Some(9));
        gate.tell(8);
        assert!(gate.view(&published_at(8)).is_none(), "what was told stays told");
        assert!(gate.view(&published_at(9)).is_some());
    }
}
