//! Planted faults, which the tests must find: each breaks one promise in the way that a mistake could, or puts back a
//! fault that was in this code once.
//!
//! Only with the cargo feature `mutants`, and then the one that the environment variable `TANK_MUTANT` names.

/// All of them.
pub const ALL: &[&str] = &[
    "ack_before_sync",
    "apply_twice",
    "stale_lease_read",
    "lost_truncate",
    "unsynced_vote",
    "skipped_entry",
    "wrong_snapshot_index",
    "gap_in_a_watch",
];

/// Faults that this code once had, and that a simulated cluster can show.
pub const PUT_BACK: &[&str] = &[
    // An append that takes longer than a heartbeat never counts, and is sent again.
    "append_within_a_heartbeat",
    // A request that arrives after its client has moved on is applied again.
    "late_duplicate",
    // What a session's end depends on is a member's wall clock, not the log.
    "expiry_by_wall_clock",
    // A leader that hands over goes on to answer by its lease.
    "lease_while_handing_over",
    // The clock of the lease stands still while the leader is suspended.
    "lease_clock_stands_still",
    // A member that was just started votes at once, though it may have promised a leader not to.
    "vote_right_after_a_start",
    // A truncation is not waited for, and a snapshot may be durable before it.
    "unawaited_truncate",
    // A new history does not raise the revision.
    "revisions_come_again",
    // Who held a lease in a former history goes on with it.
    "leases_go_on",
    // A store that is opened again takes whatever is at its path.
    "any_directory",
];

/// Whether this fault is planted.
#[cfg(feature = "mutants")]
pub(crate) fn is(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    debug_assert!(ALL.contains(&name) || PUT_BACK.contains(&name), "{name} is no mutant");
    CHOSEN.get_or_init(|| std::env::var("TANK_MUTANT").ok()).as_deref() == Some(name)
}

/// Whether this fault is planted.
#[cfg(not(feature = "mutants"))]
#[inline]
pub(crate) const fn is(_name: &str) -> bool {
    false
}

/// Whether it is planted, and strikes now: one time of `of`.
pub(crate) fn strikes(name: &str, of: u64) -> bool {
    is(name) && crate::environment::random().is_ok_and(|random| random % of == 0)
}
