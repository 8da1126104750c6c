//! Who uses the store: they write, read and hold leases, through any member, and tell the oracle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tank_engine::command::{Command, Condition, Delete, LeaseCommand, Op, Txn, Write};
use tank_engine::error::EngineError;
use tank_engine::outcome::{Found, Outcome, Refusal};
use tank_engine::view::View;
use tank_sim::Rng;
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, key};
use crate::oracle::{Oracle, Serial, serial_of};

const PATHS: usize = 8;
const LEASES: usize = 2;

/// Calls between two longer rests, about.
const CALLS: usize = 40;
const REST_MAX: Duration = Duration::from_secs(2);

/// Somebody who uses the store.
pub struct Client {
    pub cluster: Cluster,
    pub number: usize,
    pub rng: Rng,
    pub over: Arc<AtomicBool>,
    /// The longest pause between two calls.
    pub pause: Duration,
    pub value_bytes_max: usize,
}

impl Client {
    fn oracle(&self) -> &Oracle {
        self.cluster.oracle()
    }

    fn chance(&mut self, of_a_hundred: usize) -> bool {
        self.rng.below(100) < of_a_hundred
    }

    /// Pauses for a moment, and now and then for longer: who asks all the time shows little more.
    async fn rest(&mut self) {
        let longest = if self.rng.below(CALLS) == 0 { REST_MAX } else { self.pause };
        let pause = self.rng.below(usize::try_from(longest.as_micros()).unwrap());
        sleep(Duration::from_micros(pause as u64)).await;
    }

    fn member(&mut self) -> Option<usize> {
        let running = self.cluster.running();
        if running.is_empty() { None } else { Some(running[self.rng.below(running.len())]) }
    }

    fn timeout(&mut self) -> Duration {
        Duration::from_millis(500 + self.rng.below(5_000) as u64)
    }

    /// Writes and reads, until all is over.
    pub async fn use_entries(mut self) {
        while !self.over.load(Ordering::Relaxed) {
            self.rest().await;
            let Some(member) = self.member() else { continue };
            let path = format!("k{}", self.rng.below(PATHS));
            match self.rng.below(100) {
                0..40 => self.put(member, &path).await,
                40..45 => self.create(member, &path).await,
                45..53 => self.swap(member, &path).await,
                53..58 => self.delete(member, &path).await,
                58..65 => self.put_two(member).await,
                65..92 => self.read(member, &path).await,
                _ => self.look(member, &path),
            }
        }
    }

    fn payload(&mut self, serial: Serial) -> Bytes {
        let long = self.chance(3);
        let length = self.rng.below(if long { self.value_bytes_max } else { 100 });
        let mut payload = serial.to_be_bytes().to_vec();
        payload.resize(8 + length, serial as u8);
        Bytes::from(payload)
    }

    async fn write(&mut self, member: usize, command: Command) -> Option<Result<Outcome, EngineError>> {
        let (engine, environment) = self.cluster.engine(member)?;
        let within = self.timeout();
        let call = move |reply| {
            environment.enter(|| {
                if let Err((error, reply)) = engine.write_within(command, within, reply) {
                    reply.send(Err(error));
                }
            });
        };
        Some(self.cluster.answer("a write", within, call).await)
    }

    /// Tells what became of a write. Gives a refusal, to be looked at.
    fn note(&mut self, serial: Serial, done: Option<Result<Outcome, EngineError>>, changes: bool) -> Option<Refusal> {
        self.cluster.trace().note(format_args!("{} {serial} {done:?}", self.number));
        match done {
            Some(Ok(Outcome::Done { revision } | Outcome::Txn { revision, .. })) => {
                self.oracle().write_done(serial, revision, changes);
            }
            Some(Ok(Outcome::Refused(why))) => {
                self.oracle().write_refused(serial);
                return Some(why);
            }
            Some(Ok(Outcome::Granted(_))) => {
                self.oracle().finds(format!("an answer to another question: {done:?}"));
            }
            // It was applied, or not, and nobody knows any more.
            Some(Ok(_)) => self.oracle().write_unknown(serial),
            None => self.oracle().write_refused(serial),
            Some(Err(
                EngineError::Overloaded { .. }
                | EngineError::Closed
                | EngineError::NoQuorum
                | EngineError::Witness
                | EngineError::TooLarge { .. },
            )) => self.oracle().write_refused(serial),
            Some(Err(_)) => self.oracle().write_unknown(serial),
        }
        None
    }

    async fn put(&mut self, member: usize, path: &str) {
        let (serial, _) = self.oracle().write_begins("put", path, false);
        let write = Write::new(key(path), self.payload(serial));
        let done = self.write(member, Command::Put(write)).await;
        self.note(serial, done, true);
    }

    async fn create(&mut self, member: usize, path: &str) {
        let (serial, floor) = self.oracle().write_begins("create", path, false);
        let write = Write::new(key(path), self.payload(serial));
        let done = self.write(member, Command::Create(write)).await;
        let revision = revision_of(done.as_ref());
        let what = format!("create {serial}");
        match self.note(serial, done, true) {
            Some(Refusal::Exists(found)) => self.was_found(what, path, &found, floor),
            Some(other) => self.oracle().finds(format!("{what}: {other:?}")),
            None => {
                if let Some(revision) = revision {
                    self.oracle().replaced(what, path, revision, 0);
                }
            }
        }
    }

    /// Reads, and replaces what it has read.
    async fn swap(&mut self, member: usize, path: &str) {
        let Some((engine, _)) = self.cluster.engine(member) else { return };
        let before = engine.view().map(|view| view.get(&key(path)).map_or(0, |entry| entry.revision));
        let Ok(before) = before else { return };
        drop(engine);
        let (serial, floor) = self.oracle().write_begins("swap", path, false);
        let condition = Condition::RevisionIs(before);
        let write = Write { condition, ..Write::new(key(path), self.payload(serial)) };
        let done = self.write(member, Command::Put(write)).await;
        let revision = revision_of(done.as_ref());
        let what = format!("swap {serial}");
        match self.note(serial, done, true) {
            Some(Refusal::Conflict(Some(found))) => self.was_found(what, path, &found, floor),
            Some(Refusal::Conflict(None)) => self.oracle().was_missing(what, path, floor),
            Some(other) => self.oracle().finds(format!("{what}: {other:?}")),
            None => {
                if let Some(revision) = revision {
                    self.oracle().replaced(what, path, revision, before);
                }
            }
        }
    }

    fn was_found(&self, what: String, path: &str, found: &Found, floor: u64) {
        self.oracle().was_current(what, path, found.entry.revision, floor);
    }

    async fn delete(&mut self, member: usize, path: &str) {
        let (serial, _) = self.oracle().write_begins("delete", path, true);
        let delete = Delete::from(key(path));
        let done = self.write(member, Command::Delete(delete)).await;
        self.note(serial, done, false);
    }

    async fn put_two(&mut self, member: usize) {
        let (serial, _) = self.oracle().write_begins("txn", "two", false);
        let first = self.rng.below(PATHS);
        let second = (first + 1 + self.rng.below(PATHS - 1)) % PATHS;
        let mut put = |path: usize| Op::Put(Write::new(key(&format!("k{path}")), self.payload(serial)));
        let then = vec![put(first), put(second)];
        let txn = Txn { compare: Vec::new(), then, otherwise: Vec::new() };
        let done = self.write(member, Command::Txn(txn)).await;
        self.note(serial, done, true);
    }

    async fn read(&mut self, member: usize, path: &str) {
        let Some((engine, environment)) = self.cluster.engine(member) else { return };
        let floor = self.oracle().read_begins();
        let what = format!("read {} at {member}", self.number);
        let at_once = environment.enter(|| engine.authoritative_view().map(|view| view.map(|view| Arc::clone(&view))));
        let view = match at_once {
            Ok(Some(view)) => view,
            Err(_) => return,
            Ok(None) => {
                let within = self.timeout();
                let asked = engine.clone();
                let call = move |reply| {
                    environment.enter(|| {
                        if let Err((error, reply)) = asked.await_readable(within, reply) {
                            reply.send(Err(error));
                        }
                    });
                };
                if self.cluster.answer("a read", within, call).await.is_err() {
                    return self.oracle().count("unread");
                }
                let Ok(view) = engine.view().map(|view| Arc::clone(&view)) else { return };
                view
            }
        };
        let found = found(&view, path);
        self.cluster.trace().note(format_args!("{what} {path} {} {found:?}", view.revision));
        self.oracle().read_done(what, path, floor, view.revision, found);
    }

    /// Reads what the member happens to have.
    fn look(&self, member: usize, path: &str) {
        let Some((engine, _)) = self.cluster.engine(member) else { return };
        let Ok(view) = engine.view() else { return };
        let what = format!("look {} at {member}", self.number);
        self.oracle().local_read(what, path, view.revision, found(&view, path));
    }

    /// Acquires leases, keeps them for a while, and releases them or lets them end.
    pub async fn hold_leases(mut self) {
        while !self.over.load(Ordering::Relaxed) {
            self.rest().await;
            let Some(member) = self.member() else { continue };
            let lease = format!("l{}", self.rng.below(LEASES));
            let ttl = Duration::from_millis(800 + self.rng.below(3_000) as u64);
            let (name, holder) = (Bytes::from(lease.clone()), Bytes::from(self.number.to_be_bytes().to_vec()));
            let acquire = LeaseCommand::Acquire { name, holder, ttl_ms: u64::try_from(ttl.as_millis()).unwrap() };
            let asked = Instant::now();
            let done = self.write(member, Command::Lease(acquire)).await;
            self.cluster.trace().note(format_args!("{} acquires {lease} {done:?}", self.number));
            if let Some(Ok(Outcome::Granted(granted))) = done {
                self.oracle().holds(&lease, self.number, granted.epoch, asked, ttl);
                self.keep(&lease, granted.epoch, asked + ttl, ttl).await;
            }
        }
    }

    async fn keep(&mut self, lease: &str, epoch: u64, mut until: Instant, ttl: Duration) {
        let name = Bytes::from(lease.to_owned());
        for _ in 0..self.rng.below(10) {
            sleep(ttl / 3).await;
            let asked = Instant::now();
            let Some(member) = self.member() else { continue };
            if asked >= until {
                return;
            }
            let renew = LeaseCommand::Renew { name: name.clone(), epoch };
            let done = self.write(member, Command::Lease(renew)).await;
            self.cluster.trace().note(format_args!("{} renews {lease} {done:?}", self.number));
            match done {
                Some(Ok(Outcome::Granted(granted))) => {
                    self.oracle().holds(lease, self.number, granted.epoch, asked, ttl);
                    until = asked + ttl;
                }
                Some(Ok(Outcome::Refused(Refusal::LeaseEnded))) if Instant::now() < until => {
                    return self.oracle().finds(format!("{lease} of {} ended early", self.number));
                }
                Some(Ok(_)) => return,
                _ => {}
            }
        }
        if self.chance(50) {
            self.oracle().lets_go(lease, epoch);
            if let Some(member) = self.member() {
                let release = LeaseCommand::Release { name, epoch };
                let done = self.write(member, Command::Lease(release)).await;
                self.cluster.trace().note(format_args!("{} releases {lease} {done:?}", self.number));
            }
        } else {
            tokio::time::sleep_until(until).await;
        }
    }
}

fn revision_of(done: Option<&Result<Outcome, EngineError>>) -> Option<u64> {
    match done {
        Some(Ok(Outcome::Done { revision })) => Some(*revision),
        _ => None,
    }
}

/// Whose value a path has in a view.
pub fn found(view: &View, path: &str) -> Option<u64> {
    view.get(&key(path)).and_then(|entry| entry.payload.in_memory()).and_then(|payload| serial_of(&payload))
}
