//! Backups, and what export and import need: all entries of one view, page by page, and many
//! writes at once.

use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use rustler::{Atom, Binary, Encoder, Env, NifResult, Resource, ResourceArc, Term};
use tank_engine::backup::{self, About, Progress};
use tank_engine::command::{Command, Compare, Op, Relation, Txn, Write};
use tank_engine::error::EngineError;
use tank_engine::key::Key;
use tank_engine::nodes::VALUE;
use tank_engine::reclaim;
use tank_engine::view::View;

use crate::store::Store;
use crate::writes::hand_over;
use crate::{atoms, errors, found, threads};

/// How far a backup is. Nobody refers to it any more but the one who works: then the work ends.
struct Work(Arc<Progress>);

#[rustler::resource_impl]
impl Resource for Work {
    const IMPLEMENTS_DESTRUCTOR: bool = true;

    fn destructor(self, _env: Env<'_>) {
        self.0.cancel();
    }
}

/// All entries at one revision, for as long as this is referred to.
struct Pinned(Option<Arc<View>>);

#[rustler::resource_impl]
impl Resource for Pinned {
    const IMPLEMENTS_DESTRUCTOR: bool = true;

    fn destructor(mut self, _env: Env<'_>) {
        // What only it still held may be much.
        if let Some(view) = self.0.take() {
            reclaim::when_unused(view);
        }
    }
}

/// For `backup`, `restore` and `progress_of`.
#[rustler::nif]
fn progress() -> ResourceArc<Work> {
    ResourceArc::new(Work(Arc::default()))
}

/// `{done, total}` in bytes, about.
#[rustler::nif]
fn progress_of(work: ResourceArc<Work>) -> (u64, u64) {
    work.0.read()
}

/// Makes `backup` or `restore` with this progress fail soon.
#[rustler::nif]
fn cancel_progress(work: ResourceArc<Work>) -> Atom {
    work.0.cancel();
    atoms::ok()
}

/// Writes a backup to the file `path`. Answers by message ([`threads`]): `{:ok, about}` or `{:error, reason}`.
#[rustler::nif]
fn backup<'a>(
    env: Env<'a>,
    reference: Term<'a>,
    store: ResourceArc<Store>,
    path: String,
    work: ResourceArc<Work>,
) -> NifResult<Term<'a>> {
    let (engine, progress) = (store.engine.clone(), Arc::clone(&work.0));
    let backup = move || engine.backup(&PathBuf::from(path), &progress);
    threads::run(env, reference, "tank-backup", backup, done)
}

/// Makes the directory `dir` a store of the backup in the file `path`, of one member on `node`; its id is the backup's
/// if `store_id` is nil. Answers by message: `{:ok, about}` or
/// `{:error, reason}`.
#[rustler::nif]
fn restore<'a>(
    env: Env<'a>,
    reference: Term<'a>,
    path: String,
    dir: String,
    store_id: Option<String>,
    node: String,
    work: ResourceArc<Work>,
) -> NifResult<Term<'a>> {
    let progress = Arc::clone(&work.0);
    let restore =
        move || backup::restore(&PathBuf::from(path), &PathBuf::from(dir), store_id.as_deref(), &node, &progress);
    threads::run(env, reference, "tank-restore", restore, done)
}

/// Pins the entries as this member knows them: `{:ok, pinned, revision, count}` or
/// `{:error, reason}`.
#[rustler::nif]
fn pin<'a>(env: Env<'a>, store: &'a Store) -> Term<'a> {
    match store.engine.view() {
        Ok(view) => {
            let (revision, count) = (view.revision, view.entries.len());
            let pinned = ResourceArc::new(Pinned(Some(Arc::clone(&view))));
            (atoms::ok(), pinned, revision, count).encode(env)
        }
        Err(error) => errors::error(env, &error),
    }
}

/// The next entries behind the one with the key `after`, or the first when it is nil; of about
/// `bytes_max` bytes: `{[{path, payload, lease}], after | nil}`.
#[rustler::nif(schedule = "DirtyCpu")]
fn page<'a>(env: Env<'a>, pinned: ResourceArc<Pinned>, after: Option<Binary<'a>>, bytes_max: usize) -> Term<'a> {
    let Some(view) = &pinned.0 else { return (Vec::<Term<'a>>::new(), atoms::nil()).encode(env) };
    let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(Key::from_bytes(&key)));
    let (mut page, mut bytes, mut last) = (Vec::new(), 0, None);
    for (key, entry) in view.entries.range((from, Bound::Unbounded)) {
        if bytes >= bytes_max {
            return (page, last).encode(env);
        }
        bytes += key.as_bytes().len() + entry.payload.len();
        let name = found::binary(env, key.as_bytes());
        last = Some(name);
        let payload = match view.payload(key, entry) {
            Ok(Some(payload)) => payload,
            Ok(None) => return errors::error(env, &EngineError::Storage("compacted during the export".to_owned())),
            Err(error) => return errors::error(env, &error),
        };
        page.push((found::path(env, key), found::binary(env, &payload), entry.lease).encode(env));
    }
    (page, atoms::nil()).encode(env)
}

/// What the entries of a pinned view do not say: `{path, bare?, kind | nil, source | nil}` of each node that has no value and
/// stays, of each one whose value is of another kind than most, and of each one that conditions keep, with what those were
/// made of. Not of entries that go with a lease.
#[rustler::nif(schedule = "DirtyCpu")]
fn pinned_nodes(env: Env<'_>, pinned: ResourceArc<Pinned>) -> Vec<Term<'_>> {
    let Some(view) = &pinned.0 else { return Vec::new() };
    let nodes = view.nodes.records().filter_map(|(key, node)| {
        let entry = view.get(key);
        let is_bare = entry.is_none() && node.stays;
        let is_leased = entry.is_some_and(|entry| entry.lease != 0);
        let source = node.keep_while.as_ref().map(|keep_while| found::binary(env, keep_while.source()));
        let kind = (entry.is_some() && node.kind != VALUE).then_some(node.kind);
        let is_told = !is_leased && (is_bare || kind.is_some() || source.is_some());
        is_told.then(|| (found::path(env, key), is_bare, kind, source).encode(env))
    });
    nodes.collect()
}

/// Whether a put of `payload_bytes` bytes at `key` is within the store's limits: `:ok` or `{:error, reason}`.
#[rustler::nif]
fn check_put<'a>(env: Env<'a>, store: &'a Store, key: Binary<'a>, payload_bytes: usize) -> Term<'a> {
    match store.engine.check_put(&Key::from_bytes(&key), payload_bytes) {
        Ok(()) => atoms::ok().encode(env),
        Err(error) => errors::error(env, &error),
    }
}

/// Puts all of `[{key, payload, lease}]` at one revision, `lease` being the epoch of the lease that
/// the entry goes with, or 0; and, unless `guard` is nil, only if the lease with the name and the
/// epoch `{name, epoch}` is held. Answers as `write`, with `{:ok, {:txn, ...}}`.
#[rustler::nif(schedule = "DirtyCpu")]
fn put_all<'a>(
    env: Env<'a>,
    store: &'a Store,
    reference: Term<'a>,
    puts: Vec<(Binary<'a>, Binary<'a>, u64)>,
    guard: Option<(Binary<'a>, u64)>,
    timeout_ms: u64,
) -> NifResult<Term<'a>> {
    let put = |(key, payload, lease): (Binary<'a>, Binary<'a>, u64)| {
        Op::Put(Write { lease, ..Write::new(Key::from_bytes(&key), Bytes::copy_from_slice(&payload)) })
    };
    let compare = |(name, operand): (Binary<'a>, u64)| Compare::Lease {
        name: Bytes::copy_from_slice(&name),
        relation: Relation::Equal,
        operand,
    };
    let (compare, then) = (guard.map(compare).into_iter().collect(), puts.into_iter().map(put).collect());
    let txn = Txn { compare, then, otherwise: Vec::new() };
    hand_over(env, store, reference, Command::Txn(txn), timeout_ms)
}

fn done(env: Env<'_>, about: About) -> Term<'_> {
    let about = self::about(env, &about);
    about.map_or_else(|_| atoms::nil().encode(env), |about| (atoms::ok(), about).encode(env))
}

fn about<'a>(env: Env<'a>, about: &About) -> NifResult<Term<'a>> {
    let history = (about.history != 0).then(|| found::history(about.history));
    let pairs: [(Atom, Term<'a>); 6] = [
        (atoms::store_id(), about.store_id.encode(env)),
        (atoms::revision(), about.revision.encode(env)),
        (atoms::entries(), about.entries.encode(env)),
        (atoms::digest(), about.digest.encode(env)),
        (atoms::time_ms(), about.time_ms.encode(env)),
        (atoms::history(), history.encode(env)),
    ];
    Term::map_from_pairs(env, &pairs)
}
