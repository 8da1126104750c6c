//! Where the log's entries stand, and what is known beside them.

use std::collections::{BTreeMap, VecDeque};

use crate::log::disk::LogWrite;
use crate::types::{LogId, Vote};

use super::blobs::Blob;
use super::record::Place;
use super::segment::Head;

/// The place of an entry's record, and its bytes.
pub(super) type Spot = (Place, usize);

/// What the segments hold.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The index of the first spot.
    first: u64,
    spots: VecDeque<Spot>,
    /// The commands that are not in their entries' records, by index.
    blobs: BTreeMap<u64, Blob>,
    blob_bytes: u64,
    /// Those whose entries are gone.
    unneeded: Vec<Blob>,
    /// Whether there was ever an entry: a log may begin anywhere.
    begun: bool,
    pub(super) purged: Option<LogId>,
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
}

impl Index {
    /// What a segment says of those before it.
    pub(super) fn of(head: &Head) -> Self {
        let Head { next, purged, vote, committed, .. } = *head;
        Self { first: next.unwrap_or(0), begun: next.is_some(), purged, vote, committed, ..Self::default() }
    }

    pub(super) fn head(&self, member_id: u64, previous_bytes: u64) -> Head {
        let Self { purged, vote, committed, .. } = *self;
        Head { member_id, previous_bytes, next: self.begun.then(|| self.next()), purged, vote, committed }
    }

    /// The index of the first entry there is, or of the next one.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The index of the next entry.
    pub(super) fn next(&self) -> u64 {
        self.first + self.spots.len() as u64
    }

    /// Where the last entry stands.
    pub(super) fn last(&self) -> Option<&Spot> {
        self.spots.back()
    }

    /// Where the entries from `index` on stand.
    pub(super) fn from(&self, index: u64) -> impl Iterator<Item = &Spot> {
        let skipped = usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.spots.range(skipped.min(self.spots.len())..)
    }

    /// The first segment that has an entry.
    pub(super) fn first_segment(&self) -> Option<u64> {
        self.spots.front().map(|(place, _)| place.segment)
    }

    /// Adds entry `index`; false when another one comes next.
    #[must_use]
    pub(super) fn append(&mut self, index: u64, spot: Spot) -> bool {
        if !self.begun {
            (self.first, self.begun) = (index, true);
        }
        let is_next = index == self.next();
        if is_next {
            self.spots.push_back(spot);
        }
        is_next
    }

    /// Says that the command of the last entry is in a file of its own.
    pub(super) fn detach(&mut self, blob: Blob) {
        self.blob_bytes += blob.bytes();
        self.blobs.insert(self.next().saturating_sub(1), blob);
    }

    /// The commands that have a file of their own.
    pub(super) fn blobs(&self) -> impl Iterator<Item = (&u64, &Blob)> {
        self.blobs.iter()
    }

    /// The bytes of the files of commands.
    pub(super) fn blob_bytes(&self) -> u64 {
        self.blob_bytes
    }

    /// The bytes that entry `index` has in a file of its own.
    pub(super) fn detached_bytes(&self, index: u64) -> usize {
        self.blobs.get(&index).and_then(|blob| usize::try_from(blob.bytes()).ok()).unwrap_or(0)
    }

    /// The files of commands whose entries are gone since this was last asked.
    pub(super) fn take_unneeded(&mut self) -> Vec<Blob> {
        std::mem::take(&mut self.unneeded)
    }

    fn keep_blobs(&mut self, kept: BTreeMap<u64, Blob>, gone: BTreeMap<u64, Blob>) {
        self.blob_bytes -= gone.values().map(Blob::bytes).sum::<u64>();
        self.unneeded.extend(gone.into_values());
        self.blobs = kept;
    }

    pub(super) fn truncate_from(&mut self, index: u64) {
        let mut kept = std::mem::take(&mut self.blobs);
        let gone = kept.split_off(&index);
        self.keep_blobs(kept, gone);
        if index < self.first {
            self.spots.clear();
            self.first = index;
        }
        self.spots.truncate(usize::try_from(index - self.first).unwrap_or(usize::MAX));
    }

    pub(super) fn purge(&mut self, upto: LogId) {
        self.purged = Some(upto);
        let begin = upto.index() + 1;
        let mut gone = std::mem::take(&mut self.blobs);
        let kept = gone.split_off(&begin);
        self.keep_blobs(kept, gone);
        if begin > self.first || !self.begun {
            let gone = usize::try_from(begin - self.first).unwrap_or(usize::MAX).min(self.spots.len());
            self.spots.drain(..gone);
            (self.first, self.begun) = (begin, true);
        }
    }

    /// Takes over what is no entry.
    pub(super) fn note(&mut self, write: &LogWrite) {
        match write {
            LogWrite::Append(_) => {}
            LogWrite::TruncateFrom(index) => self.truncate_from(*index),
            LogWrite::Purge(upto) => self.purge(*upto),
            LogWrite::Vote(vote) => self.vote = Some(*vote),
            LogWrite::Committed(committed) => self.committed = *committed,
        }
    }
}
