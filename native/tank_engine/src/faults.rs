//! Fault points: named places where a test makes a thread panic, sleep or skip a step.
//!
//! Without the cargo feature `faults` each is nothing at all. With it, [`arm`] takes the actions
//! of the `fail` crate, such as `panic`, `1*panic`, `sleep(50)` or `return`.

/// The places that can be armed.
pub const POINTS: &[&str] = &[
    "ingress",
    "log_writer",
    "log_full",
    "log_error",
    "log_committed",
    "log_sync",
    "log_stage",
    "apply",
    "apply_entry",
    "snapshot_install",
    "raft_watch",
    "reclaim",
    "term_cache",
    "watch_hub",
    "watch_drop",
];

/// Arms the point `name` with `action`; `"off"` disarms it.
///
/// # Errors
/// A text that says what is wrong with the name or the action, or that this build has no fault
/// points.
pub fn arm(name: &str, action: &str) -> Result<(), String> {
    if !cfg!(feature = "faults") {
        return Err("this build has no fault points: build with the feature `faults`".to_owned());
    }
    if !POINTS.contains(&name) {
        return Err(format!("no fault point {name:?}; there are {POINTS:?}"));
    }
    fail::cfg(name, action)
}

/// Passes the point `name`: does nothing, or what [`arm`] asked for.
#[inline]
pub fn point(_name: &str) {
    fail::fail_point!(_name);
}

/// Whether the step at the point `name` is to be skipped (armed with `return`).
#[inline]
pub(crate) fn skipped(_name: &str) -> bool {
    fail::fail_point!(_name, |_| true);
    false
}
