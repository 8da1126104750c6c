//! Reads of a view: entries, lists, and what a pattern matches.
//!
//! Each gives `:dirty` when it would take a normal scheduler too long; then its `_large` form, which
//! runs on a dirty one, is to be called.

use std::sync::Arc;

use rustler::types::tuple::make_tuple;
use rustler::{Atom, Binary, Encoder, Env, Error, NifResult, ResourceArc, Term};
use tank_engine::entry::Entry;
use tank_engine::error::EngineError;
use tank_engine::key::Key;
use tank_engine::listing::{self, Range};
use tank_engine::pattern::Pattern;
use tank_engine::state::Fingerprint;
use tank_engine::view::View;

use crate::found::Paths;
use crate::term_cache::{Keep, NoTerm};
use crate::views::Handle;
use crate::{atoms, commands, errors, found, patterns, term_cache};

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

    fn looked_at(&self, steps: usize) -> Result<(), Stop> {
        if steps > self.steps { Err(Stop::Dirty) } else { Ok(()) }
    }
}

fn answer<'a, T: Encoder>(env: Env<'a>, result: Result<T, Stop>) -> Term<'a> {
    match result {
        Ok(value) => value.encode(env),
        Err(Stop::Dirty) => atoms::dirty().encode(env),
        Err(Stop::Error(error)) => errors::error(env, &error),
        Err(Stop::Undecodable) => errors::undecodable(env),
    }
}

/// What there is at a path: `{exists?, revision}`; 0 when it has no value.
#[rustler::nif]
fn node(view: ResourceArc<Handle>, key: Binary<'_>) -> (bool, u64) {
    let (view, key) = (&view.view, Key::from_bytes(&key));
    (view.tree().exists(&key), view.get(&key).map_or(0, |entry| entry.revision))
}

/// How many direct children a path has, with a value or without.
#[rustler::nif]
fn child_count(view: ResourceArc<Handle>, key: Binary<'_>) -> u64 {
    view.view.tree().child_count(&Key::from_bytes(&key))
}

/// The entry at a path: `{:ok, entry}`, `:not_found`, `:dirty` or `{:error, reason}`. An entry is
/// `{path, value, revision, create_revision, version, child_count, lease, payload_version, child_list_version}`.
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
            let made = made(env, view, &key, entry, true, &mut budget, &mut Paths::default())
                .map(|entry| (atoms::ok(), entry));
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
    let (mut items, mut paths) = (Vec::new(), Paths::default());
    let mut listing = listing::list(&view.entries, prefix, range).within(budget.steps);
    while items.len() < limit {
        let Some((key, entry)) = listing.next() else { break };
        items.push(made(env, view, key, entry, with_values, &mut budget, &mut paths)?);
    }
    budget.looked_at(listing.steps())?;
    Ok(items)
}

/// What matches a pattern, behind the path `after` if that is given; `:dirty` or `{:error, reason}`. `what`:
/// `:count`, how many nodes; `:keys`, their keys; `:values`, `{path, value}` of those with a value;
/// `:entries`, the entries; `:nodes`, all nodes, as `node_info` gives them.
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
    if small && !pattern.is_ready() {
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
    let kinds = [atoms::keys(), atoms::values(), atoms::entries(), atoms::nodes()];
    let what = kinds.into_iter().find(|kind| *kind == what);
    let what = what.ok_or(Error::BadArg)?;
    Ok(answer(env, picked(env, view, &pattern, what, after, limit, budget)))
}

fn count(view: &View, pattern: &Pattern, budget: &Budget) -> Result<u64, Stop> {
    let mut count = 0;
    let mut walk = pattern.walk(view.tree(), None).within(budget.steps);
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
    let (mut items, mut paths) = (Vec::new(), Paths::default());
    let mut walk = pattern.walk(view.tree(), after).within(budget.steps);
    while items.len() < limit {
        let Some(node) = walk.next() else { break };
        if what == atoms::keys() {
            budget.item()?;
            items.push(found::binary(env, node.key.as_bytes()));
            continue;
        }
        if what == atoms::nodes() {
            items.push(node_term(env, view, &node.key, &mut budget, &mut paths)?);
            continue;
        }
        let Some(entry) = node.entry else { continue };
        if what == atoms::entries() {
            items.push(made(env, view, &node.key, entry, true, &mut budget, &mut paths)?);
        } else {
            let value = budget.value(env, view, &node.key, entry)?;
            items.push((paths.path(env, &node.key), value).encode(env));
        }
    }
    budget.looked_at(walk.steps())?;
    Ok(items)
}

/// The values of all nodes that a pattern matches but for those at and below `except`: a map, by their paths, with
/// `default` where there is none; or `:dirty` or `{:error, reason}`. What is read once is not kept decoded.
#[rustler::nif]
fn values_by_path<'a>(
    env: Env<'a>,
    view: ResourceArc<Handle>,
    pattern: Term<'a>,
    except: Binary<'a>,
    default: Term<'a>,
) -> NifResult<Term<'a>> {
    let pattern = patterns::decode(pattern)?;
    if !pattern.is_ready() {
        return Ok(atoms::dirty().encode(env));
    }
    Ok(answer(env, mapped(env, &view.view, &pattern, &Key::from_bytes(&except), default, Budget::small())))
}

/// See `values_by_path`.
#[rustler::nif(schedule = "DirtyCpu")]
fn values_by_path_large<'a>(
    env: Env<'a>,
    view: ResourceArc<Handle>,
    pattern: Term<'a>,
    except: Binary<'a>,
    default: Term<'a>,
) -> NifResult<Term<'a>> {
    let pattern = patterns::decode(pattern)?;
    if let Err(error) = pattern.check(usize::MAX) {
        return Ok(errors::error(env, &error));
    }
    Ok(answer(env, mapped(env, &view.view, &pattern, &Key::from_bytes(&except), default, Budget::unlimited())))
}

fn mapped<'a>(
    env: Env<'a>,
    view: &View,
    pattern: &Pattern,
    except: &Key,
    default: Term<'a>,
    budget: Budget,
) -> Result<Term<'a>, Stop> {
    let mut budget = Budget { keep: Keep::IfReadBefore, ..budget };
    let (mut keys, mut values, mut paths) = (Vec::new(), Vec::new(), Paths::default());
    let mut walk = pattern.walk(view.tree(), None).within(budget.steps);
    for node in walk.by_ref() {
        if node.key.is_within(except) {
            continue;
        }
        values.push(match node.entry {
            Some(entry) => budget.value(env, view, &node.key, entry)?,
            None => budget.item().map(|()| default)?,
        });
        keys.push(paths.path(env, &node.key));
    }
    budget.looked_at(walk.steps())?;
    let twice = |_| Stop::Error(EngineError::Failed("a pattern matched a node twice".to_owned()));
    Term::map_from_term_arrays(env, &keys, &values).map_err(twice)
}

/// The node at a path, with a value or without: `{:ok, node}`, `:not_found`, `:dirty` or `{:error, reason}`. There always
/// is a root. A node is as in an answer ([`found::node`]), with its value in the place of the payload.
#[rustler::nif]
fn node_info<'a>(env: Env<'a>, view: ResourceArc<Handle>, key: Binary<'a>) -> Term<'a> {
    node_within(env, &view.view, &key, Budget::small())
}

/// See `node_info`.
#[rustler::nif(schedule = "DirtyCpu")]
fn node_info_large<'a>(env: Env<'a>, view: ResourceArc<Handle>, key: Binary<'a>) -> Term<'a> {
    node_within(env, &view.view, &key, Budget::unlimited())
}

fn node_within<'a>(env: Env<'a>, view: &View, key: &[u8], budget: Budget) -> Term<'a> {
    let key = Key::from_bytes(key);
    let mut budget = Budget { keep: Keep::IfReadBefore, ..budget };
    if !key.is_root() && !view.tree().exists(&key) {
        return atoms::not_found().encode(env);
    }
    answer(env, node_term(env, view, &key, &mut budget, &mut Paths::default()).map(|node| (atoms::ok(), node)))
}

/// Nodes below a path, as `list` gives entries.
#[rustler::nif]
fn list_nodes<'a>(
    env: Env<'a>,
    view: ResourceArc<Handle>,
    prefix: Binary<'a>,
    after: Option<Binary<'a>>,
    limit: usize,
    depth: usize,
    reverse: bool,
) -> Term<'a> {
    let range = Range { after: after.map(|after| Key::from_bytes(&after)), reverse, depth };
    answer(env, listed_nodes(env, &view.view, &Key::from_bytes(&prefix), &range, limit, Budget::small()))
}

/// See `list_nodes`.
#[rustler::nif(schedule = "DirtyCpu")]
fn list_nodes_large<'a>(
    env: Env<'a>,
    view: ResourceArc<Handle>,
    prefix: Binary<'a>,
    after: Option<Binary<'a>>,
    limit: usize,
    depth: usize,
    reverse: bool,
) -> Term<'a> {
    let range = Range { after: after.map(|after| Key::from_bytes(&after)), reverse, depth };
    answer(env, listed_nodes(env, &view.view, &Key::from_bytes(&prefix), &range, limit, Budget::unlimited()))
}

fn listed_nodes<'a>(
    env: Env<'a>,
    view: &View,
    prefix: &Key,
    range: &Range,
    limit: usize,
    mut budget: Budget,
) -> Result<Vec<Term<'a>>, Stop> {
    let (mut items, mut paths) = (Vec::new(), Paths::default());
    let mut nodes = listing::nodes(view.tree(), prefix, range);
    while items.len() < limit {
        budget.steps = budget.steps.checked_sub(1).ok_or(Stop::Dirty)?;
        match nodes.next() {
            None => break,
            Some(Some(key)) => items.push(node_term(env, view, key, &mut budget, &mut paths)?),
            // Too deep.
            Some(None) => {}
        }
    }
    Ok(items)
}

/// What the conditions that keep the node at a path were made of, or nil.
#[rustler::nif]
fn kept_by<'a>(env: Env<'a>, view: ResourceArc<Handle>, key: Binary<'a>) -> Term<'a> {
    let node = view.view.nodes.get(&Key::from_bytes(&key));
    let kept = node.and_then(|node| node.keep_while.as_ref());
    kept.map(|keep_while| found::binary(env, keep_while.source())).encode(env)
}

/// The nodes with conditions that keep them: `{key, what they were made of}` of each.
#[rustler::nif(schedule = "DirtyCpu")]
fn all_kept(env: Env<'_>, view: ResourceArc<Handle>) -> Vec<Term<'_>> {
    let kept = view.view.nodes.records().filter_map(|(key, node)| Some((key, node.keep_while.as_ref()?)));
    kept.map(|(key, kept)| (found::binary(env, key.as_bytes()), found::binary(env, kept.source())).encode(env))
        .collect()
}

/// The fingerprint of what a pattern matches, for a comparison: `{count, hash}`, or `{:error, reason}`.
#[rustler::nif(schedule = "DirtyCpu")]
fn fingerprint<'a>(env: Env<'a>, view: ResourceArc<Handle>, pattern: Term<'a>, facts: Atom) -> NifResult<Term<'a>> {
    let (pattern, facts) = (patterns::decode(pattern)?, commands::facts(facts)?);
    if let Err(error) = pattern.check(usize::MAX) {
        return Ok(errors::error(env, &error));
    }
    let taken = Fingerprint::of(view.view.tree(), &pattern, facts, |_looks| Ok::<_, std::convert::Infallible>(()));
    Ok(taken.map_or_else(|never| match never {}, |taken| (taken.count, taken.hash).encode(env)))
}

fn node_term<'a>(
    env: Env<'a>,
    view: &View,
    key: &Key,
    budget: &mut Budget,
    paths: &mut Paths<'a>,
) -> Result<Term<'a>, Stop> {
    let (tree, entry) = (view.tree(), view.get(key));
    let value = match entry {
        Some(entry) => budget.value(env, view, key, entry)?,
        None => budget.item().map(|()| atoms::nil().encode(env))?,
    };
    let entry = entry.map(|entry| (entry.revision, entry.create_revision, entry.version, entry.lease));
    let versions = (tree.payload_version(key), tree.child_list_version(key));
    Ok((paths.path(env, key), tree.kind(key), value, versions.0, versions.1, tree.child_count(key), entry).encode(env))
}

/// `{path, value, revision, create_revision, version, child_count, lease}`.
fn made<'a>(
    env: Env<'a>,
    view: &View,
    key: &Key,
    entry: &Arc<Entry>,
    with_value: bool,
    budget: &mut Budget,
    paths: &mut Paths<'a>,
) -> Result<Term<'a>, Stop> {
    let value = if with_value {
        budget.value(env, view, key, entry)?
    } else {
        budget.item()?;
        atoms::nil().encode(env)
    };
    let tree = view.tree();
    let numbers = [
        entry.revision,
        entry.create_revision,
        entry.version,
        tree.child_count(key),
        entry.lease,
        tree.payload_version(key),
        tree.child_list_version(key),
    ];
    let numbers = numbers.into_iter().map(|number| number.encode(env));
    Ok(make_tuple(env, &[paths.path(env, key), value].into_iter().chain(numbers).collect::<Vec<_>>()))
}
