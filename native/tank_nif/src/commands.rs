//! Commands of any kind: decoded from tuples, handed over as any write.

use bytes::Bytes;
use rustler::types::tuple::get_tuple;
use rustler::{Atom, Binary, Encoder, Env, Error, NifResult, Term};
use tank_engine::command::{Command, Compare, Condition, Delete, Number, Op, PutMany, Txn, Write};
use tank_engine::key::Key;
use tank_engine::storage::format::random_id;

use crate::store::Store;
use crate::{atoms, patterns, writes};

/// As `write`, of a command:
///
/// - `{:put | :create | :update, key, payload, condition, lease}`, `{:delete, key, condition}`, where a
///   condition is `nil`, `{:revision, n}` or `{:payload, payload}`,
/// - `{:put_many, pattern, payload}`, `{:delete_many | :clear_many, pattern}`,
/// - `{:txn, comparisons, then, otherwise}`,
/// - `{:compact, revision}`, `{:new_history}`.
///
/// Gives `:dirty` when regular expressions have to be compiled first; then `command_large` is to be called.
#[rustler::nif]
fn command<'a>(
    env: Env<'a>,
    store: &'a Store,
    reference: Term<'a>,
    term: Term<'a>,
    timeout_ms: u64,
) -> NifResult<Term<'a>> {
    let command = decode(term)?;
    if !command.is_ready() {
        return Ok(atoms::dirty().encode(env));
    }
    writes::hand_over(env, store, reference, command, timeout_ms)
}

/// The same, on a dirty CPU scheduler: copying megabytes takes milliseconds, and so does compiling.
#[rustler::nif(schedule = "DirtyCpu")]
fn command_large<'a>(
    env: Env<'a>,
    store: &'a Store,
    reference: Term<'a>,
    term: Term<'a>,
    timeout_ms: u64,
) -> NifResult<Term<'a>> {
    writes::hand_over(env, store, reference, decode(term)?, timeout_ms)
}

fn decode(term: Term<'_>) -> NifResult<Command> {
    let tuple = get_tuple(term)?;
    let (kind, arguments) = tuple.split_first().ok_or(Error::BadArg)?;
    let kind: Atom = kind.decode()?;
    match arguments {
        [key, payload, condition, lease] => {
            let (key, payload, condition) = (self::key(*key)?, self::payload(*payload)?, self::condition(*condition)?);
            written(kind, Write { key, payload, condition, lease: lease.decode()? })
        }
        [key, condition] if kind == atoms::delete() => {
            Ok(Command::Delete(Delete { key: self::key(*key)?, condition: self::condition(*condition)? }))
        }
        [pattern, payload] if kind == atoms::put_many() => {
            let (pattern, payload) = (patterns::decode(*pattern)?, self::payload(*payload)?);
            Ok(Command::PutMany(PutMany { pattern, payload }))
        }
        [pattern] if kind == atoms::delete_many() => Ok(Command::DeleteMany(patterns::decode(*pattern)?)),
        [pattern] if kind == atoms::clear_many() => Ok(Command::ClearMany(patterns::decode(*pattern)?)),
        [compare, then, otherwise] if kind == atoms::txn() => Ok(Command::Txn(Txn {
            compare: all(*compare, self::compare)?,
            then: all(*then, op)?,
            otherwise: all(*otherwise, op)?,
        })),
        [] if kind == atoms::new_history() => {
            Ok(Command::NewHistory { id: random_id().map_err(|_| Error::RaiseAtom("no_randomness"))? })
        }
        [revision] if kind == atoms::compact() => Ok(Command::Compact { revision: revision.decode()? }),
        _ => Err(Error::BadArg),
    }
}

fn written(kind: Atom, write: Write) -> NifResult<Command> {
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

/// An operation that is about a path and nothing else.
type OfKey = fn(Key) -> Op;

/// `{:put, key, payload, lease} | {:delete | :clear | :get | :list, key}`.
pub(crate) fn op(term: Term<'_>) -> NifResult<Op> {
    let tuple = get_tuple(term)?;
    let (kind, arguments) = tuple.split_first().ok_or(Error::BadArg)?;
    let kind: Atom = kind.decode()?;
    match arguments {
        [key, payload, lease] if kind == atoms::put() => {
            let write = Write::new(self::key(*key)?, self::payload(*payload)?);
            Ok(Op::Put(Write { lease: lease.decode()?, ..write }))
        }
        [key] => {
            let key = self::key(*key)?;
            let ops: [(Atom, OfKey); 4] = [
                (atoms::delete(), Op::Delete),
                (atoms::clear(), Op::Clear),
                (atoms::get(), Op::Get),
                (atoms::list(), Op::List),
            ];
            ops.into_iter().find(|(name, _)| *name == kind).map(|(_, op)| op(key)).ok_or(Error::BadArg)
        }
        _ => Err(Error::BadArg),
    }
}

/// `{:payload, key, equal?, payload}`, `{:below, prefix, relation, n}`,
/// `{:unchanged, prefix, since, count}`, `{:lease, name, relation, n}`, or `{number, key, relation, n}`.
fn compare(term: Term<'_>) -> NifResult<Compare> {
    let tuple = get_tuple(term)?;
    let [kind, name, relation, operand] = tuple.as_slice() else { return Err(Error::BadArg) };
    let (kind, name): (Atom, Binary<'_>) = (kind.decode()?, name.decode()?);
    let key = || Key::from_bytes(&name);
    if kind == atoms::payload() {
        return Ok(Compare::Payload { key: key(), equal: relation.decode()?, payload: payload(*operand)? });
    }
    let operand = operand.decode()?;
    if kind == atoms::unchanged() {
        return Ok(Compare::Unchanged { prefix: key(), since: relation.decode()?, count: operand });
    }
    let relation = patterns::relation(relation.decode()?)?;
    if kind == atoms::below() {
        return Ok(Compare::Below { prefix: key(), relation, operand });
    }
    if kind == atoms::lease() {
        return Ok(Compare::Lease { name: Bytes::copy_from_slice(&name), relation, operand });
    }
    Ok(Compare::Number { key: key(), number: number(kind)?, relation, operand })
}

fn number(kind: Atom) -> NifResult<Number> {
    let numbers = [
        (atoms::version(), Number::Version),
        (atoms::revision(), Number::Revision),
        (atoms::create_revision(), Number::CreateRevision),
        (atoms::exists(), Number::Exists),
        (atoms::child_count(), Number::ChildCount),
        (atoms::lease_epoch(), Number::LeaseEpoch),
    ];
    numbers.into_iter().find(|(name, _)| *name == kind).map(|(_, number)| number).ok_or(Error::BadArg)
}

fn condition(term: Term<'_>) -> NifResult<Condition> {
    if term.is_atom() {
        return Ok(Condition::Always);
    }
    let (kind, operand): (Atom, Term<'_>) = term.decode()?;
    if kind == atoms::revision() {
        Ok(Condition::RevisionIs(operand.decode()?))
    } else if kind == atoms::payload() {
        Ok(Condition::PayloadIs(payload(operand)?))
    } else {
        Err(Error::BadArg)
    }
}

fn all<'a, T>(term: Term<'a>, decode: impl Fn(Term<'a>) -> NifResult<T>) -> NifResult<Vec<T>> {
    term.decode::<Vec<Term<'a>>>()?.into_iter().map(decode).collect()
}

fn key(term: Term<'_>) -> NifResult<Key> {
    Ok(Key::from_bytes(&term.decode::<Binary<'_>>()?))
}

fn payload(term: Term<'_>) -> NifResult<Bytes> {
    Ok(Bytes::copy_from_slice(&term.decode::<Binary<'_>>()?))
}
