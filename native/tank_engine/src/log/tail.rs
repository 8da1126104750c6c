//! The end of the log, in memory: entries can be read before they are durable, and mostly are
//! read (to be applied and replicated) while they are still here.

use std::collections::VecDeque;
use std::ops::Range;

use openraft::entry::RaftEntry;

use crate::types::{LogEntry, LogId};

/// What durable entries may take up: more than the largest of them, which is applied a round trip after it. Those that are not durable yet stay in any case; the bound
/// on writes in flight bounds them.
const BYTES_MAX: usize = 40 << 20;

/// The last entries of the log, without a gap, and the log's bounds.
#[derive(Debug, Default)]
pub(super) struct Tail {
    entries: VecDeque<LogEntry>,
    bytes: usize,
    /// Entries up to this index are durable.
    durable: Option<u64>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// Where the log begins when nothing was purged: a log may begin anywhere.
    begin: u64,
    /// How often entries were removed, from either end.
    removals: u64,
}

impl Tail {
    pub(super) fn recovered(purged: Option<LogId>, last: Option<LogId>) -> Self {
        Self { durable: last.as_ref().map(LogId::index), purged, last, ..Self::default() }
    }

    pub(super) fn purged(&self) -> Option<LogId> {
        self.purged
    }

    /// The last entry's id; the last purged one's when there is no entry.
    pub(super) fn last(&self) -> Option<LogId> {
        self.last
    }

    /// Tells whether entries were removed between two looks: those that are removed from the end may be
    /// replaced by others.
    pub(super) fn removals(&self) -> u64 {
        self.removals
    }

    /// `range` without the indexes that are purged or not there yet.
    pub(super) fn present(&self, range: Range<u64>) -> Range<u64> {
        let next = |id: &Option<LogId>| id.as_ref().map_or(0, |id| id.index() + 1);
        let start = range.start.max(next(&self.purged)).max(self.begin);
        let end = range.end.min(next(&self.last));
        start..end.max(start)
    }

    /// The first index that is in memory.
    pub(super) fn first_index(&self) -> u64 {
        let first = self.entries.front().map(RaftEntry::index);
        first.unwrap_or_else(|| self.last.as_ref().map_or(0, |id| id.index() + 1))
    }

    pub(super) fn append(&mut self, entry: LogEntry) {
        self.bytes += size(&entry);
        if self.last.is_none() {
            self.begin = entry.index();
        }
        self.last = Some(entry.log_id());
        self.entries.push_back(entry);
    }

    /// The entries of `range` that are in memory, up to about `bytes_max` bytes.
    pub(super) fn read(&self, range: Range<u64>, bytes_max: usize) -> Vec<LogEntry> {
        let first = self.first_index();
        let offset = |index: u64| usize::try_from(index.saturating_sub(first)).unwrap_or(usize::MAX);
        let end = offset(range.end).min(self.entries.len());
        let start = offset(range.start).min(end);
        let mut bytes = 0;
        self.entries
            .range(start..end)
            .take_while(|entry| {
                let fits = bytes == 0 || bytes < bytes_max;
                bytes += size(entry).max(1);
                fits
            })
            .cloned()
            .collect()
    }

    /// Removes the entries from `index` on, and returns those that were in memory. `last` is the id of the one
    /// before.
    #[must_use = "dropping many entries takes long: not where others wait"]
    pub(super) fn truncate_from(&mut self, index: u64, last: Option<LogId>) -> VecDeque<LogEntry> {
        if self.last.as_ref().is_none_or(|last| last.index() < index) {
            return VecDeque::new();
        }
        self.removals += 1;
        let kept = self.entries.partition_point(|entry| entry.index() < index);
        let removed = self.entries.split_off(kept);
        self.bytes -= removed.iter().map(size).sum::<usize>();
        self.durable = self.durable.filter(|_| index > 0).map(|durable| durable.min(index - 1));
        self.last = last.or(self.purged);
        removed
    }

    /// Removes the entries up to `upto`, and returns those that were in memory.
    #[must_use = "dropping many entries takes long: not where others wait"]
    pub(super) fn purge(&mut self, upto: LogId) -> VecDeque<LogEntry> {
        self.removals += 1;
        self.purged = Some(upto);
        if self.last.as_ref().is_none_or(|last| last.index() < upto.index()) {
            self.last = Some(upto);
        }
        let gone = self.entries.partition_point(|entry| entry.index() <= upto.index());
        self.take_front(gone)
    }

    /// Marks the entries up to `id` as durable, and returns the oldest of them beyond the bound.
    /// If `id` was truncated meanwhile, others stand in its place, and nothing is marked.
    #[must_use = "dropping large entries takes long: not where others wait"]
    pub(super) fn durable_upto(&mut self, id: &LogId) -> VecDeque<LogEntry> {
        if self.at(id.index()).is_some_and(|entry| entry.log_id() == *id) {
            self.durable = self.durable.max(Some(id.index()));
        }
        let (mut left, mut gone) = (self.bytes, 0);
        for entry in self.entries.iter().take_while(|entry| Some(entry.index()) <= self.durable) {
            if left <= BYTES_MAX {
                break;
            }
            left -= size(entry);
            gone += 1;
        }
        self.take_front(gone)
    }

    fn at(&self, index: u64) -> Option<&LogEntry> {
        let offset = index.checked_sub(self.first_index())?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    fn take_front(&mut self, count: usize) -> VecDeque<LogEntry> {
        let taken: VecDeque<_> = self.entries.drain(..count).collect();
        self.bytes -= taken.iter().map(size).sum::<usize>();
        taken
    }
}

/// What an entry takes up, about.
pub(crate) fn size(entry: &LogEntry) -> usize {
    const OVERHEAD: usize = 128;
    match &entry.payload {
        openraft::EntryPayload::Normal(request) => OVERHEAD + request.command.size(),
        _ => OVERHEAD,
    }
}
