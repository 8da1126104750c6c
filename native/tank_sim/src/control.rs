//! A test's hand on a disk: it counts its syncs, holds them back, and makes them or its reads fail.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::wait;

/// What Linux calls an input/output error.
const EIO: i32 = 5;

/// Controls the syncs and the reads of a disk. Clones control the same ones.
#[derive(Clone, Debug, Default)]
pub struct Control(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    started: u64,
    done: u64,
    waiting: bool,
    held: bool,
    fail_from: Option<u64>,
    reads_fail: bool,
}

/// Holds back the syncs of a disk until it is dropped.
#[derive(Debug)]
pub struct Held(Control);

impl Control {
    /// How many syncs succeeded.
    pub fn syncs(&self) -> u64 {
        self.state().done
    }

    /// Lets the sync with this number, counted from now, and all later ones fail: 0 is the next.
    pub fn fail_from(&self, number: u64) {
        let mut state = self.state();
        state.fail_from = Some(state.started + number);
    }

    /// Lets all reads fail.
    pub fn fail_reads(&self) {
        self.state().reads_fail = true;
    }

    /// Lets syncs and reads succeed again.
    pub fn heal(&self) {
        let mut state = self.state();
        (state.fail_from, state.reads_fail) = (None, false);
    }

    /// Runs `read`, unless it has to fail.
    ///
    /// # Errors
    /// That of `read`, or the planned one.
    pub fn read<T>(&self, read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.state().reads_fail { Err(io::Error::from_raw_os_error(EIO)) } else { read() }
    }

    /// Makes syncs wait from now on, until the returned value is dropped.
    #[must_use]
    pub fn hold(&self) -> Held {
        self.state().held = true;
        Held(self.clone())
    }

    /// Runs `sync` when it may, unless it has to fail.
    ///
    /// # Errors
    /// That of `sync`, or the planned one.
    pub fn sync(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state();
        let number = state.started;
        state.started += 1;
        while state.held {
            state.waiting = true;
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting = false;
        let fails = state.fail_from.is_some_and(|from| number >= from);
        drop(state);
        if fails {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        sync()?;
        self.state().done += 1;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Waits until a sync waits.
    ///
    /// # Errors
    /// None does within `limit`.
    pub fn wait_for_sync(&self, limit: Duration) -> Result<(), String> {
        wait::until("a sync that is held back", limit, || *self.0.state(), |state| state.waiting).map(drop)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.state().held = false;
        self.0.0.changed.notify_all();
    }
}
