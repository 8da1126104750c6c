//! One entry of the store, and its record on disk.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use crate::error::EngineError;
use crate::key::Key;
use crate::payload::{Memory, Payload};

/// Layout of a record: `format u8 | revision u64 | create_revision u64 | version u64 | lease u64 |
/// payload`, big-endian. Listed in ARCHITECTURE.md, "Formats".
const RECORD_FORMAT: u8 = 1;
const HEAD_BYTES: usize = 33;

/// One path's payload with its revisions. Never changed: a write makes a new one.
#[derive(Debug)]
pub struct Entry {
    /// The value's bytes, in memory or on the disk. The engine never looks inside.
    pub payload: Payload,
    /// The store's revision at the last write of this entry.
    pub revision: u64,
    /// The store's revision when this entry was created.
    pub create_revision: u64,
    /// Writes to this entry since its creation; 1 when created.
    pub version: u64,
    /// The epoch of the lease that it goes with; 0 when it goes with none.
    pub lease: u64,
    /// Of its path and all of the above: a part of the state's digest, kept since the payload may
    /// not be at hand when the entry goes.
    hash: u64,
    slot: Slot,
}

/// A place for what a reader made of the payload, so that the next one need not.
#[derive(Default)]
struct Slot {
    value: ArcSwapOption<Decoded>,
    near: AtomicUsize,
    note: AtomicU64,
}

/// What a reader made of a payload.
pub type Decoded = Box<dyn Any + Send + Sync>;

impl Entry {
    /// What a reader made of the payload, if it is there; kept alive while the guard lives.
    #[inline]
    pub fn decoded(&self) -> arc_swap::Guard<Option<Arc<Decoded>>> {
        self.payload.touch();
        self.slot.value.load()
    }

    /// Whether what a reader makes of the payload may be kept: not while the store has more in
    /// memory than it may.
    pub fn has_room(&self) -> bool {
        self.payload.has_room()
    }

    /// Notes a reader that made something of the payload for itself; gives whether there was one before.
    pub fn read_before(&self) -> bool {
        self.payload.read_before()
    }

    /// Keeps what a reader made of the payload. It takes up `bytes`; `near` is the address of the
    /// memory that using it reads, `note` what the reader likes to know without looking at it.
    pub fn keep_decoded(&self, value: Decoded, bytes: usize, near: usize, note: u64) {
        self.slot.value.store(Some(Arc::new(value)));
        self.slot.near.store(near, Ordering::Relaxed);
        self.slot.note.store(note, Ordering::Relaxed);
        self.payload.set_decoded(bytes);
    }

    /// The address of the memory that using what is kept reads, or read before; 0 when there never
    /// was anything. Not to be read from: a hint, for asking for that memory early.
    pub fn near(&self) -> usize {
        self.slot.near.load(Ordering::Relaxed)
    }

    /// The note of what is kept, or was before; 0 when there never was anything.
    pub fn note(&self) -> u64 {
        self.slot.note.load(Ordering::Relaxed)
    }

    /// Drops the payload, and what readers made of it, from memory.
    pub(crate) fn evict(&self) {
        self.payload.evict();
        // Freed by whoever reads it just now, at the latest.
        self.slot.value.store(None);
        self.payload.set_decoded(0);
    }

    /// Whether nothing of it is in memory.
    pub fn is_evicted(&self) -> bool {
        self.slot.value.load().is_none() && self.payload.in_memory().is_none()
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.value.load().is_some() { "filled" } else { "empty" })
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.head() == other.head()
    }
}

impl Entry {
    /// A first write.
    pub fn created(key: &Key, payload: Bytes, revision: u64, lease: u64) -> Self {
        Self::new(key, payload, [revision, revision, 1, lease])
    }

    /// A later write.
    pub fn updated(&self, key: &Key, payload: Bytes, revision: u64, lease: u64) -> Self {
        Self::new(key, payload, [revision, self.create_revision, self.version.saturating_add(1), lease])
    }

    fn new(key: &Key, payload: Bytes, [revision, create_revision, version, lease]: [u64; 4]) -> Self {
        let payload_bytes = payload.clone();
        let payload = Payload::new(payload);
        let mut entry = Self { payload, revision, create_revision, version, lease, hash: 0, slot: Slot::default() };
        entry.hash = entry.hash_with(key, &payload_bytes);
        entry
    }

    /// The same, counted in `memory`.
    pub(crate) fn counted_in(mut self, memory: &Arc<Memory>) -> Self {
        self.payload.count_in(memory);
        self
    }

    /// Whether the payload of the entry, which is at `key`, is this one: of that length and, with
    /// all that the entry has, of that hash. So it is told without the disk, and the same on every
    /// member, whatever they have in memory. Two payloads of one hash would have to be made for it.
    pub fn has_payload(&self, key: &Key, payload: &[u8]) -> bool {
        self.payload.len() == payload.len() && self.hash == self.hash_with(key, payload)
    }

    /// The hash of the entry and its path.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    fn hash_with(&self, key: &Key, payload: &[u8]) -> u64 {
        let mut hasher = Xxh3::new();
        // The length first: no two pairs of key and record give the same bytes.
        hasher.update(&(key.as_bytes().len() as u64).to_be_bytes());
        hasher.update(key.as_bytes());
        hasher.update(&self.head());
        hasher.update(payload);
        hasher.digest()
    }

    /// The record for the disk, with this payload, which is the entry's.
    pub fn to_record(&self, payload: &[u8]) -> Vec<u8> {
        let mut record = Vec::with_capacity(HEAD_BYTES + payload.len());
        self.write_record(payload, &mut record);
        record
    }

    /// Adds the record for the disk, with this payload, which is the entry's, to `record`.
    pub(crate) fn write_record(&self, payload: &[u8], record: &mut Vec<u8>) {
        record.extend_from_slice(&self.head());
        record.extend_from_slice(payload);
    }

    /// The entry at `key` of a record.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`] when the bytes are not a record that this release reads.
    pub fn from_record(key: &Key, record: &[u8]) -> Result<Self, EngineError> {
        let corrupt = |detail: &str| EngineError::Corrupt { what: "state", detail: detail.to_owned() };
        let (&format, rest) = record.split_first().ok_or_else(|| corrupt("an empty record"))?;
        if format != RECORD_FORMAT {
            return Err(corrupt(&format!("a record of format {format}")));
        }
        let short = || corrupt("a record is too short");
        let (revision, rest) = take_u64(rest).ok_or_else(short)?;
        let (create_revision, rest) = take_u64(rest).ok_or_else(short)?;
        let (version, rest) = take_u64(rest).ok_or_else(short)?;
        let (lease, payload) = take_u64(rest).ok_or_else(short)?;
        let payload = Bytes::copy_from_slice(payload);
        Ok(Self::new(key, payload, [revision, create_revision, version, lease]))
    }

    /// The record's bytes before the payload.
    pub(crate) fn head(&self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        let fields = [self.revision, self.create_revision, self.version, self.lease];
        let bytes = fields.iter().flat_map(|n| n.to_be_bytes());
        for (to, from) in head.iter_mut().zip(std::iter::once(RECORD_FORMAT).chain(bytes)) {
            *to = from;
        }
        head
    }
}

fn take_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*head), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back() {
        let key = Key::from_bytes(b"\x01a\x00");
        let entry =
            Entry::created(&key, Bytes::from_static(b"v1"), 7, 0).updated(&key, Bytes::from_static(b"v2"), 9, 8);
        assert_eq!((entry.create_revision, entry.revision, entry.version, entry.lease), (7, 9, 2, 8));
        let read = Entry::from_record(&key, &entry.to_record(b"v2")).unwrap();
        assert_eq!((read.hash(), &read), (entry.hash(), &entry));
    }

    #[test]
    fn a_cut_or_foreign_record_is_refused() {
        let record = Entry::created(&Key::default(), Bytes::new(), 7, 0).to_record(b"");
        for cut in 0..record.len() {
            assert!(Entry::from_record(&Key::default(), &record[..cut]).is_err(), "cut at {cut}");
        }
        let mut foreign = record;
        foreign[0] = 99;
        assert!(Entry::from_record(&Key::default(), &foreign).is_err());
    }
}
