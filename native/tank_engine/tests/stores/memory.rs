//! A store whose values do not fit into the memory that they may take up.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tank_engine::command::{Command, Compare, Condition, Op, Txn, Write};
use tank_engine::engine::Engine;
use tank_engine::options::Options;
use tank_engine::outcome::{Outcome, Refusal, Response};

use crate::support::{key, put, write, write_all};

const BOUND: u64 = 1 << 20;
const COUNT: usize = 4_000;

fn open(dir: &std::path::Path) -> Engine {
    let options = Options { memory_bytes_max: Some(BOUND), ..Options::new(dir, "tank") };
    Engine::open(options, Box::new(|_| {})).unwrap()
}

fn payload(number: usize, round: u8) -> Vec<u8> {
    let mut bytes = vec![round; 1_000];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn name(number: usize) -> String {
    format!("{number:05}")
}

/// Waits until what is in memory is within the bound.
fn await_evicted(engine: &Engine) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while engine.status().unwrap().memory_bytes > BOUND {
        assert!(Instant::now() < deadline, "{:?}", engine.status());
        std::thread::yield_now();
    }
}

fn check_all(engine: &Engine, round: impl Fn(usize) -> u8) {
    let view = engine.view().unwrap();
    assert_eq!(view.entries.len(), COUNT);
    for number in 0..COUNT {
        let key = key(&name(number));
        let entry = view.get(&key).unwrap();
        let read = view.payload(&key, entry).unwrap().unwrap();
        assert_eq!(read, payload(number, round(number)), "{number}");
    }
}

#[test]
fn values_beyond_the_bound_are_read_from_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    write_all(&engine, (0..COUNT).map(|number| put(&name(number), &payload(number, 1))));
    await_evicted(&engine);
    let evicted = engine.view().unwrap().entries.values().filter(|entry| entry.is_evicted()).count();
    assert!(evicted > COUNT / 2, "{evicted} of {COUNT} are on the disk alone");
    check_all(&engine, |_| 1);
    await_evicted(&engine);
    assert_eq!(engine.status().unwrap().value_bytes, (COUNT * (1_000 + key(&name(0)).as_bytes().len())) as u64);

    // A view that was taken before a write reads as it was.
    let before = std::sync::Arc::clone(&engine.view().unwrap());
    write_all(&engine, (0..COUNT).step_by(2).map(|number| put(&name(number), &payload(number, 2))));
    await_evicted(&engine);
    for number in (0..COUNT).step_by(100) {
        let key = key(&name(number));
        let read = before.payload(&key, before.get(&key).unwrap()).unwrap().unwrap();
        assert_eq!(read, payload(number, 1));
    }
    drop(before);
    let digest = engine.status().unwrap().digest;
    engine.close().unwrap();

    // Opening reads all of it, and keeps no more than the bound.
    let engine = open(dir.path());
    assert!(engine.status().unwrap().memory_bytes <= BOUND, "{:?}", engine.status());
    assert_eq!(engine.status().unwrap().digest, digest);
    check_all(&engine, |number| if number % 2 == 0 { 2 } else { 1 });
    engine.close().unwrap();
}

#[test]
fn writers_never_take_up_more_than_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let most = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let engine = &engine;
                scope.spawn(move || {
                    for number in (0..COUNT).filter(|number| number % 4 == writer) {
                        write(engine, put(&name(number), &payload(number, 1))).unwrap();
                    }
                })
            })
            .collect();
        let mut most = 0;
        while !writers.iter().all(|writer| writer.is_finished()) {
            most = most.max(engine.status().unwrap().memory_bytes);
        }
        most
    });
    assert!((BOUND / 2..=BOUND).contains(&most), "{most} bytes of {BOUND}");
    check_all(&engine, |_| 1);
    engine.close().unwrap();
}

#[test]
fn commands_compare_and_answer_with_values_that_are_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    write_all(&engine, (0..COUNT).map(|number| put(&name(number), &payload(number, 1))));
    await_evicted(&engine);
    let view = std::sync::Arc::clone(&engine.view().unwrap());
    let evicted = (0..COUNT).filter(|&number| view.get(&key(&name(number))).unwrap().is_evicted());
    let [a, b, c, d] = evicted.take(4).collect::<Vec<_>>()[..] else { panic!("nothing is evicted") };
    let at = |number| Write::new(key(&name(number)), Bytes::from_static(b"new"));

    let Ok(Outcome::Refused(Refusal::Exists(found))) = write(&engine, Command::Create(at(a))) else { panic!() };
    assert_eq!(found.payload.unwrap(), payload(a, 1));

    let other = Condition::PayloadIs(Bytes::from(payload(b, 2)));
    let refused = write(&engine, Command::Put(Write { condition: other, ..at(b) }));
    let Ok(Outcome::Refused(Refusal::Conflict(Some(found)))) = refused else { panic!("{refused:?}") };
    assert_eq!(found.payload.unwrap(), payload(b, 1));
    let same = Condition::PayloadIs(Bytes::from(payload(c, 1)));
    let swapped = write(&engine, Command::Put(Write { condition: same, ..at(c) }));
    assert!(matches!(swapped, Ok(Outcome::Done { .. })), "{swapped:?}");

    let compare = vec![Compare::Payload { key: key(&name(d)), equal: true, payload: Bytes::from(payload(d, 1)) }];
    let txn = Txn { compare, then: vec![Op::Get(key(&name(d))), Op::Delete(key(&name(d)).into())], otherwise: vec![] };
    let done = write(&engine, Command::Txn(txn));
    let Ok(Outcome::Txn { succeeded: true, responses, .. }) = done else { panic!("{done:?}") };
    let [Response::Got(Some(found)), Response::Deleted(1)] = &responses[..] else { panic!("{responses:?}") };
    assert_eq!(found.payload.as_deref(), Some(&payload(d, 1)[..]));
    engine.close().unwrap();
}
