//! Leases: changed like entries, by commands; read from the view.

use bytes::Bytes;
use rustler::{Atom, Binary, Encoder, Env, NifResult, Term};
use tank_engine::command::{Command, LeaseCommand};

use crate::store::Store;
use crate::writes::hand_over;
use crate::{atoms, errors, found};

/// Acquires a lease: answers as `write`, with `{:ok, {:lease, lease}}` or
/// `{:error, {:held, lease}}`.
#[rustler::nif]
fn acquire_lease<'a>(
    env: Env<'a>,
    store: &'a Store,
    reference: Term<'a>,
    name: Binary<'a>,
    holder: Binary<'a>,
    ttl_ms: u64,
    timeout_ms: u64,
) -> NifResult<Term<'a>> {
    let (name, holder) = (copy(name), copy(holder));
    change(env, store, reference, LeaseCommand::Acquire { name, holder, ttl_ms }, timeout_ms)
}

/// Renews it, if it is of `epoch`: `{:ok, {:lease, lease}}` or `{:error, :lease_ended}`.
#[rustler::nif]
fn renew_lease<'a>(
    env: Env<'a>,
    store: &'a Store,
    reference: Term<'a>,
    name: Binary<'a>,
    epoch: u64,
    timeout_ms: u64,
) -> NifResult<Term<'a>> {
    change(env, store, reference, LeaseCommand::Renew { name: copy(name), epoch }, timeout_ms)
}

/// Ends it, if it is of `epoch`: `{:ok, revision}` or `{:error, :lease_ended}`.
#[rustler::nif]
fn release_lease<'a>(
    env: Env<'a>,
    store: &'a Store,
    reference: Term<'a>,
    name: Binary<'a>,
    epoch: u64,
    timeout_ms: u64,
) -> NifResult<Term<'a>> {
    change(env, store, reference, LeaseCommand::Release { name: copy(name), epoch }, timeout_ms)
}

/// The lease of that name, at once: `{:ok, lease}`, `:not_found`, `{:error, reason}`, or `:wait`
/// when `local` is false and that takes asking.
#[rustler::nif]
fn read_lease<'a>(env: Env<'a>, store: &'a Store, name: Binary<'a>, local: bool) -> Term<'a> {
    let view = if local { store.engine.view().map(Some) } else { store.engine.authoritative_view() };
    match view {
        Ok(Some(view)) => match view.leases.get(name.as_slice()) {
            Some(lease) => (atoms::ok(), found::lease(env, lease)).encode(env),
            None => atoms::not_found().encode(env),
        },
        Ok(None) => atoms::wait().encode(env),
        Err(error) => errors::error(env, &error),
    }
}

fn change<'a>(
    env: Env<'a>,
    store: &Store,
    reference: Term<'a>,
    command: LeaseCommand,
    timeout_ms: u64,
) -> NifResult<Term<'a>> {
    hand_over(env, store, reference, Command::Lease(command), timeout_ms)
}

fn copy(bytes: Binary<'_>) -> Bytes {
    Bytes::copy_from_slice(&bytes)
}

/// Has leases end as if so many milliseconds had passed without a renewal: for tests of users.
#[rustler::nif]
fn skip_lease_time(store: &Store, ms: u64) -> Atom {
    store.engine.skip_lease_time(ms);
    atoms::ok()
}
