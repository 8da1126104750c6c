//! Whether reads of the local view are linearizable right now, in one atomic.
//!
//! Answers leave a leader only after its view shows what they promise, so while this member leads
//! and has applied what earlier leaders committed, its view holds every acknowledged write. A
//! leader that is its cluster's only voter stays leader as long as it runs: nobody can elect
//! another one behind its back.

use std::sync::atomic::{AtomicBool, Ordering};

/// Open while the local view is authoritative.
#[derive(Debug, Default)]
pub(crate) struct ReadGate(AtomicBool);

impl ReadGate {
    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn set(&self, open: bool) {
        self.0.store(open, Ordering::Release);
    }
}
