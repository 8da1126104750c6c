//! What happened in a run, in order: a hash of all of it, and its last lines.

use std::collections::VecDeque;
use std::fmt::Arguments;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

/// Lines that are kept to be shown when a run goes wrong.
const KEPT: usize = 200;

/// Clones are the same trace.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Inner>>);

struct Inner {
    start: Instant,
    hash: u64,
    events: u64,
    last: VecDeque<String>,
    prints: bool,
    /// Where the run keeps its files: another place each time.
    dir: String,
}

impl Trace {
    /// A trace that begins now. `prints`: each line, as it comes.
    pub fn new(prints: bool, dir: &Path) -> Self {
        let start = Instant::now();
        Self(Arc::new(Mutex::new(Inner {
            start,
            hash: 0,
            events: 0,
            last: VecDeque::new(),
            prints,
            dir: dir.display().to_string(),
        })))
    }

    /// Something happened.
    pub fn note(&self, what: Arguments<'_>) {
        let mut inner = self.0.lock().unwrap();
        let line = format!("{:>10.3} {what}", inner.start.elapsed().as_secs_f64());
        let line = if line.contains(&inner.dir) { line.replace(&inner.dir, "") } else { line };
        inner.hash = hash(inner.hash, line.as_bytes());
        inner.events += 1;
        if inner.prints {
            eprintln!("{line}");
        }
        inner.last.push_back(line);
        if inner.last.len() > KEPT {
            inner.last.pop_front();
        }
    }

    /// How much happened, and a hash of all of it.
    pub fn digest(&self) -> (u64, u64) {
        let inner = self.0.lock().unwrap();
        (inner.events, inner.hash)
    }

    /// The last lines.
    pub fn tail(&self) -> Vec<String> {
        self.0.lock().unwrap().last.iter().cloned().collect()
    }
}

/// Mixes bytes into a hash.
pub fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut hash = seed ^ 0xCBF2_9CE4_8422_2325;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash ^ u64::from_le_bytes(word) ^ chunk.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        hash ^= hash >> 32;
    }
    hash
}
