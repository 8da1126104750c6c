//! Writes: handed over to the engine, answered by message.

use std::time::Duration;

use bytes::Bytes;
use rustler::{Atom, Binary, Encoder, Env, Error, NifResult, Term};
use tank_engine::command::{Command, Condition, Delete, Write};
use tank_engine::error::EngineError;
use tank_engine::key::Key;
use tank_engine::outcome::Outcome;

use crate::store::Store;
use crate::{atoms, errors, found, reply};

/// Writes: `{:ok, call}`, and the answer comes as `{reference, {:ok, revision} | {:error, reason}}`;
/// or `{:error, reason}`, and nothing was written. `kind` is `:put | :create | :update | :delete`
/// (which ignores the payload); `condition` is nil or the revision that the entry must have. When
/// another member leads, it is asked for as long as `timeout_ms`.
#[allow(clippy::too_many_arguments, reason = "a NIF takes its arguments one by one")]
#[rustler::nif]
fn write<'a>(
    env: Env<'a>,
    store: &'a Store,
    reference: Term<'a>,
    kind: Atom,
    key: Binary<'a>,
    payload: Binary<'a>,
    condition: Option<u64>,
    timeout_ms: u64,
) -> NifResult<Term<'a>> {
    submit(env, store, reference, kind, key, payload, condition, timeout_ms)
}

/// The same, on a dirty CPU scheduler: copying a payload of megabytes takes milliseconds.
#[allow(clippy::too_many_arguments, reason = "a NIF takes its arguments one by one")]
#[rustler::nif(schedule = "DirtyCpu")]
fn write_large<'a>(
    env: Env<'a>,
    store: &'a Store,
    reference: Term<'a>,
    kind: Atom,
    key: Binary<'a>,
    payload: Binary<'a>,
    condition: Option<u64>,
    timeout_ms: u64,
) -> NifResult<Term<'a>> {
    submit(env, store, reference, kind, key, payload, condition, timeout_ms)
}

#[allow(clippy::too_many_arguments, reason = "a NIF takes its arguments one by one")]
fn submit<'a>(
    env: Env<'a>,
    store: &Store,
    reference: Term<'a>,
    kind: Atom,
    key: Binary<'a>,
    payload: Binary<'a>,
    condition: Option<u64>,
    timeout_ms: u64,
) -> NifResult<Term<'a>> {
    hand_over(env, store, reference, decode(kind, key, payload, condition)?, timeout_ms)
}

/// Hands a command over: `{:ok, call}` or `{:error, reason}`; see `write`.
pub(crate) fn hand_over<'a>(
    env: Env<'a>,
    store: &Store,
    reference: Term<'a>,
    command: Command,
    timeout_ms: u64,
) -> NifResult<Term<'a>> {
    hand_over_by(env, store, reference, command, Limited::ByOptions, timeout_ms)
}

/// Which limits a command has.
#[derive(Clone, Copy)]
pub(crate) enum Limited {
    /// Those of the store's options.
    ByOptions,
    /// For paths and counts of operations, those that no store goes beyond.
    Widely,
}

/// See [`hand_over`].
pub(crate) fn hand_over_by<'a>(
    env: Env<'a>,
    store: &Store,
    reference: Term<'a>,
    command: Command,
    limited: Limited,
    timeout_ms: u64,
) -> NifResult<Term<'a>> {
    let (call, reply) = reply::expect(env, reply::reference(reference)?, encode);
    let timeout = Duration::from_millis(timeout_ms);
    let handed = match limited {
        Limited::ByOptions => store.engine.write_within(command, timeout, reply),
        Limited::Widely => store.engine.write_widely(command, timeout, reply),
    };
    Ok(match handed {
        Ok(()) => (atoms::ok(), call).encode(env),
        Err((error, reply)) => refused(env, &call, reply, &error),
    })
}

fn refused<'a>(
    env: Env<'a>,
    call: &reply::Call,
    reply: tank_engine::engine::Reply<Outcome>,
    error: &EngineError,
) -> Term<'a> {
    reply::refuse(call, reply);
    errors::error(env, error)
}

fn decode(kind: Atom, key: Binary<'_>, payload: Binary<'_>, condition: Option<u64>) -> NifResult<Command> {
    let key = Key::from_bytes(&key);
    let condition = condition.map_or(Condition::Always, Condition::RevisionIs);
    if kind == atoms::delete() {
        return Ok(Command::Delete(Delete { condition, ..key.into() }));
    }
    let write = Write { condition, ..Write::new(key, Bytes::copy_from_slice(&payload)) };
    if kind == atoms::put() {
        Ok(Command::Put(write))
    } else if kind == atoms::create() {
        Ok(Command::Create(write))
    } else if kind == atoms::update() {
        Ok(Command::Update(write))
    } else {
        Err(Error::BadArg)
    }
}

fn encode(env: Env<'_>, outcome: Outcome) -> Term<'_> {
    match outcome {
        Outcome::Done { revision } => (atoms::ok(), revision).encode(env),
        Outcome::Changed { revision, nodes } => {
            (atoms::ok(), (atoms::changed(), revision, found::changes(env, &nodes))).encode(env)
        }
        Outcome::Txn { succeeded, revision, responses } => {
            let responses: Vec<_> = responses.iter().map(|response| found::response(env, response)).collect();
            (atoms::ok(), (atoms::txn(), succeeded, revision, responses)).encode(env)
        }
        Outcome::Granted(lease) => (atoms::ok(), (atoms::lease(), found::lease(env, &lease))).encode(env),
        // It was applied once, and what it gave is not known any more.
        Outcome::Forgotten => (atoms::error(), atoms::timeout()).encode(env),
        Outcome::Refused(refusal) => (atoms::error(), errors::refusal(env, &refusal)).encode(env),
        Outcome::Nothing => (atoms::error(), atoms::malformed()).encode(env),
    }
}
