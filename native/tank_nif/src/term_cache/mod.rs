//! Decoded values, shared by all readers.
//!
//! Decoding a value for each read costs five times what copying a decoded one does. So a read that
//! finds nothing decodes for itself, and may ask for the entry to be decoded once for all; the
//! builder thread does that, many entries at a time, in one environment: a [`chunk::Chunk`]. A
//! chunk is not changed once its terms are published, and is freed by the reclaiming thread, never
//! by a reader.
//!
//! ```text
//! entry without a term --list, or second read--> asked for --builder--> term in a chunk --reads--> copied
//!                                                                           ^                       |
//!                                                                           +-- rebuilt when sparse-+
//! ```
//!
//! An entry that is read alone may be about to be written, as by a transaction, and a fifth of such a
//! load would go into decoding what nobody reads: there it takes a second reader.

mod builder;
mod chunk;
mod room;

use std::sync::Arc;

use rustler::{Env, Term};
use tank_engine::entry::Entry;

use crate::prefetch;

use chunk::CachedTerm;
pub(crate) use room::Room;

/// Payloads above this are not kept decoded: they would take up more than they save.
const PAYLOAD_BYTES_MAX: usize = 64 << 10;

/// Whether reading an entry of this payload is too much for a normal scheduler: decoding 64 KiB
/// takes a quarter of a millisecond.
pub(crate) fn is_large(payload_bytes: usize) -> bool {
    payload_bytes > PAYLOAD_BYTES_MAX
}

/// Whether a term that had to be decoded is decoded for others as well.
#[derive(Clone, Copy)]
pub(crate) enum Keep {
    /// At once: whoever lists entries lists them again.
    Now,
    /// When this is not the first reader that needs it.
    IfReadBefore,
    /// Hardly anybody reads it again.
    Never,
}

/// Why there is no term of an entry.
pub(crate) enum NoTerm {
    /// Its payload is not in memory; see [`tank_engine::view::View::payload`].
    OnDisk,
    /// Its payload is not a term's encoding.
    Undecodable,
}

/// The value of `entry`, as a term of `env`.
pub(crate) fn term<'a>(env: Env<'a>, entry: &Arc<Entry>, keep: Keep) -> Result<Term<'a>, NoTerm> {
    prefetch(entry);
    let kept = entry.decoded();
    let cached = kept.as_ref().and_then(|any| any.downcast_ref::<CachedTerm>());
    if let Some(cached) = cached {
        return Ok(cached.copy_to(env));
    }
    let payload = entry.payload.in_memory().ok_or(NoTerm::OnDisk)?;
    term_of(env, entry, &payload, keep).ok_or(NoTerm::Undecodable)
}

/// As [`term`], with the payload at hand; `None` when it is not a term's encoding.
pub(crate) fn term_of<'a>(env: Env<'a>, entry: &Arc<Entry>, payload: &[u8], keep: Keep) -> Option<Term<'a>> {
    let term = decode(env, payload)?;
    if is_large(payload.len()) || !is_kept(entry, keep) {
        return Some(term);
    }
    if Room::has_small_maps_only(payload) {
        builder::ask(entry);
    } else {
        // To decode a large map the BEAM sorts its keys, with a pivot that it takes from the data of
        // the scheduler it runs on: on a thread of ours there is none, and it crashes. Seen with
        // OTP 25 and 300 keys. Copying is safe anywhere.
        chunk::keep(entry, term);
    }
    Some(term)
}

fn is_kept(entry: &Entry, keep: Keep) -> bool {
    let wanted = match keep {
        Keep::Now => true,
        Keep::IfReadBefore => entry.read_before(),
        Keep::Never => false,
    };
    wanted && entry.has_room()
}

/// Asks for the memory that copying `entry`'s term will read.
pub(crate) fn prefetch(entry: &Entry) {
    let near = entry.near();
    if near != 0 {
        // The keys of a struct stand before it.
        const BEFORE: usize = 64;
        let heap_bytes = room(entry).heap as usize * size_of::<usize>();
        prefetch::bytes(near.wrapping_sub(BEFORE), heap_bytes + BEFORE);
    }
}

/// The room on a heap for `entry`'s term, about.
pub(crate) fn room(entry: &Entry) -> Room {
    match entry.note() {
        0 => Room::guess(entry.payload.len()),
        note => Room::from_bits(note),
    }
}

/// Decodes a payload: all of it, or nothing. On a thread of ours only when its maps are small.
pub(crate) fn decode<'a>(env: Env<'a>, payload: &[u8]) -> Option<Term<'a>> {
    // Trusted: it is what a caller of this store encoded. Decoding may make atoms, since a store
    // that was just started must give back atoms that no loaded module mentions.
    // SAFETY: the bytes come from `term_to_binary`, and every step of their way is checksummed.
    let decoded = unsafe { env.binary_to_term_trusted(payload) };
    decoded.filter(|(_, used)| *used == payload.len()).map(|(term, _)| term)
}
