//! Waiting for something, with a deadline that tells what was seen last.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Looks until what it sees is `wanted`, and returns that.
///
/// # Errors
/// A sentence that says what was waited for, how long, and what was seen last.
pub fn until<T: Debug>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> T,
    wanted: impl Fn(&T) -> bool,
) -> Result<T, String> {
    let deadline = Instant::now() + limit;
    loop {
        let seen = look();
        if wanted(&seen) {
            return Ok(seen);
        }
        if Instant::now() > deadline {
            return Err(format!("waited {limit:?} for {what}; last saw {seen:?}"));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
