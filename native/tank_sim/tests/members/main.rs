//! Whole members, simulated: real engines on one thread, in virtual time, with a network, disks and clocks
//! that do their worst; and an oracle that knows what none of it may do. See [`storm`].
//!
//! `TANK_SEED` chooses the first seed. A failing one is printed with the command that runs it again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    missing_docs,
    unreachable_pub
)]

mod aimed;
mod another_history;
mod chance;
mod clients;
mod cluster;
mod disk;
mod hand_over;
mod large;
mod late;
mod links;
mod operator;
mod oracle;
mod storm;
mod trace;
mod world;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tank_sim::rng;

/// Seeds that a test runs.
const SEEDS: u64 = 60;

/// How long a storm lasts in it, by the virtual clock.
const STORM: Duration = Duration::from_secs(20);

/// Seeds that once found something: how long the storm lasted, and what it was.
const KNOWN: &[(u64, u64, &str)] = &[
    (1_005, 60, "a leader that handed over before it was sure of its lead asked itself again without a pause"),
    (1_013, 60, "a member that had nothing on its disk yet founded a cluster of its own"),
    (37, 20, "the answer to a call of before a restart was taken for one to a call of now"),
    (3, 20, "a learner that had nothing yet was made a voter, and ended"),
    (1_059, 60, "parts that were all lost went again one by one, and a member lagged for ten seconds"),
    (98, 20, "the answer to a call of before a restart was taken for one to a call of now"),
    (100, 20, "a copy of a request that was refused was applied, after its caller was told"),
];

/// The longest that a run may take by the clock on the wall.
const RUN_MAX: Duration = Duration::from_secs(120);

/// Failures after which no further seed is run.
const FAILURES_MAX: usize = 10;

/// Seeds within which a planted fault must be found.
#[cfg(feature = "mutants")]
const MUTANT_SEEDS: u64 = 500;

/// What a run said.
#[derive(Debug)]
struct Run {
    seed: u64,
    storm: Duration,
    passed: bool,
    /// The last line: counts and the hash of all that happened.
    summary: String,
    output: String,
}

/// Runs a seed in a process of its own.
fn run(seed: u64, storm: Duration, dir: &Path, mutant: Option<&str>) -> Run {
    let mut process = Command::new(std::env::current_exe().unwrap());
    process.args(["one_seed", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    process.env("TANK_SEED", seed.to_string()).env("TANK_SIM_SECONDS", storm.as_secs().to_string());
    process.env("TANK_SIM_DIR", dir).env("RUST_BACKTRACE", "0").env_remove("TANK_SIM_TRACE");
    if let Some(mutant) = mutant {
        process.env("TANK_MUTANT", mutant);
    }
    let mut child = process.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _read = stderr.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let deadline = Instant::now() + RUN_MAX;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if Instant::now() > deadline => {
                let _killed = child.kill();
                let _waited = child.wait();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let output = reader.join().unwrap();
    let summary = output.lines().find(|line| line.starts_with("sim: ")).unwrap_or("sim: none").to_owned();
    Run { seed, storm, passed: status.is_some_and(|status| status.success()), summary, output }
}

/// Where runs keep their files: in memory, where there is such a place.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Runs seeds, two at a time, until so many have failed; and gives those.
fn run_all(runs: &[(u64, Duration)], mutant: Option<&str>, failures_max: usize) -> Vec<Run> {
    let dir = scratch();
    let (next, failures) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        let mut failed = Vec::new();
        while failures.load(Ordering::Relaxed) < failures_max {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some((seed, storm)) = runs.get(at) else { break };
            let dir = dir.path().join(at.to_string());
            let run = run(*seed, *storm, &dir, mutant);
            let _removed = std::fs::remove_dir_all(&dir);
            if !run.passed {
                failures.fetch_add(1, Ordering::Relaxed);
                failed.push(run);
            }
        }
        failed
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}

fn report(failed: &[Run]) {
    for run in failed {
        eprintln!(
            "TANK_SEED={} TANK_SIM_SECONDS={} cargo test --release -p tank_sim --test members one_seed -- --exact --ignored --nocapture",
            run.seed,
            run.storm.as_secs()
        );
        let lines: Vec<_> = run.output.lines().filter(|line| line.starts_with("sim")).take(12).collect();
        eprintln!("{}", if lines.is_empty() { run.output.clone() } else { lines.join("\n") });
    }
    assert!(failed.is_empty(), "{} seeds failed", failed.len());
}

fn seconds(default: Duration) -> Duration {
    Duration::from_secs(rng::seed("TANK_SIM_SECONDS", default.as_secs()))
}

#[test]
fn members_withstand_storms() {
    let first = rng::seed("TANK_SEED", 1);
    let started = Instant::now();
    let known = |(seed, seconds, _): &(u64, u64, &str)| (*seed, Duration::from_secs(*seconds));
    let runs: Vec<_> = KNOWN.iter().map(known).chain((first..first + SEEDS).map(|seed| (seed, STORM))).collect();
    let failed = run_all(&runs, None, FAILURES_MAX);
    eprintln!("{} seeds from {first} in {:?}", runs.len(), started.elapsed());
    report(&failed);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let dir = scratch();
    for seed in 1..=3 {
        let [first, second] = ["a", "b"].map(|name| run(seed, STORM, &dir.path().join(name), None));
        assert_eq!(first.summary, second.summary, "seed {seed}");
        assert!(first.summary.contains("hash"), "{}", first.output);
    }
}

#[test]
fn a_leader_whose_disk_fails_hands_over_before_its_lease_ends() {
    let dir = scratch();
    hand_over::comes_before_the_lease_ends(dir.path());
}

#[test]
fn another_member_leads_before_the_lease_ends_though_the_one_that_was_named_is_cut_off() {
    let dir = scratch();
    hand_over::comes_though_the_named_member_is_cut_off(dir.path());
}

#[test]
fn a_large_write_holds_up_no_small_one_on_slow_disks() {
    for at in 0..3 {
        let dir = scratch();
        large::holds_up_no_small_one(dir.path(), at);
    }
}

#[test]
fn a_request_that_waits_longer_than_its_session_lasts_is_applied_once() {
    let dir = scratch();
    late::is_applied_once_after_all(dir.path());
}

/// `TANK_SIM_SEEDS` says how many, `TANK_SIM_SECONDS` how long each.
#[test]
#[ignore = "takes long: for bin/nightly"]
fn members_withstand_many_storms() {
    let (first, count) = (rng::seed("TANK_SEED", 1_000), rng::seed("TANK_SIM_SEEDS", 2_000));
    let storm = seconds(Duration::from_secs(60));
    let started = Instant::now();
    let runs: Vec<_> = (first..first + count).map(|seed| (seed, storm)).collect();
    let failed = run_all(&runs, None, FAILURES_MAX);
    eprintln!("{count} seeds from {first} of {storm:?} in {:?}", started.elapsed());
    report(&failed);
}

/// Plants one fault after the other, and one in the disk.
#[cfg(feature = "mutants")]
#[test]
#[ignore = "takes long: for bin/nightly"]
fn planted_faults_are_found() {
    let chosen = std::env::var("TANK_MUTANT").ok();
    let planted = tank_engine::mutants::ALL.iter().chain(tank_engine::mutants::PUT_BACK);
    let all = planted.copied().chain([disk::LYING]);
    let mut missed = Vec::new();
    for mutant in all.filter(|mutant| chosen.as_deref().is_none_or(|chosen| chosen == *mutant)) {
        let runs: Vec<_> = (1..=MUTANT_SEEDS).map(|seed| (seed, STORM)).collect();
        let started = Instant::now();
        let caught = run_all(&runs, Some(mutant), 1);
        let Some(run) = caught.first() else {
            eprintln!("{mutant}: not found in {MUTANT_SEEDS} seeds, {:?}", started.elapsed());
            missed.push(mutant);
            continue;
        };
        let why = run.output.lines().find(|line| line.starts_with("sim found") || line.contains("panicked"));
        eprintln!("{mutant}: found by seed {} in {:?}: {why:?}", run.seed, started.elapsed());
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// Runs the seed `TANK_SEED`. `TANK_SIM_TRACE=1` prints all that happens.
#[test]
#[ignore = "one seed, in a process of its own: started by the others"]
fn one_seed() {
    let seed = rng::seed("TANK_SEED", 1);
    let storm = seconds(STORM);
    let prints = std::env::var_os("TANK_SIM_TRACE").is_some();
    let own = std::env::var_os("TANK_SIM_DIR").is_none().then(scratch);
    let dir =
        own.as_ref().map_or_else(|| PathBuf::from(std::env::var_os("TANK_SIM_DIR").unwrap()), |dir| dir.path().into());
    std::fs::create_dir_all(&dir).unwrap();
    let simulated = std::thread::Builder::new().name("sim".to_owned()).spawn(move || {
        chance::seed_thread(seed);
        storm::run(seed, storm, &dir, prints)
    });
    let report = simulated.unwrap().join().unwrap();
    eprintln!(
        "sim: seed {seed} events {} hash {:016x} frames {} seconds {:.3} {:?}",
        report.events, report.hash, report.frames, report.seconds, report.counts
    );
    if !report.findings.is_empty() && !prints {
        report.tail.iter().for_each(|line| eprintln!("{line}"));
    }
    report.findings.iter().for_each(|finding| eprintln!("sim found: {finding}"));
    assert!(report.findings.is_empty() && !report.stuck);
}
