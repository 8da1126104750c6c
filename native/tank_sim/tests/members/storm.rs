//! One run: a cluster, its users, a storm of faults, and the calm behind it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tank_engine::command::{Command, Write};
use tank_engine::engine::Engine;
use tank_engine::options::Timing;
use tank_engine::outcome::Outcome;
use tank_sim::Rng;
use tokio::time::{Instant, sleep, timeout};

use crate::aimed::{aim, lose_a_voter};
use crate::another_history::{self, Backup};
use crate::clients::Client;
use crate::cluster::{Cluster, End, key};
use crate::links::{Links, Weather, name};
use crate::operator;
use crate::oracle::{Oracle, path_of, serial_of};
use crate::trace::Trace;

/// How long the cluster may take, once all is well again, until it serves everywhere.
const CALM_MAX: Duration = Duration::from_secs(60);

/// How much later than others a frame may come.
const LATE_MAX: Duration = Duration::from_secs(180);

/// How far a wall clock may be off.
const SKEW_MS_MAX: usize = 1_800_000;

/// One seed of so many has faults where they hurt most, half of the time; see [`crate::aimed`].
const AIMED: u64 = 3;

/// What a run came to.
pub struct Report {
    pub findings: Vec<String>,
    /// Whether it came to the end.
    pub stuck: bool,
    pub events: u64,
    pub hash: u64,
    pub frames: u64,
    pub seconds: f64,
    pub counts: BTreeMap<&'static str, u64>,
    pub tail: Vec<String>,
}

/// Runs a seed on this thread, in `dir`. `storm`: for how long.
pub fn run(seed: u64, storm: Duration, dir: &Path, prints: bool) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let trace = Trace::new(prints, dir);
        let oracle = Oracle::new(trace.clone());
        let mut rng = Rng::new(seed);
        let links = Links::new(rng.next_u64(), trace.clone());
        tokio::spawn(links.clone().run());
        let start = Instant::now();
        let told = {
            let (trace, oracle, links) = (trace.clone(), oracle.clone(), links.clone());
            let aims = seed.is_multiple_of(AIMED);
            play(rng, storm, dir, trace, oracle, links, aims).await
        };
        let stuck = told.as_ref().is_err();
        if let Err(why) = told {
            oracle.finds(format!("stuck: {why}"));
        }
        let (events, hash) = trace.digest();
        Report {
            findings: oracle.findings(),
            stuck,
            events,
            hash,
            frames: links.sent(),
            seconds: start.elapsed().as_secs_f64(),
            counts: oracle.counts(),
            tail: trace.tail(),
        }
    })
}

async fn play(
    mut rng: Rng,
    storm: Duration,
    dir: &Path,
    trace: Trace,
    oracle: Oracle,
    links: Links,
    aims: bool,
) -> Result<(), String> {
    let members = if rng.below(4) == 0 { 5 } else { 3 };
    let fair = Weather { late_max: LATE_MAX, ..fair_weather(&mut rng) };
    links.fair(fair);
    let snapshot_interval_entries = 50 + rng.below(400) as u64;
    let timing = Timing {
        snapshot_interval_entries,
        log_retention_entries: rng.below(60) as u64,
        purge_batch: 1 + rng.below(20) as u64,
        // From a few to many between two snapshots.
        checkpoint_bytes: 1_000 * (1 + snapshot_interval_entries % 37),
        ..Timing::default()
    };
    trace.note(format_args!("{members} members, {fair:?}, {timing:?}"));
    let cluster = Cluster::new(members, timing, links, oracle.clone(), trace.clone(), dir, rng.next_u64());
    cluster.form().await?;

    let over = Arc::new(AtomicBool::new(false));
    let pause = Duration::from_millis(1 << (2 + rng.below(7)));
    let mut users = Vec::new();
    for number in 0..8 {
        let rng = Rng::new(rng.next_u64());
        let (cluster, over) = (cluster.clone(), Arc::clone(&over));
        let client = Client { cluster, number, rng, over, pause, value_bytes_max: 2_000 };
        users.push(if number < 5 { tokio::spawn(client.use_entries()) } else { tokio::spawn(client.hold_leases()) });
    }
    tokio::spawn(look(cluster.clone(), Arc::clone(&over)));
    let calm = Arc::new(AtomicBool::new(false));
    let supervisor = tokio::spawn(supervise(cluster.clone(), Arc::clone(&over)));
    let operator = tokio::spawn(operator::operate(cluster.clone(), Arc::clone(&calm), Rng::new(rng.next_u64())));

    let began = Instant::now();
    let deadline = began + storm;
    let mut backup = Backup::planned(&mut rng, began, storm, dir);
    while Instant::now() < deadline {
        sleep(Duration::from_millis(rng.below(2_000) as u64)).await;
        if aims && rng.below(2) == 0 {
            aim(&cluster, &mut rng).await;
        } else {
            strike(&cluster, &mut rng).await;
        }
        backup.make_if_due(&cluster, &mut rng);
    }
    calm.store(true, Ordering::Relaxed);
    trace.note(format_args!("calm"));
    let all_well = async {
        cluster.links().heal();
        for node in 0..cluster.count() {
            cluster.behaviour(node).full(false);
            cluster.behaviour(node).sync_takes(Duration::from_micros(500));
        }
        operator.await.map_err(|error| error.to_string())??;
        for node in 0..cluster.count() {
            cluster.start_if_wanted(node).await?;
        }
        serve_everywhere(&cluster).await
    };
    timeout(CALM_MAX, all_well).await.unwrap_or_else(|_| Err(format!("after {CALM_MAX:?}: {}", state_of(&cluster))))?;
    over.store(true, Ordering::Relaxed);
    for user in users {
        match timeout(Duration::from_secs(30), user).await {
            Ok(Ok(())) => {}
            other => return Err(format!("somebody did not end: {other:?}")),
        }
    }
    supervisor.await.map_err(|error| error.to_string())?;
    let agreed = timeout(CALM_MAX, agree(&cluster)).await;
    let last = agreed.map_err(|_| format!("after {CALM_MAX:?} members differ: {}", state_of(&cluster)))?;
    let told = timeout(CALM_MAX, tell(&cluster)).await;
    told.map_err(|_| format!("after {CALM_MAX:?} watches differ: {}", state_of(&cluster)))?;
    compare(&cluster, &oracle);
    oracle.judge(last);
    if oracle.findings().is_empty() {
        match rng.below(8) {
            0 | 1 => another_history::of_a_backup(&cluster, backup, &mut rng).await?,
            2 | 3 => another_history::of_a_survivor(&cluster, last, &mut rng).await?,
            _ => {}
        }
    }
    for node in 0..cluster.count() {
        cluster.stop(node).await;
    }
    Ok(())
}

fn fair_weather(rng: &mut Rng) -> Weather {
    let calm = Weather::calm();
    match rng.below(8) {
        0 => Weather { latency: Duration::from_millis(40), jitter: Duration::from_millis(5), ..calm },
        1 | 2 => Weather { latency: Duration::from_millis(5), jitter: Duration::from_millis(5), ..calm },
        3 => Weather { latency: Duration::from_millis(15), jitter: Duration::from_millis(3), ..calm },
        _ => calm,
    }
}

/// One fault, which may last for a while.
async fn strike(cluster: &Cluster, rng: &mut Rng) {
    let node = rng.below(cluster.count());
    let lasts = Duration::from_millis(20 + (1 << rng.below(13)) as u64);
    let trace = cluster.trace();
    match rng.below(18) {
        0 | 1 => {
            trace.note(format_args!("cut off {node} for {lasts:?}"));
            let both_ways = rng.below(3) > 0;
            for other in (0..cluster.count()).filter(|other| *other != node) {
                cluster.links().change(node, other, |weather| weather.cut = true);
                if both_ways {
                    cluster.links().change(other, node, |weather| weather.cut = true);
                }
            }
            sleep(lasts).await;
            cluster.links().heal();
        }
        2 => {
            let other = (node + 1 + rng.below(cluster.count() - 1)) % cluster.count();
            trace.note(format_args!("cut {node} from {other} for {lasts:?}"));
            cluster.links().change(node, other, |weather| weather.cut = true);
            cluster.links().change(other, node, |weather| weather.cut = true);
            sleep(lasts).await;
            cluster.links().heal();
        }
        3..6 => {
            let how = if rng.below(2) == 0 { End::Kill } else { End::PowerCut };
            cluster.end(node, how).await;
            sleep(lasts).await;
            restart(cluster, node).await;
        }
        6 => {
            // All at once.
            for node in 0..cluster.count() {
                cluster.end(node, End::PowerCut).await;
            }
            sleep(lasts).await;
            for node in 0..cluster.count() {
                restart(cluster, node).await;
            }
        }
        7 => {
            cluster.stop(node).await;
            sleep(lasts).await;
            restart(cluster, node).await;
        }
        8 => {
            let takes = Duration::from_micros(1 << (9 + rng.below(12)));
            trace.note(format_args!("syncs of {node} take {takes:?} for {lasts:?}"));
            cluster.behaviour(node).sync_takes(takes);
            sleep(lasts).await;
            cluster.behaviour(node).sync_takes(Duration::from_micros(500));
        }
        9 => {
            let ms = rng.below(2 * SKEW_MS_MAX) as i64 - SKEW_MS_MAX as i64;
            trace.note(format_args!("clock of {node} off by {ms} ms"));
            cluster.skew(node).set(ms);
        }
        10 | 11 => {
            let to = (node + 1 + rng.below(cluster.count() - 1)) % cluster.count();
            let _done = cluster.transfer(node, to, Duration::from_secs(2)).await;
        }
        15 => cluster.suspend(node, lasts).await,
        12..15 => {
            let (lost, twice, disordered) = (rng.below(4) * 30, rng.below(3) * 50, rng.below(3) * 100);
            let (late, resent) = (rng.below(2) * 10, rng.below(3) * 30);
            let latency = Duration::from_micros(1 << rng.below(16));
            let bytes_per_s = 125_000_000 >> (rng.below(3) * 5);
            trace.note(format_args!(
                "weather {latency:?} {bytes_per_s} {lost} {twice} {disordered} {late} {resent} for {lasts:?}"
            ));
            for from in 0..cluster.count() {
                for to in 0..cluster.count() {
                    cluster.links().change(from, to, |weather| {
                        (weather.lost, weather.twice, weather.disordered) = (lost, twice, disordered);
                        (weather.late, weather.latency, weather.jitter) = (late, latency, latency);
                        weather.resent = resent;
                        weather.bytes_per_s = bytes_per_s;
                    });
                }
            }
            sleep(lasts).await;
            cluster.links().heal();
        }
        16 => lose_a_voter(cluster, rng).await,
        _ => {
            trace.note(format_args!("disk of {node} full for {lasts:?}"));
            cluster.behaviour(node).full(true);
            sleep(lasts).await;
            cluster.behaviour(node).full(false);
        }
    }
}

/// Whether a member leads, as it knows.
pub fn leads(cluster: &Cluster, node: usize) -> bool {
    let running = cluster.engine(node);
    let status = running.and_then(|(engine, environment)| environment.enter(|| engine.cluster().ok()));
    status.is_some_and(|status| status.role == "leader")
}

/// Cuts a member off from all others.
pub fn cut_off(cluster: &Cluster, node: usize) {
    for other in (0..cluster.count()).filter(|other| *other != node) {
        cluster.links().change(node, other, |weather| weather.cut = true);
        cluster.links().change(other, node, |weather| weather.cut = true);
    }
}

/// Starts a member again that should run.
pub async fn restart(cluster: &Cluster, node: usize) {
    if let Err(why) = cluster.start_if_wanted(node).await {
        cluster.oracle().finds(why);
    }
}

/// Opens stores again that failed, as a supervisor does.
async fn supervise(cluster: Cluster, over: Arc<AtomicBool>) {
    while !over.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(50)).await;
        for node in 0..cluster.count() {
            if cluster.has_failed(node) {
                cluster.stop(node).await;
            } else if !cluster.opens_again(node) {
                continue;
            }
            sleep(Duration::from_millis(200)).await;
            restart(&cluster, node).await;
        }
    }
}

/// Looks at all members' views, again and again.
pub async fn look(cluster: Cluster, over: Arc<AtomicBool>) {
    while !over.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(20)).await;
        for node in 0..cluster.count() {
            let Some((engine, _)) = cluster.engine(node) else { continue };
            if let Ok(view) = engine.view() {
                cluster.oracle().view(node, &view);
            }
        }
        cluster.wrong_alarms().into_iter().for_each(|wrong| cluster.oracle().finds(wrong));
    }
}

/// Returns once each member takes a write.
pub async fn serve_everywhere(cluster: &Cluster) -> Result<(), String> {
    for node in (0..cluster.count()).filter(|node| !cluster.is_witness(*node)) {
        loop {
            let Some((engine, environment)) = cluster.engine(node) else {
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (serial, _) = cluster.oracle().write_begins("probe", "probe", false);
            let write = Write::new(key("probe"), serial.to_be_bytes().to_vec().into());
            let within = Duration::from_secs(5);
            let call = |reply| {
                environment.enter(|| {
                    if let Err((error, reply)) = engine.write_within(Command::Put(write), within, reply) {
                        reply.send(Err(error));
                    }
                });
            };
            let done = cluster.answer("a probe", within, call).await;
            cluster.trace().note(format_args!("probe {node} {done:?}"));
            if let Ok(Outcome::Done { revision }) = done {
                cluster.oracle().write_done(serial, revision, true);
                break;
            }
            cluster.oracle().write_unknown(serial);
            sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

/// The log entry, the revision and the digest that a member has come to.
pub fn applied(engine: &Engine) -> (Option<u64>, u64, u64) {
    let view = engine.view().map(|view| (view.applied.map(|id| id.index()), view.revision, view.digest));
    view.unwrap_or_default()
}

/// Returns the revision once all members have the same.
pub async fn agree(cluster: &Cluster) -> u64 {
    let mut steady = 0;
    let mut last = None;
    loop {
        sleep(Duration::from_millis(50)).await;
        let all = (0..cluster.count()).filter(|node| !cluster.is_witness(*node));
        let mut all = all.map(|node| cluster.engine(node).map(|(engine, _)| applied(&engine)));
        let first = all.next().flatten();
        let same = first.is_some() && all.all(|other| other == first);
        steady = if same && first == last { steady + 1 } else { 0 };
        last = first;
        if let (true, Some((_, revision, _))) = (steady > 4, first) {
            return revision;
        }
    }
}

/// Returns once the watches of all members are told of the same. A witness may be the last one.
pub async fn tell(cluster: &Cluster) {
    let told = |node| cluster.oracle().told_upto(&name(node));
    while (1..cluster.count()).any(|node| told(node) != told(0)) {
        sleep(Duration::from_millis(20)).await;
    }
}

/// Compares what the members hold with what the history says.
pub fn compare(cluster: &Cluster, oracle: &Oracle) {
    let expected = oracle.expected();
    for node in 0..cluster.count() {
        let Some((engine, _)) = cluster.engine(node) else { continue };
        let Ok(view) = engine.view() else { continue };
        let held: BTreeMap<String, u64> = view
            .entries
            .iter()
            .filter_map(|(key, entry)| Some((path_of(key), serial_of(&entry.payload.in_memory()?)?)))
            .collect();
        if held != expected {
            oracle.finds(format!("member {node} holds {held:?}, and the history says {expected:?}"));
        }
    }
}

pub fn state_of(cluster: &Cluster) -> String {
    let state = |node| match cluster.engine(node) {
        Some((engine, environment)) => {
            let status = environment
                .enter(|| engine.cluster())
                .map(|status| (status.role, status.term, status.leader, status.last_log_index));
            let told = cluster.oracle().told_upto(&name(node));
            format!("{node}: {status:?}, applied {:?}, told {told}", applied(&engine))
        }
        None => format!("{node}: off"),
    };
    (0..cluster.count()).map(state).collect::<Vec<_>>().join("; ")
}
