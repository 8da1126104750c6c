//! Patterns, as `Tank.Store.Pattern` encodes them.
//!
//! A list of `{:one | :many, condition}`, where a condition is `:any`, `{:is, component}` (encoded
//! as in a key), `{:name, regex}`, `{:payload, payload}`, `:has_data`, `{:kind, n}`, `{:version, relation, n}`,
//! `{:payload_version, relation, n}`, `{:child_list_version, relation, n}`, `{:child_count, relation, n}`, `{:all, conditions}`, `{:any_of, conditions}` or
//! `{:not, condition}`.

use bytes::Bytes;
use rustler::types::tuple::get_tuple;
use rustler::{Atom, Binary, Error, NifResult, Term};
use tank_engine::command::Relation;
use tank_engine::pattern::{Condition, NameRegex, Part, Pattern};

use crate::atoms;

/// More than `Tank.Store.Pattern` lets pass: decoding must not use up the stack.
const DEPTH_MAX: usize = 64;

pub(crate) fn decode(term: Term<'_>) -> NifResult<Pattern> {
    let parts: Vec<(Atom, Term<'_>)> = term.decode()?;
    let part = |(kind, term): (Atom, Term<'_>)| {
        Ok(Part { many: kind == atoms::many(), condition: condition(term, DEPTH_MAX)? })
    };
    Ok(Pattern { parts: parts.into_iter().map(part).collect::<NifResult<_>>()? })
}

/// A condition by itself.
pub(crate) fn condition_of(term: Term<'_>) -> NifResult<Condition> {
    condition(term, DEPTH_MAX)
}

pub(crate) fn relation(atom: Atom) -> NifResult<Relation> {
    let relations = [
        (atoms::equal(), Relation::Equal),
        (atoms::not_equal(), Relation::NotEqual),
        (atoms::less(), Relation::Less),
        (atoms::less_or_equal(), Relation::LessOrEqual),
        (atoms::greater(), Relation::Greater),
        (atoms::greater_or_equal(), Relation::GreaterOrEqual),
    ];
    relations.into_iter().find(|(name, _)| *name == atom).map(|(_, relation)| relation).ok_or(Error::BadArg)
}

fn condition(term: Term<'_>, depth: usize) -> NifResult<Condition> {
    let depth = depth.checked_sub(1).ok_or(Error::BadArg)?;
    if let Ok(atom) = term.decode::<Atom>() {
        return match atom {
            any if any == atoms::any() => Ok(Condition::Any),
            has_data if has_data == atoms::has_data() => Ok(Condition::HasData),
            _ => Err(Error::BadArg),
        };
    }
    match get_tuple(term)?.as_slice() {
        [kind, operand] => with_operand(kind.decode()?, *operand, depth),
        [kind, relation, number] => number_of(kind.decode()?, self::relation(relation.decode()?)?, number.decode()?),
        _ => Err(Error::BadArg),
    }
}

fn with_operand(kind: Atom, operand: Term<'_>, depth: usize) -> NifResult<Condition> {
    let bytes = || operand.decode::<Binary<'_>>();
    let all = || -> NifResult<Vec<Condition>> {
        operand.decode::<Vec<Term<'_>>>()?.into_iter().map(|term| condition(term, depth)).collect()
    };
    if kind == atoms::is() {
        Ok(Condition::Is(bytes()?.to_vec()))
    } else if kind == atoms::name() {
        Ok(Condition::Name(NameRegex::new(operand.decode()?)))
    } else if kind == atoms::kind() {
        Ok(Condition::Kind(operand.decode()?))
    } else if kind == atoms::payload() {
        Ok(Condition::Payload(Bytes::copy_from_slice(&bytes()?)))
    } else if kind == atoms::all() {
        Ok(Condition::All(all()?))
    } else if kind == atoms::any_of() {
        Ok(Condition::AnyOf(all()?))
    } else if kind == atoms::not() {
        Ok(Condition::Not(Box::new(condition(operand, depth)?)))
    } else {
        Err(Error::BadArg)
    }
}

fn number_of(kind: Atom, relation: Relation, number: u64) -> NifResult<Condition> {
    if kind == atoms::version() {
        Ok(Condition::Version(relation, number))
    } else if kind == atoms::payload_version() {
        Ok(Condition::PayloadVersion(relation, number))
    } else if kind == atoms::child_list_version() {
        Ok(Condition::ChildListVersion(relation, number))
    } else if kind == atoms::child_count() {
        Ok(Condition::ChildCount(relation, number))
    } else {
        Err(Error::BadArg)
    }
}
