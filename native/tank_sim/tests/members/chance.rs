//! All chance of a run comes from its seed.
//!
//! A member asks its environment for randomness. What the standard library and tokio draw for themselves
//! (the keys of hash maps, the order in which `select!` and watch channels take their turns) comes from
//! `getrandom`, which the standard library calls in a way that lets a program put its own in the place of
//! the system's. So this program does; and since tokio also counts how often it was asked in a process,
//! each seed runs in a process of its own.

use std::cell::Cell;

use tank_sim::Rng;

thread_local! {
    /// The numbers of this thread; those of a thread that does not simulate are some others.
    static STATE: Cell<u64> = const { Cell::new(1) };
}

/// What this thread draws from now on.
pub fn seed_thread(seed: u64) {
    STATE.set(seed);
}

/// As the function of the C library.
///
/// # Safety
/// `buffer` has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    // SAFETY: the caller's promise.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    let mut rng = Rng::new(STATE.get());
    for chunk in bytes.chunks_mut(8) {
        let random = rng.next_u64().to_le_bytes();
        chunk.copy_from_slice(&random[..chunk.len()]);
    }
    STATE.set(rng.next_u64());
    length.cast_signed()
}
