//! Where the log's entries stand, and what is known beside them.

use std::collections::VecDeque;

use crate::log::disk::LogWrite;
use crate::raft::{LogId, Vote};

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
        Self { first: next.unwrap_or(0), begun: next.is_some(), purged, vote, committed, spots: VecDeque::new() }
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

    pub(super) fn truncate_from(&mut self, index: u64) {
        if index < self.first {
            self.spots.clear();
            self.first = index;
        }
        self.spots.truncate(usize::try_from(index - self.first).unwrap_or(usize::MAX));
    }

    pub(super) fn purge(&mut self, upto: LogId) {
        self.purged = Some(upto);
        let begin = upto.index() + 1;
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
