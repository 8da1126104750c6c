//! Authoritative reads at members that do not lead: what they must not miss, and what they cost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tank_engine::command::{Command, Write};
use tank_engine::engine::{Engine, Reply};
use tank_engine::error::EngineError;
use tank_engine::key::{Component, Key};
use tank_engine::peers::Channel;

use crate::bed::{Cluster, TIMEOUT, eventually, get_within, key, put, put_within, wait};

/// The number that a member answers with, authoritatively.
fn number(engine: &Engine, timeout: Duration) -> Option<u64> {
    let bytes = get_within(engine, "n", timeout).ok()??;
    Some(u64::from_be_bytes(bytes[..].try_into().unwrap()))
}

/// Writes rising numbers through `writer`, and reads them at `readers`, as long as `body` runs. No
/// read that began after a write was acknowledged, or after a read of it ended anywhere, may show an
/// older number. Returns how many reads each reader did.
fn never_stale(writer: &Engine, readers: &[&Engine], body: impl FnOnce()) -> Vec<u64> {
    let (seen, over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1.. {
                if put_within(writer, "n", &u64::to_be_bytes(number), Duration::from_secs(2)).is_ok() {
                    seen.fetch_max(number, Ordering::SeqCst);
                }
                if over.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        let read = |engine: &Engine| {
            let mut reads = 0;
            while !over.load(Ordering::SeqCst) {
                let floor = seen.load(Ordering::SeqCst);
                if let Some(number) = number(engine, Duration::from_millis(200)) {
                    assert!(number >= floor, "{number} after {floor} was seen");
                    seen.fetch_max(number, Ordering::SeqCst);
                    reads += 1;
                }
            }
            reads
        };
        let readers: Vec<_> = readers.iter().map(|engine| scope.spawn(move || read(engine))).collect();
        body();
        over.store(true, Ordering::SeqCst);
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    })
}

#[test]
fn no_member_answers_stale_while_others_write() {
    let cluster = Cluster::of(3);
    put(cluster.engine(0), "n", &u64::to_be_bytes(0)).unwrap();
    let members: Vec<_> = cluster.running().collect();
    let writer = (cluster.leader() + 1) % 3;
    let reads = never_stale(cluster.engine(writer), &members, || thread::sleep(Duration::from_secs(1)));
    assert!(reads.iter().all(|count| *count > 20), "{reads:?}");
}

#[test]
fn a_follower_of_a_leader_that_is_cut_off_does_not_answer_stale() {
    let cluster = Cluster::of(5);
    put(cluster.engine(0), "n", &u64::to_be_bytes(0)).unwrap();
    let old = cluster.leader();
    let (follower, others) = ((old + 1) % 5, [(old + 2) % 5, (old + 3) % 5, (old + 4) % 5]);
    let names = |node| Cluster::name(node);
    let readers = [cluster.engine(follower), cluster.engine(old), cluster.engine(others[1])];
    let reads = never_stale(cluster.engine(others[0]), &readers, || {
        // The two still hear each other, so the follower goes on asking the old leader.
        for other in others {
            for (from, to) in [(old, other), (follower, other), (other, old), (other, follower)] {
                cluster.net.cut(&names(from), &names(to));
            }
        }
        let leads = |node: usize| cluster.engine(node).cluster().unwrap().role == "leader";
        eventually("the majority to elect a leader", || others.iter().any(|other| leads(*other)).then_some(()));
        let before = number(cluster.engine(others[0]), TIMEOUT);
        eventually("the majority to write", || (number(cluster.engine(others[0]), TIMEOUT) > before).then_some(()));
        assert_eq!(cluster.engine(follower).cluster().unwrap().leader, Some(cluster.engine(old).identity().member_id));
        for minority in [old, follower] {
            assert_eq!(number(cluster.engine(minority), Duration::from_millis(500)), None);
        }
        cluster.net.heal();
        let current = number(cluster.engine(others[0]), TIMEOUT);
        eventually("the minority to follow", || (number(cluster.engine(follower), TIMEOUT) >= current).then_some(()));
    });
    assert!(reads.iter().all(|count| *count > 0), "{reads:?}");
}

#[test]
fn readers_that_wait_at_the_same_time_share_a_question() {
    const READERS: u64 = 2_000;
    let cluster = Cluster::of(3);
    put(cluster.engine(0), "n", b"1").unwrap();
    let leader = cluster.leader();
    let follower = (leader + 1) % 3;
    let (from, to) = (Cluster::name(follower), Cluster::name(leader));
    let asked = || cluster.net.sent(&from, &to, Channel::Control);
    let before = asked();
    let (sender, answers) = mpsc::channel();
    for _ in 0..READERS {
        let sender = sender.clone();
        let reply = Reply::new(move |read| drop(sender.send(read)));
        assert!(cluster.engine(follower).await_readable(TIMEOUT, reply).is_ok());
    }
    for _ in 0..READERS {
        assert_eq!(answers.recv_timeout(TIMEOUT).expect("an answer"), Ok(()));
    }
    // Answers to heartbeats are among them.
    assert!(asked() - before < READERS / 4, "{} frames for {READERS} readers", asked() - before);
}

#[test]
fn a_question_that_is_lost_is_asked_again_and_readers_end_in_time() {
    let cluster = Cluster::of(3);
    put(cluster.engine(0), "n", b"1").unwrap();
    let leader = cluster.leader();
    let follower = cluster.engine((leader + 1) % 3);
    let read = |timeout| wait(|reply| drop(follower.await_readable(timeout, reply)));
    // The leader hears nothing of the follower, which hears the leader, and has another one to rest on.
    cluster.net.cut(&Cluster::name((leader + 1) % 3), &Cluster::name(leader));
    thread::scope(|scope| {
        let patient = scope.spawn(|| read(TIMEOUT));
        let started = Instant::now();
        assert!(read(Duration::from_millis(100)).is_err());
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        cluster.net.heal();
        patient.join().unwrap().unwrap();
    });
}

#[test]
fn a_leader_that_was_just_left_alone_has_no_quorum() {
    let cluster = Cluster::of(3);
    put(cluster.engine(0), "n", b"1").unwrap();
    let leader = cluster.leader();
    let confirmed = || wait(|reply| cluster.engine(leader).await_quorum(Duration::from_millis(500), reply));
    assert_eq!(confirmed(), Ok(()));
    cluster.net.isolate(&Cluster::name(leader));
    assert_eq!(confirmed(), Err(EngineError::NoQuorum), "whatever its lease says");
}

/// Hands writes over without waiting for each, and gives the keys whose writes may be lost: on a busy machine so many at
/// once can cost a leader its place.
fn put_at_once(engine: &Engine, keys: &[Key]) -> Vec<Key> {
    let (sender, answers) = mpsc::channel();
    for key in keys {
        let (sender, written) = (sender.clone(), key.clone());
        let reply = Reply::new(move |result: Result<_, _>| drop(sender.send(result.is_err().then_some(written))));
        let put = Command::Put(Write::new(key.clone(), Bytes::from_static(b"v")));
        // One that is refused is answered too.
        let _handed_over = engine.write(put, reply);
    }
    keys.iter().filter_map(|_key| answers.recv_timeout(Duration::from_secs(30)).expect("an answer")).collect()
}

/// Writes until all are applied.
fn put_all(cluster: &Cluster, mut keys: Vec<Key>) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !keys.is_empty() {
        assert!(Instant::now() < deadline, "{} of the writes fail again and again", keys.len());
        keys = put_at_once(cluster.engine(cluster.leader()), &keys);
    }
}

#[test]
fn a_command_that_takes_long_to_apply_does_not_cost_the_leader_its_place() {
    // Fewer than may be in flight at a time.
    const AT_ONCE: usize = 40_000;
    const ENTRIES: usize = 5 * AT_ONCE;
    let cluster = Cluster::of(3);
    let below = |name: &str| Component::String(name.as_bytes().to_vec());
    for first in (0..ENTRIES).step_by(AT_ONCE) {
        put_all(&cluster, (first..first + AT_ONCE).map(|i| Key::of(&[below("t"), below(&i.to_string())])).collect());
    }
    let leader = cluster.engine(cluster.leader());
    let term = leader.cluster().unwrap().term;
    let delete = Command::Delete(key("t").into());
    let started = Instant::now();
    wait(|reply| drop(leader.write(delete, reply))).unwrap();
    eprintln!("{ENTRIES} entries deleted in {:?}", started.elapsed());
    cluster.agree();
    assert_eq!(leader.cluster().unwrap().term, term, "nobody stood for election");
}
