//! What the tests of whole engines share: opening with a deadline, writing, what a store holds,
//! and children that are killed.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command as Process, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use openraft::entry::RaftEntry;
use openraft::storage::RaftStateMachine;
use openraft::vote::RaftLeaderIdExt;
use openraft::{EntryPayload, RaftTypeConfig};
use tank_engine::command::{Command, Request, Write};
use tank_engine::engine::{Engine, Reply};
use tank_engine::error::EngineError;
use tank_engine::health::Health;
use tank_engine::key::{Component, Key};
use tank_engine::machine::{Header, Machine, StateStore};
use tank_engine::options::Options;
use tank_engine::outcome::Outcome;
use tank_engine::raft::{LogEntry, LogId, SnapshotMeta, Types};
use tank_engine::snapshot::{Frame, ReceivedSnapshot, SnapshotData, SnapshotReceiver};
use tank_engine::storage::Directory;
use tank_engine::storage::rocks::Db;
use tank_engine::view::{Published, View};

/// Longer than anything here takes; what takes longer hangs.
pub const LIMIT: Duration = Duration::from_secs(30);

/// The path `data / name`.
pub fn key(name: &str) -> Key {
    Key::of(&[Component::Atom(b"data".to_vec()), Component::String(name.as_bytes().to_vec())])
}

pub fn put(name: &str, payload: &[u8]) -> Command {
    Command::Put(Write::new(key(name), Bytes::copy_from_slice(payload)))
}

pub fn delete(name: &str) -> Command {
    Command::Delete(key(name).into())
}

/// Small enough that the log is purged while a test runs.
pub fn options(dir: &Path) -> Options {
    let mut options = Options::new(dir, "tank");
    options.timing.snapshot_interval_entries = 50;
    options.timing.log_retention_entries = 20;
    options.timing.purge_batch = 10;
    options
}

/// Opens a store. Fails the test when that takes longer than the limit.
pub fn try_open(dir: &Path) -> Result<Engine, EngineError> {
    let (sender, receiver) = mpsc::channel();
    let options = options(dir);
    std::thread::spawn(move || sender.send(Engine::open(options, Box::new(|_| {}))));
    receiver.recv_timeout(LIMIT).unwrap_or_else(|why| panic!("opening took longer than {LIMIT:?}, or panicked: {why}"))
}

pub fn open(dir: &Path) -> Engine {
    try_open(dir).unwrap()
}

/// Hands a command over; the receiver gets its outcome.
pub fn submit(engine: &Engine, command: Command) -> Result<Receiver<Result<Outcome, EngineError>>, EngineError> {
    let (sender, receiver) = mpsc::channel();
    let reply = Reply::new(move |result| drop(sender.send(result)));
    engine.write(command, reply).map_err(|(error, _)| error)?;
    Ok(receiver)
}

/// Hands a command over and waits for its outcome.
pub fn write(engine: &Engine, command: Command) -> Result<Outcome, EngineError> {
    let outcome = submit(engine, command)?;
    outcome.recv_timeout(LIMIT).unwrap_or_else(|why| panic!("no answer to a write within {LIMIT:?}: {why}"))
}

/// Writes all, many at a time; every one must be done.
pub fn write_all(engine: &Engine, commands: impl IntoIterator<Item = Command>) {
    let waiting: Vec<_> = commands.into_iter().map(|command| submit(engine, command).unwrap()).collect();
    for (number, outcome) in waiting.into_iter().enumerate() {
        let outcome = outcome.recv_timeout(LIMIT).unwrap_or_else(|why| panic!("no answer to write {number}: {why}"));
        assert!(matches!(outcome, Ok(Outcome::Done { .. })), "write {number}: {outcome:?}");
    }
}

/// All that a store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub revision: u64,
    pub digest: u64,
    /// Key and record of each entry, in order.
    pub entries: Vec<(Vec<u8>, Vec<u8>)>,
}

pub fn held_by(view: &View) -> Held {
    let entries = view
        .entries
        .iter()
        .map(|(key, entry)| (key.as_bytes().to_vec(), entry.to_record(&entry.payload.in_memory().unwrap())))
        .collect();
    Held { revision: view.revision, digest: view.digest, entries }
}

pub fn held(engine: &Engine) -> Held {
    held_by(&engine.authoritative_view().unwrap().expect("readable once it is open"))
}

pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
            continue;
        }
        match std::fs::copy(entry.path(), &target) {
            // The store is running, and has removed it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            copied => drop(copied.unwrap()),
        }
    }
}

/// A member's state machine on a directory of its own, without a raft core around it.
pub struct Member {
    pub machine: Machine,
    pub published: Arc<Published>,
    pub failures: Arc<Mutex<Vec<EngineError>>>,
    directory: Directory,
}

impl Member {
    pub fn open(dir: &Path) -> Result<Self, EngineError> {
        let directory = Directory::open(dir, "tank")?;
        let (published, failures) = (Arc::new(Published::default()), Arc::new(Mutex::new(Vec::new())));
        let seen = Arc::clone(&failures);
        let health = Arc::new(Health::new(Box::new(move |error| seen.lock().unwrap().push(error.clone()))));
        let machine = StateStore::open(Arc::clone(&directory.db), &directory.path)
            .and_then(|store| Machine::open(store, Arc::clone(&published), health))?;
        Ok(Self { machine, published, failures, directory })
    }

    pub fn close(self) {
        let Self { machine, directory, .. } = self;
        machine.checkpoints().finish().unwrap();
        drop(machine);
        // Snapshots are let go of by another thread.
        let users = || Arc::strong_count(&directory.db);
        tank_sim::wait::until("the machine to let go of the database", LIMIT, users, |users| *users == 1).unwrap();
        directory.close().unwrap();
    }

    pub fn held(&self) -> Held {
        held_by(&self.published.load())
    }

    /// The member's state store, beside the machine's own handle on it, with all that was applied.
    pub fn store(&self) -> StateStore {
        self.machine.checkpoints().finish().unwrap();
        StateStore::open(Arc::clone(&self.directory.db), &self.directory.path).unwrap()
    }

    pub fn dir(&self) -> &Path {
        &self.directory.path
    }

    pub fn db(&self) -> &Db {
        &self.directory.db
    }

    /// Applies requests as the log entries from `index` on.
    pub fn apply(&mut self, index: u64, requests: &[Request]) -> std::io::Result<()> {
        let entry = |(index, request): (u64, &Request)| {
            (LogEntry::new(log_id(index), EntryPayload::Normal(Arc::new(request.clone()))), None)
        };
        let entries: Vec<_> = (index..).zip(requests).map(entry).map(Ok).collect();
        block_on(self.machine.apply(futures_util::stream::iter(entries)))
    }

    /// Installs a snapshot as the raft core does.
    pub fn install(&mut self, snapshot: SnapshotData, header: &Header) -> std::io::Result<()> {
        let meta = SnapshotMeta { last_log_id: header.applied, last_membership: header.membership.clone() };
        block_on(self.machine.install_snapshot(&meta, snapshot))
    }

    /// The frames of the state as it is now, and what it is.
    pub fn frames(&self) -> (Vec<Frame>, Header) {
        let pinned = self.machine.checkpoints().pin().unwrap();
        let frames = pinned.frames().unwrap().map(Result::unwrap).collect();
        (frames, pinned.header().clone())
    }

    /// Receives frames.
    pub fn receive(&self, frames: &[Frame]) -> Result<Option<ReceivedSnapshot>, EngineError> {
        let mut receiver = SnapshotReceiver::new(self.dir())?;
        let mut received = None;
        for frame in frames {
            received = receiver.accept(&Frame::decode(&frame.encode())?)?;
        }
        Ok(received)
    }

    /// The column families of states that there are.
    pub fn generations(&self) -> Vec<String> {
        let names = rocksdb::DB::list_cf(&rocksdb::Options::default(), self.dir().join("db")).unwrap();
        names.into_iter().filter(|name| name.starts_with("state_")).collect()
    }
}

pub fn log_id(index: u64) -> LogId {
    LogId::new(<Types as RaftTypeConfig>::LeaderId::new_committed(1, 1), index)
}

/// Runs a future on a runtime like a store's.
pub fn block_on<F: Future>(future: F) -> F::Output {
    tank_engine::runtime::Runtime::start().unwrap().block_on(future)
}

/// A test of this binary that runs in a process of its own, to be killed.
pub struct Victim {
    child: Child,
    lines: Receiver<String>,
    stdin: ChildStdin,
}

/// What a victim's lines begin with: libtest writes to the same pipe.
const MARK: &str = "victim: ";

impl Victim {
    /// Starts the ignored test `test` with `TANK_VICTIM_DIR` set to `dir`.
    pub fn start(test: &str, dir: &Path, environment: &[(&str, String)]) -> Self {
        let mut process = Process::new(std::env::current_exe().unwrap());
        process.args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
        process.env("TANK_VICTIM_DIR", dir).envs(environment.iter().map(|(name, value)| (name, value)));
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = process.spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // libtest may have written the test's name before, on the same line.
                if let Some((_, line)) = line.split_once(MARK) {
                    let _ = sender.send(line.to_owned());
                }
            }
        });
        let stdin = child.stdin.take().unwrap();
        Self { child, lines, stdin }
    }

    /// The directory of the process that calls this; `None` when it is no victim.
    pub fn dir() -> Option<std::path::PathBuf> {
        std::env::var_os("TANK_VICTIM_DIR").map(Into::into)
    }

    /// Says something to whoever started this process.
    pub fn say(line: &str) {
        let mut out = std::io::stdout().lock();
        out.write_all(format!("{MARK}{line}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    }

    /// Waits until whoever started this process says to go on.
    pub fn wait_for_go() {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
    }

    pub fn go(&mut self) {
        self.stdin.write_all(b"go\n").unwrap();
    }

    /// What the victim says next.
    pub fn hear(&self) -> String {
        self.lines.recv_timeout(LIMIT).unwrap_or_else(|why| panic!("the victim said nothing within {LIMIT:?}: {why}"))
    }

    /// `kill -9`; gives all that it said and was not heard yet.
    pub fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        // The reading thread ends with the pipe, and drops its end of the channel.
        std::iter::from_fn(|| self.lines.recv_timeout(LIMIT).ok()).collect()
    }
}
