//! Watches: a resource that belongs to the process that began it, and ends with it. That process
//! asks for what comes next, and is sent `tank_watch_ready` once when there is something after
//! there was nothing.
//!
//! Values are decoded here, in the calls of that process: on a thread of ours large maps could not
//! be (see `term_cache`).

use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustler::{
    Atom, Binary, Encoder, Env, LocalPid, Monitor, NifResult, OwnedBinary, OwnedEnv, Resource, ResourceArc, Term,
};
use tank_engine::engine::{From, Place, Position, Since};
use tank_engine::entry::Entry;
use tank_engine::error::EngineError;
use tank_engine::key::Key;
use tank_engine::pattern::Pattern;
use tank_engine::reclaim;
use tank_engine::state::{Cause, Change, NodeNumbers, NodeStep};
use tank_engine::view::View;
use tank_engine::watch::{Alike, Budget, Cursor, Filter, Next};

use crate::store::Store;
use crate::term_cache::{Keep, NoTerm};
use crate::{atoms, errors, found, patterns, term_cache};

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
    alike: Alike,
    snapshot: Mutex<Option<Pages>>,
    /// Whom to tell when the process dies before it has ended the watch.
    subscriber: Mutex<Option<Subscriber>>,
}

/// Who reads what a watch delivers, and by which reference it knows that: in external term format.
struct Subscriber {
    pid: LocalPid,
    reference: OwnedBinary,
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

    fn down<'a>(&'a self, env: Env<'a>, _pid: LocalPid, _monitor: Monitor) {
        let subscriber = self.end();
        let reference = |subscriber: &Subscriber| env.binary_to_term(&subscriber.reference).map(|(term, _)| term);
        if let Some(subscriber) = subscriber
            && let Some(reference) = reference(&subscriber)
        {
            let message = (atoms::store_watch(), reference, (atoms::cancelled(), atoms::store_stopped()));
            // It may be gone as well.
            let _ = env.send(&subscriber.pid, message);
        }
    }
}

/// Begins a watch of a path and all below it, or of a pattern: `{:ok, watch, revision, current, history}`, `{:error,
/// {:compacted, min}}` or `{:error, reason}`. `from` is `:snapshot`, `:now` or a position (see `position`). What
/// changes behind `revision` comes; `current` is the store's at this moment, and `history` the one that it counts in.
/// With `:snapshot`, `watch_snapshot` gives the entries as of `revision`. `asked`: this member holds all that was
/// acknowledged before the call, so that no position can be ahead of it. Of `{:nodes, what}`, it is told what becomes of
/// nodes without a value, and of child lists, too.
///
/// Should the calling process die before it calls `watch_cancel`, `{:store_watch, reference,
/// {:cancelled, :store_stopped}}` is sent to the process `subscriber`.
///
/// Gives `:dirty` when regular expressions have to be compiled first; then `watch_start_large` is to be called.
#[rustler::nif]
fn watch_start<'a>(
    env: Env<'a>,
    store: &'a Store,
    what: Term<'a>,
    from: Term<'a>,
    asked: bool,
    subscriber: LocalPid,
    reference: Term<'a>,
) -> NifResult<Term<'a>> {
    let what = watched(what)?;
    if !what.is_ready() {
        return Ok(atoms::dirty().encode(env));
    }
    begin(env, store, what, from, asked, subscriber, reference)
}

/// The same, on a dirty CPU scheduler.
#[rustler::nif(schedule = "DirtyCpu")]
fn watch_start_large<'a>(
    env: Env<'a>,
    store: &'a Store,
    what: Term<'a>,
    from: Term<'a>,
    asked: bool,
    subscriber: LocalPid,
    reference: Term<'a>,
) -> NifResult<Term<'a>> {
    begin(env, store, watched(what)?, from, asked, subscriber, reference)
}

fn begin<'a>(
    env: Env<'a>,
    store: &'a Store,
    what: Watched,
    from: Term<'a>,
    asked: bool,
    subscriber: LocalPid,
    reference: Term<'a>,
) -> NifResult<Term<'a>> {
    let filter = match what.filter(store) {
        Ok(filter) => filter,
        Err(error) => return Ok(errors::error(env, &error)),
    };
    let word: Option<Atom> = from.decode().ok();
    let with_snapshot = word == Some(atoms::snapshot());
    let after = if with_snapshot || word == Some(atoms::now()) { None } else { Some(position(from)?) };
    let pid = env.pid();
    let wake = Box::new(move || {
        let _ = OwnedEnv::new().send_and_clear(&pid, |_| atoms::tank_watch_ready());
    });
    let (cursor, view) = match store.engine.watch(filter, after.map_or(From::Now, |at| From::After(at.revision)), wake)
    {
        Ok(begun) => begun,
        Err(error) => return Ok(errors::error(env, &error)),
    };
    if let Some(Place::Compacted(min)) = after.map(|at| store.engine.place(&view, at, asked)) {
        return Ok((atoms::error(), (atoms::compacted(), min)).encode(env));
    }
    let (current, history) = (view.revision, found::history(store.engine.history_id(view.history)));
    let revision = after.map_or(current, |at| at.revision);
    let first = Bound::Included(cursor.filter().fixed().clone());
    let snapshot = with_snapshot.then_some(Pages { view, behind: first });
    let subscriber = Subscriber { pid: subscriber, reference: reference.to_binary() };
    let subscriber = Mutex::new(Some(subscriber));
    let alike = store.alike_watches.join(cursor.filter());
    let watch = ResourceArc::new(Watch { cursor, alike, snapshot: Mutex::new(snapshot), subscriber });
    // It fails when the process is gone; then nothing refers to the watch, and it ends.
    let _ = env.monitor(&watch, &pid);
    Ok((atoms::ok(), watch, revision, current, history).encode(env))
}

/// The next entries of a watch's snapshot: `{:ok, entries, more?}` or `{:error, reason}`; about
/// as many and as large as is said, fewer or none when it looked at many that do not match. An entry is
/// `{path, value, revision, create_revision, version, child_count, lease}`.
#[rustler::nif(schedule = "DirtyCpu")]
fn watch_snapshot<'a>(env: Env<'a>, watch: ResourceArc<Watch>, entries: usize, bytes: usize) -> Term<'a> {
    let mut snapshot = watch.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(pages) = snapshot.take() else {
        return (atoms::ok(), Vec::<Term<'a>>::new(), false).encode(env);
    };
    let filter = watch.cursor.filter();
    let (mut list, mut held, mut looked, mut last) = (Vec::new(), 0, 0, None);
    let end = Bound::Excluded(filter.fixed().after_subtree());
    let mut rest = pages.view.entries.range((pages.behind.clone(), end));
    while list.len() < entries && held < bytes && looked < LARGE_LOOK_MAX {
        looked += 1;
        let Some((key, entry)) = rest.next() else {
            last = None;
            break;
        };
        last = Some(key.clone());
        if filter.passes_entry(key, entry) {
            held += entry.payload.len();
            match entry_term(env, &pages.view, key, entry) {
                Ok(entry) => list.push(entry),
                Err(why) => return no_value(env, why, || watch.cursor.compacted()),
            }
        }
    }
    match last {
        Some(key) => *snapshot = Some(Pages { behind: Bound::Excluded(key), ..pages }),
        None => reclaim::when_unused(pages.view),
    }
    (atoms::ok(), list, snapshot.is_some()).encode(env)
}

/// What comes next, of `revisions` revisions at the most: `{:ok, [{revision, changes}], position}`;
/// `{:idle, position}` when there is nothing, and `tank_watch_ready` is sent when that changes; `{:last, [{revision,
/// changes}], position}` for both at once; `{:compacted, min}`; `:dirty` (call `watch_next_large`), or `{:error, reason}`. The watch has looked at everything
/// up to `position`. A change is
/// `{type, path, value, previous, revision, version, {create_revision, lease, matches?}}`: whether
/// there is an entry afterwards that is of what is watched. Behind the changes comes what became of nodes, if that is
/// asked for: `{:node, path, before, after, value}`, with `{payload_version, child_list_version, child_count}` or nil for no
/// node, and `{:value, value}` or nil.
#[rustler::nif]
fn watch_next<'a>(env: Env<'a>, watch: ResourceArc<Watch>, revisions: usize) -> Term<'a> {
    next(
        env,
        &watch,
        Budget { revisions, bytes: SMALL_BYTES_MAX, look: SMALL_LOOK_MAX, changes: SMALL_LOOK_MAX, patient: false },
    )
}

/// The same, also from the disk, and whatever its size.
#[rustler::nif(schedule = "DirtyIo")]
fn watch_next_large<'a>(env: Env<'a>, watch: ResourceArc<Watch>, revisions: usize) -> Term<'a> {
    next(
        env,
        &watch,
        Budget { revisions, bytes: LARGE_BYTES_MAX, look: LARGE_LOOK_MAX, changes: LARGE_LOOK_MAX, patient: true },
    )
}

/// Ends a watch.
#[rustler::nif]
fn watch_cancel(watch: ResourceArc<Watch>) -> Atom {
    watch.end();
    atoms::ok()
}

/// The number of the group of watches of the same in this store; nil while there is no other one.
#[rustler::nif]
fn watch_group(watch: ResourceArc<Watch>) -> Option<u64> {
    watch.alike.group()
}

/// Makes a watch go on behind a revision; it does not wait for what comes any more.
#[rustler::nif]
fn watch_move(watch: ResourceArc<Watch>, revision: u64) -> Atom {
    watch.cursor.go_on_behind(revision);
    atoms::ok()
}

/// What changed below a path, or of what a pattern matches, since a position, authoritative: `:unchanged`,
/// `{:ok, changes, revision}`, `{:error, {:compacted, min}}`, `:wait` (see `await_readable`),
/// `:dirty` (call `list_since_large`), or `{:error, reason}`.
#[rustler::nif]
fn list_since<'a>(env: Env<'a>, store: &'a Store, what: Term<'a>, since: Term<'a>) -> NifResult<Term<'a>> {
    let since = position(since)?;
    Ok(match (check(store, what)?, store.engine.authoritative_view()) {
        (Err(error), _) | (_, Err(error)) => errors::error(env, &error),
        (Ok(_), Ok(None)) => atoms::wait().encode(env),
        (Ok(true), Ok(Some(view))) => unchanged_or_dirty(env, store.engine.place(&view, since, true)),
        (Ok(false), Ok(Some(_))) => atoms::dirty().encode(env),
    })
}

/// The same as this member knows it.
#[rustler::nif]
fn list_since_local<'a>(env: Env<'a>, store: &'a Store, what: Term<'a>, since: Term<'a>) -> NifResult<Term<'a>> {
    let since = position(since)?;
    Ok(match (check(store, what)?, store.engine.view()) {
        (Err(error), _) | (_, Err(error)) => errors::error(env, &error),
        (Ok(true), Ok(view)) => unchanged_or_dirty(env, store.engine.place(&view, since, false)),
        (Ok(false), Ok(_)) => atoms::dirty().encode(env),
    })
}

/// The same, when something has changed; authoritative if this member was `asked` to be, and has heard how new it
/// should be.
#[rustler::nif(schedule = "DirtyIo")]
fn list_since_large<'a>(
    env: Env<'a>,
    store: &'a Store,
    what: Term<'a>,
    since: Term<'a>,
    asked: bool,
) -> NifResult<Term<'a>> {
    let (filter, since) = (watched(what)?.filter(store), position(since)?);
    Ok(filter.and_then(|filter| changed(env, store, &filter, since, asked)).unwrap_or_else(|e| errors::error(env, &e)))
}

/// Whether this member's view has not come to a position yet.
#[rustler::nif]
fn is_ahead<'a>(env: Env<'a>, store: &'a Store, at: Term<'a>) -> NifResult<Term<'a>> {
    let at = position(at)?;
    Ok(match store.engine.view() {
        Ok(view) => matches!(store.engine.place(&view, at, false), Place::Ahead).encode(env),
        Err(error) => errors::error(env, &error),
    })
}

/// The id of the history that the store is in, as this member knows it: `{:ok, history}` or `{:error, reason}`.
#[rustler::nif]
fn history<'a>(env: Env<'a>, store: &'a Store) -> Term<'a> {
    match store.engine.view() {
        Ok(view) => (atoms::ok(), found::history(store.engine.history_id(view.history))).encode(env),
        Err(error) => errors::error(env, &error),
    }
}

/// A revision, or `{history, revision}`.
pub(crate) fn position(term: Term<'_>) -> NifResult<Position> {
    if let Ok(revision) = term.decode::<u64>() {
        return Ok(Position { history: None, revision });
    }
    let (history, revision): (&str, u64) = term.decode()?;
    // What is no id is none of this store's.
    Ok(Position { history: Some(u64::from_str_radix(history, 16).unwrap_or(0)), revision })
}

fn changed<'a>(
    env: Env<'a>,
    store: &Store,
    filter: &Filter,
    since: Position,
    asked: bool,
) -> Result<Term<'a>, EngineError> {
    let view = Arc::clone(&*store.engine.view()?);
    Ok(match store.engine.changes_since(&view, filter, since, asked)? {
        Since::Unchanged => atoms::unchanged().encode(env),
        Since::Compacted(min) => (atoms::error(), (atoms::compacted(), min)).encode(env),
        Since::Changed(changed) => {
            let read: &Read<'_> = &|key, entry| view.payload(key, entry);
            let term = |(revision, change): &(u64, Change)| change_term(env, filter, change, *revision, read);
            let terms = changed.changes.iter().map(term);
            match terms.collect::<Result<Vec<_>, _>>() {
                Ok(changes) => (atoms::ok(), changes, changed.revision).encode(env),
                Err(why) => no_value(env, why, || store.engine.view().map(|view| view.compacted)),
            }
        }
    })
}

/// Tells an invalid pattern also while nothing has changed; `false` when that takes too long here. A
/// path is not looked at: a store that holds nothing new is asked again and again.
fn check(store: &Store, what: Term<'_>) -> NifResult<Result<bool, EngineError>> {
    if what.is_binary() {
        return Ok(Ok(true));
    }
    let what = watched(what)?;
    Ok(if what.is_ready() { what.filter(store).map(|_| true) } else { Ok(false) })
}

/// A path as a key, for all at it and below, or a pattern.
enum Watched {
    Below(Vec<u8>),
    Matching(Pattern),
    /// The same, with nodes.
    Nodes(Box<Watched>),
}

fn watched(what: Term<'_>) -> NifResult<Watched> {
    if let Ok((tag, what)) = what.decode::<(Atom, Term<'_>)>()
        && tag == atoms::nodes()
    {
        return watched(what).map(|what| Watched::Nodes(Box::new(what)));
    }
    match what.decode::<Binary<'_>>() {
        Ok(prefix) => Ok(Watched::Below(prefix.to_vec())),
        Err(_) => patterns::decode(what).map(Watched::Matching),
    }
}

impl Watched {
    /// Whether `filter` compiles nothing.
    fn is_ready(&self) -> bool {
        match self {
            Self::Below(_) => true,
            Self::Matching(pattern) => pattern.is_ready(),
            Self::Nodes(what) => what.is_ready(),
        }
    }

    fn filter(self, store: &Store) -> Result<Filter, EngineError> {
        match self {
            Self::Below(prefix) => {
                let prefix = Key::from_bytes(&prefix);
                store.engine.check_path(&prefix).map(|()| Filter::prefix(prefix))
            }
            Self::Matching(pattern) => Filter::pattern(pattern),
            Self::Nodes(what) => what.filter(store).map(Filter::with_nodes),
        }
    }
}

fn unchanged_or_dirty(env: Env<'_>, place: Place) -> Term<'_> {
    match place {
        Place::At | Place::Ahead => atoms::unchanged().encode(env),
        Place::Compacted(min) => (atoms::error(), (atoms::compacted(), min)).encode(env),
        Place::Before => atoms::dirty().encode(env),
    }
}

impl Watch {
    /// Ends it. Gives whom to tell, the first time.
    fn end(&self) -> Option<Subscriber> {
        self.cursor.cancel();
        let pages = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(pages) = pages {
            reclaim::when_unused(pages.view);
        }
        self.subscriber.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn compacted<'a>(env: Env<'a>, watch: &Watch) -> Term<'a> {
    match watch.cursor.compacted() {
        Ok(min) => (atoms::compacted(), min).encode(env),
        Err(error) => errors::error(env, &error),
    }
}

fn next<'a>(env: Env<'a>, watch: &Watch, budget: Budget) -> Term<'a> {
    let read: &Read<'_> = &|key, entry| watch.cursor.payload(key, entry);
    match watch.cursor.next(budget) {
        Ok(Next::Changes(revisions, position)) => {
            let mut list = Vec::with_capacity(revisions.len());
            for revised in &revisions {
                let filter = watch.cursor.filter();
                let term = |change| change_term(env, filter, change, revised.revision, read);
                let steps = revised.nodes.iter().filter(|step| filter.passes_step(step));
                let steps = steps.map(|step| step_term(env, step, read));
                match revised.changes.iter().map(term).chain(steps).collect::<Result<Vec<_>, _>>() {
                    Ok(changes) => list.push((revised.revision, changes)),
                    Err(NoValue::Compacted) => return compacted(env, watch),
                    Err(why) => return no_value(env, why, || watch.cursor.compacted()),
                }
            }
            let rests = !revisions.is_empty() && watch.cursor.rest();
            (if rests { atoms::last() } else { atoms::ok() }, list, position).encode(env)
        }
        Ok(Next::Idle(position)) => (atoms::idle(), position).encode(env),
        Ok(Next::Compacted(min)) => (atoms::compacted(), min).encode(env),
        Ok(Next::Large) => atoms::dirty().encode(env),
        Err(error) => errors::error(env, &error),
    }
}

fn entry_term<'a>(env: Env<'a>, view: &View, key: &Key, entry: &Arc<Entry>) -> Result<Term<'a>, NoValue> {
    let value = value_term(env, key, entry, Keep::IfReadBefore, &|key, entry| view.payload(key, entry))?;
    let child_count = view.tree().child_count(key);
    let numbers = (entry.revision, entry.create_revision, entry.version, child_count, entry.lease);
    let (revision, create_revision, version, child_count, lease) = numbers;
    Ok((found::path(env, key), value, revision, create_revision, version, child_count, lease).encode(env))
}

fn change_term<'a>(
    env: Env<'a>,
    filter: &Filter,
    change: &Change,
    revision: u64,
    read: &Read<'_>,
) -> Result<Term<'a>, NoValue> {
    let kind = match (&change.previous, &change.entry, change.cause) {
        (None, Some(_), _) => atoms::created(),
        (Some(_), Some(_), _) => atoms::updated(),
        (_, None, Cause::Command) => atoms::deleted(),
        (_, None, Cause::Expiry) => atoms::expired(),
    };
    let nil = || Ok(atoms::nil().encode(env));
    let value_term = |entry: &Option<Arc<Entry>>, keep| {
        entry.as_ref().map_or_else(nil, |entry| value_term(env, &change.key, entry, keep, read))
    };
    let value = value_term(&change.entry, Keep::IfReadBefore)?;
    let previous = value_term(&change.previous, Keep::Never)?;
    let (version, create_revision, lease) =
        change.entry.as_ref().map_or((0, 0, 0), |entry| (entry.version, entry.create_revision, entry.lease));
    let matches = change.entry.as_ref().is_some_and(|entry| filter.passes_entry(&change.key, entry));
    let path = found::path(env, &change.key);
    Ok((kind, path, value, previous, revision, version, (create_revision, lease, matches)).encode(env))
}

fn step_term<'a>(env: Env<'a>, step: &NodeStep, read: &Read<'_>) -> Result<Term<'a>, NoValue> {
    let numbers = |numbers: &NodeNumbers| (numbers.payload_version, numbers.child_list_version, numbers.child_count);
    let (before, after) = (step.before.as_ref().map(numbers), step.after.as_ref().map(numbers));
    let value = match &step.entry {
        Some(entry) => Some((atoms::value(), value_term(env, &step.key, entry, Keep::IfReadBefore, read)?)),
        None => None,
    };
    Ok((atoms::node(), found::path(env, &step.key), before, after, value).encode(env))
}

/// Why there is no term of a value.
enum NoValue {
    Undecodable,
    /// Its version was compacted while it was being read.
    Compacted,
    Error(EngineError),
}

/// Reads a payload that is not in memory.
type Read<'r> = dyn Fn(&Key, &Entry) -> Result<Option<Bytes>, EngineError> + 'r;

/// A value as a term; `keep`: see there.
fn value_term<'a>(
    env: Env<'a>,
    key: &Key,
    entry: &Arc<Entry>,
    keep: Keep,
    read: &Read<'_>,
) -> Result<Term<'a>, NoValue> {
    match term_cache::term(env, entry, keep) {
        Ok(term) => Ok(term),
        Err(NoTerm::Undecodable) => Err(NoValue::Undecodable),
        Err(NoTerm::OnDisk) => read_term(env, key, entry, read),
    }
}

fn read_term<'a>(env: Env<'a>, key: &Key, entry: &Arc<Entry>, read: &Read<'_>) -> Result<Term<'a>, NoValue> {
    let payload = read(key, entry).map_err(NoValue::Error)?.ok_or(NoValue::Compacted)?;
    term_cache::decode(env, &payload).ok_or(NoValue::Undecodable)
}

fn no_value(env: Env<'_>, why: NoValue, compacted: impl FnOnce() -> Result<u64, EngineError>) -> Term<'_> {
    match why {
        NoValue::Undecodable => errors::undecodable(env),
        NoValue::Error(error) => errors::error(env, &error),
        NoValue::Compacted => match compacted() {
            Ok(min) => (atoms::error(), (atoms::compacted(), min)).encode(env),
            Err(error) => errors::error(env, &error),
        },
    }
}
