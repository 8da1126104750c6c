//! A member's log disk: the simulated one, with a speed.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::EntryPayload;
use tank_engine::command::{Request, RequestId};
use tank_engine::error::EngineError;
use tank_engine::log::disk::{LogDisk, LogWrite, Recovered};
use tank_engine::raft::LogEntry;
use tank_sim::disk::Tear;
use tank_sim::{Rng, SimDisk};

/// The planted fault of disks that say they synced, and did not.
pub const LYING: &str = "lying_disk";

/// How the disk behaves. It outlives the member.
#[derive(Clone)]
pub struct Behaviour(Arc<Inner>);

struct Inner {
    rng: Mutex<Rng>,
    sync_us: AtomicU64,
    full: AtomicBool,
    unmounted: AtomicBool,
    /// Bytes in a second; only large commands take time for their length.
    bytes_per_s: AtomicU64,
    /// Large commands that are written, and whose entries are not.
    staged: Mutex<BTreeSet<(u64, u64)>>,
}

/// The disk, for one life of the member.
#[derive(Clone)]
pub struct MemberDisk {
    disk: SimDisk,
    behaviour: Behaviour,
    /// A write has begun that is not synced.
    begun: Arc<AtomicBool>,
}

impl Behaviour {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Inner {
            rng: Mutex::new(Rng::new(seed)),
            sync_us: AtomicU64::new(500),
            full: AtomicBool::new(false),
            unmounted: AtomicBool::new(false),
            bytes_per_s: AtomicU64::new(u64::MAX),
            staged: Mutex::default(),
        }))
    }

    /// How long a sync takes, about.
    pub fn sync_takes(&self, time: Duration) {
        self.0.sync_us.store(u64::try_from(time.as_micros()).unwrap(), Ordering::Relaxed);
    }

    /// How much is written in a second, of large commands.
    pub fn writes(&self, bytes_per_s: u64) {
        self.0.bytes_per_s.store(bytes_per_s, Ordering::Relaxed);
    }

    /// How many large commands are written whose entries are not.
    pub fn staged(&self) -> usize {
        self.0.staged.lock().unwrap().len()
    }

    /// How long it takes to write the large commands that come with these writes and were not staged.
    fn writing_takes(&self, writes: &[LogWrite]) -> Duration {
        let mut staged = self.0.staged.lock().unwrap();
        let entries = writes.iter().filter_map(|write| match write {
            LogWrite::Append(entries) => Some(entries),
            _ => None,
        });
        let large = entries.flatten().filter_map(large);
        let bytes: u64 =
            large.filter(|request| !staged.remove(&id(request.id))).map(|it| it.command.size() as u64).sum();
        Duration::from_micros(bytes * 1_000_000 / self.0.bytes_per_s.load(Ordering::Relaxed))
    }

    /// A start finds that nothing refers to them.
    fn drop_staged(&self) {
        self.0.staged.lock().unwrap().clear();
    }

    /// Whether a store may fail with this: its disk does.
    pub fn excuses(&self, error: &EngineError) -> bool {
        match error {
            EngineError::DiskFull { .. } => self.0.full.load(Ordering::Relaxed),
            EngineError::Lost { .. } => self.0.unmounted.load(Ordering::Relaxed),
            _ => false,
        }
    }

    /// Whether no space is left.
    pub fn full(&self, full: bool) {
        self.0.full.store(full, Ordering::Relaxed);
    }

    /// Whether the store's directory is not mounted.
    pub fn unmounted(&self, unmounted: bool) {
        self.0.unmounted.store(unmounted, Ordering::Relaxed);
    }
}

impl MemberDisk {
    pub fn new(behaviour: Behaviour) -> Self {
        let lies = std::env::var("TANK_MUTANT").is_ok_and(|mutant| mutant == LYING);
        let disk = if lies { SimDisk::lying() } else { SimDisk::new() };
        Self { disk, behaviour, begun: Arc::default() }
    }

    /// Another disk, with what is written on this one.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self { disk: self.disk.copy(), behaviour: self.behaviour.clone(), begun: Arc::default() }
    }

    /// The disk as the next life finds it, after the process was killed: all that was written.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        // Opening a log makes durable what it finds.
        let _synced = self.disk.sync();
        self.behaviour.drop_staged();
        Self { disk: self.disk.clone(), behaviour: self.behaviour.clone(), begun: Arc::default() }
    }

    /// The disk as the next life finds it after a power cut: what was synced, and of the rest nothing, or a beginning.
    #[must_use]
    pub fn after_power_cut(&self) -> Self {
        self.behaviour.drop_staged();
        let mut rng = self.behaviour.0.rng.lock().unwrap();
        let nothing = rng.below(2) == 0;
        let disk = self.disk.crash(if nothing { Tear::All } else { Tear::Prefix(&mut rng) });
        drop(rng);
        Self { disk, behaviour: self.behaviour.clone(), begun: Arc::default() }
    }
}

impl LogDisk for MemberDisk {
    fn recover(&self) -> Result<Recovered, EngineError> {
        self.disk.recover()
    }

    fn begin(&self, writes: &[LogWrite]) -> Duration {
        if self.behaviour.0.full.load(Ordering::Relaxed) || self.disk.put(writes).is_err() {
            return Duration::ZERO;
        }
        self.begun.store(true, Ordering::Relaxed);
        let about = usize::try_from(self.behaviour.0.sync_us.load(Ordering::Relaxed)).unwrap();
        let random = self.behaviour.0.rng.lock().unwrap().below(about);
        Duration::from_micros((about / 2 + random) as u64) + self.behaviour.writing_takes(writes)
    }

    fn stage(&self, request: &Request) {
        if !self.behaviour.0.full.load(Ordering::Relaxed) {
            self.behaviour.0.staged.lock().unwrap().insert(id(request.id));
        }
    }

    fn unstage(&self, request: RequestId) {
        self.behaviour.0.staged.lock().unwrap().remove(&id(request));
    }

    fn write(&self, writes: &[LogWrite]) -> io::Result<()> {
        if !self.begun.swap(false, Ordering::Relaxed) {
            if self.behaviour.0.full.load(Ordering::Relaxed) {
                return Err(io::Error::new(io::ErrorKind::StorageFull, "No space left on device"));
            }
            self.disk.put(writes)?;
        }
        self.disk.sync()
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<LogEntry>> {
        self.disk.read(range, bytes_max)
    }
}

fn id(id: RequestId) -> (u64, u64) {
    (id.client, id.sequence)
}

/// The request of an entry whose command is large.
fn large(entry: &LogEntry) -> Option<&Request> {
    const LARGE: usize = 1 << 20;
    match &entry.payload {
        EntryPayload::Normal(request) if request.command.size() >= LARGE => Some(request),
        _ => None,
    }
}
