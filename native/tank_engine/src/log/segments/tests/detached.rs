//! Large commands in files of their own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

/// Commands of so many bytes and more are detached here.
const MIN: usize = 500;

fn open(bed: &Bed) -> (SegmentLog, Recovered) {
    bed.open_detaching(2_000, MIN).unwrap()
}

fn blobs(bed: &Bed) -> Vec<PathBuf> {
    let mut paths = bed.segments();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "blob"));
    paths
}

/// Files are removed by another thread.
fn await_blobs(bed: &Bed, count: usize) {
    let began = Instant::now();
    while blobs(bed).len() != count {
        assert!(began.elapsed() < LIMIT, "waited for {count} files, there are {:?}", blobs(bed));
        std::thread::yield_now();
    }
}

fn request(index: u64, value: &str) -> Arc<Request> {
    match entry(index, value).payload {
        EntryPayload::Normal(request) => request,
        other => panic!("{other:?}"),
    }
}

fn is_damage(result: Result<(SegmentLog, Recovered), EngineError>, part: &str) -> bool {
    matches!(result, Err(EngineError::Corrupt { what: "log", detail }) if detail.contains(part))
}

#[test]
fn the_record_of_a_large_command_is_short_and_the_command_comes_back() {
    let bed = Bed::new();
    let large = "l".repeat((5 << 20) + 77);
    let (log, _) = bed.open_with(SEGMENT_BYTES).unwrap();
    let begin = end(&log);
    log.write(&[append(0..1, "small"), append(1..2, &large), append(2..3, "small")]).unwrap();
    assert!(end(&log) - begin < 400, "{} bytes in the segment", end(&log) - begin);
    assert!(log.bytes() > large.len() as u64, "it counts");
    assert_eq!(values(&log, 0..3), ["small", &large, "small"]);
    assert_eq!(log.read(0..3, 1_000).unwrap().len(), 2, "its bytes count when it is read");
    drop(log);
    let (log, recovered) = bed.open().unwrap();
    assert_eq!(
        (recovered.last, values(&log, 0..3)),
        (Some(id(2)), vec!["small".to_owned(), large, "small".to_owned()])
    );
}

#[test]
fn a_staged_command_is_not_written_again() {
    let bed = Bed::new();
    let (log, _) = open(&bed);
    let large = "l".repeat(MIN);
    log.stage(&request(0, &large));
    log.stage(&request(0, "small"));
    let staged = blobs(&bed);
    assert_eq!(staged.len(), 1);
    log.write(&[append(0..1, &large)]).unwrap();
    // As whoever staged it does, when it hears that the entry is durable.
    log.unstage(request(0, &large).id);
    assert_eq!((blobs(&bed), values(&log, 0..1)), (staged, vec![large.clone()]));
    log.write(&[append(1..2, &large)]).unwrap();
    assert_eq!(blobs(&bed).len(), 2, "nobody staged the second one");
}

#[test]
fn a_staged_command_that_is_another_one_is_not_taken() {
    let bed = Bed::new();
    let (log, _) = open(&bed);
    log.stage(&request(0, &"a".repeat(MIN)));
    let large = "b".repeat(MIN + 1);
    log.write(&[append(0..1, &large)]).unwrap();
    assert_eq!(values(&log, 0..1), [large]);
    await_blobs(&bed, 1);
}

#[test]
fn what_is_not_logged_after_all_is_removed() {
    let bed = Bed::new();
    let (log, _) = open(&bed);
    let large = "l".repeat(MIN);
    log.stage(&request(0, &large));
    log.unstage(request(0, &large).id);
    await_blobs(&bed, 0);
    log.stage(&request(0, &large));
    let bytes = log.bytes();
    log.end_staging();
    await_blobs(&bed, 0);
    assert!(log.bytes() < bytes);
    log.stage(&request(1, &large));
    assert_eq!(blobs(&bed).len(), 0, "a log that is closed stages nothing");
}

#[test]
fn what_a_kill_left_staged_is_removed_at_the_next_start() {
    let bed = Bed::new();
    let (log, _) = open(&bed);
    let large = "l".repeat(MIN);
    log.write(&[append(0..1, &large)]).unwrap();
    log.stage(&request(1, &large));
    assert_eq!(blobs(&bed).len(), 2);
    drop(log);
    let (log, recovered) = open(&bed);
    assert_eq!((recovered.last, blobs(&bed).len()), (Some(id(0)), 1));
    assert_eq!(values(&log, 0..1), [large]);
}

#[test]
fn the_file_goes_with_its_entry() {
    let bed = Bed::new();
    let (log, _) = open(&bed);
    let large = "l".repeat(MIN);
    for index in 0..30 {
        log.write(&[append(index..index + 1, if index % 3 == 0 { &large } else { "small" })]).unwrap();
    }
    assert_eq!(blobs(&bed).len(), 10);
    log.write(&[LogWrite::TruncateFrom(21), append(21..22, &large), LogWrite::TruncateFrom(21)]).unwrap();
    await_blobs(&bed, 7);
    log.write(&[LogWrite::Purge(id(9))]).unwrap();
    await_blobs(&bed, 3);
    drop(log);
    let (log, recovered) = open(&bed);
    assert_eq!((recovered.purged, recovered.last, blobs(&bed).len()), (Some(id(9)), Some(id(20)), 3));
    assert_eq!(values(&log, 10..13), ["small", "small", &large]);
}

#[test]
fn damage_to_the_file_is_noticed() {
    let bed = Bed::new();
    let (log, _) = open(&bed);
    log.write(&[append(0..1, &"l".repeat(MIN)), append(1..2, "small")]).unwrap();
    drop(log);
    let path = blobs(&bed).remove(0);
    let whole = fs::read(&path).unwrap();
    for damaged in [
        whole[..whole.len() - 1].to_vec(),
        [&whole[..], b"x"].concat(),
        [&whole[..40], &[whole[40] ^ 1], &whole[41..]].concat(),
        Vec::new(),
    ] {
        fs::write(&path, &damaged).unwrap();
        assert!(is_damage(bed.open(), "does not match its checksum"), "{} of {} bytes", damaged.len(), whole.len());
    }
    fs::remove_file(&path).unwrap();
    assert!(is_damage(bed.open(), "is missing"));
    fs::write(&path, &whole).unwrap();
    assert_eq!(bed.open().unwrap().1.last, Some(id(1)));
}

#[test]
fn a_file_that_is_damaged_later_is_noticed_when_it_is_read() {
    let bed = Bed::new();
    let (log, _) = open(&bed);
    log.write(&[append(0..1, &"l".repeat(MIN))]).unwrap();
    let path = blobs(&bed).remove(0);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"x", MIN as u64 / 2).unwrap();
    let error = log.read(0..1, usize::MAX).unwrap_err();
    assert!(matches!(EngineError::from_io(&path, &error), EngineError::Corrupt { what: "log", .. }), "{error}");
}

/// The files of the log and its marker, by name.
type Files = BTreeMap<String, Vec<u8>>;

fn files(bed: &Bed) -> Files {
    let mut paths = bed.segments();
    paths.push(bed.marker());
    let name = |path: &PathBuf| path.strip_prefix(bed.0.path()).unwrap().to_str().unwrap().to_owned();
    // One may just be removed.
    paths.iter().filter_map(|path| Some((name(path), fs::read(path).ok()?))).collect()
}

fn bed_with(files: &Files) -> Bed {
    let bed = Bed::new();
    bed.segments().iter().for_each(|path| fs::remove_file(path).unwrap());
    files.iter().for_each(|(name, bytes)| fs::write(bed.0.path().join(name), bytes).unwrap());
    bed
}

/// Notes are lowered before anything of a truncation is written.
fn lower_note(bed: &Bed, writes: &[LogWrite]) {
    let marker = MarkerFile::open(bed.0.path(), MEMBER).unwrap();
    for write in writes {
        if let LogWrite::TruncateFrom(index) = write {
            marker.note(|marker| marker.truncate_from(*index)).unwrap();
        }
    }
}

fn is_blob(name: &str) -> bool {
    name.ends_with(".blob")
}

/// Random numbers.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// What a log holds: purged up to, and the values behind that.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
struct Model {
    purged: Option<u64>,
    values: Vec<String>,
}

impl Model {
    fn first(&self) -> u64 {
        self.purged.map_or(0, |purged| purged + 1)
    }

    fn next(&self) -> u64 {
        self.first() + self.values.len() as u64
    }

    fn of(log: &SegmentLog, recovered: &Recovered) -> Self {
        let purged = recovered.purged.map(|id| id.index());
        let first = purged.map_or(0, |purged| purged + 1);
        let next = recovered.last.map_or(0, |id| id.index() + 1).max(first);
        let values = if first < next { values(log, first..next) } else { Vec::new() };
        Self { purged, values }
    }

    /// One random write, which it takes over.
    fn write(&mut self, rng: &mut Rng) -> LogWrite {
        let kept = rng.below(self.values.len() + 1);
        match rng.below(6) {
            0 if kept > 0 => {
                self.purged = Some(self.first() + kept as u64 - 1);
                self.values.drain(..kept);
                LogWrite::Purge(id(self.purged.unwrap()))
            }
            1 if kept < self.values.len() => {
                self.values.truncate(kept);
                LogWrite::TruncateFrom(self.next())
            }
            _ => {
                let bytes = if rng.below(2) == 0 { rng.below(20) } else { MIN + rng.below(2_000) };
                let (index, value) = (self.next(), format!("{}{}", self.next(), "v".repeat(bytes)));
                self.values.push(value.clone());
                LogWrite::Append(vec![entry(index, &value)])
            }
        }
    }
}

/// What a power cut may leave of a write: files as before, and of what was written some; none of the new ones is whole
/// before all before it were, and removed ones may be back.
fn cut(before: &Files, after: &Files, rng: &mut Rng) -> (Files, bool) {
    let mut left = before.clone();
    let new: Vec<_> = after.keys().filter(|name| is_blob(name) && !before.contains_key(*name)).collect();
    let rotated = after.keys().filter(|name| !is_blob(name)).any(|name| !before.contains_key(name));
    let finished = rotated || rng.below(3) == 0;
    if finished {
        left = after.clone();
        for (name, bytes) in before.iter().filter(|(name, _)| is_blob(name)) {
            if rng.below(2) == 0 {
                left.insert(name.clone(), bytes.clone());
            }
        }
        return (left, true);
    }
    let logged = rng.below(2) == 0;
    for name in new {
        let bytes = &after[name];
        let written = if logged { bytes.len() } else { rng.below(bytes.len() + 1) };
        left.insert(name.clone(), bytes[..written].to_vec());
    }
    if logged {
        let (name, old) = before.iter().rfind(|(name, _)| name.ends_with(".segment")).unwrap();
        let new = &after[name];
        let at = rng.below(new.len() + 1);
        left.insert(name.clone(), [&new[..at], &old[at.min(old.len())..]].concat());
    }
    (left, false)
}

fn reopen(bed: &Bed, seed: u64) -> (SegmentLog, Recovered) {
    bed.open_detaching(2_000, MIN).unwrap_or_else(|error| panic!("TANK_SEED={seed}: {error}"))
}

#[test]
fn a_power_cut_at_any_moment_leaves_what_was_acknowledged() {
    let first: u64 = std::env::var("TANK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for seed in first..first + 12 {
        let mut rng = Rng(seed);
        let (mut bed, mut model) = (Bed::new(), Model::default());
        for _ in 0..8 {
            let (log, recovered) = reopen(&bed, seed);
            assert_eq!(Model::of(&log, &recovered), model, "TANK_SEED={seed}");
            for _ in 0..rng.below(8) {
                log.write(&[model.write(&mut rng)]).unwrap();
            }
            let mut states = vec![model.clone()];
            if rng.below(2) == 0 {
                log.stage(&request(model.next(), &"never logged".repeat(MIN)));
            }
            let before = files(&bed);
            let writes: Vec<LogWrite> = (0..1 + rng.below(3))
                .map(|_| {
                    let write = model.write(&mut rng);
                    states.push(model.clone());
                    write
                })
                .collect();
            log.write(&writes).unwrap();
            let (left, acknowledged) = cut(&before, &files(&bed), &mut rng);
            drop(log);
            bed = bed_with(&left);
            lower_note(&bed, &writes);
            let (log, recovered) = reopen(&bed, seed);
            let found = Model::of(&log, &recovered);
            let possible = if acknowledged { states.split_off(states.len() - 1) } else { states };
            assert!(possible.contains(&found), "TANK_SEED={seed}: found {found:?}, possible were {possible:?}");
            let needed = found.values.iter().filter(|value| value.len() + 9 >= MIN).count();
            assert_eq!(blobs(&bed).len(), needed, "TANK_SEED={seed}: files to which nothing refers");
            model = found;
        }
    }
}
