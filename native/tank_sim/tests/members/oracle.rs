//! Knows what every client was told, and finds what cannot be true of one store.
//!
//! Each write carries a serial that no other has, and each revision shows whose it is. So the order of
//! revisions is the one order that all operations must fit into: a write comes behind everything that was
//! acknowledged, or read, before it began; a read shows what there was at its revision, and is not older
//! than anything acknowledged before it began. Whatever has an unknown outcome may or may not be there,
//! once at the most.

mod histories;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tank_engine::state::Change;
use tank_engine::view::View;
use tank_engine::watch::Revised;
use tokio::time::Instant;

use crate::trace::Trace;

/// The findings after which there is no use in more.
const FINDINGS_MAX: usize = 20;

/// Clones are the same oracle.
#[derive(Clone)]
pub struct Oracle(Arc<Mutex<Inner>>, Trace);

/// A path's name and whose value it has: the serial of the write. `None`: no entry.
type Changed = (String, Option<u64>);

struct Inner {
    findings: Vec<String>,
    /// The revision at which the history began: up to here, revisions are of another one.
    since: u64,
    /// The highest revision that anybody has seen.
    seen: u64,
    /// Whom each epoch was granted to, in any history; and the highest one of former histories.
    epochs: BTreeMap<u64, (String, usize)>,
    former_epoch: u64,
    /// What each revision changed.
    history: BTreeMap<u64, Vec<Changed>>,
    /// At which revision each serial came.
    placed: BTreeMap<u64, u64>,
    asked: BTreeMap<u64, Asked>,
    next: u64,
    /// No operation that begins now may be placed before this revision, or see less.
    floor: u64,
    reads: Vec<Read>,
    checks: Vec<Check>,
    streams: BTreeMap<String, Vec<u64>>,
    digests: BTreeMap<u64, (u64, u64, String, usize)>,
    beliefs: Vec<Belief>,
    counts: BTreeMap<&'static str, u64>,
}

/// A write that was sent.
struct Asked {
    what: String,
    floor: u64,
    path: String,
    deletes: bool,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Open,
    /// It may or may not be in the history.
    Unknown,
    /// It must not be.
    Refused,
    Done(u64),
}

struct Read {
    what: String,
    path: String,
    revision: u64,
    found: Option<u64>,
}

/// Something to be checked against the whole history.
enum Check {
    /// The path had been last written at this revision, somewhen at or after the floor.
    Current { what: String, path: String, revision: u64, floor: u64 },
    /// There was no entry at the path, somewhen at or after the floor.
    Missing { what: String, path: String, floor: u64 },
    /// A write at a revision replaced what was written at another one.
    Replaced { what: String, path: String, at: u64, before: u64 },
}

/// Somebody takes himself for the holder of a lease.
struct Belief {
    lease: String,
    holder: usize,
    epoch: u64,
    until: Instant,
}

/// The number of an operation.
pub type Serial = u64;

impl Oracle {
    pub fn new(trace: Trace) -> Self {
        let inner = Inner {
            findings: Vec::new(),
            since: 0,
            seen: 0,
            epochs: BTreeMap::new(),
            former_epoch: 0,
            history: BTreeMap::new(),
            placed: BTreeMap::new(),
            asked: BTreeMap::new(),
            next: 1,
            floor: 0,
            reads: Vec::new(),
            checks: Vec::new(),
            streams: BTreeMap::new(),
            digests: BTreeMap::new(),
            beliefs: Vec::new(),
            counts: BTreeMap::new(),
        };
        Self(Arc::new(Mutex::new(inner)), trace)
    }

    /// Something is wrong.
    pub fn finds(&self, what: String) {
        self.1.note(format_args!("FOUND {what}"));
        let mut inner = self.0.lock().unwrap();
        if inner.findings.len() < FINDINGS_MAX {
            inner.findings.push(what);
        }
    }

    /// All that is wrong.
    pub fn findings(&self) -> Vec<String> {
        self.0.lock().unwrap().findings.clone()
    }

    /// How often what happened.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap().counts.clone()
    }

    pub fn count(&self, what: &'static str) {
        *self.0.lock().unwrap().counts.entry(what).or_default() += 1;
    }

    /// A write begins. `deletes`: its serial shows in no value.
    pub fn write_begins(&self, what: &str, path: &str, deletes: bool) -> (Serial, u64) {
        let mut inner = self.0.lock().unwrap();
        let (serial, floor) = (inner.next, inner.floor);
        inner.next += 1;
        let asked = Asked { what: what.to_owned(), floor, path: path.to_owned(), deletes, fate: Fate::Open };
        inner.asked.insert(serial, asked);
        (serial, floor)
    }

    /// It is done, at a revision; `changes`: surely one of its own.
    pub fn write_done(&self, serial: Serial, revision: u64, changes: bool) {
        let mut inner = self.0.lock().unwrap();
        let asked = &inner.asked[&serial];
        let late = if changes { revision <= asked.floor } else { revision < asked.floor };
        let why = format!("{} ({serial}) was done at {revision}, after {} was seen", asked.what, asked.floor);
        let fate = if changes || asked.deletes { Fate::Done(revision) } else { Fate::Refused };
        inner.floor = inner.floor.max(revision);
        inner.seen = inner.seen.max(revision);
        inner.asked.get_mut(&serial).unwrap().fate = fate;
        drop(inner);
        self.count("written");
        if late {
            self.finds(why);
        }
    }

    /// It was refused: it changed nothing.
    pub fn write_refused(&self, serial: Serial) {
        self.0.lock().unwrap().asked.get_mut(&serial).unwrap().fate = Fate::Refused;
        self.count("refused");
    }

    /// Nobody knows.
    pub fn write_unknown(&self, serial: Serial) {
        self.0.lock().unwrap().asked.get_mut(&serial).unwrap().fate = Fate::Unknown;
        self.count("unknown");
    }

    /// A refusal said that the path was as written at `revision`.
    pub fn was_current(&self, what: String, path: &str, revision: u64, floor: u64) {
        let check = Check::Current { what, path: path.to_owned(), revision, floor };
        self.0.lock().unwrap().checks.push(check);
    }

    /// A refusal said that the path had no entry.
    pub fn was_missing(&self, what: String, path: &str, floor: u64) {
        self.0.lock().unwrap().checks.push(Check::Missing { what, path: path.to_owned(), floor });
    }

    /// A condition held.
    pub fn replaced(&self, what: String, path: &str, at: u64, before: u64) {
        self.0.lock().unwrap().checks.push(Check::Replaced { what, path: path.to_owned(), at, before });
    }

    /// What a read that begins now must see at the least.
    pub fn read_begins(&self) -> u64 {
        self.0.lock().unwrap().floor
    }

    /// A read that must see all that was acknowledged before.
    pub fn read_done(&self, what: String, path: &str, floor: u64, revision: u64, found: Option<u64>) {
        if revision < floor {
            self.finds(format!("{what} of {path} saw revision {revision}, after {floor} was seen"));
        }
        let mut inner = self.0.lock().unwrap();
        inner.floor = inner.floor.max(revision);
        inner.seen = inner.seen.max(revision);
        inner.reads.push(Read { what, path: path.to_owned(), revision, found });
        drop(inner);
        self.count("read");
    }

    /// A read of what a member happens to have.
    pub fn local_read(&self, what: String, path: &str, revision: u64, found: Option<u64>) {
        let mut inner = self.0.lock().unwrap();
        inner.seen = inner.seen.max(revision);
        inner.reads.push(Read { what, path: path.to_owned(), revision, found });
    }

    /// A member's view, at some moment.
    pub fn view(&self, member: usize, view: &View) {
        let Some(applied) = view.applied.map(|id| id.index()) else { return };
        let mut inner = self.0.lock().unwrap();
        // What retries and expiry rest on has to be the same too.
        let sessions = format!("{:x} {:?}", view.sessions_digest, view.log_time);
        let seen = (view.digest, view.revision, sessions, member);
        let other = inner.digests.entry(applied).or_insert_with(|| seen.clone()).clone();
        drop(inner);
        if (other.0, other.1, &other.2) != (seen.0, seen.1, &seen.2) {
            self.finds(format!("log entry {applied}: member {} has {other:x?}, member {member} {seen:x?}", other.3));
        }
    }

    /// A watch of everything told of a revision.
    pub fn told(&self, stream: &str, revised: &Revised) {
        let changes: Vec<Changed> = revised.changes.iter().map(changed).collect();
        let mut findings = Vec::new();
        {
            let mut inner = self.0.lock().unwrap();
            if revised.revision <= inner.since {
                findings
                    .push(format!("{stream} told of {}, and the history began at {}", revised.revision, inner.since));
            }
            inner.seen = inner.seen.max(revised.revision);
            let told = inner.streams.entry(stream.to_owned()).or_default();
            if told.last().is_some_and(|last| *last >= revised.revision) {
                findings.push(format!("{stream} told of {} after {:?}", revised.revision, told.last()));
            }
            told.push(revised.revision);
            let known = inner.history.entry(revised.revision).or_insert_with(|| changes.clone());
            if *known != changes {
                findings.push(format!("revision {}: {known:?}, and {stream} told of {changes:?}", revised.revision));
            }
            for (path, serial) in &changes {
                let Some(serial) = serial else { continue };
                let placed = *inner.placed.entry(*serial).or_insert(revised.revision);
                if placed != revised.revision {
                    findings.push(format!(
                        "serial {serial} of {path} was applied twice: at {placed} and at {}",
                        revised.revision
                    ));
                }
            }
        }
        findings.into_iter().for_each(|finding| self.finds(finding));
        self.count("told");
    }

    /// Up to where a stream has come.
    pub fn told_upto(&self, stream: &str) -> u64 {
        let inner = self.0.lock().unwrap();
        inner.streams.get(stream).and_then(|told| told.last().copied()).unwrap_or(inner.since)
    }

    /// A stream begins again with a new member: what it told before was another one's.
    pub fn stream_ends(&self, stream: &str) {
        self.0.lock().unwrap().streams.remove(stream);
    }

    /// A lease was granted, or renewed, to who asked at `asked`.
    pub fn holds(&self, lease: &str, holder: usize, epoch: u64, asked: Instant, ttl: Duration) {
        let (now, until) = (Instant::now(), asked + ttl);
        if until <= now {
            // The answer came too late to rest on.
            return;
        }
        let mut inner = self.0.lock().unwrap();
        let mut findings = Vec::new();
        if epoch <= inner.former_epoch {
            findings.push(format!("{lease}: epoch {epoch}, and {} was granted in another history", inner.former_epoch));
        }
        let granted = inner.epochs.entry(epoch).or_insert_with(|| (lease.to_owned(), holder)).clone();
        if granted != (lease.to_owned(), holder) {
            findings.push(format!("epoch {epoch} is of {granted:?} and of {lease}, {holder}"));
        }
        for other in inner.beliefs.iter().filter(|other| other.lease == lease && other.epoch != epoch) {
            if other.until > now && other.holder != holder {
                let left = other.until - now;
                findings.push(format!(
                    "{lease} is held by {holder} (epoch {epoch}), and by {} for {left:?} more (epoch {})",
                    other.holder, other.epoch
                ));
            }
            if other.epoch > epoch && other.until < asked {
                findings.push(format!("{lease}: epoch {epoch} after {}", other.epoch));
            }
        }
        inner.beliefs.retain(|belief| belief.until > now || belief.epoch + 1_000 > epoch);
        match inner.beliefs.iter_mut().find(|belief| belief.lease == lease && belief.epoch == epoch) {
            Some(belief) if belief.holder == holder => belief.until = belief.until.max(until),
            Some(belief) => findings.push(format!("{lease}: epoch {epoch} is of {} and of {holder}", belief.holder)),
            None => inner.beliefs.push(Belief { lease: lease.to_owned(), holder, epoch, until }),
        }
        drop(inner);
        findings.into_iter().for_each(|finding| self.finds(finding));
        self.count("held");
    }

    /// The holder of a lease does not count on it any more.
    pub fn lets_go(&self, lease: &str, epoch: u64) {
        let now = Instant::now();
        let mut inner = self.0.lock().unwrap();
        for belief in inner.beliefs.iter_mut().filter(|belief| belief.lease == lease && belief.epoch == epoch) {
            belief.until = belief.until.min(now);
        }
    }

    /// All that can only be told at the end. `last`: the revision that all members have come to.
    pub fn judge(&self, last: u64) {
        let findings = self.0.lock().unwrap().judge(last);
        findings.into_iter().for_each(|finding| self.finds(finding));
    }

    /// What all entries are at the end, by the history.
    pub fn expected(&self) -> BTreeMap<String, u64> {
        self.expected_at(u64::MAX)
    }

    /// What all entries are at a revision, by the history.
    pub fn expected_at(&self, revision: u64) -> BTreeMap<String, u64> {
        let inner = self.0.lock().unwrap();
        let mut entries = BTreeMap::new();
        for (path, serial) in inner.history.range(..=revision).flat_map(|(_, changes)| changes) {
            match serial {
                Some(serial) => drop(entries.insert(path.clone(), *serial)),
                None => drop(entries.remove(path)),
            }
        }
        entries
    }
}

impl Inner {
    fn judge(&self, last: u64) -> Vec<String> {
        let mut findings = Vec::new();
        let mut by_path: BTreeMap<&str, Vec<(u64, Option<u64>)>> = BTreeMap::new();
        for (revision, changes) in &self.history {
            for (path, serial) in changes {
                by_path.entry(path).or_default().push((*revision, *serial));
            }
        }
        let changes_of = |path: &str| by_path.get(path).map_or(&[][..], Vec::as_slice);
        let at = |path: &str, revision: u64| {
            let changes = changes_of(path);
            let behind = changes.partition_point(|(at, _)| *at <= revision);
            behind.checked_sub(1).map(|last| changes[last])
        };
        // Each write is where it was said to be, once, and behind what was seen before it began.
        for (serial, asked) in &self.asked {
            let placed = self.placed.get(serial).copied();
            let what = format!("{} ({serial})", asked.what);
            match (asked.fate, placed) {
                (Fate::Refused, Some(revision)) => {
                    findings.push(format!("{what} was refused, and is at revision {revision}"));
                }
                (Fate::Done(revision), placed) if !asked.deletes && placed != Some(revision) => {
                    findings.push(format!("{what} was done at {revision}, and is at {placed:?}"));
                }
                (_, Some(revision)) if revision <= asked.floor => {
                    findings.push(format!("{what} is at {revision}, and {} was seen before it", asked.floor));
                }
                _ => {}
            }
        }
        for serial in self.placed.keys().filter(|serial| !self.asked.contains_key(serial)) {
            findings.push(format!("nobody wrote {serial}"));
        }
        self.judge_deletes(&by_path, &mut findings);
        for read in &self.reads {
            let there = at(&read.path, read.revision).and_then(|(_, serial)| serial);
            if there != read.found {
                findings.push(format!(
                    "{} of {} at {} found {:?}, and there was {there:?}",
                    read.what, read.path, read.revision, read.found
                ));
            }
        }
        for check in &self.checks {
            match check {
                Check::Current { what, path, revision, floor } => {
                    let changes = changes_of(path);
                    let next = changes.iter().find(|(at, _)| at > revision).map(|(at, _)| *at);
                    if next.is_some_and(|next| next <= *floor) || !changes.iter().any(|(at, _)| at == revision) {
                        findings
                            .push(format!("{what} found {path} of {revision}, replaced at {next:?}, floor {floor}"));
                    }
                }
                Check::Missing { what, path, floor } => {
                    let gone = at(path, *floor).is_none_or(|(_, serial)| serial.is_none());
                    if !gone && !changes_of(path).iter().any(|(at, serial)| at > floor && serial.is_none()) {
                        findings.push(format!("{what} did not find {path}, which was there at {floor} and since"));
                    }
                }
                Check::Replaced { what, path, at: revision, before } => {
                    let found = at(path, revision - 1).filter(|(_, serial)| serial.is_some()).map_or(0, |(at, _)| at);
                    if found != *before {
                        findings.push(format!("{what} of {path} at {revision}: expected {before}, replaced {found}"));
                    }
                }
            }
        }
        let all: BTreeSet<u64> = self.history.keys().copied().collect();
        for (stream, told) in &self.streams {
            let told: BTreeSet<u64> = told.iter().copied().collect();
            let missing: Vec<_> = all
                .range(self.since + 1..=last.max(self.since + 1))
                .filter(|revision| !told.contains(revision))
                .take(5)
                .collect();
            if !missing.is_empty() {
                findings.push(format!("{stream} was not told of {missing:?}"));
            }
        }
        findings
    }

    /// Each deletion belongs to a call, and each call deletes once.
    fn judge_deletes(&self, by_path: &BTreeMap<&str, Vec<(u64, Option<u64>)>>, findings: &mut Vec<String>) {
        for (path, changes) in by_path {
            if path.starts_with("lease-") {
                continue;
            }
            let calls = || self.asked.values().filter(|asked| asked.deletes && asked.path == *path);
            let acknowledged: BTreeSet<u64> = calls()
                .filter_map(|asked| if let Fate::Done(revision) = asked.fate { Some(revision) } else { None })
                .collect();
            let mut unknown: Vec<u64> = calls().filter(|asked| asked.fate == Fate::Unknown).map(|a| a.floor).collect();
            unknown.sort_unstable();
            let gone: BTreeSet<u64> =
                changes.iter().filter(|(_, serial)| serial.is_none()).map(|(at, _)| *at).collect();
            for revision in acknowledged.difference(&gone) {
                // There may have been nothing to delete.
                let before = changes.partition_point(|(at, _)| at <= revision);
                if before.checked_sub(1).is_some_and(|last| changes[last].1.is_some()) {
                    findings.push(format!("the deletion of {path} at {revision} is not there"));
                }
            }
            for revision in gone.difference(&acknowledged) {
                match unknown.iter().position(|floor| floor < revision) {
                    Some(call) => drop(unknown.remove(call)),
                    None => findings.push(format!("nobody deleted {path} at {revision}")),
                }
            }
        }
    }
}

/// Whose value an entry has.
pub fn serial_of(payload: &[u8]) -> Option<u64> {
    payload.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// A path as text.
pub fn path_of(key: &tank_engine::key::Key) -> String {
    let text = key.as_bytes().iter().filter(|byte| byte.is_ascii_graphic()).map(|byte| *byte as char);
    text.collect()
}

fn changed(change: &Change) -> Changed {
    let payload = change.entry.as_ref().and_then(|entry| entry.payload.in_memory());
    (path_of(&change.key), payload.and_then(|payload| serial_of(&payload)))
}
