//! Leases of one engine: what ends with them, and when.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tank_engine::command::{Command, Compare, LeaseCommand, Op, Relation, Txn, Write};
use tank_engine::engine::Engine;
use tank_engine::error::EngineError;
use tank_engine::lease::Lease;
use tank_engine::outcome::{Outcome, Refusal};
use tank_sim::wait;

use crate::support::{LIMIT, key, open, put, submit, write, write_all};

fn acquire(name: &str, ttl_ms: u64) -> Command {
    let name = Bytes::copy_from_slice(name.as_bytes());
    Command::Lease(LeaseCommand::Acquire { name, holder: Bytes::from_static(b"me"), ttl_ms })
}

fn renew(lease: &Lease) -> Command {
    Command::Lease(LeaseCommand::Renew { name: lease.name.clone(), epoch: lease.epoch })
}

fn granted(outcome: Result<Outcome, EngineError>) -> Lease {
    let Ok(Outcome::Granted(lease)) = outcome else { panic!("{outcome:?}") };
    lease
}

fn attached(name: &str, lease: u64) -> Command {
    Command::Put(Write { lease, ..Write::new(key(name), Bytes::from_static(b"v")) })
}

fn leases(engine: &Engine) -> usize {
    engine.view().unwrap().leases.len()
}

/// Waits until no lease is left; returns when that was.
fn await_end(engine: &Engine) -> Instant {
    wait::until("all leases to end", LIMIT, || leases(engine), |left| *left == 0).unwrap();
    Instant::now()
}

#[test]
fn a_lease_ends_after_its_time_with_what_is_attached_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let asked = Instant::now();
    let lease = granted(write(&engine, acquire("a", 300)));
    write_all(&engine, [attached("x", lease.epoch), attached("y", lease.epoch), put("z", b"stays")]);
    assert!(matches!(write(&engine, acquire("a", 300)), Ok(Outcome::Refused(Refusal::Held(held))) if held == lease));
    let ended = await_end(&engine);
    assert!(ended - asked >= Duration::from_millis(300), "after {:?}", ended - asked);
    let view = engine.view().unwrap();
    assert!(view.get(&key("x")).is_none() && view.get(&key("y")).is_none() && view.get(&key("z")).is_some());
    assert_eq!(view.revision, lease.epoch + 4, "one revision for the end, with both entries");
    drop(view);
    assert!(matches!(write(&engine, renew(&lease)), Ok(Outcome::Refused(Refusal::LeaseEnded))));
    assert!(matches!(write(&engine, attached("x", lease.epoch)), Ok(Outcome::Refused(Refusal::LeaseEnded))));
    assert!(granted(write(&engine, acquire("a", 300))).epoch > lease.epoch);
    engine.close().unwrap();
}

#[test]
fn a_lease_that_is_renewed_in_time_stays_and_ends_a_whole_time_after_the_last_renewal() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let lease = granted(write(&engine, acquire("a", 2_000)));
    let start = Instant::now();
    let mut last = start;
    while start.elapsed() < Duration::from_millis(2_500) {
        last = Instant::now();
        let renewed = granted(write(&engine, renew(&lease)));
        assert_eq!(renewed.epoch, lease.epoch);
    }
    let ended = await_end(&engine);
    assert!(ended - last >= Duration::from_secs(2), "after {:?}", ended - last);
    engine.close().unwrap();
}

#[test]
fn a_store_that_is_opened_again_gives_leases_their_whole_time() {
    const TTL_MS: u64 = 300;
    const TTL: Duration = Duration::from_millis(TTL_MS);
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    granted(write(&engine, acquire("a", TTL_MS)));
    let held = Instant::now();
    engine.close().unwrap();
    wait::until("its time to be over", LIMIT, || held.elapsed(), |since| *since > TTL).unwrap();
    let opening = Instant::now();
    let engine = open(dir.path());
    assert_eq!(leases(&engine), 1, "its time is over, but nobody could renew it");
    let ended = await_end(&engine);
    assert!(ended - opening >= TTL, "after {:?}", ended - opening);
    engine.close().unwrap();
}

#[test]
fn a_transaction_can_ask_for_the_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let lease = granted(write(&engine, acquire("a", 60_000)));
    let guarded = |operand| {
        let compare = vec![Compare::Lease { name: lease.name.clone(), relation: Relation::Equal, operand }];
        let then = vec![Op::Put(Write::new(key("x"), Bytes::from_static(b"v")))];
        Command::Txn(Txn { compare, then, otherwise: Vec::new() })
    };
    assert!(matches!(write(&engine, guarded(lease.epoch)), Ok(Outcome::Txn { succeeded: true, .. })));
    assert!(matches!(write(&engine, guarded(lease.epoch - 1)), Ok(Outcome::Txn { succeeded: false, .. })));
    engine.close().unwrap();
}

#[test]
fn ten_thousand_leases_are_renewed_and_end() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let commands = (0..10_000).map(|i| acquire(&format!("lease-{i}"), 3_000));
    let asked = Instant::now();
    let waiting: Vec<_> = commands.map(|command| submit(&engine, command).unwrap()).collect();
    let held: Vec<_> = waiting.into_iter().map(|outcome| granted(outcome.recv_timeout(LIMIT).unwrap())).collect();
    let granted_at = Instant::now();
    let (kept, left) = held.split_at(100);
    // A hundred are renewed until all others are gone.
    let mut seen = leases(&engine);
    while seen > kept.len() {
        assert!(asked.elapsed() < LIMIT, "{seen} are left");
        for lease in kept {
            granted(write(&engine, renew(lease)));
        }
        seen = leases(&engine);
        assert!(seen == held.len() || asked.elapsed() >= Duration::from_secs(3), "{seen} after {:?}", asked.elapsed());
    }
    eprintln!("{} leases granted in {:?}, ended {:?} after that", left.len(), granted_at - asked, granted_at.elapsed());
    assert!(granted_at.elapsed() >= Duration::from_secs(2));
    await_end(&engine);
    engine.close().unwrap();
}
