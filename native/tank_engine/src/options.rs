//! What a store is opened with.

use std::path::PathBuf;

use crate::command::{Limits, TXN_OPERATIONS_MAX};
use crate::error::EngineError;
use crate::key::KeyLimits;
use crate::log::segments::SEGMENT_BYTES;

pub use crate::storage::{First, Formation, Opening};

/// Default of [`Timing::checkpoint_bytes`].
pub(crate) const CHECKPOINT_BYTES: u64 = 64 << 20;

/// Default of [`Options::txn_bytes_max`].
pub(crate) const TXN_BYTES_MAX: usize = 32 << 20;

/// Default of [`Options::watch_buffer_bytes_max`].
pub(crate) const WATCH_BUFFER_BYTES_MAX: usize = 32 << 20;

/// The options of [`crate::engine::Engine::open`].
#[derive(Clone, Debug)]
pub struct Options {
    /// The store's directory; made when it is missing.
    pub dir: PathBuf,
    /// The store's id. A directory belongs to one for ever.
    pub store_id: String,
    /// The name of the node that this member runs on.
    pub node: String,
    /// How many writes may be in flight.
    pub in_flight_max: usize,
    /// How many bytes of payload they may hold.
    pub in_flight_bytes_max: usize,
    /// The largest payload, in bytes.
    pub value_bytes_max: usize,
    /// The largest command of several parts, such as a transaction: its paths and payloads together,
    /// in bytes. No less than `value_bytes_max`; one payload and its path always fit.
    pub txn_bytes_max: usize,
    /// The most comparisons, and the most operations of one branch, of a transaction.
    pub txn_operations_max: usize,
    /// How large paths may be.
    pub keys: KeyLimits,
    /// How many bytes of payloads may be in memory, encoded and decoded; no bound when it is
    /// `None`. Paths and revisions come on top.
    pub memory_bytes_max: Option<u64>,
    /// How many revisions of history a leader keeps.
    pub history_revisions: u64,
    /// How old they may get, in milliseconds; `None`: as old as they are.
    pub history_age_ms: Option<u64>,
    /// Bytes of the newest changes that are kept in memory, for watches.
    pub watch_buffer_bytes_max: usize,
    /// Raft's times and log retention.
    pub timing: Timing,
    /// What a new directory becomes.
    pub formation: Formation,
    /// What the directory must hold.
    pub opening: Opening,
    /// Whether a member that joins does so as a witness. Of one that has joined, the cluster knows.
    pub witness: bool,
}

/// Raft's times and log retention.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Milliseconds between two heartbeats of the leader.
    pub heartbeat_interval_ms: u64,
    /// Milliseconds. A leader's lease lasts this long after a heartbeat that a majority has acknowledged. A follower that
    /// has acknowledged one votes for no other member for 4/3 of this time. If it then hears nothing, it becomes a
    /// candidate after one to 4/3 of this time more, or at once if the connection to the leader is lost.
    pub election_timeout_ms: u64,
    /// Log entries between two snapshots. The log before a snapshot may be purged.
    pub snapshot_interval_entries: u64,
    /// Log entries to keep after a snapshot, for members that lag. While a member is receiving a snapshot, the
    /// log since then is kept as well, up to as many bytes as the state has.
    pub log_retention_entries: u64,
    /// Log entries to purge at a time.
    pub purge_batch: u64,
    /// Size of a log file, in bytes. A file is removed once all its entries are purged.
    pub segment_bytes: u64,
    /// Bytes of applied log entries between two checkpoints. A start applies up to twice as many bytes of the log again.
    pub checkpoint_bytes: u64,
}

impl Options {
    /// The defaults, for a store in `dir`.
    pub fn new(dir: impl Into<PathBuf>, store_id: impl Into<String>) -> Self {
        Self {
            dir: dir.into(),
            store_id: store_id.into(),
            node: "nonode@nohost".to_owned(),
            in_flight_max: 50_000,
            in_flight_bytes_max: 256 << 20,
            value_bytes_max: 16 << 20,
            txn_bytes_max: TXN_BYTES_MAX,
            txn_operations_max: TXN_OPERATIONS_MAX,
            keys: KeyLimits::DEFAULT,
            memory_bytes_max: None,
            history_revisions: 100_000,
            history_age_ms: None,
            watch_buffer_bytes_max: WATCH_BUFFER_BYTES_MAX,
            timing: Timing::default(),
            formation: Formation::NewCluster,
            opening: Opening::First(First::MayCreate),
            witness: false,
        }
    }

    /// How large commands may be.
    pub fn limits(&self) -> Limits {
        let txn_bytes_max = self.txn_bytes_max.max(self.value_bytes_max.saturating_add(self.keys.key_bytes_max()));
        Limits {
            value_bytes_max: self.value_bytes_max,
            txn_bytes_max,
            keys: self.keys,
            operations_max: self.txn_operations_max,
        }
    }

    /// Whether the limits fit together.
    ///
    /// # Errors
    /// [`EngineError::InvalidOption`].
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        if self.txn_bytes_max < self.value_bytes_max {
            let why = format!(
                "must be at least value_bytes_max, which is {}, got: {}",
                self.value_bytes_max, self.txn_bytes_max
            );
            return Err(EngineError::InvalidOption { option: "txn_bytes_max", why });
        }
        let Timing { heartbeat_interval_ms, election_timeout_ms, .. } = self.timing;
        if heartbeat_interval_ms >= election_timeout_ms {
            let why = format!(
                "election_timeout_ms must be above heartbeat_interval_ms, which is {heartbeat_interval_ms}, got: {election_timeout_ms}"
            );
            return Err(EngineError::InvalidOption { option: "timing", why });
        }
        Ok(())
    }
}

impl Timing {
    /// How long a leader may rest on an acknowledged heartbeat, from when it was sent. Followers
    /// keep from voting for others a third longer, from when they received it: so much slower may
    /// the leader's clock run than theirs, and no leader is elected earlier than needs be.
    pub fn leader_lease(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.election_timeout_ms)
    }

    /// How long followers keep from voting for others.
    pub fn vote_hold(&self) -> std::time::Duration {
        std::time::Duration::from_millis((self.election_timeout_ms * 4).div_ceil(3))
    }

    /// How recently a member must have answered to be counted on.
    pub fn in_touch_within(&self) -> std::time::Duration {
        self.leader_lease() * 2
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat_interval_ms: 50,
            election_timeout_ms: 150,
            snapshot_interval_entries: 20_000,
            log_retention_entries: 10_000,
            purge_batch: 5_000,
            segment_bytes: SEGMENT_BYTES,
            checkpoint_bytes: CHECKPOINT_BYTES,
        }
    }
}
