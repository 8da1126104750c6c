//! Asks the processor for memory that is about to be read.
//!
//! Copying a term follows its pointers one by one, and each that leads to memory not in a cache
//! waits for it alone. The words of a decoded term lie side by side, so all of it can be on its
//! way at once. Only a hint: a wrong address does no harm, and where there is no instruction for it
//! nothing happens.

/// The bytes of a cache line.
const LINE: usize = 64;

/// More would push out of the nearest cache what was asked for first.
const BYTES_MAX: usize = 8 << 10;

/// Asks for the `bytes` bytes from `start` on, or for the first of them.
#[inline]
pub(crate) fn bytes(start: usize, bytes: usize) {
    for offset in (0..bytes.min(BYTES_MAX)).step_by(LINE) {
        line(start.wrapping_add(offset));
    }
}

/// Asks for the line that `address` is in.
#[inline]
#[cfg(target_arch = "x86_64")]
pub(crate) fn line(address: usize) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch reads nothing that the program sees; any address will do.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::without_provenance(address)) };
}

/// Asks for the line that `address` is in.
#[inline]
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn line(_address: usize) {}
