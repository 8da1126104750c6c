//! Planted faults, which the tests must find: each breaks one promise in the way that a mistake could.
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

/// Whether this fault is planted.
#[cfg(feature = "mutants")]
pub(crate) fn is(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    debug_assert!(ALL.contains(&name), "{name} is no mutant");
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
