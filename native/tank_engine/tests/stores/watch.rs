//! Watches against the truth: what a pure state makes of the same commands. Twenty watches start,
//! resume and end at random while transactions, deletions of subtrees and compactions run.
//!
//! `TANK_COMMANDS` chooses how many commands there are (4,000 unless told).

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock, mpsc};

use bytes::Bytes;
use tank_engine::command::{Command, Op, Relation, Request, RequestId, Txn, Write};
use tank_engine::engine::{Engine, From, Position, Since};
use tank_engine::entries::Entries;
use tank_engine::entry::Entry;
use tank_engine::key::{Component, Key};
use tank_engine::options::Options;
use tank_engine::outcome::Outcome;
use tank_engine::pattern::{self, Part, Pattern};
use tank_engine::state::{Change, State};
use tank_engine::watch::{Budget, Cursor, Filter, Next, Revised};
use tank_sim::wait;

use crate::support::{LIMIT, submit, write};

/// A position of whoever does not know the history.
fn at(revision: u64) -> Position {
    Position { history: None, revision }
}

const WATCHES: u64 = 20;
const HISTORY: u64 = 300;

/// A small generator of numbers: a failure names its seed.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut x = self.0 >> 33;
        x ^= x << 13;
        x ^ (x >> 7)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// A path of up to `depth` components, of few names: so that paths meet.
fn place(rng: &mut Rng, depth: u64) -> Key {
    let components: Vec<_> =
        (0..rng.below(depth + 1)).map(|_| Component::String(vec![b'a' + rng.below(4) as u8])).collect();
    Key::of(&components)
}

fn payload(rng: &mut Rng) -> Bytes {
    let length = if rng.below(50) == 0 { 3_000 } else { 1 + rng.below(20) as usize };
    Bytes::from(vec![rng.below(256) as u8; length])
}

fn command(rng: &mut Rng, revision: u64) -> Command {
    match rng.below(20) {
        0..=10 => Command::Put(Write::new(place(rng, 3), payload(rng))),
        11..=13 => Command::Delete(place(rng, 3).into()),
        14 => Command::Delete(place(rng, 1).into()),
        15..=18 => {
            let op = |rng: &mut Rng| match rng.below(4) {
                0 => Op::Delete(place(rng, 3).into()),
                _ => Op::Put(Write::new(place(rng, 3), payload(rng))),
            };
            let then = (0..1 + rng.below(12)).map(|_| op(rng)).collect();
            Command::Txn(Txn { compare: vec![], then, otherwise: vec![] })
        }
        _ => Command::Compact { revision: revision.saturating_sub(HISTORY / 2 + rng.below(HISTORY)) },
    }
}

/// A key, with the version and the record of its entry before and after.
type Plain = (Vec<u8>, Option<(u64, Vec<u8>)>, Option<(u64, Vec<u8>)>);

fn plain(change: &Change) -> Plain {
    let record = |entry: &Option<Arc<Entry>>| {
        entry.as_ref().map(|entry| (entry.version, entry.to_record(&entry.payload.in_memory().unwrap())))
    };
    (change.key.as_bytes().to_vec(), record(&change.previous), record(&change.entry))
}

/// What a watch is about, told without the engine.
#[derive(Clone, Debug)]
enum About {
    /// A path, and all below it.
    Below(Key),
    /// What has this name, on the second level: a pattern of names.
    Second(u8),
    /// What was written more than once since it was created: a pattern of entries.
    Rewritten,
}

impl About {
    fn any(rng: &mut Rng) -> Self {
        match rng.below(4) {
            0 => Self::Second(b'a' + rng.below(4) as u8),
            1 => Self::Rewritten,
            _ => Self::Below(place(rng, 2)),
        }
    }

    fn all() -> Self {
        Self::Below(Key::default())
    }

    fn filter(&self) -> Filter {
        let parts = match self {
            Self::Below(prefix) => return Filter::prefix(prefix.clone()),
            Self::Second(name) => {
                vec![Part::one(pattern::Condition::Any), Part::one(pattern::Condition::Is(vec![2, *name, 0]))]
            }
            Self::Rewritten => vec![Part::many(pattern::Condition::Version(Relation::Greater, 1))],
        };
        Filter::pattern(Pattern { parts }).unwrap()
    }

    fn passes(&self, (key, before, after): &Plain) -> bool {
        let rewritten = |entry: &Option<(u64, Vec<u8>)>| entry.as_ref().is_some_and(|(version, _)| *version > 1);
        match self {
            Self::Below(prefix) => key.starts_with(prefix.as_bytes()),
            // A component takes three bytes: a tag, the letter and a zero.
            Self::Second(name) => key.len() == 6 && key[4] == *name,
            // A pattern of parts never matches the root.
            Self::Rewritten => !key.is_empty() && (rewritten(before) || rewritten(after)),
        }
    }
}

/// What each revision changed, and left.
#[derive(Default)]
struct Truth {
    changes: Vec<Vec<Plain>>,
    entries: Vec<Entries>,
}

impl Truth {
    /// The revisions behind `after` up to `upto` that changed something that it is about.
    fn filtered(&self, about: &About, after: u64, upto: u64) -> Vec<(u64, Vec<Plain>)> {
        (after + 1..=upto)
            .map(|revision| {
                let all = self.changes[revision as usize - 1].iter();
                (revision, all.filter(|change| about.passes(change)).cloned().collect())
            })
            .filter(|(_, changes): &(u64, Vec<Plain>)| !changes.is_empty())
            .collect()
    }

    fn at(&self, revision: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
        if revision == 0 { Vec::new() } else { below(&self.entries[revision as usize - 1], &Key::default()) }
    }
}

fn below(entries: &Entries, prefix: &Key) -> Vec<(Vec<u8>, Vec<u8>)> {
    tank_engine::entries::subtree(entries, prefix)
        .map(|(key, e)| (key.as_bytes().to_vec(), e.to_record(&e.payload.in_memory().unwrap())))
        .collect()
}

/// What is wrong with a batch that a watch gave, which was at `after` before.
fn check(truth: &Truth, about: &About, after: u64, batch: &[Arc<Revised>], upto: u64) -> Result<(), String> {
    let given: Vec<_> =
        batch.iter().map(|one| (one.revision, one.changes.iter().map(plain).collect::<Vec<_>>())).collect();
    let expected = truth.filtered(about, after, upto);
    if given == expected {
        return Ok(());
    }
    let numbers = |all: &[(u64, Vec<Plain>)]| all.iter().map(|(r, c)| (*r, c.len())).collect::<Vec<_>>();
    Err(format!("behind {after} up to {upto}: gave {:?}, not {:?}", numbers(&given), numbers(&expected)))
}

struct Watching {
    cursor: Cursor,
    about: About,
    position: u64,
    woken: mpsc::Receiver<()>,
}

fn start(engine: &Engine, truth: &RwLock<Truth>, about: About, from: From) -> Watching {
    let (sender, woken) = mpsc::channel();
    let wake = Box::new(move || {
        let _ = sender.send(());
    });
    let (cursor, view) = engine.watch(about.filter(), from, wake).unwrap();
    let position = match from {
        From::Now => {
            let expected = truth.read().unwrap().at(view.revision);
            assert_eq!(below(&view.entries, &Key::default()), expected, "the view at {}", view.revision);
            view.revision
        }
        From::After(revision) => revision,
    };
    Watching { cursor, about, position, woken }
}

/// Watches at random until the revision `last` has come. Returns what it did.
fn watch(engine: &Engine, truth: &RwLock<Truth>, last: &AtomicU64, seed: u64) -> [u64; 3] {
    let mut rng = Rng(seed);
    let mut did = [0; 3];
    let mut watching = start(engine, truth, About::any(&mut rng), From::Now);
    loop {
        let budget = Budget {
            revisions: 1 + rng.below(300) as usize,
            bytes: 1 << rng.below(20),
            look: 1 + rng.below(500) as usize,
            changes: 1 + rng.below(500) as usize,
            patient: true,
        };
        let from = watching.position;
        match watching.cursor.next(budget).unwrap() {
            Next::Changes(batch, upto) => {
                let checked = check(&truth.read().unwrap(), &watching.about, from, &batch, upto);
                checked.unwrap_or_else(|wrong| panic!("watch {seed} of {:?}, {wrong}", watching.about));
                assert!(upto > from || batch.is_empty());
                did[0] += batch.len() as u64;
                watching.position = upto;
                if rng.below(2) == 0 && watching.cursor.rest() && upto < last.load(Ordering::SeqCst) {
                    let woken = watching.woken.recv_timeout(LIMIT);
                    woken.unwrap_or_else(|_| panic!("watch {seed} rests at {upto}, and was not woken"));
                }
            }
            Next::Idle(upto) => {
                assert!(upto >= from);
                let missed =
                    truth.read().unwrap().filtered(&watching.about, from, upto.min(engine.view().unwrap().revision));
                assert!(missed.is_empty(), "watch {seed} passed over {missed:?}");
                watching.position = upto;
                if upto >= last.load(Ordering::SeqCst) {
                    return did;
                }
                // The last revision concerns everybody: none may be left waiting.
                let woken = watching.woken.recv_timeout(LIMIT);
                woken.unwrap_or_else(|_| panic!("watch {seed} of {:?} was not woken at {upto}", watching.about));
            }
            Next::Compacted(min) => {
                assert!(min > from, "compacted up to {min}, and it was at {from}");
                did[2] += 1;
                watching = start(engine, truth, watching.about.clone(), From::Now);
            }
            Next::Large => panic!("patient"),
        }
        match rng.below(40) {
            0 => watching = start(engine, truth, About::any(&mut rng), From::Now),
            1 => {
                // Where it was, or earlier.
                let back = if rng.below(2) == 0 { 0 } else { rng.below(HISTORY) };
                let from = From::After(watching.position.saturating_sub(back));
                did[1] += 1;
                watching = start(engine, truth, watching.about.clone(), from);
            }
            // Behind what is in memory.
            2 => std::thread::sleep(std::time::Duration::from_millis(rng.below(30))),
            _ => {}
        }
        if watching.position >= last.load(Ordering::SeqCst) {
            return did;
        }
    }
}

fn open(dir: &Path) -> Engine {
    let mut options = Options::new(dir, "tank");
    options.history_revisions = HISTORY;
    options.watch_buffer_bytes_max = 20_000;
    Engine::open(options, Box::new(|error| panic!("failed: {error}"))).unwrap()
}

fn request(sequence: u64, command: Command) -> Request {
    Request { id: RequestId { client: 1, sequence, resolved_below: sequence }, time_ms: 0, command, seen_ms: 0 }
}

#[test]
fn every_stream_is_the_filtered_replay_of_the_log() {
    let count: u64 = std::env::var("TANK_COMMANDS").ok().map_or(4_000, |n| n.parse().unwrap());
    let seed: u64 = std::env::var("TANK_SEED").ok().map_or_else(|| std::process::id().into(), |n| n.parse().unwrap());
    eprintln!("TANK_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let (truth, last) = (RwLock::new(Truth::default()), AtomicU64::new(u64::MAX));
    std::thread::scope(|scope| {
        let watches: Vec<_> = (0..WATCHES)
            .map(|n| {
                let (engine, truth, last) = (&engine, &truth, &last);
                scope.spawn(move || watch(engine, truth, last, seed.wrapping_mul(1_000) + n))
            })
            .collect();
        let mut rng = Rng(seed);
        let mut state = State::default();
        let mut answers = Vec::new();
        for sequence in 1..=count {
            let command = if sequence == count { everywhere() } else { command(&mut rng, state.revision) };
            let applied = state.apply(&request(sequence, command.clone()), 1);
            if applied.revision.is_some() {
                let mut truth = truth.write().unwrap();
                truth.changes.push(applied.changes.iter().map(plain).collect());
                truth.entries.push(state.entries.clone());
            }
            if sequence == count {
                last.store(state.revision, Ordering::SeqCst);
            }
            answers.push(submit(&engine, command).unwrap());
            if rng.below(100) == 0 {
                for answer in answers.drain(..) {
                    answer.recv_timeout(LIMIT).unwrap().unwrap();
                }
            }
        }
        let did: Vec<_> = watches.into_iter().map(|watch| watch.join().unwrap()).collect();
        let sum = |at: usize| did.iter().map(|d| d[at]).sum::<u64>();
        eprintln!("{} revisions delivered, {} resumed, {} compacted", sum(0), sum(1), sum(2));
        assert!(sum(0) > count && sum(1) > 0);
    });
    assert_eq!(engine.view().unwrap().revision, last.load(Ordering::SeqCst));
    engine.close().unwrap();
}

/// A transaction that changes something at every path that is watched.
fn everywhere() -> Command {
    let name = |n: u8| Component::String(vec![b'a' + n]);
    let mut then = Vec::new();
    for a in 0..4 {
        for b in 0..4 {
            // Twice: those that watch what was rewritten are concerned too.
            for payload in ["one but last", "last"] {
                then.push(Op::Put(Write::new(Key::of(&[name(a), name(b)]), Bytes::from(payload))));
            }
        }
    }
    Command::Txn(Txn { compare: vec![], then, otherwise: vec![] })
}

#[test]
fn a_harness_that_misses_nothing() {
    let mut state = State::default();
    let mut truth = Truth::default();
    let mut batch = Vec::new();
    let mut rng = Rng(7);
    for sequence in 1..=50 {
        let key = Key::of(&[Component::String(vec![b'a' + rng.below(4) as u8])]);
        let put = |n: u8| Op::Put(Write::new(Key::of(&[Component::String(vec![n])]), Bytes::from("1")));
        let command = if sequence == 20 {
            Command::Txn(Txn { compare: vec![], then: vec![put(1), put(2)], otherwise: vec![] })
        } else {
            Command::Put(Write::new(key, Bytes::from(vec![sequence as u8])))
        };
        let applied = state.apply(&request(sequence, command), 1);
        truth.changes.push(applied.changes.iter().map(plain).collect());
        batch.push(Arc::new(Revised { revision: sequence, changes: applied.changes, nodes: applied.nodes }));
    }
    let verdict = |batch: &[Arc<Revised>]| check(&truth, &About::all(), 0, batch, 50);
    assert_eq!(verdict(&batch), Ok(()));
    let mutants: [fn(&mut Vec<Arc<Revised>>); 5] = [
        |batch| drop(batch.remove(17)),
        |batch| batch.insert(18, Arc::clone(&batch[17])),
        |batch| batch.swap(3, 4),
        |batch| drop(batch.pop()),
        |batch| {
            let one = &batch[19];
            let half =
                |at: usize| Arc::new(Revised { revision: 20, changes: vec![one.changes[at].clone()], nodes: vec![] });
            let halves = [half(0), half(1)];
            batch.splice(19..20, halves);
        },
    ];
    for (number, mutate) in mutants.iter().enumerate() {
        let mut mutant = batch.clone();
        mutate(&mut mutant);
        assert!(verdict(&mutant).is_err(), "mutant {number} got through");
    }
}

#[test]
fn a_watch_resumes_from_the_disk_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (mut state, truth, mut rng) = (State::default(), RwLock::new(Truth::default()), Rng(11));
    let engine = open(dir.path());
    for sequence in 1..=200 {
        let command = command(&mut rng, 0);
        let applied = state.apply(&request(sequence, command.clone()), 1);
        if applied.revision.is_some() {
            truth.write().unwrap().changes.push(applied.changes.iter().map(plain).collect());
        }
        write(&engine, command).unwrap();
    }
    engine.close().unwrap();
    let engine = open(dir.path());
    let mut watching = start(&engine, &truth, About::all(), From::After(0));
    let impatient = Budget { revisions: 1_000, bytes: 1 << 20, look: 1_000, changes: 1_000, patient: false };
    assert!(matches!(watching.cursor.next(impatient), Ok(Next::Large)), "the disk is not read on a scheduler");
    loop {
        let from = watching.position;
        match watching.cursor.next(Budget { revisions: 17, patient: true, ..impatient }).unwrap() {
            Next::Changes(batch, upto) => {
                assert!(batch.len() <= 17);
                assert_eq!(check(&truth.read().unwrap(), &watching.about, from, &batch, upto), Ok(()));
                watching.position = upto;
            }
            Next::Idle(upto) => break assert_eq!(upto, state.revision),
            other => panic!("{other:?}"),
        }
    }
    // It is woken once, by what concerns it, and by the end of the store.
    assert!(watching.woken.try_recv().is_err());
    write(&engine, Command::Put(Write::new(Key::default(), Bytes::from("x")))).unwrap();
    watching.woken.recv_timeout(LIMIT).unwrap();
    write(&engine, Command::Put(Write::new(Key::default(), Bytes::from("y")))).unwrap();
    assert!(watching.woken.try_recv().is_err(), "woken twice, and did not ask in between");
    let mut came = Vec::new();
    while came.len() < 2 {
        match watching.cursor.next(impatient).unwrap() {
            Next::Changes(batch, _) => came.extend(batch.iter().map(|one| one.revision)),
            // The watches come after the answer.
            Next::Idle(_) => watching.woken.recv_timeout(LIMIT).unwrap(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(came, [state.revision + 1, state.revision + 2]);
    assert!(matches!(watching.cursor.next(impatient), Ok(Next::Idle(_))));
    engine.close().unwrap();
    watching.woken.recv_timeout(LIMIT).unwrap();
    assert!(watching.cursor.next(impatient).is_err());
}

#[test]
fn what_changed_since_a_revision_is_the_difference_of_two_states() {
    let dir = tempfile::tempdir().unwrap();
    let (mut state, mut rng) = (State::default(), Rng(5));
    let mut states = vec![state.entries.clone()];
    let engine = open(dir.path());
    for sequence in 1..=250 {
        let command = command(&mut rng, 0);
        if state.apply(&request(sequence, command.clone()), 1).revision.is_some() {
            states.push(state.entries.clone());
        }
        write(&engine, command).unwrap();
    }
    let view = engine.view().unwrap();
    for revision in (0..state.revision).step_by(7) {
        for prefix in [Key::default(), Key::of(&[Component::String(b"a".to_vec())])] {
            let since = engine.changes_since(&view, &Filter::prefix(prefix.clone()), at(revision), true).unwrap();
            let Since::Changed(changed) = since else { panic!("{since:?}") };
            assert_eq!(changed.revision, state.revision);
            let mut replayed = states[revision as usize].clone();
            for (at, change) in changed.changes {
                assert!(at > revision && change.key.is_within(&prefix));
                assert_eq!(replayed.get(&change.key), change.previous.as_ref());
                match change.entry {
                    Some(entry) => drop(replayed.insert(change.key, entry)),
                    None => drop(replayed.remove(&change.key)),
                }
            }
            assert_eq!(below(&replayed, &prefix), below(&state.entries, &prefix), "since {revision}");
        }
    }
    let unchanged = engine.changes_since(&view, &Filter::prefix(Key::default()), at(state.revision), true);
    assert!(matches!(unchanged, Ok(Since::Unchanged)));
    drop(view);
    write(&engine, Command::Compact { revision: 100 }).unwrap();
    let view = engine.view().unwrap();
    let since = |revision| engine.changes_since(&view, &Filter::prefix(Key::default()), at(revision), true).unwrap();
    assert!(matches!(since(99), Since::Compacted(100)));
    assert!(matches!(since(100), Since::Changed(_)));
    engine.close().unwrap();
}

#[test]
fn what_came_to_match_since_a_revision_or_ceased_to_is_told_as_it_is_now() {
    let dir = tempfile::tempdir().unwrap();
    let (mut state, mut rng) = (State::default(), Rng(6));
    let mut states = vec![state.entries.clone()];
    let engine = open(dir.path());
    for sequence in 1..=250 {
        let command = command(&mut rng, 0);
        if state.apply(&request(sequence, command.clone()), 1).revision.is_some() {
            states.push(state.entries.clone());
        }
        write(&engine, command).unwrap();
    }
    let view = engine.view().unwrap();
    for about in [About::Rewritten, About::Second(b'b')] {
        let record = |entries: &Entries, key: &Key| {
            entries.get(key).map(|entry| (entry.version, entry.to_record(&entry.payload.in_memory().unwrap())))
        };
        for revision in (0..state.revision).step_by(11) {
            let then = &states[revision as usize];
            let keys: std::collections::BTreeSet<_> = then.keys().chain(state.entries.keys()).cloned().collect();
            let differs =
                keys.into_iter().map(|key| (key.as_bytes().to_vec(), record(then, &key), record(&state.entries, &key)));
            let expected: Vec<Plain> = differs.filter(|one| one.1 != one.2 && about.passes(one)).collect();
            let since = engine.changes_since(&view, &about.filter(), at(revision), true).unwrap();
            let Since::Changed(changed) = since else { panic!("{since:?}") };
            let given: Vec<Plain> = changed.changes.iter().map(|(_, change)| plain(change)).collect();
            assert_eq!(given, expected, "{about:?} since {revision}");
        }
    }
    drop(view);
    engine.close().unwrap();
}

#[test]
fn the_leader_keeps_the_history_within_its_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::new(dir.path(), "tank");
    options.history_revisions = 500;
    let engine = Engine::open(options.clone(), Box::new(|error| panic!("failed: {error}"))).unwrap();
    crate::support::write_all(&engine, (0..3_000).map(|n| crate::support::put(&(n % 10).to_string(), b"1")));
    let within = |engine: &Engine, low: u64, high: u64| {
        let look = || {
            let view = engine.view().unwrap();
            (view.revision, view.compacted)
        };
        let is_within = |(revision, compacted): &(u64, u64)| (low..=high).contains(&(revision - compacted));
        wait::until("the history to be compacted", LIMIT, look, is_within).unwrap();
    };
    within(&engine, 500, 550);
    engine.close().unwrap();
    options.history_revisions = 100_000;
    options.history_age_ms = Some(1);
    let engine = Engine::open(options, Box::new(|error| panic!("failed: {error}"))).unwrap();
    within(&engine, 0, 0);
    assert!(matches!(write(&engine, crate::support::put("a", b"2")), Ok(Outcome::Done { .. })));
    engine.close().unwrap();
}
