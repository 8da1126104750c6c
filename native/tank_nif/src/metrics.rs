//! What a store counts, as Erlang terms.

use std::sync::atomic::Ordering;

use rustler::{Atom, Encoder, Env, NifResult, Term};
use tank_engine::metrics::{BOUNDS_US, Times};

use crate::atoms;
use crate::store::Store;

/// The upper bounds of the buckets of all histograms, in microseconds.
#[rustler::nif]
fn histogram_bounds() -> Vec<u64> {
    BOUNDS_US.to_vec()
}

/// What was counted since the store was opened: a map of counts, and of `{buckets, sum_us}` for what takes time.
#[rustler::nif]
fn metrics<'a>(env: Env<'a>, store: &'a Store) -> NifResult<Term<'a>> {
    let (metrics, log) = (store.engine.metrics(), store.engine.log_stats());
    let times = |times: Times| (times.buckets, times.sum_us).encode(env);
    let pairs: [(Atom, Term<'a>); 4] = [
        (atoms::syncs(), times(log.times.read())),
        (atoms::batches(), times(metrics.batches.read())),
        (atoms::checkpoints(), times(metrics.checkpoints.read())),
        (atoms::snapshots_received(), metrics.snapshots_received.load(Ordering::Relaxed).encode(env)),
    ];
    Term::map_from_pairs(env, &pairs)
}
