//! The thread that decodes entries for all readers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use once_cell::sync::Lazy;
use tank_engine::entry::Entry;

use super::chunk;

/// Terms in a chunk, at the most: with fewer, environments cost more than terms; with more, one
/// live term keeps more dead ones in memory.
const CHUNK_TERMS: usize = 256;

/// How long to wait for more entries, so that a chunk does not hold a single one.
const LINGER: Duration = Duration::from_millis(2);

/// Entries that wait to be decoded. Beyond it, readers decode for themselves once more.
const QUEUE_MAX: usize = 1 << 16;

static QUEUE: Lazy<Sender<Arc<Entry>>> = Lazy::new(start);

/// Asks for `entry` to be decoded for all readers. Never blocks.
pub(super) fn ask(entry: &Arc<Entry>) {
    let _ = QUEUE.try_send(Arc::clone(entry));
}

fn start() -> Sender<Arc<Entry>> {
    let (sender, receiver) = bounded(QUEUE_MAX);
    let body = move || run(&receiver);
    if let Err(error) = std::thread::Builder::new().name("tank-terms".to_owned()).spawn(body) {
        tracing::error!(%error, "no thread for decoding: every read decodes for itself");
    }
    sender
}

fn run(queue: &Receiver<Arc<Entry>>) {
    let mut built = Built::default();
    while let Ok(first) = queue.recv() {
        let entries = gather(first, queue);
        // Whatever goes wrong here, readers can do without.
        let step = catch_unwind(AssertUnwindSafe(|| {
            tank_engine::faults::point("term_cache");
            built.build(entries);
        }));
        if step.is_err() {
            tracing::error!("a panic while decoding; the thread goes on");
        }
    }
}

fn gather(first: Arc<Entry>, queue: &Receiver<Arc<Entry>>) -> Vec<Arc<Entry>> {
    let deadline = Instant::now() + LINGER;
    let mut entries = vec![first];
    while entries.len() < CHUNK_TERMS {
        let Ok(entry) = queue.recv_deadline(deadline) else { break };
        entries.push(entry);
    }
    entries
}

/// The entries of each chunk, to find chunks that hold mostly dead terms.
#[derive(Default)]
struct Built {
    chunks: Vec<Vec<Weak<Entry>>>,
    since_rebuild: usize,
}

impl Built {
    fn build(&mut self, mut entries: Vec<Arc<Entry>>) {
        // Asked for twice, or replaced meanwhile: then ours is the only handle left. And many may have
        // been asked for while there was room.
        entries.retain(|entry| entry.decoded().is_none() && Arc::strong_count(entry) > 1 && entry.has_room());
        self.add(&entries);
        self.since_rebuild += 1;
        // In proportion to what there is: so that looking through all of it costs little per chunk.
        if self.since_rebuild > 16 + self.chunks.len() / 4 {
            self.since_rebuild = 0;
            self.rebuild_sparse();
        }
    }

    fn add(&mut self, entries: &[Arc<Entry>]) {
        if !entries.is_empty() {
            self.chunks.push(chunk::build(entries));
        }
    }

    /// Decodes the entries of chunks that are less than half alive anew, together; the old chunks
    /// are freed when the last reader lets go of them.
    fn rebuild_sparse(&mut self) {
        for members in &mut self.chunks {
            members.retain(|entry| entry.strong_count() > 0);
        }
        let (sparse, dense) = std::mem::take(&mut self.chunks)
            .into_iter()
            .filter(|members| !members.is_empty())
            .partition::<Vec<_>, _>(|members| members.len() < CHUNK_TERMS / 2);
        self.chunks = dense;
        let entries: Vec<Arc<Entry>> = sparse.iter().flatten().filter_map(Weak::upgrade).collect();
        if sparse.len() < 2 {
            self.chunks.extend(sparse);
            return;
        }
        for some in entries.chunks(CHUNK_TERMS) {
            self.add(some);
        }
    }
}
