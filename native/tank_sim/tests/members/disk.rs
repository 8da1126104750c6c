//! A member's log disk: the simulated one, with a speed.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

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
        }))
    }

    /// How long a sync takes, about.
    pub fn sync_takes(&self, time: Duration) {
        self.0.sync_us.store(u64::try_from(time.as_micros()).unwrap(), Ordering::Relaxed);
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
        Self { disk: self.disk.clone(), behaviour: self.behaviour.clone(), begun: Arc::default() }
    }

    /// The disk as the next life finds it after a power cut: what was synced, and of the rest nothing, or a beginning.
    #[must_use]
    pub fn after_power_cut(&self) -> Self {
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
        if !writes.iter().any(LogWrite::must_be_durable) {
            return Duration::ZERO;
        }
        let about = usize::try_from(self.behaviour.0.sync_us.load(Ordering::Relaxed)).unwrap();
        let random = self.behaviour.0.rng.lock().unwrap().below(about);
        Duration::from_micros((about / 2 + random) as u64)
    }

    fn write(&self, writes: &[LogWrite]) -> io::Result<()> {
        if !self.begun.swap(false, Ordering::Relaxed) {
            if self.behaviour.0.full.load(Ordering::Relaxed) {
                return Err(io::Error::new(io::ErrorKind::StorageFull, "No space left on device"));
            }
            self.disk.put(writes)?;
        }
        if writes.iter().any(LogWrite::must_be_durable) { self.disk.sync() } else { Ok(()) }
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<LogEntry>> {
        self.disk.read(range, bytes_max)
    }
}
