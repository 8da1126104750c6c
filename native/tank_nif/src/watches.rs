//! Watches: a resource that belongs to the process that began it, and ends with it. That process
//! asks for what comes next, and is sent `tank_watch_ready` once when there is something after
//! there was nothing.
//!
//! Values are decoded here, in the calls of that process: on a thread of ours large maps could not
//! be (see `term_cache`).

use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use rustler::{Atom, Binary, Encoder, Env, Error, LocalPid, Monitor, NifResult, OwnedEnv, Resource, ResourceArc, Term};
use tank_engine::engine::{Engine, From, Since};
use tank_engine::entries;
use tank_engine::entry::Entry;
use tank_engine::key::Key;
use tank_engine::reclaim;
use tank_engine::state::{Cause, Change};
use tank_engine::view::View;
use tank_engine::watch::{Budget, Cursor, Filter, Next};

use crate::reads::undecodable;
use crate::store::Store;
use crate::{atoms, errors, found, term_cache};

/// What a normal scheduler decodes and copies in one call: well within a millisecond.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// What it looks at: a few nanoseconds for each that is of no concern.
const SMALL_LOOK_MAX: usize = 2_000;

/// The same for a dirty scheduler; bounds the memory of a watch.
const LARGE_BYTES_MAX: usize = 1 << 20;
const LARGE_LOOK_MAX: usize = 20_000;

/// A watch.
pub(crate) struct Watch {
    cursor: Cursor,
    snapshot: Mutex<Option<Pages>>,
}

/// The rest of a view that is read page by page.
struct Pages {
    view: Arc<View>,
    behind: Bound<Key>,
}

#[rustler::resource_impl]
impl Resource for Watch {
    const IMPLEMENTS_DESTRUCTOR: bool = true;
    const IMPLEMENTS_DOWN: bool = true;

    fn destructor(self, _env: Env<'_>) {
        self.end();
    }

    fn down<'a>(&'a self, _env: Env<'a>, _pid: LocalPid, _monitor: Monitor) {
        self.end();
    }
}

/// Begins a watch of a path and all below it: `{:ok, watch, revision, current}`, `{:error,
/// {:compacted, min}}` or `{:error, reason}`. `from` is `:snapshot`, `:now` or a revision. What
/// changes behind `revision` comes; `current` is the store's at this moment. With `:snapshot`,
/// `watch_snapshot` gives the entries as of `revision`.
#[rustler::nif]
fn watch_start<'a>(env: Env<'a>, store: &'a Store, prefix: Binary<'a>, from: Term<'a>) -> NifResult<Term<'a>> {
    let filter = match Key::checked(&prefix) {
        Ok(key) => Filter::prefix(key),
        Err(error) => return Ok(errors::error(env, &error)),
    };
    let after: Option<u64> = from.decode().ok();
    let word: Option<Atom> = from.decode().ok();
    let with_snapshot = word == Some(atoms::snapshot());
    if after.is_none() && !with_snapshot && word != Some(atoms::now()) {
        return Err(Error::BadArg);
    }
    let pid = env.pid();
    let wake = Box::new(move || {
        let _ = OwnedEnv::new().send_and_clear(&pid, |_| atoms::tank_watch_ready());
    });
    let (cursor, view) = match store.engine.watch(filter, after.map_or(From::Now, From::After), wake) {
        Ok(begun) => begun,
        Err(error) => return Ok(errors::error(env, &error)),
    };
    if after.is_some_and(|after| after < view.compacted) {
        return Ok((atoms::error(), (atoms::compacted(), view.compacted)).encode(env));
    }
    let current = view.revision;
    let revision = after.unwrap_or(current);
    let first = Bound::Included(cursor.filter().fixed().clone());
    let snapshot = with_snapshot.then_some(Pages { view, behind: first });
    let watch = ResourceArc::new(Watch { cursor, snapshot: Mutex::new(snapshot) });
    // It fails when the process is gone; then nothing refers to the watch, and it ends.
    let _ = env.monitor(&watch, &pid);
    Ok((atoms::ok(), watch, revision, current).encode(env))
}

/// The next entries of a watch's snapshot: `{:ok, entries, more?}` or `{:error, reason}`; about
/// as many and as large as is said. An entry is
/// `{path, value, revision, create_revision, version, child_count, lease}`.
#[rustler::nif(schedule = "DirtyCpu")]
fn watch_snapshot<'a>(env: Env<'a>, watch: ResourceArc<Watch>, entries: usize, bytes: usize) -> Term<'a> {
    let mut snapshot = watch.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(pages) = snapshot.take() else {
        return (atoms::ok(), Vec::<Term<'a>>::new(), false).encode(env);
    };
    let filter = watch.cursor.filter();
    let (mut list, mut held, mut last) = (Vec::new(), 0, None);
    let end = Bound::Excluded(filter.fixed().after_subtree());
    let mut rest = pages.view.entries.range((pages.behind.clone(), end));
    while list.len() < entries && held < bytes {
        let Some((key, entry)) = rest.next() else {
            last = None;
            break;
        };
        last = Some(key.clone());
        if filter.passes_entry(key, entry) {
            held += entry.payload.len();
            let Some(entry) = entry_term(env, &pages.view, key, entry) else { return undecodable(env) };
            list.push(entry);
        }
    }
    match last {
        Some(key) => *snapshot = Some(Pages { behind: Bound::Excluded(key), ..pages }),
        None => reclaim::when_unused(pages.view),
    }
    (atoms::ok(), list, snapshot.is_some()).encode(env)
}

/// What comes next, of `revisions` revisions at the most: `{:ok, [{revision, changes}], position}`;
/// `{:idle, position}`, and `tank_watch_ready` is sent when that changes; `{:compacted, min}`;
/// `:dirty` (call `watch_next_large`), or `{:error, reason}`. The watch has looked at everything
/// up to `position`. A change is
/// `{type, path, value, previous, revision, version, {create_revision, lease}}`.
#[rustler::nif]
fn watch_next<'a>(env: Env<'a>, watch: ResourceArc<Watch>, revisions: usize) -> Term<'a> {
    next(env, &watch, Budget { revisions, bytes: SMALL_BYTES_MAX, look: SMALL_LOOK_MAX, patient: false })
}

/// The same, also from the disk, and whatever its size.
#[rustler::nif(schedule = "DirtyIo")]
fn watch_next_large<'a>(env: Env<'a>, watch: ResourceArc<Watch>, revisions: usize) -> Term<'a> {
    next(env, &watch, Budget { revisions, bytes: LARGE_BYTES_MAX, look: LARGE_LOOK_MAX, patient: true })
}

/// Ends a watch.
#[rustler::nif]
fn watch_cancel(watch: ResourceArc<Watch>) -> Atom {
    watch.end();
    atoms::ok()
}

/// What changed below a path since a revision, authoritative: `:unchanged`,
/// `{:ok, changes, revision}`, `{:error, {:compacted, min}}`, `:wait` (see `await_readable`),
/// `:dirty` (call `list_since_large`), or `{:error, reason}`.
#[rustler::nif]
fn list_since<'a>(env: Env<'a>, store: &'a Store, _prefix: Binary<'a>, revision: u64) -> Term<'a> {
    match store.engine.authoritative_view() {
        Ok(Some(view)) => unchanged_or_dirty(env, &view, revision),
        Ok(None) => atoms::wait().encode(env),
        Err(error) => errors::error(env, &error),
    }
}

/// The same as this member knows it.
#[rustler::nif]
fn list_since_local<'a>(env: Env<'a>, store: &'a Store, _prefix: Binary<'a>, revision: u64) -> Term<'a> {
    match store.engine.view() {
        Ok(view) => unchanged_or_dirty(env, &view, revision),
        Err(error) => errors::error(env, &error),
    }
}

/// The same, when something has changed.
#[rustler::nif(schedule = "DirtyIo")]
fn list_since_large<'a>(env: Env<'a>, store: &'a Store, prefix: Binary<'a>, revision: u64) -> Term<'a> {
    let filter = Filter::prefix(Key::from_bytes(&prefix));
    let since = store.engine.view().and_then(|view| store.engine.changes_since(&view, &filter, revision));
    match since {
        Ok(Since::Unchanged) => atoms::unchanged().encode(env),
        Ok(Since::Compacted(min)) => (atoms::error(), (atoms::compacted(), min)).encode(env),
        Ok(Since::Changed(changed)) => {
            let terms = changed.changes.iter().map(|(revision, change)| change_term(env, change, *revision));
            match terms.collect::<Option<Vec<_>>>() {
                Some(changes) => (atoms::ok(), changes, changed.revision).encode(env),
                None => undecodable(env),
            }
        }
        Err(error) => errors::error(env, &error),
    }
}

fn unchanged_or_dirty<'a>(env: Env<'a>, view: &View, revision: u64) -> Term<'a> {
    let unchanged = Engine::is_unchanged(view, revision);
    if unchanged { atoms::unchanged().encode(env) } else { atoms::dirty().encode(env) }
}

impl Watch {
    fn end(&self) {
        self.cursor.cancel();
        let pages = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(pages) = pages {
            reclaim::when_unused(pages.view);
        }
    }
}

fn next<'a>(env: Env<'a>, watch: &Watch, budget: Budget) -> Term<'a> {
    match watch.cursor.next(budget) {
        Ok(Next::Changes(revisions, position)) => {
            let mut list = Vec::with_capacity(revisions.len());
            for revised in &revisions {
                let terms = revised.changes.iter().map(|change| change_term(env, change, revised.revision));
                let Some(changes) = terms.collect::<Option<Vec<_>>>() else { return undecodable(env) };
                list.push((revised.revision, changes));
            }
            (atoms::ok(), list, position).encode(env)
        }
        Ok(Next::Idle(position)) => (atoms::idle(), position).encode(env),
        Ok(Next::Compacted(min)) => (atoms::compacted(), min).encode(env),
        Ok(Next::Large) => atoms::dirty().encode(env),
        Err(error) => errors::error(env, &error),
    }
}

fn entry_term<'a>(env: Env<'a>, view: &View, key: &Key, entry: &Arc<Entry>) -> Option<Term<'a>> {
    let value = term_cache::term(env, entry)?;
    let child_count = entries::child_count(&view.entries, key);
    let numbers = (entry.revision, entry.create_revision, entry.version, child_count, entry.lease);
    let (revision, create_revision, version, child_count, lease) = numbers;
    Some((found::path(env, key), value, revision, create_revision, version, child_count, lease).encode(env))
}

fn change_term<'a>(env: Env<'a>, change: &Change, revision: u64) -> Option<Term<'a>> {
    let kind = match (&change.previous, &change.entry, change.cause) {
        (None, Some(_), _) => atoms::created(),
        (Some(_), Some(_), _) => atoms::updated(),
        (_, None, Cause::Command) => atoms::deleted(),
        (_, None, Cause::Expiry) => atoms::expired(),
    };
    let nil = || atoms::nil().encode(env);
    let value = change.entry.as_ref().map_or_else(|| Some(nil()), |entry| term_cache::term(env, entry))?;
    let previous = change.previous.as_ref().map_or_else(|| Some(nil()), |entry| term_cache::term_once(env, entry))?;
    let (version, create_revision, lease) =
        change.entry.as_ref().map_or((0, 0, 0), |entry| (entry.version, entry.create_revision, entry.lease));
    let path = found::path(env, &change.key);
    Some((kind, path, value, previous, revision, version, (create_revision, lease)).encode(env))
}
