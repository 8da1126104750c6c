//! Decoded terms that share one environment. One environment per term would take up kilobytes
//! more for each.

use std::sync::{Arc, Weak};

use rustler::sys::enif_make_copy;
use rustler::{Env, OwnedEnv, Term};
use tank_engine::entry::Entry;
use tank_engine::reclaim;

use super::room::Room;

/// An environment that is full: nothing is added to it any more.
pub(super) struct Chunk {
    env: Option<OwnedEnv>,
}

// SAFETY: once a chunk is made, its environment is only read, by copying terms out of it, which
// the BEAM allows from any number of threads as long as none changes it. Nothing here does:
// `env` is private, and is only ever dropped.
unsafe impl Sync for Chunk {}

impl Drop for Chunk {
    fn drop(&mut self) {
        // The last one to let go may be a reader on a scheduler; freeing takes a while.
        if let Some(env) = self.env.take() {
            reclaim::now(env);
        }
    }
}

/// A term in a chunk, which it keeps alive.
pub(super) struct CachedTerm {
    term: rustler::sys::ErlNifTerm,
    _chunk: Arc<Chunk>,
}

impl CachedTerm {
    /// The term, copied to `env`.
    pub(super) fn copy_to<'a>(&self, env: Env<'a>) -> Term<'a> {
        // SAFETY: the term lives in the chunk's environment, which is alive and unchanging.
        unsafe { Term::new(env, enif_make_copy(env.as_c_arg(), self.term)) }
    }
}

/// Decodes `entries` into a new chunk, and gives each its term. Returns those it was done for.
pub(super) fn build(entries: &[Arc<Entry>]) -> Vec<Weak<Entry>> {
    fill(entries, |env, _, payload| super::decode(env, payload))
}

/// Gives `entry` its decoded `term`, copied into a chunk for it alone.
pub(super) fn keep(entry: &Arc<Entry>, term: Term<'_>) {
    fill(std::slice::from_ref(entry), |env, _, _| Some(term.in_env(env)));
}

fn fill(entries: &[Arc<Entry>], make: impl for<'a> Fn(Env<'a>, &Entry, &[u8]) -> Option<Term<'a>>) -> Vec<Weak<Entry>> {
    // Without those that were evicted since they were read.
    let payloads: Vec<_> = entries.iter().filter_map(|entry| Some((entry, entry.payload.in_memory()?))).collect();
    let env = OwnedEnv::new();
    let terms: Vec<_> = env.run(|env| {
        let terms = payloads.iter().map(|(entry, payload)| make(env, entry, payload));
        terms.map(|term| term.map(|term| term.as_c_arg())).collect()
    });
    let chunk = Arc::new(Chunk { env: Some(env) });
    payloads
        .iter()
        .zip(terms)
        .filter_map(|((entry, payload), term)| {
            let cached = CachedTerm { term: term?, _chunk: Arc::clone(&chunk) };
            // SAFETY: an `ErlNifTerm` is a word. It is a tagged pointer, mostly; one that is not asks for
            // memory in vain.
            let near = unsafe { std::mem::transmute::<rustler::sys::ErlNifTerm, usize>(cached.term) };
            let room = Room::of(payload);
            entry.keep_decoded(Box::new(cached), room.bytes(), near, room.to_bits());
            Some(Arc::downgrade(entry))
        })
        .collect()
}
