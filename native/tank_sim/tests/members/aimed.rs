//! Faults at the moments at which they hurt most.

use std::time::Duration;

use futures_util::future::join_all;
use tank_engine::command::{Command, Write};
use tank_engine::outcome::Outcome;
use tank_sim::Rng;
use tokio::time::sleep;

use crate::clients::found;
use crate::cluster::{Cluster, End, key};
use crate::links::name;
use crate::storm::{applied, cut_off, leads, restart};

/// How late a request comes that is delayed, at the most.
const DELAY_MAX: Duration = Duration::from_secs(4);

/// Strikes at a moment at which something was promised, which a member that made a mistake does not keep.
pub async fn aim(cluster: &Cluster, rng: &mut Rng) {
    match rng.below(8) {
        0 => lose_a_voter(cluster, rng).await,
        1 => lose_what_was_acknowledged(cluster, rng).await,
        2 => lose_a_truncation(cluster, rng).await,
        3 => restart_a_voter(cluster, rng).await,
        4 => suspend_a_leader(cluster).await,
        5 => delay_requests(cluster, rng).await,
        _ => cut_off_a_leader_that_hands_over(cluster, rng).await,
    }
}

/// Cuts the power of all members right after a write was acknowledged, while their disks are slow.
async fn lose_what_was_acknowledged(cluster: &Cluster, rng: &mut Rng) {
    let slow = Duration::from_millis(100 + rng.below(400) as u64);
    cluster.trace().note(format_args!("syncs take {slow:?}, until a write is acknowledged and the power is cut"));
    for node in 0..cluster.count() {
        cluster.behaviour(node).sync_takes(slow);
    }
    sleep(slow * 2).await;
    let written = || cluster.oracle().counts().get("written").copied().unwrap_or_default();
    let before = written();
    for _ in 0..2_000 {
        if written() > before {
            break;
        }
        sleep(Duration::from_millis(1)).await;
    }
    for node in 0..cluster.count() {
        cluster.end(node, End::PowerCut).await;
        cluster.behaviour(node).sync_takes(Duration::from_micros(500));
    }
    for node in 0..cluster.count() {
        restart(cluster, node).await;
    }
}

/// Cuts the leader off, and the power of a member that votes for another one, while its disk is slow; then that other one
/// is cut off, and the old leader is back. A voter that forgot its vote would follow the old leader.
pub async fn lose_a_voter(cluster: &Cluster, rng: &mut Rng) {
    let Some(old) = leader(cluster) else { return };
    let voter = (old + 1 + rng.below(cluster.count() - 1)) % cluster.count();
    cluster.trace().note(format_args!("lose the voter {voter} of a successor of {old}"));
    cluster.behaviour(voter).sync_takes(Duration::from_secs(2));
    cut_off(cluster, old);
    let mut successor = None;
    for _ in 0..150 {
        sleep(Duration::from_millis(10)).await;
        let others = (0..cluster.count()).filter(|node| *node != old && *node != voter);
        successor = others.into_iter().find(|node| leads(cluster, *node));
        if successor.is_some() {
            break;
        }
    }
    cluster.end(voter, End::PowerCut).await;
    cluster.behaviour(voter).sync_takes(Duration::from_micros(500));
    cluster.links().heal();
    if let Some(successor) = successor {
        cut_off(cluster, successor);
    }
    restart(cluster, voter).await;
    sleep(Duration::from_millis(rng.below(2_000) as u64)).await;
    cluster.links().heal();
}

/// Has a leader hand over, and cuts it off once the others know. By its lease it must not answer any more, while its
/// successor writes.
async fn cut_off_a_leader_that_hands_over(cluster: &Cluster, rng: &mut Rng) {
    let Some(old) = leader(cluster) else { return };
    let to = (old + 1 + rng.below(cluster.count() - 1)) % cluster.count();
    cluster.trace().note(format_args!("cut off {old}, which hands over"));
    let handing_over = tokio::spawn({
        let cluster = cluster.clone();
        async move { cluster.transfer(old, to, Duration::from_secs(2)).await }
    });
    sleep(Duration::from_millis(1 + rng.below(3) as u64)).await;
    cut_off(cluster, old);
    write_elsewhere_and_read_at(cluster, old).await;
    sleep(Duration::from_millis(rng.below(300) as u64)).await;
    cluster.links().heal();
    let _done = handing_over.await;
}

/// Has requests come so late that they were answered by another leader, and others were made since, and that the one
/// they were sent to leads again.
async fn delay_requests(cluster: &Cluster, rng: &mut Rng) {
    let Some(old) = leader(cluster) else { return };
    let from = (old + 1 + rng.below(cluster.count() - 1)) % cluster.count();
    let to = (0..cluster.count()).find(|node| ![old, from].contains(node)).unwrap_or(from);
    cluster.trace().note(format_args!("requests of {from} to {old} are late, which {to} answers"));
    cluster.links().change(from, old, |weather| (weather.late, weather.late_max) = (1_000, DELAY_MAX));
    let delayed = tokio::spawn(put_many(cluster.clone(), from, 8));
    sleep(Duration::from_millis(50)).await;
    let _done = cluster.transfer(old, to, Duration::from_secs(1)).await;
    let _done = delayed.await;
    cluster.links().heal();
    put_many(cluster.clone(), from, 8).await;
    let _done = cluster.transfer(to, old, Duration::from_secs(1)).await;
    sleep(DELAY_MAX).await;
}

/// Suspends a leader until another one has written: when it goes on, its lease has ended.
async fn suspend_a_leader(cluster: &Cluster) {
    let Some(old) = leader(cluster) else { return };
    cluster.suspend_during(old, write_with_successor_of(cluster, old, 2_000)).await;
    // Before it hears of anything.
    read_at_once(cluster, old);
}

/// Has a leader rest on as few voters as it can, and restarts one of them: it may vote for somebody else only when the
/// leader does not count on it any more.
async fn restart_a_voter(cluster: &Cluster, rng: &mut Rng) {
    let Some(old) = leader(cluster) else { return };
    let others: Vec<usize> = (1..cluster.count()).map(|by| (old + by) % cluster.count()).collect();
    let (counted_on, free) = others.split_at(cluster.count() / 2);
    let voter = counted_on[0];
    cluster.trace().note(format_args!("restart {voter}, which {old} counts on"));
    free.iter().for_each(|node| cut(cluster, old, *node));
    sleep(Duration::from_millis(210 + rng.below(100) as u64)).await;
    cluster.end(voter, End::Kill).await;
    cut_off(cluster, old);
    restart(cluster, voter).await;
    for node in &others {
        if let Some((engine, environment)) = cluster.engine(*node) {
            environment.enter(|| engine.peer_lost(&name(old)));
        }
    }
    write_elsewhere_and_read_at(cluster, old).await;
    sleep(Duration::from_millis(rng.below(300) as u64)).await;
    cluster.links().heal();
}

/// Has a leader that is cut off log what is never committed, and cuts its power when a snapshot has taken the place of
/// that: what was truncated must not be there again.
async fn lose_a_truncation(cluster: &Cluster, rng: &mut Rng) {
    let timing = cluster.timing();
    // With so many entries more, the log of before is purged.
    let entries = timing.snapshot_interval_entries + timing.log_retention_entries + timing.purge_batch + 10;
    let Some(old) = leader(cluster).filter(|_| entries < 250) else { return };
    cluster.trace().note(format_args!("lose a truncation of {old}"));
    cut_off(cluster, old);
    let overwritten = tokio::spawn(put_many(cluster.clone(), old, 2 * entries + 150));
    let Some(successor) = successor_of(cluster, old, 2_000).await else { return cluster.links().heal() };
    put_many(cluster.clone(), successor, entries).await;
    let Some(before) = cluster.engine(old).map(|(engine, _)| applied(&engine).1) else {
        return cluster.links().heal();
    };
    cluster.behaviour(old).sync_takes(Duration::from_millis(100 + rng.below(500) as u64));
    cluster.links().heal();
    for _ in 0..3_000 {
        if cluster.engine(old).is_none_or(|(engine, _)| applied(&engine).1 > before) {
            break;
        }
        sleep(Duration::from_millis(1)).await;
    }
    cluster.end(old, End::PowerCut).await;
    cluster.behaviour(old).sync_takes(Duration::from_micros(500));
    restart(cluster, old).await;
    let _done = overwritten.await;
}

fn leader(cluster: &Cluster) -> Option<usize> {
    (0..cluster.count()).find(|node| leads(cluster, *node))
}

fn cut(cluster: &Cluster, one: usize, other: usize) {
    cluster.links().change(one, other, |weather| weather.cut = true);
    cluster.links().change(other, one, |weather| weather.cut = true);
}

/// Who leads instead of `old`, within so many milliseconds.
async fn successor_of(cluster: &Cluster, old: usize, ms: u64) -> Option<usize> {
    for _ in 0..ms {
        let successor = (0..cluster.count()).find(|node| *node != old && leads(cluster, *node));
        if successor.is_some_and(|node| !cluster.is_witness(node)) {
            return successor;
        }
        sleep(Duration::from_millis(1)).await;
    }
    None
}

/// Writes with the successor of a leader that does not know of it, and reads at that leader.
async fn write_elsewhere_and_read_at(cluster: &Cluster, old: usize) {
    write_with_successor_of(cluster, old, 200).await;
    read_at_once(cluster, old);
}

async fn write_with_successor_of(cluster: &Cluster, old: usize, ms: u64) {
    if let Some(successor) = successor_of(cluster, old, ms).await {
        put(cluster, successor, "k0", Duration::from_millis(200)).await;
    }
}

/// Reads at a member if it answers by itself.
fn read_at_once(cluster: &Cluster, node: usize) {
    let Some((engine, environment)) = cluster.engine(node) else { return };
    let floor = cluster.oracle().read_begins();
    if let Ok(Some(view)) = environment.enter(|| engine.authoritative_view()) {
        let what = format!("read at {node}, which was replaced");
        let found = found(&view, "k0");
        cluster.trace().note(format_args!("{what} {} {found:?}", view.revision));
        cluster.oracle().read_done(what, "k0", floor, view.revision, found);
    }
}

async fn put_many(cluster: Cluster, node: usize, count: u64) {
    let puts = (0..count).map(|at| {
        let cluster = &cluster;
        async move { put(cluster, node, &format!("k{}", at % 8), Duration::from_millis(700)).await }
    });
    join_all(puts).await;
}

async fn put(cluster: &Cluster, node: usize, path: &str, within: Duration) {
    let Some((engine, environment)) = cluster.engine(node) else { return };
    let (serial, _) = cluster.oracle().write_begins("aimed put", path, false);
    let write = Write::new(key(path), serial.to_be_bytes().to_vec().into());
    let call = |reply| {
        environment.enter(|| {
            if let Err((error, reply)) = engine.write_within(Command::Put(write), within, reply) {
                reply.send(Err(error));
            }
        });
    };
    let done = cluster.answer("an aimed put", within, call).await;
    match done {
        Ok(Outcome::Done { revision }) => cluster.oracle().write_done(serial, revision, true),
        _ => cluster.oracle().write_unknown(serial),
    }
}
