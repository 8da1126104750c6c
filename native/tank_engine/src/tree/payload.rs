//! An entry's payload, in memory or only on the disk, and how much memory payloads take up.
//!
//! A store whose memory is bounded drops the payloads that nobody read for long
//! (the module `evict`). What is dropped is read back from the database, where it stands under the
//! entry's path and revision. Paths and revisions stay in memory.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::sync::lock;

/// The part of the bound that is left to batches of writes while they are applied: a fortieth.
const MARGIN_DIVISOR: u64 = 40;

/// The bytes that a store's payloads take up in memory, encoded and decoded.
#[derive(Debug)]
pub struct Memory {
    bytes: AtomicU64,
    bytes_max: u64,
    /// Entries up to this revision are on the disk.
    stored: AtomicU64,
    /// Wakes the evicting thread.
    scarce: Option<crossbeam_channel::Sender<()>>,
}

impl Memory {
    /// Without a bound.
    pub fn unbounded() -> Self {
        Self { bytes: AtomicU64::new(0), bytes_max: u64::MAX, stored: AtomicU64::new(0), scarce: None }
    }

    /// With a bound; `scarce` is sent to when there is little room left below it. A message that is
    /// there already is enough, so its channel should hold one.
    pub(crate) fn bounded(bytes_max: u64, scarce: crossbeam_channel::Sender<()>) -> Self {
        Self { bytes_max, scarce: Some(scarce), ..Self::unbounded() }
    }

    /// For a state that is only looked through.
    pub(crate) fn without_room() -> Self {
        Self { bytes_max: 0, ..Self::unbounded() }
    }

    /// Whether there is a bound.
    pub fn is_bounded(&self) -> bool {
        self.bytes_max != u64::MAX
    }

    /// The bytes that are taken up now.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The bound.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// The entries up to this revision are on the disk.
    pub(crate) fn set_stored(&self, revision: u64) {
        self.stored.store(revision, Ordering::Release);
    }

    /// Whether what was written at this revision is on the disk: only that may leave the memory.
    pub(crate) fn is_stored(&self, revision: u64) -> bool {
        revision <= self.stored.load(Ordering::Acquire)
    }

    /// Whether there is room for hardly more than a batch of writes: nothing should stay that is on
    /// the disk.
    pub(crate) fn is_scarce(&self) -> bool {
        self.bytes() > self.plenty()
    }

    fn plenty(&self) -> u64 {
        self.bytes_max - self.bytes_max / MARGIN_DIVISOR
    }

    fn add(&self, bytes: usize) {
        let before = self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if before.saturating_add(bytes as u64) > self.plenty()
            && let Some(scarce) = &self.scarce
        {
            let _ = scarce.try_send(());
        }
    }

    fn sub(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::unbounded()
    }
}

/// A payload. Its length is always known.
#[derive(Debug)]
pub struct Payload {
    bytes: Mutex<Option<Bytes>>,
    len: usize,
    /// What a reader made of it takes up as much.
    decoded: AtomicUsize,
    /// Whether it was read since the evicting thread last came by.
    touched: AtomicBool,
    /// Whether a reader came by that had to make something of it for itself.
    read: AtomicBool,
    memory: Option<Arc<Memory>>,
}

impl Payload {
    pub(crate) fn new(bytes: Bytes) -> Self {
        let (len, bytes) = (bytes.len(), Mutex::new(Some(bytes)));
        let (touched, read) = (AtomicBool::new(true), AtomicBool::new(false));
        Self { bytes, len, decoded: AtomicUsize::new(0), touched, read, memory: None }
    }

    /// From now on counts in `memory`.
    pub(crate) fn count_in(&mut self, memory: &Arc<Memory>) {
        if self.memory.is_none() {
            memory.add(self.len);
            self.memory = Some(Arc::clone(memory));
        }
    }

    /// How many bytes it has.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes, if they are in memory.
    pub fn in_memory(&self) -> Option<Bytes> {
        self.touch();
        lock(&self.bytes).clone()
    }

    /// The same, by somebody who is no reader.
    pub(crate) fn peek(&self) -> Option<Bytes> {
        lock(&self.bytes).clone()
    }

    /// Whether more of it may be kept in memory. Readers are faster than the evicting thread: only
    /// when those that come while there is no room keep nothing does the bound hold.
    pub(crate) fn has_room(&self) -> bool {
        self.memory.as_ref().is_none_or(|memory| !memory.is_scarce())
    }

    /// Puts the bytes back, read from the disk, if there is room.
    pub(crate) fn restore(&self, bytes: &Bytes) {
        let mut held = lock(&self.bytes);
        if held.is_none() && self.has_room() {
            *held = Some(bytes.clone());
            self.add(self.len);
        }
        self.touch();
    }

    /// Whether it, or what a reader made of it, is in memory.
    pub(crate) fn takes_up_memory(&self) -> bool {
        self.decoded.load(Ordering::Relaxed) > 0 || lock(&self.bytes).is_some()
    }

    /// Drops the bytes.
    pub(crate) fn evict(&self) {
        if lock(&self.bytes).take().is_some() {
            self.sub(self.len);
        }
    }

    /// Notes what a reader made of it takes up, in bytes.
    pub(crate) fn set_decoded(&self, bytes: usize) {
        self.add(bytes);
        self.sub(self.decoded.swap(bytes, Ordering::Relaxed));
    }

    /// Notes that it was read.
    #[inline]
    pub(crate) fn touch(&self) {
        // Readers on all cores come here: most of them should only read.
        if !self.touched.load(Ordering::Relaxed) {
            self.touched.store(true, Ordering::Relaxed);
        }
    }

    /// Notes a reader that made something of it for itself; gives whether there was one before.
    pub(crate) fn read_before(&self) -> bool {
        self.read.swap(true, Ordering::Relaxed)
    }

    /// Whether it was read since this was last asked.
    pub(crate) fn take_touched(&self) -> bool {
        self.touched.swap(false, Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        if let Some(memory) = &self.memory {
            memory.add(bytes);
        }
    }

    fn sub(&self, bytes: usize) {
        if let Some(memory) = &self.memory {
            memory.sub(bytes);
        }
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        self.evict();
        self.set_decoded(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_memory_is_counted() {
        let (scarce, woken) = crossbeam_channel::bounded(1);
        let memory = Arc::new(Memory::bounded(8, scarce));
        let mut payload = Payload::new(Bytes::from_static(b"12345"));
        payload.count_in(&memory);
        assert_eq!((memory.bytes(), woken.try_recv().is_ok()), (5, false));
        payload.set_decoded(10);
        assert_eq!((memory.bytes(), woken.try_recv().is_ok()), (15, true));
        payload.set_decoded(0);
        payload.evict();
        assert_eq!((memory.bytes(), payload.in_memory(), payload.len()), (0, None, 5));
        payload.restore(&Bytes::from_static(b"12345"));
        payload.restore(&Bytes::from_static(b"12345"));
        assert_eq!(memory.bytes(), 5);
        drop(payload);
        assert_eq!(memory.bytes(), 0);
    }

    #[test]
    fn what_is_read_is_kept_only_while_there_is_room() {
        let memory = Arc::new(Memory::bounded(8, crossbeam_channel::bounded(1).0));
        let payload = || {
            let mut payload = Payload::new(Bytes::from_static(b"12345"));
            payload.count_in(&memory);
            payload
        };
        let (first, _second) = (payload(), payload());
        first.evict();
        let third = payload();
        assert_eq!((memory.bytes(), first.has_room()), (10, false));
        first.restore(&Bytes::from_static(b"12345"));
        assert_eq!((memory.bytes(), first.in_memory()), (10, None));
        third.evict();
        assert!(first.has_room());
        first.restore(&Bytes::from_static(b"12345"));
        assert_eq!((memory.bytes(), first.in_memory()), (10, Some(Bytes::from_static(b"12345"))));
    }
}
