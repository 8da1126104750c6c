//! Keeps the library usable until the process is gone.
//!
//! `exit` runs the destructors of static objects while other threads go on, and does not wait for them. RocksDB has
//! such objects: a lock around its lock files, the threads of its pool. A thread of ours that closes, opens or reads a
//! database at that moment would use them after their end and abort the process: exit code 134 instead of the
//! requested one. Waiting for all these threads could take as long as the disk hangs.
//!
//! So no destructor of a static object in this library is ever registered. The linker resolves each `__cxa_atexit` of
//! RocksDB to the function below (`--wrap`, see `build.rs`); libraries that were linked dynamically, such as the C++
//! runtime, keep theirs. Threads of ours work on until the kernel ends them, as at a `kill -9`, which loses nothing
//! that was acknowledged. What the destructors would have freed, the kernel frees.
//!
//! On systems other than Linux the destructors run as before.

use std::ffi::{c_int, c_void};

/// Takes the place of C++'s registration of a static object's destructor, and forgets it: always 0, for success.
#[unsafe(no_mangle)]
extern "C" fn __wrap___cxa_atexit(
    _destructor: Option<extern "C" fn(*mut c_void)>,
    _object: *mut c_void,
    _library: *mut c_void,
) -> c_int {
    0
}
