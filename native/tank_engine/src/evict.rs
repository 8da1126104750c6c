//! Drops payloads from memory when they take up more than a store is allowed.
//!
//! The clock algorithm: a hand goes round all entries in the order of their paths, passes over
//! those that were read since it last came by, and drops the others. So what is read often stays,
//! without any list that readers would have to keep in order.
//!
//! After F. J. Corbató, "A Paging Experiment with the Multics System" (1968).

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::health::Health;
use crate::key::Key;
use crate::payload::Memory;
use crate::runtime;
use crate::view::{Published, View};

/// Down to this part of the bound, in per cent: so that the hand does not start for every write.
const LOW_WATER_PERCENT: u64 = 95;

/// Entries that the hand passes before it looks for a newer view.
const STRIDE: usize = 10_000;

/// How long to rest when all has been dropped that can be, and it is still too much: decoded values
/// that are being read, or an older view's payloads.
const REST: Duration = Duration::from_millis(100);

/// Where the hand is.
#[derive(Default)]
struct Hand(Option<Key>);

/// Starts the thread of a store with a bound; it ends when the store is closed.
///
/// # Errors
/// The operating system gave no thread.
pub(crate) fn start(scarce: Receiver<()>, published: &Arc<Published>, health: &Arc<Health>) -> std::io::Result<()> {
    // Or else the view would keep its payloads alive, those their memory, and that this thread.
    let published = Arc::downgrade(published);
    let body = move || {
        let mut hand = Hand::default();
        let mut rests = false;
        loop {
            match scarce.recv_timeout(if rests { REST } else { Duration::MAX }) {
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(()) if rests => std::thread::sleep(REST),
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            }
            let Some(published) = published.upgrade() else { return };
            rests = !hand.free(&published);
        }
    };
    runtime::spawn_thread("evict", Arc::clone(health), body).map(drop)
}

impl Hand {
    /// Goes on until enough is free, at most twice around: the first time may find all touched.
    /// Returns whether enough is free.
    fn free(&mut self, published: &Published) -> bool {
        let memory = published.memory();
        let low_water = memory.bytes_max() / 100 * LOW_WATER_PERCENT;
        let mut rounds = 0;
        while memory.bytes() > low_water {
            let view = Arc::clone(&published.load());
            if !self.stride(&view, memory, low_water) {
                rounds += 1;
            }
            if rounds > 2 {
                return false;
            }
        }
        true
    }

    /// Goes on by some entries. Returns false at the end of all, where it begins anew.
    fn stride(&mut self, view: &View, memory: &Memory, low_water: u64) -> bool {
        let from = self.0.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut passed = 0;
        for (key, entry) in view.entries.range((from, Bound::Unbounded)) {
            // Most are on the disk already: passing them must cost little.
            if entry.payload.takes_up_memory() && memory.is_stored(entry.revision) && !entry.payload.take_touched() {
                entry.evict();
            }
            passed += 1;
            if passed >= STRIDE || memory.bytes() <= low_water {
                self.0 = Some(key.clone());
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Entry;
    use bytes::Bytes;

    #[test]
    fn what_is_read_stays_and_the_rest_goes_until_enough_is_free() {
        let (scarce, woken) = crossbeam_channel::bounded(1);
        let memory = Arc::new(Memory::bounded(5_000, scarce));
        let key = |i: u32| Key::from_bytes(format!("\x02{i:04}\0").as_bytes());
        let entry = |i| {
            let entry = Entry::created(&key(i), Bytes::from(vec![0; 100]), 1, 0);
            (key(i), Arc::new(entry.counted_in(&memory)))
        };
        memory.set_stored(1);
        let view = View { entries: (0..100).map(entry).collect(), ..View::default() };
        let hot: Vec<Key> = (0..100).step_by(4).map(key).collect();
        // The hand has been round once: nothing counts as read.
        for entry in view.entries.values() {
            entry.payload.take_touched();
        }
        hot.iter().for_each(|key| drop(view.entries.get(key).unwrap().payload.in_memory()));
        let published = Published::new(Arc::clone(&memory));
        published.publish(view.clone());
        assert!(woken.try_recv().is_ok());
        assert!(Hand::default().free(&published));
        assert!(memory.bytes() <= 4_750 && memory.bytes() >= 4_600, "{}", memory.bytes());
        assert!(hot.iter().all(|key| view.entries.get(key).unwrap().payload.in_memory().is_some()));
    }
}
