//! Reads of a view: entries, lists, and what a pattern matches.
//!
//! Each gives `:dirty` when it would take a normal scheduler too long; then its `_large` form, which
//! runs on a dirty one, is to be called.

use std::sync::Arc;

use rustler::{Atom, Binary, Encoder, Env, Error, NewBinary, NifResult, ResourceArc, Term};
use tank_engine::entries;
use tank_engine::entry::Entry;
use tank_engine::error::EngineError;
use tank_engine::key::Key;
use tank_engine::listing::{self, Range};
use tank_engine::pattern::Pattern;
use tank_engine::view::View;

use crate::term_cache::{Keep, NoTerm};
use crate::views::Handle;
use crate::{atoms, errors, found, patterns, term_cache};

/// What a normal scheduler may look at, copy and make: about half a millisecond of each.
const STEPS_MAX: usize = 2_000;
const ENTRIES_MAX: usize = 300;
const BYTES_MAX: usize = 256 << 10;

/// What a query does not do: it would take too long here, or a value is no term.
enum Stop {
    Dirty,
    Undecodable,
    Error(EngineError),
}

/// What is left of what a query may do.
struct Budget {
    steps: usize,
    entries: usize,
    bytes: usize,
    /// Whether the disk may be read.
    disk: bool,
    /// Whether values are decoded for others.
    keep: Keep,
}

impl Budget {
    fn small() -> Self {
        Self { steps: STEPS_MAX, entries: ENTRIES_MAX, bytes: BYTES_MAX, disk: false, keep: Keep::Now }
    }

    fn unlimited() -> Self {
        Self { steps: usize::MAX, entries: usize::MAX, bytes: usize::MAX, disk: true, keep: Keep::Now }
    }

    /// The value of an entry, which is at `key`.
    fn value<'a>(&mut self, env: Env<'a>, view: &View, key: &Key, entry: &Arc<Entry>) -> Result<Term<'a>, Stop> {
        self.item()?;
        self.bytes = self.bytes.checked_sub(entry.payload.len()).ok_or(Stop::Dirty)?;
        match term_cache::term(env, entry, self.keep) {
            Ok(term) => Ok(term),
            Err(NoTerm::Undecodable) => Err(Stop::Undecodable),
            Err(NoTerm::OnDisk) if !self.disk => Err(Stop::Dirty),
            Err(NoTerm::OnDisk) => {
                let payload = view.payload(key, entry).map_err(Stop::Error)?;
                // The view is older than what is kept.
                let compacted = Stop::Error(EngineError::Compacted { min: view.revision + 1 });
                term_cache::term_of(env, entry, &payload.ok_or(compacted)?, self.keep).ok_or(Stop::Undecodable)
            }
        }
    }

    fn item(&mut self) -> Result<(), Stop> {
        self.entries = self.entries.checked_sub(1).ok_or(Stop::Dirty)?;
        Ok(())
    }

    fn children(&mut self, view: &View, key: &Key) -> Result<u64, Stop> {
        let mut count = 0;
        for _child in entries::child_keys(&view.entries, key) {
            self.steps = self.steps.checked_sub(1).ok_or(Stop::Dirty)?;
            count += 1;
        }
        Ok(count)
    }

    fn looked_at(&self, steps: usize) -> Result<(), Stop> {
        if steps > self.steps { Err(Stop::Dirty) } else { Ok(()) }
    }
}

fn answer<'a, T: Encoder>(env: Env<'a>, result: Result<T, Stop>) -> Term<'a> {
    match result {
        Ok(value) => value.encode(env),
        Err(Stop::Dirty) => atoms::dirty().encode(env),
        Err(Stop::Error(error)) => errors::error(env, &error),
        Err(Stop::Undecodable) => {
            let detail = "a value is not a term's encoding".to_owned();
            errors::error(env, &EngineError::Corrupt { what: "state", detail })
        }
    }
}

/// What there is at a path: `{exists?, revision}`; 0 when it has no value.
#[rustler::nif]
fn node(view: ResourceArc<Handle>, key: Binary<'_>) -> (bool, u64) {
    let (view, key) = (&view.view, Key::from_bytes(&key));
    (entries::exists(&view.entries, &key), view.get(&key).map_or(0, |entry| entry.revision))
}

/// How many direct children a path has, with a value or without.
#[rustler::nif(schedule = "DirtyCpu")]
fn child_count(view: ResourceArc<Handle>, key: Binary<'_>) -> u64 {
    entries::child_count(&view.view.entries, &Key::from_bytes(&key))
}

/// The entry at a path: `{:ok, entry}`, `:not_found`, `:dirty` or `{:error, reason}`. An entry is
/// `{path, value, revision, create_revision, version, child_count, lease}`.
#[rustler::nif]
fn entry<'a>(env: Env<'a>, view: ResourceArc<Handle>, key: Binary<'a>) -> Term<'a> {
    entry_within(env, &view.view, &key, Budget::small())
}

/// See `entry`.
#[rustler::nif(schedule = "DirtyCpu")]
fn entry_large<'a>(env: Env<'a>, view: ResourceArc<Handle>, key: Binary<'a>) -> Term<'a> {
    entry_within(env, &view.view, &key, Budget::unlimited())
}

fn entry_within<'a>(env: Env<'a>, view: &View, key: &[u8], budget: Budget) -> Term<'a> {
    let key = Key::from_bytes(key);
    let mut budget = Budget { keep: Keep::IfReadBefore, ..budget };
    match view.get(&key) {
        None => atoms::not_found().encode(env),
        Some(entry) => {
            let made = made(env, view, &key, entry, true, &mut budget).map(|entry| (atoms::ok(), entry));
            answer(env, made)
        }
    }
}

/// Entries below a path, or `:dirty`. With `keys_only`, their values are nil.
#[rustler::nif]
fn list<'a>(
    env: Env<'a>,
    view: ResourceArc<Handle>,
    prefix: Binary<'a>,
    after: Option<Binary<'a>>,
    limit: usize,
    depth: usize,
    reverse: bool,
    keys_only: bool,
) -> Term<'a> {
    let range = Range { after: after.map(|after| Key::from_bytes(&after)), reverse, depth };
    let listed = listed(env, &view.view, &Key::from_bytes(&prefix), &range, limit, !keys_only, Budget::small());
    answer(env, listed)
}

/// See `list`.
#[rustler::nif(schedule = "DirtyCpu")]
fn list_large<'a>(
    env: Env<'a>,
    view: ResourceArc<Handle>,
    prefix: Binary<'a>,
    after: Option<Binary<'a>>,
    limit: usize,
    depth: usize,
    reverse: bool,
    keys_only: bool,
) -> Term<'a> {
    let range = Range { after: after.map(|after| Key::from_bytes(&after)), reverse, depth };
    let listed = listed(env, &view.view, &Key::from_bytes(&prefix), &range, limit, !keys_only, Budget::unlimited());
    answer(env, listed)
}

fn listed<'a>(
    env: Env<'a>,
    view: &View,
    prefix: &Key,
    range: &Range,
    limit: usize,
    with_values: bool,
    mut budget: Budget,
) -> Result<Vec<Term<'a>>, Stop> {
    let mut items = Vec::new();
    let mut listing = listing::list(&view.entries, prefix, range).within(budget.steps);
    while items.len() < limit {
        let Some((key, entry)) = listing.next() else { break };
        items.push(made(env, view, key, entry, with_values, &mut budget)?);
    }
    budget.looked_at(listing.steps())?;
    Ok(items)
}

/// What matches a pattern, behind the path `after` if that is given; `:dirty` or `{:error, reason}`. `what`:
/// `:count`, how many nodes; `:keys`, their keys; `:values`, `{path, value}` of those with a value;
/// `:entries`, the entries.
#[rustler::nif]
fn select<'a>(
    env: Env<'a>,
    view: ResourceArc<Handle>,
    pattern: Term<'a>,
    what: Atom,
    after: Option<Binary<'a>>,
    limit: usize,
) -> NifResult<Term<'a>> {
    selected(env, &view.view, pattern, what, after, limit, true)
}

/// See `select`.
#[rustler::nif(schedule = "DirtyCpu")]
fn select_large<'a>(
    env: Env<'a>,
    view: ResourceArc<Handle>,
    pattern: Term<'a>,
    what: Atom,
    after: Option<Binary<'a>>,
    limit: usize,
) -> NifResult<Term<'a>> {
    selected(env, &view.view, pattern, what, after, limit, false)
}

fn selected<'a>(
    env: Env<'a>,
    view: &View,
    pattern: Term<'a>,
    what: Atom,
    after: Option<Binary<'a>>,
    limit: usize,
    small: bool,
) -> NifResult<Term<'a>> {
    let pattern = patterns::decode(pattern)?;
    if small && (pattern.is_costly() || !pattern.is_ready()) {
        return Ok(atoms::dirty().encode(env));
    }
    if let Err(error) = pattern.check(usize::MAX) {
        return Ok(errors::error(env, &error));
    }
    let budget = if small { Budget::small() } else { Budget::unlimited() };
    let after = after.map(|after| Key::from_bytes(&after));
    if what == atoms::count() {
        return Ok(answer(env, count(view, &pattern, &budget)));
    }
    let what = [atoms::keys(), atoms::values(), atoms::entries()].into_iter().find(|kind| *kind == what);
    let what = what.ok_or(Error::BadArg)?;
    Ok(answer(env, picked(env, view, &pattern, what, after, limit, budget)))
}

fn count(view: &View, pattern: &Pattern, budget: &Budget) -> Result<u64, Stop> {
    let mut count = 0;
    let mut walk = pattern.walk(&view.entries, None).within(budget.steps);
    while walk.next().is_some() {
        count += 1;
    }
    budget.looked_at(walk.steps())?;
    Ok(count)
}

fn picked<'a>(
    env: Env<'a>,
    view: &View,
    pattern: &Pattern,
    what: Atom,
    after: Option<Key>,
    limit: usize,
    mut budget: Budget,
) -> Result<Vec<Term<'a>>, Stop> {
    let mut items = Vec::new();
    let mut walk = pattern.walk(&view.entries, after).within(budget.steps);
    while items.len() < limit {
        let Some(node) = walk.next() else { break };
        if what == atoms::keys() {
            budget.item()?;
            items.push(binary(env, node.key.as_bytes()));
            continue;
        }
        let Some(entry) = node.entry else { continue };
        if what == atoms::entries() {
            items.push(made(env, view, &node.key, entry, true, &mut budget)?);
        } else {
            let value = budget.value(env, view, &node.key, entry)?;
            items.push((found::path(env, &node.key), value).encode(env));
        }
    }
    budget.looked_at(walk.steps())?;
    Ok(items)
}

/// How many entries there are at a path and below it.
#[rustler::nif(schedule = "DirtyCpu")]
fn subtree_size(view: ResourceArc<Handle>, key: Binary<'_>) -> usize {
    entries::subtree(&view.view.entries, &Key::from_bytes(&key)).count()
}

/// `{path, value, revision, create_revision, version, child_count, lease}`.
fn made<'a>(
    env: Env<'a>,
    view: &View,
    key: &Key,
    entry: &Arc<Entry>,
    with_value: bool,
    budget: &mut Budget,
) -> Result<Term<'a>, Stop> {
    let value = if with_value {
        budget.value(env, view, key, entry)?
    } else {
        budget.item()?;
        atoms::nil().encode(env)
    };
    let child_count = budget.children(view, key)?;
    let path = found::path(env, key);
    Ok((path, value, entry.revision, entry.create_revision, entry.version, child_count, entry.lease).encode(env))
}

fn binary<'a>(env: Env<'a>, bytes: &[u8]) -> Term<'a> {
    let mut binary = NewBinary::new(env, bytes.len());
    binary.as_mut_slice().copy_from_slice(bytes);
    Binary::from(binary).encode(env)
}
