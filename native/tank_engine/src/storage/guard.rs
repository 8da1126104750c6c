//! Looks every second whether open directories are still where they were.
//!
//! Stores that share a file system share a thread, so that one on a file system that hangs does not keep the others
//! from noticing. The thread ends when none of them is open any more. A simulated store has a task of its own.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use once_cell::sync::Lazy;

use crate::environment;
use crate::health::Health;
use crate::runtime;
use crate::sync::lock;

use super::Location;

const PAUSE: Duration = Duration::from_secs(1);

/// The directories that are looked at, by the device of their file system, each of which has a thread.
static GUARDED: Lazy<Mutex<HashMap<u64, Vec<Weak<Guarded>>>>> = Lazy::new(Mutex::default);

struct Guarded {
    location: Arc<Location>,
    health: Arc<Health>,
    ended: Mutex<bool>,
}

/// As long as this lives, a store fails when its directory is lost. Dropped, it never does for that any more.
pub(crate) struct Guard(Arc<Guarded>);

impl Guard {
    /// Looks from now on.
    ///
    /// # Errors
    /// There is no thread.
    pub(crate) fn start(location: Arc<Location>, health: Arc<Health>) -> std::io::Result<Self> {
        let device = location.expected().file_system.device;
        let guarded = Arc::new(Guarded { location, health, ended: Mutex::new(false) });
        if environment::is_simulated() {
            runtime::spawn_simulated(look_in_virtual_time(Arc::downgrade(&guarded)));
            return Ok(Self(guarded));
        }
        let mut all = lock(&GUARDED);
        let has_thread = all.contains_key(&device);
        all.entry(device).or_default().push(Arc::downgrade(&guarded));
        if !has_thread {
            let started = std::thread::Builder::new().name("tank-guard".to_owned()).spawn(move || look_on(device));
            if let Err(error) = started {
                all.remove(&device);
                return Err(error);
            }
        }
        Ok(Self(guarded))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // What follows may remove the directory: that is not a loss.
        *lock(&self.0.ended) = true;
    }
}

impl Guarded {
    fn look(&self) {
        // It may take long: the store can be closed meanwhile.
        let Err(lost) = self.location.check() else { return };
        if !*lock(&self.ended) {
            self.health.fail(lost);
        }
    }
}

/// Looks at one directory, until its guard is dropped.
async fn look_in_virtual_time(guarded: Weak<Guarded>) {
    loop {
        tokio::time::sleep(PAUSE).await;
        let Some(guarded) = guarded.upgrade() else { return };
        guarded.look();
    }
}

fn look_on(device: u64) {
    loop {
        std::thread::sleep(PAUSE);
        let Some(locations) = those_on(device) else { return };
        for guarded in locations {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| guarded.look())) {
                guarded.health.panicked("guard", panic.as_ref());
            }
        }
    }
}

/// What is to be looked at on a device; `None`, and it has no thread any more, when there is nothing.
fn those_on(device: u64) -> Option<Vec<Arc<Guarded>>> {
    let mut all = lock(&GUARDED);
    let guarded = all.get_mut(&device)?;
    guarded.retain(|guarded| guarded.strong_count() > 0);
    let locations: Vec<_> = guarded.iter().filter_map(Weak::upgrade).collect();
    if locations.is_empty() {
        all.remove(&device);
        return None;
    }
    Some(locations)
}
