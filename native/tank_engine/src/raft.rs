//! This member's part in the raft group, and how openraft is configured.
//!
//! The decision "Use an alpha of openraft" in `docs/decisions` lists what an upgrade of openraft touches.

pub(crate) mod authority;
pub(crate) mod comparison;
pub(crate) mod election;
pub(crate) mod ledger;
pub(crate) mod membership;
pub(crate) mod replication;
pub(crate) mod roll_call;
pub(crate) mod seeds;
pub(crate) mod server;
pub(crate) mod witness;

mod transfer;

use std::sync::Arc;
use std::time::Duration;

use crate::options::Timing;

pub use crate::types::{
    LogEntry, LogId, Member, MemberId, Responder, SnapshotMeta, StoredMembership, Types, Vote, WriteResult,
};
pub(crate) use crate::types::{Progress, VoteRequest, VoteResponse};

/// The raft core with our state machine.
pub type Raft = openraft::Raft<Types, crate::machine::Machine>;

/// After so long without a word of a majority, and some round trips, a leader takes no more writes, and leads no more.
const QUORUM_LOST_AFTER: Duration = Duration::from_secs(3);

/// A connection that loses segments delivers nothing while TCP sends one of them again, and again with doubled pauses.
/// What takes longer than so many round trips cannot be written to.
const QUORUM_LOST_ROUND_TRIPS: u32 = 10;

/// The most that both come to. openraft takes writes for so long; it cannot be told of round trips that change.
const QUORUM_LOST_MAX: Duration = Duration::from_secs(15);

/// How long a leader does without a word of a majority, where a round trip takes `round_trip`.
pub(crate) fn quorum_lost_after(timing: &Timing, round_trip: Duration) -> Duration {
    let least = QUORUM_LOST_AFTER.max(timing.vote_hold() * 2);
    (least + round_trip * QUORUM_LOST_ROUND_TRIPS).min(quorum_lost_max(timing))
}

fn quorum_lost_max(timing: &Timing) -> Duration {
    QUORUM_LOST_MAX.max(timing.vote_hold() * 2)
}

/// openraft's settings for a store.
///
/// Its elections and leases are not used ([`election`], [`authority`]), but for the time that a leader takes
/// writes after a majority has answered, and its calls for votes and for handing over.
///
/// # Errors
/// What openraft finds wrong with the timing.
pub(crate) fn config(timing: &Timing) -> Result<Arc<openraft::Config>, openraft::ConfigError> {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX - 1);
    let votes_ms = ms(quorum_lost_after(timing, Duration::ZERO));
    let writes_ms = ms(quorum_lost_max(timing));
    openraft::Config {
        cluster_name: "tank_store".to_owned(),
        heartbeat_interval: timing.heartbeat_interval_ms,
        enable_elect: false,
        // A leader that was removed hands over as any other does.
        removed_leader_step_down: openraft::StepDownPolicy::Never,
        // The time of a call for votes.
        election_timeout_min: votes_ms,
        // The time that a leader takes writes.
        election_timeout_max: writes_ms.saturating_add(1),
        // Unsafe when, as here, applying does not sync: a leader could answer from a state that
        // lost its tail.
        enable_leader_restore: Some(false),
        // The default of 200 ms is for one chunk; a whole snapshot takes as long as it takes, and
        // the transport ends one that makes no progress.
        install_snapshot_timeout: 600_000,
        max_payload_entries: 2048,
        snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(timing.snapshot_interval_entries),
        max_in_snapshot_log_to_keep: timing.log_retention_entries,
        // Each purge leaves a range tombstone that later seeks step over.
        purge_batch_size: timing.purge_batch,
        ..Default::default()
    }
    .validate()
    .map(Arc::new)
}
