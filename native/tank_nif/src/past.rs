//! The past, and what is to come.

use std::time::Duration;

use rustler::{Binary, Encoder, Env, NifResult, ResourceArc, Term};
use tank_engine::key::Key;

use crate::store::Store;
use crate::watches::position;
use crate::{atoms, found, reply, threads};

/// The entry at a key as it was at a position. Answers by message ([`threads`]): `{:ok, entry}` with an encoded
/// value (see `found`), `:not_found` or `{:error, reason}`.
#[rustler::nif]
fn entry_at<'a>(
    env: Env<'a>,
    reference: Term<'a>,
    store: ResourceArc<Store>,
    key: Binary<'a>,
    at: Term<'a>,
) -> NifResult<Term<'a>> {
    let (engine, key, at) = (store.engine.clone(), Key::from_bytes(&key), position(at)?);
    threads::run(
        env,
        reference,
        "tank-past",
        move || engine.entry_at(&key, at),
        |env, entry| match entry {
            Some(entry) => (atoms::ok(), found::encode(env, &entry)).encode(env),
            None => atoms::not_found().encode(env),
        },
    )
}

/// Asks for the view to come to a position: `{:ok, call}`, and `{reference, :ok}` or
/// `{reference, {:error, reason}}` comes within `timeout_ms`.
#[rustler::nif]
fn await_revision<'a>(
    env: Env<'a>,
    store: &'a Store,
    reference: Term<'a>,
    at: Term<'a>,
    timeout_ms: u64,
) -> NifResult<Term<'a>> {
    let at = position(at)?;
    let (call, reply) = reply::expect(env, reply::reference(reference)?, |env, ()| atoms::ok().encode(env));
    store.engine.await_revision(at, Duration::from_millis(timeout_ms), reply);
    Ok((atoms::ok(), call).encode(env))
}
