//! What a store is opened with.

use std::path::PathBuf;

use crate::command::{Limits, TXN_OPERATIONS_MAX};
use crate::error::EngineError;
use crate::key::KeyLimits;
use crate::storage::Expected;

/// Default of [`Timing::checkpoint_bytes`].
pub(crate) const CHECKPOINT_BYTES: u64 = 64 << 20;
/// Default of [`Timing::segment_bytes`].
pub(crate) const SEGMENT_BYTES: u64 = 16 << 20;

/// Default of [`Options::txn_bytes_max`].
pub(crate) const TXN_BYTES_MAX: usize = 32 << 20;

/// Default of [`Options::recent_bytes_max`].
pub(crate) const RECENT_BYTES_MAX: usize = 32 << 20;

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
    pub recent_bytes_max: usize,
    /// Raft's times and log retention.
    pub timing: Timing,
    /// What a new directory becomes.
    pub formation: Formation,
    /// What the directory must hold.
    pub opening: Opening,
    /// Whether a member that joins does so as a witness. Of one that has joined, the cluster knows.
    pub witness: bool,
}

/// What is known of a directory when it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Nothing: the store was not open before, as far as the caller knows.
    First(First),
    /// It was open, and one of these was in it: so it must be there now. None is made.
    Again(Vec<Expected>),
}

/// What a first opening does in a directory that is missing or empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// Makes a store there.
    MayCreate,
    /// Refuses: a mount may be missing.
    MustExist,
}

/// What a new directory becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formation {
    /// The first member of a new cluster. A directory that exists stays what it is.
    NewCluster,
    /// A member that an existing cluster takes in: it waits for that. What the directory holds is
    /// set aside ([`crate::storage::Directory::open_as`]).
    Joining {
        /// The cluster's id.
        cluster_id: u64,
        /// The id that it will be taken in with; never used before.
        member_id: u64,
    },
    /// The only member of a cluster of its own, whatever it was a member of: for when the quorum
    /// of that is lost for good.
    Alone {
        /// The new cluster's id.
        cluster_id: u64,
    },
}

/// Raft's times and log retention.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Between two heartbeats of a leader.
    pub heartbeat_ms: u64,
    /// The unit of raft's waiting. A leader rests on an acknowledged heartbeat for once this time;
    /// followers vote for nobody else for a third longer; one that hears nothing stands for election
    /// after that and once or a third more than once this time, or without it if it knows that the
    /// connection was lost.
    pub election_ms: u64,
    /// Log entries after which the state counts as a new snapshot, so that the log before it can
    /// be purged.
    pub snapshot_after: u64,
    /// Log entries kept behind a snapshot for members that lag. While a member is receiving a snapshot, the
    /// log since then is kept as well, up to as many bytes as the state has.
    pub log_keep: u64,
    /// Log entries purged at a time.
    pub purge_batch: u64,
    /// Bytes after which the log goes on in another file. A file goes when all its entries are purged.
    pub segment_bytes: u64,
    /// Bytes of applied log entries after which the state goes to the disk. A start applies up to twice as many again.
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
            recent_bytes_max: RECENT_BYTES_MAX,
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
        let Timing { heartbeat_ms, election_ms, .. } = self.timing;
        if heartbeat_ms >= election_ms {
            let why = format!("election_ms must be above heartbeat_ms, which is {heartbeat_ms}, got: {election_ms}");
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
        std::time::Duration::from_millis(self.election_ms)
    }

    /// How long followers keep from voting for others.
    pub fn vote_embargo(&self) -> std::time::Duration {
        std::time::Duration::from_millis((self.election_ms * 4).div_ceil(3))
    }

    /// How recently a member must have answered to be counted on.
    pub fn in_touch_within(&self) -> std::time::Duration {
        self.leader_lease() * 2
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat_ms: 50,
            election_ms: 150,
            snapshot_after: 20_000,
            log_keep: 10_000,
            purge_batch: 5_000,
            segment_bytes: SEGMENT_BYTES,
            checkpoint_bytes: CHECKPOINT_BYTES,
        }
    }
}
