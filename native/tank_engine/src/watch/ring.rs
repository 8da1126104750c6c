//! The newest revisions, in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::state::Revised;

/// How many revisions are kept, however small: what a watch that keeps up needs. Others read the
/// disk.
const REVISIONS_MAX: usize = 10_000;

/// Consecutive revisions up to the newest.
#[derive(Debug)]
pub(super) struct Ring {
    /// Each with its bytes: counting them takes longer than the ring's lock may be held.
    revisions: VecDeque<(usize, Arc<Revised>)>,
    bytes: usize,
    bytes_max: usize,
    last: u64,
}

impl Default for Ring {
    fn default() -> Self {
        Self { revisions: VecDeque::new(), bytes: 0, bytes_max: crate::options::WATCH_BUFFER_BYTES_MAX, last: 0 }
    }
}

impl Ring {
    /// Bounds the bytes of keys and payloads, about.
    pub(super) fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// The newest revision, whether it is kept or not.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// The oldest revision that is kept; the one after the newest when none is.
    pub(super) fn first(&self) -> u64 {
        self.last + 1 - self.revisions.len() as u64
    }

    /// Forgets all: the state was replaced, and is of that revision now.
    pub(super) fn reset(&mut self, last: u64) -> VecDeque<(usize, Arc<Revised>)> {
        self.bytes = 0;
        self.last = last;
        std::mem::take(&mut self.revisions)
    }

    /// Adds the next revisions, each with its bytes. Returns those that there is no room for any more.
    pub(super) fn push(&mut self, revised: Vec<(usize, Arc<Revised>)>) -> Vec<Arc<Revised>> {
        for (bytes, one) in revised {
            self.last = one.revision;
            self.bytes += bytes;
            self.revisions.push_back((bytes, one));
        }
        let mut out = Vec::new();
        while self.revisions.len() > REVISIONS_MAX || self.bytes > self.bytes_max {
            let Some((bytes, oldest)) = self.revisions.pop_front() else { break };
            self.bytes -= bytes;
            out.push(oldest);
        }
        out
    }

    /// The revisions from `revision` on, of `count` at the most, if that one is kept.
    pub(super) fn from(&self, revision: u64, count: usize) -> Option<Vec<Arc<Revised>>> {
        let at = usize::try_from(revision.checked_sub(self.first())?).ok()?;
        Some(self.revisions.iter().skip(at).take(count).map(|(_, one)| Arc::clone(one)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Entry;
    use crate::key::Key;
    use crate::state::Cause;
    use crate::state::Change;
    use bytes::Bytes;

    fn revised(revision: u64, bytes: usize) -> Arc<Revised> {
        let key = Key::default();
        let entry = Some(Arc::new(Entry::created(&key, Bytes::from(vec![0; bytes]), revision, 0)));
        Arc::new(Revised {
            revision,
            changes: vec![Change { key, previous: None, entry, cause: Cause::Command }],
            nodes: vec![],
        })
    }

    fn push(ring: &mut Ring, revised: impl IntoIterator<Item = Arc<Revised>>) -> Vec<Arc<Revised>> {
        ring.push(revised.into_iter().map(|one| (one.bytes(), one)).collect())
    }

    fn numbers(revisions: Option<Vec<Arc<Revised>>>) -> Option<Vec<u64>> {
        revisions.map(|all| all.iter().map(|one| one.revision).collect())
    }

    #[test]
    fn gives_what_it_keeps_and_tells_what_it_does_not() {
        let mut ring = Ring::default();
        ring.reset(7);
        assert_eq!((ring.first(), ring.last()), (8, 7));
        push(&mut ring, (8..=20).map(|n| revised(n, 1)));
        assert_eq!(numbers(ring.from(8, 3)), Some(vec![8, 9, 10]));
        assert_eq!(numbers(ring.from(20, 3)), Some(vec![20]));
        assert_eq!(numbers(ring.from(21, 3)), Some(vec![]));
        assert_eq!(numbers(ring.from(7, 3)), None);
    }

    #[test]
    fn is_bounded_by_count_and_by_bytes() {
        let mut ring = Ring::default();
        let out = push(&mut ring, (1..=REVISIONS_MAX as u64 + 5).map(|n| revised(n, 1)));
        assert_eq!(out.iter().map(|one| one.revision).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        let last = ring.last();
        for n in 1..=100 {
            push(&mut ring, [revised(last + n, 1 << 20)]);
            assert!(ring.bytes <= ring.bytes_max);
        }
        let kept = ring.revisions.len();
        assert!((28..=32).contains(&kept), "{kept} revisions of 1 MiB");
        assert_eq!(ring.bytes, ring.revisions.iter().map(|(_, one)| one.bytes()).sum::<usize>());
        assert_eq!(ring.first(), ring.revisions.front().unwrap().1.revision);
    }
}
