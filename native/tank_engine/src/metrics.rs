//! Counters and histograms of a store: plain atomics, of which a write touches a few.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of a histogram's buckets, in microseconds; one bucket more has what took longer.
pub const BOUNDS_US: [u64; 16] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 5_000_000,
    30_000_000,
];

/// How long something took, each time since the store was opened.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// What a histogram held at about one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times {
    /// How often it took up to each of [`BOUNDS_US`] and longer than the one before; last, how often longer than all.
    pub buckets: Vec<u64>,
    /// All of it together, in microseconds.
    pub sum_us: u64,
}

impl Histogram {
    /// Counts one more.
    pub fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(BOUNDS_US.len());
        if let Some(count) = self.buckets.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// What it holds.
    pub fn read(&self) -> Times {
        let buckets = self.buckets.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        Times { buckets, sum_us: self.sum_us.load(Ordering::Relaxed) }
    }
}

/// What a store counts besides the log's writer, since it was opened.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Batches of log entries that were applied, and how long applying took.
    pub batches: Histogram,
    /// Checkpoints that were written.
    pub checkpoints: Histogram,
    /// Snapshots of another member that were installed.
    pub snapshots_received: AtomicU64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_in_the_first_bucket_that_takes_it() {
        let histogram = Histogram::default();
        for us in [0, 50, 51, 1_000, 30_000_000, 30_000_001, u64::MAX / 2] {
            histogram.record(Duration::from_micros(us));
        }
        let times = histogram.read();
        assert_eq!(times.buckets.first(), Some(&2));
        assert_eq!(times.buckets.get(1), Some(&1));
        assert_eq!(times.buckets.get(4), Some(&1));
        assert_eq!(times.buckets.get(15), Some(&1));
        assert_eq!(times.buckets.last(), Some(&2));
        assert_eq!(times.buckets.iter().sum::<u64>(), 7);
    }
}
