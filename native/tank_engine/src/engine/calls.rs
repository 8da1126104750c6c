//! What callers ask of an open store.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::alarms::Alarm;
use crate::command::{Command, Limits, Write};
use crate::error::EngineError;
use crate::key::Key;
use crate::log::WriterStats;
use crate::metrics::Metrics;
use crate::outcome::Outcome;

use super::Engine;

/// How long a write asks for a leader unless it says so: what callers in Elixir wait by default.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Takes the answer to a call, exactly once: dropped without one, it says that the outcome is
/// unknown.
pub struct Reply<T>(Option<Answer<T>>);

type Answer<T> = Box<dyn FnOnce(Result<T, EngineError>) + Send>;

impl<T> Reply<T> {
    /// Calls `answer` with the answer, on whatever thread has it. It must not block.
    pub fn new(answer: impl FnOnce(Result<T, EngineError>) + Send + 'static) -> Self {
        Self(Some(Box::new(answer)))
    }

    /// Answers with the error that `failed` knows by then, if it does.
    pub(super) fn unless(mut self, failed: impl FnOnce() -> Option<EngineError> + Send + 'static) -> Self
    where
        T: 'static,
    {
        let answer = self.0.take();
        Self(answer.map(|answer| -> Answer<T> { Box::new(move |result| answer(failed().map_or(result, Err))) }))
    }

    /// Gives the answer.
    pub fn send(mut self, result: Result<T, EngineError>) {
        if let Some(answer) = self.0.take() {
            answer(result);
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer(Err(EngineError::Unknown));
        }
    }
}

/// Figures about a store, at about one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The store's id.
    pub store_id: String,
    /// This member's id.
    pub member_id: u64,
    /// The cluster's id.
    pub cluster_id: u64,
    /// The store's revision, as applied here.
    pub revision: u64,
    /// The id of the history that it counts in.
    pub history: u64,
    /// How many entries there are.
    pub entries: u64,
    /// Hash of all entries.
    pub digest: u64,
    /// Bytes of keys and payloads, in memory or not.
    pub value_bytes: u64,
    /// Bytes that payloads take up in memory, encoded and decoded.
    pub memory_bytes: u64,
    /// Bytes of the store's files: of the log's now, and of the others when they were last measured.
    pub disk_bytes: u64,
    /// Writes that were handed over and not answered yet.
    pub in_flight: u64,
    /// Syncs of the log since the store was opened.
    pub fsyncs: u64,
    /// Of these, those that the raft core waited for itself, for a single writer.
    pub fsyncs_at_once: u64,
    /// Log entries written since then.
    pub log_entries: u64,
    /// Bytes of those.
    pub log_bytes: u64,
    /// Index of the last applied log entry; 0 when there is none.
    pub applied_index: u64,
    /// Whether reads are answered from memory without asking.
    pub readable: bool,
    /// What the store failed at, when it is the disk: it serves its last view and takes no writes.
    pub failure: Option<EngineError>,
    /// What is wrong while the store goes on.
    pub alarms: Vec<Alarm>,
}

impl Engine {
    /// As [`Engine::write_within`], with the usual timeout.
    ///
    /// # Errors
    /// As there.
    pub fn write(&self, command: Command, reply: Reply<Outcome>) -> Result<(), (EngineError, Reply<Outcome>)> {
        self.write_within(command, WRITE_TIMEOUT, reply)
    }

    /// Checks a write, and hands it over. Never blocks. When another member leads, it is asked for
    /// as long as `timeout`.
    ///
    /// # Errors
    /// The store is closed, has failed or is overloaded, or the command is over a limit: then
    /// nothing was logged. `reply` is not used.
    pub fn write_within(
        &self,
        command: Command,
        timeout: Duration,
        reply: Reply<Outcome>,
    ) -> Result<(), (EngineError, Reply<Outcome>)> {
        self.write_limited(command, self.0.options.limits(), timeout, reply)
    }

    /// As [`Engine::write_within`], of a caller that does not count operations and the bytes of paths as the store's
    /// options do.
    ///
    /// # Errors
    /// As there.
    pub fn write_widely(
        &self,
        command: Command,
        timeout: Duration,
        reply: Reply<Outcome>,
    ) -> Result<(), (EngineError, Reply<Outcome>)> {
        self.write_limited(command, self.0.options.limits().widened(), timeout, reply)
    }

    fn write_limited(
        &self,
        command: Command,
        limits: Limits,
        timeout: Duration,
        reply: Reply<Outcome>,
    ) -> Result<(), (EngineError, Reply<Outcome>)> {
        let sized = self.check_serves().and_then(|()| command.check_size(limits));
        let checked = sized.and_then(|()| command.check(limits));
        if let Err(error) = checked {
            return Err((error, reply));
        }
        self.0.ingress.submit(command, timeout, reply)
    }

    /// Whether a path is within the store's limits.
    ///
    /// # Errors
    /// [`EngineError::InvalidPath`] or [`EngineError::TooLarge`].
    pub fn check_path(&self, key: &Key) -> Result<(), EngineError> {
        key.check(self.0.options.keys)
    }

    /// Whether a put of `payload_bytes` bytes at `key` is within the limits that [`Engine::write`] checks.
    ///
    /// # Errors
    /// [`EngineError::InvalidPath`] or [`EngineError::TooLarge`].
    pub fn check_put(&self, key: &Key, payload_bytes: usize) -> Result<(), EngineError> {
        Write::check_sizes(key, payload_bytes, self.0.options.limits())
    }

    /// Calls `reply` once the view holds every write that was acknowledged before this call. Gives
    /// up after `timeout`.
    ///
    /// # Errors
    /// The store is closed or has failed. `reply` is not used.
    pub fn await_readable(&self, timeout: Duration, reply: Reply<()>) -> Result<(), (EngineError, Reply<()>)> {
        if let Err(error) = self.check_takes_part() {
            return Err((error, reply));
        }
        let engine = self.clone();
        let waiting = self.0.readers.wait(timeout, reply.unless(move || engine.check_takes_part().err()));
        waiting.map_err(|reply| (self.check().err().unwrap_or(EngineError::Closed), reply))
    }

    /// Answers with an error, from a task: a caller must not be sent to while it calls.
    pub(super) fn refuse<T: Send + 'static>(&self, reply: Reply<T>, error: EngineError) {
        self.0.runtime.spawn("refused", &self.0.health, async move { reply.send(Err(error)) });
    }

    /// As [`Engine::await_readable`], once a quorum has answered after this call: a leader's lease does
    /// not count, though it may answer reads by it for a moment after it was left alone.
    pub fn await_quorum(&self, timeout: Duration, reply: Reply<()>) {
        if let Err(error) = self.check_takes_part() {
            return self.refuse(reply, error);
        }
        let engine = self.clone();
        self.0.runtime.spawn("quorum", &self.0.health, async move {
            let confirmed = engine.0.leader.await_quorum(tokio::time::Instant::now() + timeout).await;
            reply.send(engine.check_takes_part().and(confirmed));
        });
    }

    /// Has the leases end as if so many milliseconds had passed without a renewal, should this member lead. For tests.
    pub fn skip_lease_time(&self, ms: u64) {
        self.0.published.skip_lease_time(ms);
    }

    /// What was counted since the store was opened.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(self.0.published.metrics())
    }

    /// What the log's writer counts.
    pub fn log_stats(&self) -> Arc<WriterStats> {
        Arc::clone(&self.0.log_stats)
    }

    /// Figures about the store, as they are in memory. Asks for the files to be measured again, for the next call.
    ///
    /// # Errors
    /// The store is closed or has failed, other than at its disk.
    pub fn status(&self) -> Result<Status, EngineError> {
        self.check_shows()?;
        let view = self.0.published.load();
        let inner = &self.0;
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Ok(Status {
            store_id: inner.identity.store_id.clone(),
            member_id: inner.identity.member_id,
            cluster_id: inner.identity.cluster_id,
            revision: view.revision,
            history: self.history_id(view.history),
            entries: view.entries.len() as u64,
            digest: view.digest,
            value_bytes: view.bytes,
            memory_bytes: inner.published.memory().bytes(),
            disk_bytes: inner.disk_usage.read() + load(&inner.log_stats.disk_bytes),
            in_flight: inner.ingress.in_flight(),
            fsyncs: load(&inner.log_stats.syncs),
            fsyncs_at_once: load(&inner.log_stats.syncs_at_once),
            log_entries: load(&inner.log_stats.entries),
            log_bytes: load(&inner.log_stats.bytes),
            applied_index: view.applied_index(),
            readable: inner.authority.is_open(),
            failure: inner.health.check().err(),
            alarms: self.alarms().list(),
        })
    }
}

/// The engine is shared between the BEAM's threads and ours.
const fn assert_send_sync<T: Send + Sync>() {}
const _: () = assert_send_sync::<Engine>();
const _: () = assert_send_sync::<Arc<Engine>>();
