//! Damaged files: a store that was closed or killed, one fault in one of its files, and the next
//! open. It must refuse with an error that says what is damaged, or hold all that was
//! acknowledged. It must never hold less without an error, hang, or end the process.
//!
//! `cargo test --test stores damage -- --nocapture` prints the table; `TANK_SEED` chooses the offsets, and
//! `TANK_ONLY` the rows, by a part of their text: "killed MANIFEST: append".

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tank_engine::entry::Entry;
use tank_engine::error::EngineError;
use tank_engine::log::disk::{LogDisk, LogWrite};
use tank_engine::outcome::Outcome;
use tank_sim::{Rng, rng};

use crate::support::{Held, LIMIT, Victim, copy_dir, delete, held, open, put, try_open, write, write_all};

/// The kind of the log's files.
const SEGMENT: &str = "segment";

/// How its records say that they are a log entry.
const ENTRY: u8 = 3;

/// Opening a damaged store must not take longer than this.
const OPEN_LIMIT: Duration = Duration::from_secs(10);

/// A store that ended, and what is known of it.
struct Ended {
    how: &'static str,
    dir: PathBuf,
    /// The same store earlier: while its last files were written, and before that.
    older: [PathBuf; 2],
    /// By name: payload and revision of each write that was acknowledged and not overwritten.
    acknowledged: BTreeMap<String, (Vec<u8>, u64)>,
    /// What it holds when nothing is damaged.
    whole: Held,
    /// The column family of each file of the database that is there for good.
    families: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
enum Fault {
    Flip { offset: u64, bit: u8 },
    Zero { offset: u64, size: u64 },
    Truncate { size: u64 },
    Append(Vec<u8>),
    Delete,
    OlderCopy(PathBuf),
    Swap(PathBuf),
    Write(Vec<u8>),
}

fn payload(rng: &mut Rng, bytes: usize) -> Vec<u8> {
    (0..bytes.div_ceil(8)).flat_map(|_| rng.next_u64().to_be_bytes()).collect()
}

/// The store's first two lives: everything is in files of the database then, except for the end.
fn two_lives(dir: &Path, rng: &mut Rng) {
    let engine = open(dir);
    write_all(&engine, (0..150).map(|i| put(&format!("first-{i:03}"), &payload(rng, 512))));
    engine.close().unwrap();
    let engine = open(dir);
    write_all(&engine, (0..100).map(|i| put(&format!("second-{i:03}"), &payload(rng, 512))));
    write_all(&engine, (0..30).map(|i| put(&format!("first-{i:03}"), &payload(rng, 64))));
    write_all(&engine, (30..40).map(|i| delete(&format!("first-{i:03}"))));
    engine.close().unwrap();
}

/// What a store holds, by name.
fn by_name(held: &Held) -> BTreeMap<String, (Vec<u8>, u64)> {
    let entries = held.entries.iter().map(|(key, record)| {
        let key = tank_engine::key::Key::from_bytes(key);
        let path = key.components().unwrap();
        let tank_engine::key::Component::String(name) = path.last().unwrap() else { panic!("{path:?}") };
        let entry = Entry::from_record(&key, record).unwrap();
        (String::from_utf8(name.clone()).unwrap(), (entry.payload.in_memory().unwrap().to_vec(), entry.revision))
    });
    entries.collect()
}

fn closed(root: &Path, rng: &mut Rng) -> Ended {
    let dir = root.join("closed");
    let older = [root.join("closed-1"), root.join("closed-2")];
    two_lives(&dir, rng);
    copy_dir(&dir, &older[1]);
    let engine = open(&dir);
    write_all(&engine, (0..60).map(|i| put(&format!("third-{i:03}"), &payload(rng, 512))));
    copy_dir(&dir, &older[0]);
    write_all(&engine, (60..120).map(|i| put(&format!("third-{i:03}"), &payload(rng, 512))));
    let acknowledged = by_name(&held(&engine));
    engine.close().unwrap();
    ended("closed", root, dir, older, acknowledged)
}

fn killed(root: &Path, rng: &mut Rng) -> Ended {
    let dir = root.join("killed");
    let older = [root.join("killed-1"), root.join("killed-2")];
    two_lives(&dir, rng);
    copy_dir(&dir, &older[1]);
    let before = open(&dir);
    let mut acknowledged = by_name(&held(&before));
    before.close().unwrap();
    let seed = rng.next_u64();
    let mut victim = Victim::start("damage::writes_until_it_is_killed", &dir, &[("TANK_SEED", seed.to_string())]);
    let mut heard = Vec::new();
    while heard.len() < 60 {
        heard.push(victim.hear());
    }
    copy_dir(&dir, &older[0]);
    victim.go();
    while heard.len() < 200 {
        heard.push(victim.hear());
    }
    heard.extend(victim.kill());
    let mut payloads = Rng::new(seed);
    for (number, line) in heard.iter().enumerate() {
        let revision = line.parse().unwrap();
        acknowledged.insert(format!("third-{number:06}"), (payload(&mut payloads, 512), revision));
    }
    ended("killed", root, dir, older, acknowledged)
}

/// The third life of a store that is killed: writes one after the other, and says when each is
/// acknowledged.
#[test]
#[ignore = "started by other tests, to be killed"]
fn writes_until_it_is_killed() {
    let Some(dir) = Victim::dir() else { return };
    let mut rng = Rng::new(rng::seed("TANK_SEED", 1));
    let engine = open(&dir);
    for number in 0.. {
        let Ok(Outcome::Done { revision }) =
            write(&engine, put(&format!("third-{number:06}"), &payload(&mut rng, 512)))
        else {
            panic!("write {number} was not done");
        };
        Victim::say(&revision.to_string());
        if number == 59 {
            Victim::wait_for_go();
        }
    }
}

/// Looks at what is whole, so that there is something to compare with.
fn ended(
    how: &'static str,
    root: &Path,
    dir: PathBuf,
    older: [PathBuf; 2],
    acknowledged: BTreeMap<String, (Vec<u8>, u64)>,
) -> Ended {
    let copy = root.join("look");
    copy_dir(&dir, &copy);
    let engine = open(&copy);
    let whole = held(&engine);
    engine.close().unwrap();
    fs::remove_dir_all(&copy).unwrap();
    assert_eq!(missing(&whole, &acknowledged), None, "{how}: before any damage");
    // Only read: opened for writing, it would merge files.
    let options = rocksdb::Options::default();
    let names = rocksdb::DB::list_cf(&options, dir.join("db")).unwrap();
    let db = rocksdb::DB::open_cf_for_read_only(&options, dir.join("db"), names, false).unwrap();
    let files = db.live_files().unwrap();
    let family = |file: &rocksdb::LiveFile| {
        let family = file.column_family_name.split('_').next().unwrap().to_owned();
        (format!("db/{}", file.name.trim_start_matches('/')), family)
    };
    let families = files.iter().map(family).collect();
    Ended { how, dir, older, acknowledged, whole, families }
}

/// The first acknowledged write that a store does not hold.
fn missing(held: &Held, acknowledged: &BTreeMap<String, (Vec<u8>, u64)>) -> Option<String> {
    let found = by_name(held);
    acknowledged.iter().find(|(name, write)| found.get(*name) != Some(write)).map(|(name, _)| name.clone())
}

/// Every file of a store, by its path in the directory; without RocksDB's log for humans.
fn files(dir: &Path) -> Vec<String> {
    let names = |dir: &Path| -> Vec<_> {
        let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
        entries.filter(|entry| entry.metadata().unwrap().is_file()).map(|entry| entry.file_name()).collect()
    };
    let mut files: Vec<String> = names(dir).into_iter().map(|name| name.into_string().unwrap()).collect();
    for part in ["db", "log"] {
        files.extend(names(&dir.join(part)).into_iter().map(|name| format!("{part}/{}", name.into_string().unwrap())));
    }
    files.retain(|name| !name.starts_with("db/LOG"));
    files.sort();
    files
}

impl Ended {
    fn kind(&self, file: &str) -> String {
        match file.strip_prefix("db/") {
            None if file.ends_with(".segment") => SEGMENT.to_owned(),
            None => file.to_owned(),
            Some(name) if name.ends_with(".sst") => {
                // A flush or a compaction that the kill ended leaves a file that belongs to none.
                format!("SST of {}", self.families.get(file).map_or("none", String::as_str))
            }
            Some(name) if name.ends_with(".log") => "WAL".to_owned(),
            Some(name) => format!("db/{}", name.split('-').next().unwrap()),
        }
    }

    /// The faults to try on one file.
    fn faults(&self, file: &str, rng: &mut Rng) -> Vec<Fault> {
        let path = self.dir.join(file);
        let size = fs::metadata(&path).unwrap().len();
        let mut faults = vec![Fault::Delete, Fault::Append(payload(rng, 64))];
        // Nobody reads these; that they cannot do harm needs no more than a few looks.
        let flips = if file.starts_with("db/OPTIONS") || file == "db/IDENTITY" { 1 } else { 6 };
        if size > 0 {
            // A segment has space behind what is written.
            let now = fs::read(&path).unwrap();
            let written = now.iter().rposition(|&byte| byte != 0).map_or(1, |last| last as u64 + 1);
            let mut offsets: Vec<u64> = (0..flips).map(|_| rng.below(written as usize) as u64).collect();
            offsets.extend([0, written - 1, size - 1]);
            for offset in offsets {
                faults.push(Fault::Flip { offset, bit: rng.below(8) as u8 });
            }
            let mut sizes = vec![0, written / 4, written / 2, size - 1, written - 1];
            sizes.push(written.saturating_sub(1 + rng.below(600) as u64));
            sizes.dedup();
            faults.extend(sizes.into_iter().map(|size| Fault::Truncate { size }));
            let offset = rng.below(written as usize) as u64;
            faults.push(Fault::Zero { offset, size: (size - offset).min(512) });
        }
        let now = fs::read(&path).unwrap();
        match self.kind(file).as_str() {
            "db/MANIFEST" => faults.extend(faults_between_records(&now, &records(&now), 6, rng)),
            // Most often empty: only what hardly ever changes is written to it.
            "WAL" if records(&now).len() > 1 => faults.extend(faults_between_records(&now, &records(&now), 6, rng)),
            SEGMENT => faults.extend(faults_between_records(&now, &segment_records(&now), 8, rng)),
            _ => {}
        }
        for older in &self.older {
            let older = older.join(file);
            if fs::read(&older).is_ok_and(|then| then != now) {
                faults.push(Fault::OlderCopy(older));
            }
        }
        // In a database, each file is of a size and kind of its own: another of its kind.
        let kind = self.kind(file);
        let other = files(&self.dir).into_iter().find(|other| other != file && self.kind(other) == kind);
        faults.extend(other.map(|other| Fault::Swap(self.dir.join(other))));
        if file == "FORMAT" {
            faults.push(Fault::Write(format_while_it_was_made(&now)));
        }
        faults
    }
}

/// Where the records of one of RocksDB's logs begin. A file that ends at one, or goes on with
/// zeros there, is whole as far as RocksDB can tell.
fn records(log: &[u8]) -> Vec<u64> {
    const BLOCK: usize = 32 << 10;
    const HEAD: usize = 7;
    let (mut at, mut starts) = (0, Vec::new());
    while at + HEAD <= log.len() {
        if BLOCK - at % BLOCK < HEAD {
            at = at.next_multiple_of(BLOCK);
            continue;
        }
        let (length, kind) = (usize::from(log[at + 4]) + (usize::from(log[at + 5]) << 8), log[at + 6]);
        // Full or first: not within a record that goes over the end of a block.
        if kind == 1 || kind == 2 {
            starts.push(at as u64);
        }
        at += HEAD + length;
    }
    starts
}

/// Where the records of a segment of the log begin.
fn segment_records(segment: &[u8]) -> Vec<u64> {
    const HEAD: usize = 9;
    let (mut at, mut starts) = (0, Vec::new());
    while at + HEAD <= segment.len() && segment[at + 8] != 0 {
        starts.push(at as u64);
        at += HEAD + u32::from_be_bytes(segment[at + 4..at + 8].try_into().unwrap()) as usize;
    }
    starts
}

/// `kind_at` is where a record has the byte that tells its kind.
fn faults_between_records(log: &[u8], starts: &[u64], kind_at: u64, rng: &mut Rng) -> Vec<Fault> {
    let (size, mut faults) = (log.len() as u64, Vec::new());
    assert!(starts.len() > 1, "a log of {size} bytes has {} records", starts.len());
    let mut chosen: Vec<usize> = (0..5).map(|_| rng.below(starts.len())).collect();
    chosen.extend([starts.len() - 1, starts.len().saturating_sub(2)]);
    chosen.sort_unstable();
    chosen.dedup();
    for place in chosen {
        let start = starts[place];
        let next = starts.get(place + 1).copied().unwrap_or(size);
        let block_end = (start + 1).next_multiple_of(32 << 10).min(size);
        // The kind of a record: one bit makes it one that RocksDB does not get over.
        faults.push(Fault::Flip { offset: start + kind_at, bit: 2 });
        faults.push(Fault::Truncate { size: start });
        faults.push(Fault::Zero { offset: start, size: size - start });
        faults.push(Fault::Zero { offset: start, size: next - start });
        faults.push(Fault::Zero { offset: start, size: block_end - start });
    }
    faults
}

/// FORMAT as it was before the directory was ready: an older copy of it too.
fn format_while_it_was_made(now: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(now.to_vec()).unwrap();
    let (body, _) = text.rsplit_once("crc32c ").unwrap();
    let body = body.replace("stage ready", "stage creating");
    format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes())).into_bytes()
}

fn damage(path: &Path, fault: &Fault) {
    match fault {
        Fault::Flip { offset, bit } => {
            let mut bytes = fs::read(path).unwrap();
            bytes[*offset as usize] ^= 1 << bit;
            fs::write(path, bytes).unwrap();
        }
        Fault::Zero { offset, size } => {
            let mut bytes = fs::read(path).unwrap();
            bytes[*offset as usize..(offset + size) as usize].fill(0);
            fs::write(path, bytes).unwrap();
        }
        Fault::Append(more) => fs::write(path, [fs::read(path).unwrap(), more.clone()].concat()).unwrap(),
        Fault::Truncate { size } => fs::File::options().write(true).open(path).unwrap().set_len(*size).unwrap(),
        Fault::Delete => fs::remove_file(path).unwrap(),
        Fault::OlderCopy(other) | Fault::Swap(other) => drop(fs::copy(other, path).unwrap()),
        Fault::Write(bytes) => fs::write(path, bytes).unwrap(),
    }
}

fn name(fault: &Fault) -> String {
    match fault {
        Fault::Flip { offset, bit } => format!("flip bit {bit} of byte {offset}"),
        Fault::Zero { offset, size } => format!("zero {size} bytes from {offset}"),
        Fault::Append(_) => "append garbage".to_owned(),
        Fault::Truncate { size } => format!("truncate to {size}"),
        Fault::Delete => "delete".to_owned(),
        Fault::OlderCopy(_) => "older copy".to_owned(),
        Fault::Swap(_) => "another of its kind".to_owned(),
        Fault::Write(_) => "as of its making".to_owned(),
    }
}

/// What opening the store in `dir` gave.
fn outcome(dir: &Path, ended: &Ended) -> Result<String, String> {
    let started = Instant::now();
    let opened = try_open(dir);
    if started.elapsed() > OPEN_LIMIT {
        return Err(format!("opening took {:?}", started.elapsed()));
    }
    let engine = match opened {
        Err(error) => return refused(&error),
        Ok(engine) => engine,
    };
    if let Err(wrong) = check(&held(&engine), ended) {
        let _ = engine.close();
        return Err(wrong);
    }
    // It goes on: what it still holds now, it holds after the next writes and the next start.
    let after = match write(&engine, put("after", b"the damage")) {
        Ok(Outcome::Done { .. }) => Some(held(&engine)),
        Ok(other) => return Err(format!("a write gave {other:?}")),
        Err(_) => None,
    };
    let closed = engine.close();
    let (Some(after), Ok(())) = (after, closed) else { return Ok("opens, all is there; fails later".to_owned()) };
    let again = match try_open(dir) {
        Err(error) => return refused(&error).map(|how| format!("opens, all is there; later {how}")),
        Ok(again) => again,
    };
    let found = held(&again);
    again.close().map_err(|error| format!("closing: {error}"))?;
    if found == after {
        Ok("opens, all is there".to_owned())
    } else {
        Err("another start gave another state".to_owned())
    }
}

/// An error that says what is wrong, in a sentence.
fn refused(error: &EngineError) -> Result<String, String> {
    match error {
        EngineError::Corrupt { what, .. } => Ok(format!("refused: damaged {what}")),
        // The engine started on data that it should have refused by name.
        other => Err(format!("the error does not name the damage: {other:?}")),
    }
}

fn check(found: &Held, ended: &Ended) -> Result<(), String> {
    if let Some(name) = missing(found, &ended.acknowledged) {
        return Err(format!("opened without the acknowledged write {name:?}"));
    }
    // A write that was not acknowledged may be gone; then it was one of the last.
    if found != &ended.whole && found.revision >= ended.whole.revision {
        return Err(format!("opened with another state at revision {}", found.revision));
    }
    let whole = by_name(&ended.whole);
    let foreign = by_name(found).into_iter().find(|(name, write)| whole.get(name) != Some(write));
    foreign.map_or(Ok(()), |(name, _)| Err(format!("opened with {name:?}, which nobody wrote so")))
}

/// Opens a copy of the store with one file damaged.
fn try_case(root: &Path, ended: &Ended, file: &str, fault: &Fault) -> Result<String, String> {
    let dir = tempfile::tempdir_in(root).unwrap().keep();
    copy_dir(&ended.dir, &dir);
    damage(&dir.join(file), fault);
    let result = outcome(&dir, ended);
    fs::remove_dir_all(&dir).unwrap();
    result
}

/// The whole database, or log, from an earlier time, beside all else as it is.
fn try_older_part(root: &Path, ended: &Ended, older: &Path, part: &str) -> Result<String, String> {
    let dir = tempfile::tempdir_in(root).unwrap().keep();
    copy_dir(&ended.dir, &dir);
    fs::remove_dir_all(dir.join(part)).unwrap();
    copy_dir(&older.join(part), &dir.join(part));
    let result = outcome(&dir, ended);
    fs::remove_dir_all(&dir).unwrap();
    result
}

#[test]
fn one_fault_in_any_file_is_noticed_or_harmless() {
    let seed = rng::seed("TANK_SEED", 20_261_121);
    eprintln!("TANK_SEED={seed}");
    let only = std::env::var("TANK_ONLY").unwrap_or_default();
    let mut rng = Rng::new(seed);
    let root = tempfile::tempdir().unwrap();
    let stores = [closed(root.path(), &mut rng), killed(root.path(), &mut rng)];
    let (mut cases, mut wrong) = (0, Vec::new());
    let mut row = |ended: &Ended, kind: &str, fault: &str, result: Result<String, String>| {
        cases += 1;
        let text = result.as_ref().map_or_else(|wrong| format!("WRONG: {wrong}"), Clone::clone);
        eprintln!("| {} | {kind} | {fault} | {text} |", ended.how);
        if result.is_err() {
            wrong.push(format!("{} {kind}: {fault}: {text}", ended.how));
        }
    };
    eprintln!("| store | file | fault | result |\n|---|---|---|---|");
    for ended in &stores {
        let kinds: Vec<_> = files(&ended.dir).iter().map(|file| ended.kind(file)).collect();
        for needed in [
            "FORMAT",
            "SYNCED",
            "MEMBERS",
            "LOCK",
            "db/CURRENT",
            "db/IDENTITY",
            "db/OPTIONS",
            "db/MANIFEST",
            SEGMENT,
            "WAL",
            "SST of state",
        ] {
            assert!(kinds.iter().any(|kind| kind == needed), "{}: no {needed} among {kinds:?}", ended.how);
        }
        for file in files(&ended.dir) {
            for fault in ended.faults(&file, &mut rng) {
                let text = format!("{} {}: {}", ended.how, ended.kind(&file), name(&fault));
                if !text.contains(&only) {
                    continue;
                }
                let result = try_case(root.path(), ended, &file, &fault);
                row(ended, &format!("{} {file}", ended.kind(&file)), &name(&fault), result);
            }
        }
        for older in &ended.older {
            for part in ["db", "log"] {
                let result = try_older_part(root.path(), ended, older, part);
                row(ended, &format!("{part}/ as a whole"), "older copy", result);
            }
        }
    }
    eprintln!("{cases} cases, {} wrong", wrong.len());
    assert!(cases >= 60 || !only.is_empty(), "{cases} cases");
    assert!(wrong.is_empty(), "TANK_SEED={seed}:\n{}", wrong.join("\n"));
}

/// A segment that is not the newest one lost its end: the log goes on behind the gap.
#[test]
fn a_shortened_older_segment_is_noticed() {
    let seed = rng::seed("TANK_SEED", 3);
    let mut rng = Rng::new(seed);
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    // The defaults: nothing is purged.
    let options = tank_engine::options::Options::new(&dir, "tank");
    let engine = tank_engine::engine::Engine::open(options, Box::new(|_| {})).unwrap();
    // In parts: writes that come together may all stand in one segment, and a segment may have twice its size. Each is too
    // small for a file of its own.
    for _part in 0..4 {
        write_all(&engine, (0..20).map(|i| put(&format!("large-{}", i % 4), &payload(&mut rng, 900_000))));
    }
    let whole = held(&engine);
    engine.close().unwrap();
    let segments: Vec<_> = files(&dir).into_iter().filter(|file| file.ends_with(".segment")).collect();
    let mut with_entries = 0;
    let ended = Ended {
        how: "large",
        dir,
        older: [PathBuf::new(), PathBuf::new()],
        acknowledged: by_name(&whole),
        whole,
        families: BTreeMap::new(),
    };
    for (place, file) in segments.iter().enumerate() {
        let bytes = fs::read(ended.dir.join(file)).unwrap();
        let (size, mut entries) = (bytes.len() as u64, segment_records(&bytes));
        // What is committed may be lost: it is learned again.
        entries.retain(|start| bytes[*start as usize + 8] == ENTRY);
        // The newest one may have been begun for nothing else.
        if entries.len() < 2 {
            continue;
        }
        with_entries += 1;
        let last = entries[entries.len() - 1];
        let between = entries[entries.len() - 1 - rng.below(entries.len().min(8) - 1)];
        let mut faults = vec![Fault::Truncate { size: between }, Fault::Zero { offset: between, size: size - between }];
        // Behind the last entry there may be nothing but zeros.
        faults.extend([Fault::Truncate { size: last + 1 }, Fault::Truncate { size: last / 2 }, Fault::Delete]);
        for fault in faults {
            let result = try_case(root.path(), &ended, file, &fault);
            eprintln!("| large | segment {} of {} | {} | {result:?} |", place + 1, segments.len(), name(&fault));
            let how = result.unwrap_or_else(|wrong| panic!("TANK_SEED={seed}: {file}: {}: {wrong}", name(&fault)));
            assert!(how.starts_with("refused"), "{file}: {}: {how}", name(&fault));
        }
    }
    assert!(with_entries > 1, "one segment is not enough: {segments:?}");
}

/// Up to where the log of a closed store, if there is one, is purged.
fn purged_index(dir: &Path) -> u64 {
    let Ok(directory) = tank_engine::storage::Directory::open(dir, "tank") else { return 0 };
    let purged = directory.log().recover().unwrap().purged;
    directory.close().unwrap();
    purged.map_or(0, |id| id.index())
}

/// A state that was put back, with a log that was purged since: what is between is nowhere.
#[test]
fn a_state_that_ends_before_the_log_begins_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let deadline = Instant::now() + LIMIT;
    // The log is purged beside the writes: the end may come before.
    while purged_index(dir.path()) <= 3 {
        assert!(Instant::now() < deadline, "the log is not purged");
        let engine = open(dir.path());
        for i in 0..200 {
            write_all(&engine, [put(&format!("{i}"), b"x")]);
        }
        engine.close().unwrap();
    }
    {
        use tank_engine::machine::{Header, StateStore};
        let directory = tank_engine::storage::Directory::open(dir.path(), "tank").unwrap();
        let store = StateStore::open(std::sync::Arc::clone(&directory.db), &directory.path).unwrap();
        let (state, header) = store.load(&std::sync::Arc::default()).unwrap();
        let mut older = Header::new(&state, Some(crate::support::log_id(3)), header.membership, header.trimmed);
        older.revision = header.revision;
        store.put_header(&older).unwrap();
        drop(store);
        // Without it, openraft does not know how far the state was.
        let log = directory.log();
        log.recover().unwrap();
        log.write(&[LogWrite::Committed(None)]).unwrap();
        drop(log);
        directory.close().unwrap();
    }
    let error = try_open(dir.path()).map(drop).unwrap_err();
    assert!(matches!(error, EngineError::Corrupt { what: "state", .. }), "{error:?}");
}

/// Every record is intact, but one is gone, came back or is of another time: only the digest of
/// all shows it.
#[test]
fn an_entry_that_is_lost_or_of_another_time_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let version_key =
        |revision: u64| [&b"e"[..], crate::support::key("b").as_bytes(), b"\0", &(!revision).to_be_bytes()].concat();
    let record = |directory: &tank_engine::storage::Directory, revision| {
        let family = directory.db.cf_handle("state_0").unwrap();
        directory.db.get_cf(&family, version_key(revision)).unwrap()
    };
    let mut earlier = Vec::new();
    for (payload, revision) in [(&b"1"[..], 2), (b"2", 4), (b"3", 6)] {
        let engine = open(dir.path());
        write_all(&engine, [put("a", payload), put("b", payload)]);
        engine.close().unwrap();
        let directory = tank_engine::storage::Directory::open(dir.path(), "tank").unwrap();
        earlier.push(record(&directory, revision).unwrap());
        directory.close().unwrap();
    }
    let (now, record_key) = (earlier.pop().unwrap(), version_key(6));
    for (what, other) in
        [("lost", None), ("older", Some(&earlier[1])), ("oldest", Some(&earlier[0])), ("whole", Some(&now))]
    {
        let directory = tank_engine::storage::Directory::open(dir.path(), "tank").unwrap();
        {
            let family = directory.db.cf_handle("state_0").unwrap();
            match other {
                Some(record) => directory.db.put_cf(&family, &record_key, record).unwrap(),
                None => directory.db.delete_cf(&family, &record_key).unwrap(),
            }
        }
        directory.close().unwrap();
        match try_open(dir.path()) {
            Err(EngineError::Corrupt { what: "state", .. }) if what != "whole" => {}
            Ok(engine) if what == "whole" => engine.close().unwrap(),
            other => panic!("{what}: {:?}", other.map(drop)),
        }
    }
}
