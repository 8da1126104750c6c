//! Commands of any kind: decoded from tuples, handed over as any write.

use bytes::Bytes;
use rustler::types::tuple::get_tuple;
use rustler::{Atom, Binary, Encoder, Env, Error, NifResult, Term};
use tank_engine::command::{
    Clear, ClearMany, Command, Compare, Condition, Delete, DeleteMany, How, Number, Op, PutMany, Txn, Write,
};
use tank_engine::key::Key;
use tank_engine::nodes::{KeepCondition, KeepWhile};
use tank_engine::state::{Facts, Fingerprint};
use tank_engine::types::random_id;

use crate::store::Store;
use crate::writes::Limited;
use crate::{atoms, patterns, writes};

/// As `write`, of a command:
///
/// - `{:put | :create | :update, key, payload, condition, lease[, how]}`, `{:delete, key, condition[, returns?]}`, where
///   a condition is `nil`, `{:revision, n}`, `{:payload, payload}` or `{:node, condition, or_none?}`, of a node
///   (`patterns`), and `how` is `{kind, unless_same?, keep_while, returns?}`: see `how`,
/// - `{:put_many, pattern, payload[, how]}`, `{:delete_many, pattern[, returns?]}`,
///   `{:clear_many, pattern[, keep_nodes?, returns?]}`,
/// - `{:txn, comparisons, then, otherwise}`,
/// - `{:compact, revision}`, `{:new_history}`,
/// - `{:wide, command}`: it may have more operations and longer paths than the store's options allow.
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
    let (command, limited) = decode_limited(term)?;
    if !command.is_ready() {
        return Ok(atoms::dirty().encode(env));
    }
    writes::hand_over_by(env, store, reference, command, limited, timeout_ms)
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
    let (command, limited) = decode_limited(term)?;
    writes::hand_over_by(env, store, reference, command, limited, timeout_ms)
}

fn decode_limited(term: Term<'_>) -> NifResult<(Command, Limited)> {
    match term.decode::<(Atom, Term<'_>)>() {
        Ok((kind, command)) if kind == atoms::wide() => Ok((decode(command)?, Limited::Widely)),
        _ => Ok((decode(term)?, Limited::ByOptions)),
    }
}

fn decode(term: Term<'_>) -> NifResult<Command> {
    let tuple = get_tuple(term)?;
    let (kind, arguments) = tuple.split_first().ok_or(Error::BadArg)?;
    let kind: Atom = kind.decode()?;
    match arguments {
        [key, condition, returns @ ..] if kind == atoms::delete() => {
            Ok(Command::Delete(delete(*key, *condition, returns)?))
        }
        [pattern, payload, how @ ..] if kind == atoms::put_many() => {
            let (pattern, payload) = (patterns::decode(*pattern)?, self::payload(*payload)?);
            Ok(Command::PutMany(PutMany { pattern, payload, how: self::how(how)? }))
        }
        [pattern, returns @ ..] if kind == atoms::delete_many() => {
            let (pattern, returns) = (patterns::decode(*pattern)?, flag(returns)?);
            Ok(Command::DeleteMany(DeleteMany { pattern, returns }))
        }
        [pattern, flags @ ..] if kind == atoms::clear_many() => {
            let (pattern, [keep_nodes, returns]) = (patterns::decode(*pattern)?, two_flags(flags)?);
            Ok(Command::ClearMany(ClearMany { pattern, keep_nodes, returns }))
        }
        [compare, then, otherwise] if kind == atoms::txn() => Ok(Command::Txn(Txn {
            compare: all(*compare, self::compare)?,
            then: all(*then, op)?,
            otherwise: all(*otherwise, op)?,
        })),
        [] if kind == atoms::new_history() => {
            Ok(Command::NewHistory { id: random_id().map_err(|_| Error::RaiseAtom("no_randomness"))? })
        }
        [revision] if kind == atoms::compact() => Ok(Command::Compact { revision: revision.decode()? }),
        [key, payload, condition, lease, how @ ..] => {
            let (key, payload, condition) = (self::key(*key)?, self::payload(*payload)?, self::condition(*condition)?);
            written(kind, Write { key, payload, condition, lease: lease.decode()?, how: self::how(how)? })
        }
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

fn delete(key: Term<'_>, condition: Term<'_>, returns: &[Term<'_>]) -> NifResult<Delete> {
    Ok(Delete { key: self::key(key)?, condition: self::condition(condition)?, returns: flag(returns)? })
}

/// What is left of a tuple: `{kind, unless_same?, keep_while, returns?}`, or nothing. `keep_while` is nil, or
/// `{[{pattern, condition}], source}`.
fn how(rest: &[Term<'_>]) -> NifResult<How> {
    let [how] = rest else { return if rest.is_empty() { Ok(How::default()) } else { Err(Error::BadArg) } };
    let (kind, unless_same, keep_while, returns): (u8, bool, Term<'_>, bool) = how.decode()?;
    let keep_while = if keep_while.is_atom() { None } else { Some(self::keep_while(keep_while)?) };
    Ok(How { kind, unless_same, keep_while, returns })
}

fn keep_while(term: Term<'_>) -> NifResult<KeepWhile> {
    let (conditions, source): (Vec<(Term<'_>, Term<'_>)>, Term<'_>) = term.decode()?;
    let condition = |(pattern, condition): (Term<'_>, Term<'_>)| {
        Ok(KeepCondition { pattern: patterns::decode(pattern)?, condition: patterns::condition_of(condition)? })
    };
    let conditions = conditions.into_iter().map(condition).collect::<NifResult<_>>()?;
    Ok(KeepWhile::new(conditions, payload(source)?))
}

/// What is left of a tuple: a boolean, or nothing.
fn flag(rest: &[Term<'_>]) -> NifResult<bool> {
    match rest {
        [] => Ok(false),
        [flag] => flag.decode(),
        _ => Err(Error::BadArg),
    }
}

fn two_flags(rest: &[Term<'_>]) -> NifResult<[bool; 2]> {
    match rest {
        [] => Ok([false, false]),
        [one, other] => Ok([one.decode()?, other.decode()?]),
        _ => Err(Error::BadArg),
    }
}

/// `{:put, key, payload, lease[, condition, how]}`, `{:delete, key[, condition, returns?]}`,
/// `{:clear, key[, keep_node?, returns?]}` or `{:get | :list, key}`; as in a command.
pub(crate) fn op(term: Term<'_>) -> NifResult<Op> {
    let tuple = get_tuple(term)?;
    let (kind, arguments) = tuple.split_first().ok_or(Error::BadArg)?;
    let kind: Atom = kind.decode()?;
    match arguments {
        [key, payload, lease] if kind == atoms::put() => {
            let write = Write::new(self::key(*key)?, self::payload(*payload)?);
            Ok(Op::Put(Write { lease: lease.decode()?, ..write }))
        }
        [key, payload, lease, condition, how @ ..] if kind == atoms::put() => {
            let (key, payload, condition) = (self::key(*key)?, self::payload(*payload)?, self::condition(*condition)?);
            Ok(Op::Put(Write { key, payload, condition, lease: lease.decode()?, how: self::how(how)? }))
        }
        [key] if kind == atoms::delete() => Ok(Op::Delete(self::key(*key)?.into())),
        [key, condition, returns @ ..] if kind == atoms::delete() => Ok(Op::Delete(delete(*key, *condition, returns)?)),
        [key, flags @ ..] if kind == atoms::clear() => {
            let (key, [keep_node, returns]) = (self::key(*key)?, two_flags(flags)?);
            Ok(Op::Clear(Clear { key, keep_node, returns }))
        }
        [key] if kind == atoms::get() => Ok(Op::Get(self::key(*key)?)),
        [key] if kind == atoms::list() => Ok(Op::List(self::key(*key)?)),
        _ => Err(Error::BadArg),
    }
}

/// `{:payload, key, equal?, payload}`, `{:below, prefix, relation, n}`,
/// `{:matching, pattern, facts, fingerprint}`, `{:lease, name, relation, n}`, or `{number, key, relation, n}`.
fn compare(term: Term<'_>) -> NifResult<Compare> {
    let tuple = get_tuple(term)?;
    let [kind, name, relation, operand] = tuple.as_slice() else { return Err(Error::BadArg) };
    let kind: Atom = kind.decode()?;
    if kind == atoms::matching() {
        let (pattern, (count, hash)) = (patterns::decode(*name)?, operand.decode()?);
        let fingerprint = Fingerprint { count, hash };
        return Ok(Compare::Matches { pattern, facts: facts(relation.decode()?)?, fingerprint });
    }
    let name: Binary<'_> = name.decode()?;
    let key = || Key::from_bytes(&name);
    if kind == atoms::payload() {
        return Ok(Compare::Payload { key: key(), equal: relation.decode()?, payload: payload(*operand)? });
    }
    let operand = operand.decode()?;
    let relation = patterns::relation(relation.decode()?)?;
    if kind == atoms::below() {
        return Ok(Compare::Below { prefix: key(), relation, operand });
    }
    if kind == atoms::lease() {
        return Ok(Compare::Lease { name: Bytes::copy_from_slice(&name), relation, operand });
    }
    Ok(Compare::Number { key: key(), number: number(kind)?, relation, operand })
}

/// `:paths`, `:payloads`, `:entries` or `:nodes`.
pub(crate) fn facts(kind: Atom) -> NifResult<Facts> {
    let facts = [
        (atoms::paths(), Facts::Paths),
        (atoms::payloads(), Facts::Payloads),
        (atoms::entries(), Facts::Entries),
        (atoms::nodes(), Facts::Nodes),
    ];
    facts.into_iter().find(|(name, _)| *name == kind).map(|(_, facts)| facts).ok_or(Error::BadArg)
}

fn number(kind: Atom) -> NifResult<Number> {
    let numbers = [
        (atoms::version(), Number::Version),
        (atoms::revision(), Number::Revision),
        (atoms::create_revision(), Number::CreateRevision),
        (atoms::exists(), Number::Exists),
        (atoms::child_count(), Number::ChildCount),
        (atoms::lease_epoch(), Number::LeaseEpoch),
        (atoms::payload_version(), Number::PayloadVersion),
        (atoms::child_list_version(), Number::ChildListVersion),
    ];
    numbers.into_iter().find(|(name, _)| *name == kind).map(|(_, number)| number).ok_or(Error::BadArg)
}

fn condition(term: Term<'_>) -> NifResult<Condition> {
    if term.is_atom() {
        return Ok(Condition::Always);
    }
    if let Ok((kind, condition, or_none)) = term.decode::<(Atom, Term<'_>, bool)>() {
        let condition = patterns::condition_of(condition)?;
        return if kind == atoms::node() { Ok(Condition::Node { condition, or_none }) } else { Err(Error::BadArg) };
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
