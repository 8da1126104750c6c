//! The resource that stands for an open store, and the calls that open, close and describe it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use once_cell::sync::Lazy;
use rustler::{Atom, Encoder, Env, LocalPid, Monitor, NifResult, OwnedEnv, Resource, ResourceArc, Term};
use tank_engine::engine::{Engine, Status};
use tank_engine::error::{EngineError, LockHolder};
use tank_engine::options::Options;
use tank_engine::storage::Directory;
use tank_engine::storage::peek::{self, Peeked};
use tank_engine::watch::AlikeWatches;

use crate::relays::{Link, Relays};
use crate::{alarms, atoms, errors, found, options, threads};

/// How long opening waits for a store whose owner is dead to be closed, or for one that is just
/// being opened to have an owner.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(20);

/// An open store. It closes when `close` is called, when the process that opened it dies, or when
/// nothing refers to it any more. In the second case reads go on from its last view.
pub(crate) struct Store {
    pub(crate) engine: Engine,
    pub(crate) alike_watches: Arc<AlikeWatches>,
    opening: u64,
}

/// An open directory, and who opened it.
struct Opened {
    /// Tells this opening of the directory from earlier ones: what was closed long ago is dropped
    /// at any time, and must not take what was opened since for its own.
    opening: u64,
    dir: PathBuf,
    owner: LocalPid,
}

/// All open directories: to tell one that is in use from one that is being closed.
static OPENED: Lazy<Mutex<Vec<Opened>>> = Lazy::new(Mutex::default);
static OPENINGS: AtomicU64 = AtomicU64::new(0);

#[rustler::resource_impl]
impl Resource for Store {
    const IMPLEMENTS_DESTRUCTOR: bool = true;
    const IMPLEMENTS_DOWN: bool = true;

    // Both run on a scheduler: closing is left to a thread of ours.
    fn destructor(self, _env: Env<'_>) {
        end_elsewhere(self.engine, self.opening, Engine::close);
    }

    fn down<'a>(&'a self, _env: Env<'a>, _pid: LocalPid, _monitor: Monitor) {
        end_elsewhere(self.engine.clone(), self.opening, Engine::owner_ended);
    }
}

/// Opens a store. Answers by message ([`threads`]): `{:ok, store}` or `{:error, reason}`. The calling process
/// owns it once it has called `own`, and is sent `{:tank_store_failed, opening, reason}` should the store fail, and
/// `{:tank_store_alarm, opening, :raised | :cleared, {name, details}}` when something else is wrong, with what
/// [`opening`](fn@opening) returns for the store. `link` is its way to other nodes.
#[rustler::nif]
fn open<'a>(env: Env<'a>, reference: Term<'a>, options: Term<'a>, link: ResourceArc<Link>) -> NifResult<Term<'a>> {
    let options = options::decode(options)?;
    let (owner, relays) = (env.pid(), Arc::clone(&link.relays));
    let open = move || open_when_free(options, &relays, owner);
    threads::run(env, reference, "tank-open", open, |env, store| (atoms::ok(), ResourceArc::new(store)).encode(env))
}

/// The number of this opening of a store: no other one of this VM has it.
#[rustler::nif]
fn opening(store: &Store) -> u64 {
    store.opening
}

/// Has a store closed when the calling process ends.
#[rustler::nif]
fn own(env: Env<'_>, store: ResourceArc<Store>) -> Atom {
    let _ = env.monitor(&store, &env.pid());
    atoms::ok()
}

/// Closes a store. Answers by message: `:ok`, or `{:error, reason}` when the last sync failed. It is closed then
/// too.
#[rustler::nif]
fn close<'a>(env: Env<'a>, reference: Term<'a>, store: ResourceArc<Store>) -> NifResult<Term<'a>> {
    let (engine, opening) = (store.engine.clone(), store.opening);
    threads::run(env, reference, "tank-close", move || forget_after(opening, || engine.close()), done)
}

/// Closes a store, and lets reads go on from its last view until `close`. Answers by message:
/// `:ok`, or `{:error, reason}` when the last sync failed, as it usually does. It is closed then too.
#[rustler::nif]
fn retire<'a>(env: Env<'a>, reference: Term<'a>, store: ResourceArc<Store>) -> NifResult<Term<'a>> {
    let (engine, opening) = (store.engine.clone(), store.opening);
    threads::run(env, reference, "tank-close", move || forget_after(opening, || engine.retire()), done)
}

/// What the store's directory must hold when it is opened again, for the option `again`.
#[rustler::nif]
fn expected(store: &Store) -> options::ExpectedTerm {
    options::expected_term(store.engine.expected())
}

/// Discards the member that was set aside when this one joined, which is to vote or to stay a learner. Answers by message:
/// `:ok` or `{:error, reason}`.
#[rustler::nif]
fn discard_aside<'a>(
    env: Env<'a>,
    reference: Term<'a>,
    store: ResourceArc<Store>,
    is_to_vote: bool,
) -> NifResult<Term<'a>> {
    let engine = store.engine.clone();
    threads::run(env, reference, "tank-discard", move || engine.discard_aside(is_to_vote), done)
}

/// Removes all that the store `store_id` keeps in `dir`, which must not be open. Answers by message: `:ok` or
/// `{:error, reason}`.
#[rustler::nif]
fn erase<'a>(env: Env<'a>, reference: Term<'a>, dir: String, store_id: String) -> NifResult<Term<'a>> {
    threads::run(env, reference, "tank-erase", move || Directory::erase(Path::new(&dir), &store_id), done)
}

/// What `dir` holds of the store `store_id`, without opening it. Answers by message: `{:ok, :blank}`,
/// `{:ok, {:holds, cluster_id, member_id, formed?}}` or `{:error, reason}`.
#[rustler::nif]
fn peek<'a>(env: Env<'a>, reference: Term<'a>, dir: String, store_id: String) -> NifResult<Term<'a>> {
    let peek = move || peek::peek(Path::new(&dir), &store_id);
    threads::run(env, reference, "tank-peek", peek, |env, peeked| match peeked {
        Peeked::Blank => (atoms::ok(), atoms::blank()).encode(env),
        Peeked::Holds { identity, formed } => {
            (atoms::ok(), (atoms::holds(), identity.cluster_id, identity.member_id, formed)).encode(env)
        }
    })
}

/// Notes that the member in `dir` has its place in a cluster. Answers by message: `:ok` or `{:error, reason}`.
#[rustler::nif]
fn mark_formed<'a>(env: Env<'a>, reference: Term<'a>, dir: String) -> NifResult<Term<'a>> {
    threads::run(env, reference, "tank-mark", move || peek::mark_formed(Path::new(&dir)), done)
}

fn done(env: Env<'_>, (): ()) -> Term<'_> {
    atoms::ok().encode(env)
}

/// Figures about a store, as they are in memory: `{:ok, map}` or `{:error, reason}`.
#[rustler::nif]
fn status<'a>(env: Env<'a>, store: ResourceArc<Store>) -> NifResult<Term<'a>> {
    match store.engine.status() {
        Ok(status) => Ok((atoms::ok(), status_map(env, &status)?).encode(env)),
        Err(error) => Ok(errors::error(env, &error)),
    }
}

/// Waits for a directory that a store whose owner is dead is about to let go of.
fn open_when_free(options: Options, relays: &Arc<Relays>, owner: LocalPid) -> Result<Store, EngineError> {
    let deadline = Instant::now() + CLOSING_TIMEOUT;
    loop {
        match open_now(options.clone(), Arc::clone(relays), owner) {
            Err(EngineError::Locked { path, by: LockHolder::ThisVm })
                if Instant::now() < deadline && !owner_lives(&path) =>
            {
                std::thread::sleep(Duration::from_millis(2));
            }
            opened => return opened,
        }
    }
}

fn open_now(options: Options, relays: Arc<Relays>, owner: LocalPid) -> Result<Store, EngineError> {
    let dir = options.dir.clone();
    let opening = OPENINGS.fetch_add(1, Ordering::Relaxed);
    let engine = Engine::open_with(options, relays, Box::new(move |error| tell_owner(owner, opening, error)))?;
    engine.alarms().listen(alarms::listener(owner, opening));
    let dir = dir.canonicalize().unwrap_or(dir);
    opened().push(Opened { opening, dir, owner });
    Ok(Store { engine, alike_watches: Arc::default(), opening })
}

fn end_elsewhere(engine: Engine, opening: u64, end: fn(&Engine) -> Result<(), EngineError>) {
    let closing = std::thread::Builder::new().name("tank-close".to_owned()).spawn(move || {
        if let Err(error) = forget_after(opening, || end(&engine)) {
            tracing::error!(%error, "closing a store");
        }
    });
    if let Err(error) = closing {
        tracing::error!(%error, "no thread to close a store");
    }
}

fn forget_after(opening: u64, close: impl FnOnce() -> Result<(), EngineError>) -> Result<(), EngineError> {
    let closed = close();
    opened().retain(|other| other.opening != opening);
    closed
}

fn opened() -> std::sync::MutexGuard<'static, Vec<Opened>> {
    OPENED.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Whether a process that opened `dir` lives. When none is known, it was closed a moment ago, or
/// someone opens it right now: asking again tells.
fn owner_lives(dir: &Path) -> bool {
    let owners: Vec<_> = opened().iter().filter(|opened| opened.dir == dir).map(|opened| opened.owner).collect();
    OwnedEnv::new().run(|env| owners.into_iter().any(|owner| env.is_process_alive(owner)))
}

fn tell_owner(owner: LocalPid, opening: u64, error: &EngineError) {
    // Never on a scheduler: the engine fails on its own threads.
    let mut env = OwnedEnv::new();
    let _ = env.send_and_clear(&owner, |env| (atoms::tank_store_failed(), opening, errors::reason(env, error)));
}

fn status_map<'a>(env: Env<'a>, status: &Status) -> NifResult<Term<'a>> {
    let failure = match &status.failure {
        Some(error) => errors::reason(env, error),
        None => atoms::nil().encode(env),
    };
    let pairs: [(Atom, Term<'a>); 18] = [
        (atoms::store_id(), status.store_id.encode(env)),
        (atoms::member_id(), status.member_id.encode(env)),
        (atoms::cluster_id(), status.cluster_id.encode(env)),
        (atoms::revision(), status.revision.encode(env)),
        (atoms::history(), found::history(status.history).encode(env)),
        (atoms::entries(), status.entries.encode(env)),
        (atoms::digest(), status.digest.encode(env)),
        (atoms::value_bytes(), status.value_bytes.encode(env)),
        (atoms::memory_bytes(), status.memory_bytes.encode(env)),
        (atoms::disk_bytes(), status.disk_bytes.encode(env)),
        (atoms::in_flight(), status.in_flight.encode(env)),
        (atoms::fsyncs(), status.fsyncs.encode(env)),
        (atoms::log_entries(), status.log_entries.encode(env)),
        (atoms::log_bytes(), status.log_bytes.encode(env)),
        (atoms::applied_index(), status.applied_index.encode(env)),
        (atoms::readable(), status.readable.encode(env)),
        (atoms::failure(), failure),
        (atoms::alarms(), alarms::list(env, &status.alarms)?),
    ];
    Term::map_from_pairs(env, &pairs)
}
