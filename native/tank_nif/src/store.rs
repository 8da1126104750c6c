//! The resource that stands for an open store, and the calls that open, close and describe it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use once_cell::sync::Lazy;
use rustler::{Encoder, Env, LocalPid, Monitor, NifResult, OwnedEnv, Resource, ResourceArc, Term};
use tank_engine::engine::{Engine, Status};
use tank_engine::error::{EngineError, LockHolder};
use tank_engine::options::Options;
use tank_engine::storage::Directory;

use crate::transport::{Link, Relays};
use crate::{atoms, errors, options};

/// How long opening waits for a store whose owner is dead to be closed, or for one that is just
/// being opened to have an owner.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(20);

/// An open store. It closes when `close` is called, when the process that opened it dies, or when
/// nothing refers to it any more.
pub(crate) struct Store {
    pub(crate) engine: Engine,
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
        close_elsewhere(self.engine, self.opening);
    }

    fn down<'a>(&'a self, _env: Env<'a>, _pid: LocalPid, _monitor: Monitor) {
        close_elsewhere(self.engine.clone(), self.opening);
    }
}

/// Opens a store: `{:ok, store}` or `{:error, reason}`. The calling process owns it, and is sent
/// `{:tank_store_failed, reason}` should the store fail. `link` is its way to other nodes.
#[rustler::nif(schedule = "DirtyIo")]
fn open<'a>(env: Env<'a>, options: Term<'a>, link: ResourceArc<Link>) -> NifResult<Term<'a>> {
    let options = options::decode(options)?;
    let owner = env.pid();
    let deadline = Instant::now() + CLOSING_TIMEOUT;
    let opened = loop {
        let opened = open_on_own_thread(options.clone(), Arc::clone(&link.relays), owner);
        match &opened {
            Err(EngineError::Locked { path, by: LockHolder::ThisVm })
                if Instant::now() < deadline && !owner_lives(env, path) =>
            {
                std::thread::sleep(Duration::from_millis(2));
            }
            _ => break opened,
        }
    };
    Ok(match opened {
        Ok(store) => {
            let store = ResourceArc::new(store);
            // The owner may be gone already; then nothing refers to the store, and it closes.
            let _ = env.monitor(&store, &owner);
            (atoms::ok(), store).encode(env)
        }
        Err(error) => errors::error(env, &error),
    })
}

/// Closes a store: `:ok`, or `{:error, reason}` when the last sync failed. It is closed then too.
#[rustler::nif(schedule = "DirtyIo")]
fn close<'a>(env: Env<'a>, store: ResourceArc<Store>) -> Term<'a> {
    let (engine, opening) = (store.engine.clone(), store.opening);
    match on_own_thread("tank-close", move || close_now(&engine, opening)) {
        Ok(()) => atoms::ok().encode(env),
        Err(error) => errors::error(env, &error),
    }
}

/// Discards the member that was set aside when this one joined: `:ok` or `{:error, reason}`.
#[rustler::nif(schedule = "DirtyIo")]
fn discard_aside<'a>(env: Env<'a>, store: ResourceArc<Store>) -> Term<'a> {
    done(env, store.engine.discard_aside())
}

/// Removes all that the store `store_id` keeps in `dir`, which must not be open: `:ok` or
/// `{:error, reason}`.
#[rustler::nif(schedule = "DirtyIo")]
fn erase<'a>(env: Env<'a>, dir: String, store_id: String) -> Term<'a> {
    done(env, on_own_thread("tank-erase", move || Directory::erase(Path::new(&dir), &store_id)))
}

fn done(env: Env<'_>, result: Result<(), EngineError>) -> Term<'_> {
    match result {
        Ok(()) => atoms::ok().encode(env),
        Err(error) => errors::error(env, &error),
    }
}

/// Figures about a store: `{:ok, map}` or `{:error, reason}`.
#[rustler::nif(schedule = "DirtyIo")]
fn status<'a>(env: Env<'a>, store: ResourceArc<Store>) -> NifResult<Term<'a>> {
    match store.engine.status() {
        Ok(status) => Ok((atoms::ok(), status_map(env, &status)?).encode(env)),
        Err(error) => Ok(errors::error(env, &error)),
    }
}

fn open_on_own_thread(options: Options, relays: Arc<Relays>, owner: LocalPid) -> Result<Store, EngineError> {
    on_own_thread("tank-open", move || {
        let dir = options.dir.clone();
        let engine = Engine::open_with(options, relays, Box::new(move |error| tell_owner(owner, error)))?;
        let dir = dir.canonicalize().unwrap_or(dir);
        let opening = OPENINGS.fetch_add(1, Ordering::Relaxed);
        opened().push(Opened { opening, dir, owner });
        Ok(Store { engine, opening })
    })
}

/// Runs `work` on a thread with a stack of usual size, and waits for it: a dirty scheduler's is
/// too small for RocksDB.
pub(crate) fn on_own_thread<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    let thread = thread.map_err(|error| EngineError::Storage(format!("no thread: {error}")))?;
    thread.join().unwrap_or_else(|panic| {
        let text = tank_engine::health::panic_text(panic.as_ref());
        Err(EngineError::Failed(format!("panic in {name}: {text}")))
    })
}

fn close_elsewhere(engine: Engine, opening: u64) {
    let closing = std::thread::Builder::new().name("tank-close".to_owned()).spawn(move || {
        if let Err(error) = close_now(&engine, opening) {
            tracing::error!(%error, "closing a store");
        }
    });
    if let Err(error) = closing {
        tracing::error!(%error, "no thread to close a store");
    }
}

fn close_now(engine: &Engine, opening: u64) -> Result<(), EngineError> {
    let closed = engine.close();
    opened().retain(|other| other.opening != opening);
    closed
}

fn opened() -> std::sync::MutexGuard<'static, Vec<Opened>> {
    OPENED.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Whether a process that opened `dir` lives. When none is known, it was closed a moment ago, or
/// someone opens it right now: asking again tells.
fn owner_lives(env: Env<'_>, dir: &Path) -> bool {
    let owners: Vec<_> = opened().iter().filter(|opened| opened.dir == dir).map(|opened| opened.owner).collect();
    owners.into_iter().any(|owner| env.is_process_alive(owner))
}

fn tell_owner(owner: LocalPid, error: &EngineError) {
    // Never on a scheduler: the engine fails on its own threads.
    let mut env = OwnedEnv::new();
    let _ = env.send_and_clear(&owner, |env| (atoms::tank_store_failed(), errors::reason(env, error)));
}

fn status_map<'a>(env: Env<'a>, status: &Status) -> NifResult<Term<'a>> {
    let pairs: [(rustler::Atom, Term<'a>); 15] = [
        (atoms::store_id(), status.store_id.encode(env)),
        (atoms::member_id(), status.member_id.encode(env)),
        (atoms::cluster_id(), status.cluster_id.encode(env)),
        (atoms::revision(), status.revision.encode(env)),
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
    ];
    Term::map_from_pairs(env, &pairs)
}
