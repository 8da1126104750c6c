//! Writes on their way into the raft core: bounded, numbered, answered once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::errors::ClientWriteError;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::command::{Command, Request, RequestId};
use crate::environment::wall_ms;
use crate::error::EngineError;
use crate::faults;
use crate::health::Health;
use crate::log::AtOnce;
use crate::options::Options;
use crate::outcome::Outcome;
use crate::peers::AHEAD_BYTES_MIN;
use crate::raft::{Responder, WriteResult};
use crate::runtime::{self, Runtime};
use crate::sync::lock;

use super::calls::Reply;
use super::leader::LeaderClient;

/// How many writes the ingress task takes at a time.
const TAKE_MAX: usize = 256;

/// The largest write that the raft core's task may wait for itself: more takes longer than a sync.
const AT_ONCE_BYTES_MAX: usize = 64 << 10;

/// So many writes one after the other are taken for those of a single writer. Of two writers, the one
/// that comes second would wait until the first has its answer, though only the disk is busy.
const SINGLE_WRITER_AFTER: u32 = 16;

/// The way in for writes.
pub(super) struct Ingress {
    queue: mpsc::UnboundedSender<Pending>,
    bounds: Arc<Bounds>,
    client: u64,
}

struct Bounds {
    writes: AtomicUsize,
    bytes: AtomicUsize,
    writes_max: usize,
    bytes_max: usize,
    sequences: Mutex<Sequences>,
    health: Arc<Health>,
}

/// Which of this client's requests are still open.
#[derive(Default)]
struct Sequences {
    next: u64,
    /// Every sequence below is resolved.
    resolved_below: u64,
    /// From `resolved_below` on: whether it is resolved.
    resolved: std::collections::VecDeque<bool>,
}

/// A write that was let in. However it ends, its place becomes free and its caller hears of it.
struct Pending {
    command: Option<Command>,
    id: RequestId,
    reply: Option<Reply<Outcome>>,
    bytes: usize,
    /// Nothing else was on its way when it came.
    alone: bool,
    /// Until then the leader is asked.
    deadline: Instant,
    bounds: Arc<Bounds>,
}

impl Ingress {
    pub(super) fn start(
        runtime: &Runtime,
        leader: LeaderClient,
        at_once: AtOnce,
        client: u64,
        options: &Options,
        health: &Arc<Health>,
    ) -> Self {
        let (queue, pending) = mpsc::unbounded_channel();
        let bounds = Arc::new(Bounds {
            writes: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            writes_max: options.in_flight_max,
            bytes_max: options.in_flight_bytes_max,
            sequences: Mutex::default(),
            health: Arc::clone(health),
        });
        runtime.spawn("ingress", health, feed(pending, leader, at_once));
        Self { queue, bounds, client }
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.bounds.writes.load(Ordering::Relaxed) as u64
    }

    pub(super) fn submit(
        &self,
        command: Command,
        timeout: Duration,
        reply: Reply<Outcome>,
    ) -> Result<(), (EngineError, Reply<Outcome>)> {
        let bytes = command.size();
        let alone = match self.bounds.take(bytes) {
            Ok(others) => others == 0,
            Err(error) => return Err((error, reply)),
        };
        let id = self.bounds.number(self.client);
        let bounds = Arc::clone(&self.bounds);
        let deadline = Instant::now() + timeout;
        let pending = Pending { command: Some(command), id, reply: Some(reply), bytes, alone, deadline, bounds };
        let Err(unsent) = self.queue.send(pending) else { return Ok(()) };
        // Nobody listens any more. The caller is told by what is returned: a reply must not be
        // sent from within the call.
        let mut pending = unsent.0;
        let error = self.bounds.health.check().err().unwrap_or(EngineError::Closed);
        pending.reply.take().map_or(Ok(()), |reply| Err((error, reply)))
    }
}

/// Feeds the raft core. Ends when the store is closed or the core is gone.
async fn feed(mut queue: mpsc::UnboundedReceiver<Pending>, leader: LeaderClient, at_once: AtOnce) {
    let leader = Arc::new(leader);
    let mut taken = Vec::with_capacity(TAKE_MAX);
    let mut single_writer = SingleWriter::default();
    while queue.recv_many(&mut taken, TAKE_MAX).await > 0 {
        faults::point("ingress");
        let time_ms = wall_ms();
        if single_writer.seen(is_alone(&taken)) && leader.authority.gate.is_open_for_good() {
            at_once.ask();
        }
        for mut pending in taken.drain(..) {
            let Some(command) = pending.command.take() else { continue };
            let request = Request { id: pending.id, time_ms, command };
            if pending.bytes >= AHEAD_BYTES_MIN && !leader.authority.gate.is_open_for_good() {
                // Others have to hold it before it is logged.
                pending.forward(Arc::clone(&leader), request);
                continue;
            }
            let again = (Arc::clone(&leader), request.clone());
            let responder = Responder::new(move |result| pending.answer(result, again));
            if leader.raft.client_write_ff(request, Some(responder)).await.is_err() {
                return;
            }
        }
    }
}

fn is_alone(taken: &[Pending]) -> bool {
    matches!(taken, [one] if one.alone && one.bytes <= AT_ONCE_BYTES_MAX)
}

/// Notices that one writer writes, one thing after the other.
#[derive(Default)]
struct SingleWriter {
    in_a_row: u32,
}

impl SingleWriter {
    /// Whether it does, after what was taken last, which was `alone` or not.
    fn seen(&mut self, alone: bool) -> bool {
        self.in_a_row = if alone { self.in_a_row.saturating_add(1) } else { 0 };
        self.in_a_row > SINGLE_WRITER_AFTER
    }
}

impl Bounds {
    /// Takes a place; how many are taken by others.
    fn take(&self, bytes: usize) -> Result<usize, EngineError> {
        let writes = self.writes.fetch_add(1, Ordering::Relaxed);
        let held = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // A single write may always go, however large: its size has a limit of its own.
        if writes < self.writes_max && (held == 0 || held.saturating_add(bytes) <= self.bytes_max) {
            return Ok(writes);
        }
        self.give_back(bytes);
        Err(EngineError::Overloaded { limit: self.writes_max })
    }

    fn give_back(&self, bytes: usize) {
        self.writes.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn number(&self, client: u64) -> RequestId {
        let mut sequences = lock(&self.sequences);
        let sequence = sequences.next;
        sequences.next += 1;
        sequences.resolved.push_back(false);
        RequestId { client, sequence, resolved_below: sequences.resolved_below }
    }

    fn resolve(&self, sequence: u64) {
        let mut sequences = lock(&self.sequences);
        let offset = sequence.saturating_sub(sequences.resolved_below);
        let slot = usize::try_from(offset).ok().and_then(|offset| sequences.resolved.get_mut(offset));
        if let Some(resolved) = slot {
            *resolved = true;
        }
        while sequences.resolved.front() == Some(&true) {
            sequences.resolved.pop_front();
            sequences.resolved_below += 1;
        }
    }
}

impl Pending {
    /// Answers, or asks the leader if that is another member.
    fn answer(self, result: WriteResult, (leader, request): (Arc<LeaderClient>, Request)) {
        match result {
            Ok(response) => self.reply(Ok(response.data)),
            Err(ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_)) => {
                self.forward(leader, request);
            }
            Err(_) => self.reply(Err(EngineError::Unknown)),
        }
    }

    /// Asks the leader, wherever it is.
    fn forward(self, leader: Arc<LeaderClient>, request: Request) {
        let health = Arc::clone(&self.bounds.health);
        runtime::spawn_here("forward", health, async move {
            let outcome = leader.write(request, self.deadline).await;
            self.reply(outcome);
        });
    }

    fn reply(mut self, result: Result<Outcome, EngineError>) {
        let Some(reply) = self.reply.take() else { return };
        // Its place is free before its caller can know: whoever writes one after the other needs one.
        drop(self);
        reply.send(result);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.bounds.resolve(self.id.sequence);
        self.bounds.give_back(self.bytes);
        if let Some(reply) = self.reply.take() {
            // The store ended with the write on its way: it may or may not be in the log.
            reply.send(Err(self.bounds.health.check().err().unwrap_or(EngineError::Unknown)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(writes_max: usize, bytes_max: usize) -> Bounds {
        Bounds {
            writes: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            writes_max,
            bytes_max,
            sequences: Mutex::default(),
            health: Arc::new(Health::new(Box::new(|_| {}))),
        }
    }

    #[test]
    fn bounds_refuse_and_free() {
        let bounds = bounds(2, 100);
        assert!(bounds.take(500).is_ok(), "a single large write goes");
        assert!(bounds.take(1).is_err(), "too many bytes");
        bounds.give_back(500);
        assert!(bounds.take(50).is_ok() && bounds.take(50).is_ok());
        assert_eq!(bounds.take(0), Err(EngineError::Overloaded { limit: 2 }));
    }

    #[test]
    fn a_single_writer_is_noticed_and_a_second_one_at_once() {
        let mut single_writer = SingleWriter::default();
        let mut seen = |alone| single_writer.seen(alone);
        for _ in 0..2 {
            assert!((0..SINGLE_WRITER_AFTER).all(|_| !seen(true)));
            assert!(seen(true) && seen(true));
            assert!(!seen(false));
        }
    }

    #[test]
    fn a_place_tells_how_many_others_are_taken() {
        let bounds = bounds(10, 100);
        assert_eq!((bounds.take(1), bounds.take(1)), (Ok(0), Ok(1)));
        bounds.give_back(1);
        bounds.give_back(1);
        assert_eq!(bounds.take(1), Ok(0));
    }

    #[test]
    fn resolved_below_follows_the_oldest_open_request() {
        let bounds = bounds(10, 10);
        let below = |bounds: &Bounds| bounds.number(1).resolved_below;
        assert_eq!((below(&bounds), below(&bounds), below(&bounds)), (0, 0, 0));
        bounds.resolve(1);
        assert_eq!(below(&bounds), 0, "0 is still open");
        bounds.resolve(0);
        assert_eq!(below(&bounds), 2);
    }
}
