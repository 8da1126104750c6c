//! Reads: answered from the current view at once, without a message.

use std::sync::Arc;
use std::time::Duration;

use rustler::{Atom, Binary, Encoder, Env, NifResult, Term, types};
use tank_engine::entry::Entry;
use tank_engine::key::{Component, Key};
use tank_engine::last_changed::LastChanged;
use tank_engine::view::View;

use crate::store::Store;
use crate::term_cache::{Keep, NoTerm};
use crate::{atoms, errors, prefetch, reply, term_cache};

/// A list of more entries, or of more bytes, is copied on a dirty scheduler: 300 pods take 0.3 ms.
const LIST_ENTRIES_MAX: usize = 300;
const LIST_BYTES_MAX: usize = 512 << 10;

/// How many entries before its turn an entry's memory is asked for.
const ENTRIES_AHEAD: usize = 8;

/// A list that takes up less on the heap is not worth a second call.
const ROOM_WORDS_MIN: usize = 4096;

/// How large a list may be.
#[derive(Clone, Copy)]
enum Limit {
    /// As a normal scheduler may copy it.
    Small,
    None,
}

/// A direct child: the encoding of its name, and its entry.
type Child<'v> = (&'v [u8], &'v Arc<Entry>);

/// The value at a key, authoritative: `{:ok, value}`, `{:keep, value, slot, revision}` (the same; it is
/// read again and again, and may be kept: see `is_current`), `:not_found`, `:wait` (see
/// `await_readable`), `:dirty` (call `get_large`), or `{:error, reason}`.
#[rustler::nif]
fn get<'a>(env: Env<'a>, store: &'a Store, key: Binary<'a>) -> Term<'a> {
    match store.engine.authoritative_view() {
        Ok(Some(view)) => value_at(env, store, &view, key, true),
        Ok(None) => atoms::wait().encode(env),
        Err(error) => errors::error(env, &error),
    }
}

/// The value at a key as this member knows it: as `get`, without `:wait`.
#[rustler::nif]
fn get_local<'a>(env: Env<'a>, store: &'a Store, key: Binary<'a>) -> Term<'a> {
    match store.engine.view() {
        Ok(view) => value_at(env, store, &view, key, true),
        Err(error) => errors::error(env, &error),
    }
}

/// As `get_local`, for values that a normal scheduler should not copy.
#[rustler::nif(schedule = "DirtyCpu")]
fn get_local_large<'a>(env: Env<'a>, store: &'a Store, key: Binary<'a>) -> Term<'a> {
    match store.engine.view() {
        Ok(view) => value_at(env, store, &view, key, false),
        Err(error) => errors::error(env, &error),
    }
}

/// As `get`, for values that a normal scheduler should not copy.
#[rustler::nif(schedule = "DirtyCpu")]
fn get_large<'a>(env: Env<'a>, store: &'a Store, key: Binary<'a>) -> Term<'a> {
    match store.engine.authoritative_view() {
        Ok(Some(view)) => value_at(env, store, &view, key, false),
        Ok(None) => atoms::wait().encode(env),
        Err(error) => errors::error(env, &error),
    }
}

/// Whether what `get` gave with this slot and revision is what it would give now. `:wait` when it is what
/// `get_local` would give, but `get` would say the same.
#[rustler::nif]
fn is_current<'a>(env: Env<'a>, store: &Store, slot: u32, revision: u64) -> Term<'a> {
    match store.engine.is_current(slot, revision) {
        Some(current) => current.encode(env),
        None => atoms::wait().encode(env),
    }
}

/// As `is_current`, for `get_local`.
#[rustler::nif]
fn is_current_here(store: &Store, slot: u32, revision: u64) -> bool {
    store.engine.is_current_here(slot, revision)
}

/// The values of the direct children of a path, in the order of their names: a list, `:dirty`
/// (call `values_large`), `{:room, heap, binaries}` (call again with that many words of room, and
/// `roomy`; see Tank.Store.Room), or `{:error, reason}`.
#[rustler::nif]
fn values<'a>(env: Env<'a>, store: &'a Store, prefix: Binary<'a>, roomy: bool) -> Term<'a> {
    list(env, store, prefix, Limit::Small, roomy, |_, _, value| Some(value))
}

/// As `values`, on a dirty scheduler.
#[rustler::nif(schedule = "DirtyCpu")]
fn values_large<'a>(env: Env<'a>, store: &'a Store, prefix: Binary<'a>, roomy: bool) -> Term<'a> {
    list(env, store, prefix, Limit::None, roomy, |_, _, value| Some(value))
}

/// As `values`, with `{kind, name, value}` for each: `kind` is `:atom | :string`, `name` a binary.
#[rustler::nif]
fn children<'a>(env: Env<'a>, store: &'a Store, prefix: Binary<'a>, roomy: bool) -> Term<'a> {
    list(env, store, prefix, Limit::Small, roomy, named)
}

/// As `children`, on a dirty scheduler.
#[rustler::nif(schedule = "DirtyCpu")]
fn children_large<'a>(env: Env<'a>, store: &'a Store, prefix: Binary<'a>, roomy: bool) -> Term<'a> {
    list(env, store, prefix, Limit::None, roomy, named)
}

/// Asks for the view to become authoritative: `{:ok, call}`, and `{reference, :ok}` or
/// `{reference, {:error, reason}}` comes within `timeout_ms`; or `{:error, reason}` at once.
#[rustler::nif]
fn await_readable<'a>(env: Env<'a>, store: &'a Store, reference: Term<'a>, timeout_ms: u64) -> NifResult<Term<'a>> {
    let (call, reply) = reply::expect(env, reply::reference(reference)?, |env, ()| atoms::ok().encode(env));
    Ok(match store.engine.await_readable(Duration::from_millis(timeout_ms), reply) {
        Ok(()) => (atoms::ok(), call).encode(env),
        Err((error, reply)) => {
            reply::refuse(&call, reply);
            errors::error(env, &error)
        }
    })
}

/// Who can be asked for a read index now: `{node, store_id, cluster_id, member_id}`; nil when this
/// member leads, or knows no leader.
#[rustler::nif]
fn leader_elsewhere<'a>(env: Env<'a>, store: &'a Store) -> Term<'a> {
    let nil = types::atom::nil().encode(env);
    let Some(leader) = store.engine.leader_elsewhere() else { return nil };
    // The name of a node that was connected once is an atom.
    let Ok(node) = Atom::existing_from_utf8_bytes(env, leader.node.as_bytes()) else { return nil };
    (node, store.engine.identity().store_id.as_str(), leader.cluster_id, leader.member_id).encode(env)
}

/// The log index from which on a view is current for who asked just now; nil when this is not the
/// member that is asked, or it does not surely lead.
#[rustler::nif]
fn read_index(store: &Store, cluster_id: u64, member_id: u64) -> Option<u64> {
    store.engine.read_index(cluster_id, member_id)
}

/// Whether this member has applied the log up to `index`.
#[rustler::nif]
fn has_applied(store: &Store, index: u64) -> bool {
    store.engine.has_applied(index)
}

/// Asks for that: `{:ok, call}`, and `{reference, :ok}` or `{reference, {:error, reason}}` comes
/// within `timeout_ms`.
#[rustler::nif]
fn await_applied<'a>(
    env: Env<'a>,
    store: &'a Store,
    reference: Term<'a>,
    index: u64,
    timeout_ms: u64,
) -> NifResult<Term<'a>> {
    let (call, reply) = reply::expect(env, reply::reference(reference)?, |env, ()| atoms::ok().encode(env));
    store.engine.await_applied(index, Duration::from_millis(timeout_ms), reply);
    Ok((atoms::ok(), call).encode(env))
}

/// As `await_readable`, once a majority has answered after the call.
#[rustler::nif]
fn await_quorum<'a>(env: Env<'a>, store: &'a Store, reference: Term<'a>, timeout_ms: u64) -> NifResult<Term<'a>> {
    let (call, reply) = reply::expect(env, reply::reference(reference)?, |env, ()| atoms::ok().encode(env));
    store.engine.await_quorum(Duration::from_millis(timeout_ms), reply);
    Ok((atoms::ok(), call).encode(env))
}

fn value_at<'a>(env: Env<'a>, store: &Store, view: &View, key: Binary<'_>, small_only: bool) -> Term<'a> {
    let Some(entry) = view.get_bytes(&key) else { return atoms::not_found().encode(env) };
    if small_only && term_cache::is_large(entry.payload.len()) {
        return atoms::dirty().encode(env);
    }
    // Where memory has a bound, what is kept has to count in it.
    let callers_keep = small_only && !store.engine.has_bounded_memory();
    match term_cache::term(env, entry, if callers_keep { Keep::Never } else { Keep::IfReadBefore }) {
        Ok(value) if callers_keep && entry.read_before() => {
            (atoms::keep(), value, LastChanged::slot(&key), view.revision).encode(env)
        }
        Ok(value) => (atoms::ok(), value).encode(env),
        Err(NoTerm::Undecodable) => errors::undecodable(env),
        Err(NoTerm::OnDisk) if small_only => atoms::dirty().encode(env),
        Err(NoTerm::OnDisk) => match read(env, view, &Key::from_bytes(&key), entry, Keep::IfReadBefore) {
            Ok(value) => (atoms::ok(), value).encode(env),
            Err(instead) => instead,
        },
    }
}

/// The value of an entry that is on the disk; or what to return instead.
fn read<'a>(env: Env<'a>, view: &View, key: &Key, entry: &Arc<Entry>, keep: Keep) -> Result<Term<'a>, Term<'a>> {
    match view.payload(key, entry) {
        Ok(Some(payload)) => term_cache::term_of(env, entry, &payload, keep).ok_or_else(|| errors::undecodable(env)),
        // It was compacted meanwhile: there is a newer view to read.
        Ok(None) => Err(atoms::dirty().encode(env)),
        Err(error) => Err(errors::error(env, &error)),
    }
}

/// The direct children of `prefix`, each made a term by `item`.
fn list<'a>(
    env: Env<'a>,
    store: &Store,
    prefix: Binary<'_>,
    limit: Limit,
    roomy: bool,
    item: impl Fn(Env<'a>, &[u8], Term<'a>) -> Option<Term<'a>>,
) -> Term<'a> {
    let view = match store.engine.view() {
        Ok(view) => view,
        Err(error) => return errors::error(env, &error),
    };
    let prefix = Key::from_bytes(&prefix);
    let Some(children) = gather(&view, &prefix, limit) else { return atoms::dirty().encode(env) };
    let (heap, binaries) = room(&children);
    if !roomy && heap > ROOM_WORDS_MIN {
        return (atoms::room(), heap, binaries).encode(env);
    }
    let mut items = Vec::with_capacity(children.len());
    for (at, (leaf, entry)) in children.iter().enumerate() {
        if let Some((_, next)) = children.get(at + 1) {
            term_cache::prefetch(next);
        }
        let value = match term_cache::term(env, entry, Keep::Now) {
            Ok(value) => value,
            Err(NoTerm::Undecodable) => return errors::undecodable(env),
            Err(NoTerm::OnDisk) => match read(env, &view, &prefix.child(leaf), entry, Keep::Now) {
                Ok(value) => value,
                Err(instead) => return instead,
            },
        };
        let Some(term) = item(env, leaf, value) else { return errors::undecodable(env) };
        items.push(term);
    }
    items.encode(env)
}

/// The direct children of `prefix`; `None` when there are more below it than `limit` allows.
fn gather<'v>(view: &'v View, prefix: &Key, limit: Limit) -> Option<Vec<Child<'v>>> {
    if let Limit::Small = limit
        && is_long(view, prefix)
    {
        return None;
    }
    Some(view.children(prefix).collect())
}

/// The words that a list of `children` takes up, about: on the heap, and in binaries beside it.
fn room(children: &[Child<'_>]) -> (usize, usize) {
    // The list's own, and those of the tuple and the name that `named` adds.
    const EACH: usize = 2 + 4 + 2;
    let (mut heap, mut binaries) = (0, 0);
    for (at, (leaf, entry)) in children.iter().enumerate() {
        if let Some((_, later)) = children.get(at + ENTRIES_AHEAD) {
            prefetch::line(Arc::as_ptr(later).addr());
        }
        let room = term_cache::room(entry);
        heap += room.heap as usize + EACH + leaf.len() / size_of::<usize>();
        binaries += room.binaries as usize;
    }
    (heap, binaries)
}

fn is_long(view: &View, prefix: &Key) -> bool {
    let mut bytes = 0;
    for (count, (_, entry)) in view.subtree(prefix).enumerate() {
        bytes += entry.payload.len();
        if count >= LIST_ENTRIES_MAX || bytes > LIST_BYTES_MAX || entry.is_evicted() {
            return true;
        }
    }
    false
}

fn named<'a>(env: Env<'a>, leaf: &[u8], value: Term<'a>) -> Option<Term<'a>> {
    let components = Key::from_bytes(leaf).components().ok()?;
    let (kind, name): (Atom, &[u8]) = match components.first()? {
        Component::Atom(name) => (atoms::atom(), name),
        Component::String(name) => (atoms::string(), name),
    };
    let mut binary = rustler::NewBinary::new(env, name.len());
    binary.as_mut_slice().copy_from_slice(name);
    Some((kind, Binary::from(binary), value).encode(env))
}
