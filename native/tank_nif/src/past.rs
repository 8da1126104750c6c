//! The past, and what is to come.

use std::time::Duration;

use rustler::{Binary, Encoder, Env, NifResult, ResourceArc, Term};
use tank_engine::key::Key;

use crate::store::{Store, on_own_thread};
use crate::{atoms, errors, found, reply};

/// The entry at a key as it was at a revision: `{:ok, entry}` with an encoded value (see `found`),
/// `:not_found` or `{:error, reason}`.
#[rustler::nif(schedule = "DirtyIo")]
fn entry_at<'a>(env: Env<'a>, store: ResourceArc<Store>, key: Binary<'a>, revision: u64) -> Term<'a> {
    let (engine, key) = (store.engine.clone(), Key::from_bytes(&key));
    match on_own_thread("tank-past", move || engine.entry_at(&key, revision)) {
        Ok(Some(entry)) => (atoms::ok(), found::encode(env, &entry)).encode(env),
        Ok(None) => atoms::not_found().encode(env),
        Err(error) => errors::error(env, &error),
    }
}

/// Asks for the view to come to a revision: `{:ok, call}`, and `{reference, :ok}` or
/// `{reference, {:error, reason}}` comes within `timeout_ms`.
#[rustler::nif]
fn await_revision<'a>(
    env: Env<'a>,
    store: &'a Store,
    reference: Term<'a>,
    revision: u64,
    timeout_ms: u64,
) -> NifResult<Term<'a>> {
    let (call, reply) = reply::expect(env, reply::reference(reference)?, |env, ()| atoms::ok().encode(env));
    store.engine.await_revision(revision, Duration::from_millis(timeout_ms), reply);
    Ok((atoms::ok(), call).encode(env))
}
