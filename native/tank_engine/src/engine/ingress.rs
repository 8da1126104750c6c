//! Writes on their way into the raft core: bounded, numbered, answered once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openraft::errors::ClientWriteError;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::command::{Command, Request, RequestId};
use crate::error::EngineError;
use crate::faults;
use crate::health::Health;
use crate::options::Options;
use crate::outcome::Outcome;
use crate::raft::{Responder, WriteResult};
use crate::runtime::{self, Runtime};
use crate::sync::lock;

use super::calls::Reply;
use super::leader::LeaderClient;

/// How many writes the ingress task takes at a time.
const TAKE_MAX: usize = 256;

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
    /// Until then the leader is asked.
    deadline: Instant,
    bounds: Arc<Bounds>,
}

impl Ingress {
    pub(super) fn start(
        runtime: &Runtime,
        leader: LeaderClient,
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
        runtime.spawn("ingress", health, feed(pending, leader));
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
        if let Err(error) = self.bounds.take(bytes) {
            return Err((error, reply));
        }
        let id = self.bounds.number(self.client);
        let bounds = Arc::clone(&self.bounds);
        let deadline = Instant::now() + timeout;
        let pending = Pending { command: Some(command), id, reply: Some(reply), bytes, deadline, bounds };
        let Err(unsent) = self.queue.send(pending) else { return Ok(()) };
        // Nobody listens any more. The caller is told by what is returned: a reply must not be
        // sent from within the call.
        let mut pending = unsent.0;
        let error = self.bounds.health.check().err().unwrap_or(EngineError::Closed);
        pending.reply.take().map_or(Ok(()), |reply| Err((error, reply)))
    }
}

/// Feeds the raft core. Ends when the store is closed or the core is gone.
async fn feed(mut queue: mpsc::UnboundedReceiver<Pending>, leader: LeaderClient) {
    let leader = Arc::new(leader);
    let mut taken = Vec::with_capacity(TAKE_MAX);
    while queue.recv_many(&mut taken, TAKE_MAX).await > 0 {
        faults::point("ingress");
        let time_ms = now_ms();
        for mut pending in taken.drain(..) {
            let Some(command) = pending.command.take() else { continue };
            let request = Request { id: pending.id, time_ms, command };
            let again = (Arc::clone(&leader), request.clone());
            let responder = Responder::new(move |result| pending.answer(result, again));
            if leader.raft.client_write_ff(request, Some(responder)).await.is_err() {
                return;
            }
        }
    }
}

impl Bounds {
    fn take(&self, bytes: usize) -> Result<(), EngineError> {
        let writes = self.writes.fetch_add(1, Ordering::Relaxed);
        let held = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // A single write may always go, however large: its size has a limit of its own.
        if writes < self.writes_max && (held == 0 || held.saturating_add(bytes) <= self.bytes_max) {
            return Ok(());
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
                let health = Arc::clone(&self.bounds.health);
                runtime::spawn_here("forward", health, async move {
                    let outcome = leader.write(request, self.deadline).await;
                    self.reply(outcome);
                });
            }
            Err(_) => self.reply(Err(EngineError::Unknown)),
        }
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

/// The wall clock, in milliseconds since the epoch.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
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
