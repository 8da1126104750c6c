//! A request that is asked again with its id is applied once, and answered with what it gave:
//! also after a restart, and on a member that got the state as a snapshot.

use std::sync::Arc;

use tank_engine::command::{Command, Request, RequestId};
use tank_engine::error::EngineError;
use tank_engine::machine::Header;
use tank_engine::outcome::{Outcome, Refusal};
use tank_engine::snapshot::SnapshotData;
use tank_engine::state::{LogTime, STEP_MS_MAX};
use tank_sim::Rng;

use crate::support::{Held, Member, delete, put};

fn request(client: u64, sequence: u64, command: Command) -> Request {
    Request { id: RequestId { client, sequence, resolved_below: 0 }, time_ms: 1_000, command, seen_ms: 0 }
}

/// What the state says to a request, without applying it.
fn asked(member: &Member, request: &Request) -> Outcome {
    let (mut state, _) = member.store().load(&Arc::default()).unwrap();
    let applied = state.apply(request, 1_000_000);
    assert!(applied.changes.is_empty(), "{request} would be applied again");
    applied.outcome
}

#[test]
fn a_repeated_request_is_applied_once() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let requests = [
        request(1, 1, put("a", b"1")),
        request(1, 2, put("a", b"2")),
        request(2, 1, put("b", b"1")),
        request(1, 3, delete("a")),
        request(2, 2, put("c", b"1")),
    ];
    let outcome = |number: usize| Outcome::Done { revision: number as u64 + 1 };
    let mut member = Member::open(here.path()).unwrap();
    member.apply(1, &requests).unwrap();
    let once = member.held();
    assert_eq!(once.revision, 5);
    let unchanged = |member: &Member, once: &Held, when: &str| {
        assert_eq!(&member.held(), once, "{when}");
        for (number, request) in requests.iter().enumerate() {
            assert_eq!(asked(member, request), outcome(number), "{when}: request {number}");
        }
    };
    member.apply(6, &requests).unwrap();
    unchanged(&member, &once, "repeated at once");
    member.close();

    let mut member = Member::open(here.path()).unwrap();
    unchanged(&member, &once, "after a restart");
    member.apply(11, &requests[1..4]).unwrap();
    unchanged(&member, &once, "repeated after a restart");

    let mut other = Member::open(there.path()).unwrap();
    let (frames, header) = member.frames();
    let received = other.receive(&frames).unwrap().unwrap();
    other.install(SnapshotData::Received(received), &header).unwrap();
    unchanged(&other, &once, "on another member");
    for member in [&mut member, &mut other] {
        member.apply(14, &requests).unwrap();
        member.apply(19, &[request(3, 1, put("d", b"1"))]).unwrap();
    }
    assert_eq!(other.held(), member.held(), "both go on alike");
    assert_eq!(other.held().revision, 6);
    other.close();
    member.close();
    let other = Member::open(there.path()).unwrap();
    assert_eq!(asked(&other, &requests[0]), outcome(0), "after a restart of the other member");
    other.close();
}

#[test]
fn a_lost_record_of_requests_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let mut member = Member::open(dir.path()).unwrap();
    member.apply(1, &[request(1, 1, put("a", b"1"))]).unwrap();
    member.apply(2, &[request(1, 2, put("a", b"2"))]).unwrap();
    {
        // The entry was written again later, the record of the first request was not.
        drop(member.store());
        let family = member.db().cf_handle("state_0").unwrap();
        let record = [&b"r"[..], &1u64.to_be_bytes()].concat();
        assert!(member.db().get_cf(&family, &record).unwrap().is_some());
        member.db().delete_cf(&family, &record).unwrap();
    }
    member.close();
    let error = Member::open(dir.path()).map(|_| ()).unwrap_err();
    assert!(matches!(error, EngineError::Corrupt { what: "state", .. }), "{error:?}");
}

#[test]
fn records_of_requests_are_counted_right_while_they_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut member = Member::open(dir.path()).unwrap();
    let mut index = 0;
    for round in 0..30u64 {
        // Three clients in one batch; the first resolves at once, the second later, the third
        // never and falls silent half way, until it is forgotten by the time in the log. That goes
        // on with each entry, ten minutes at the most.
        let mut batch: Vec<_> = (0..12)
            .map(|step| {
                let id = RequestId { client: 4, sequence: round * 12 + step, resolved_below: round * 12 };
                let time_ms = 1_000 + (round * 12 + step) * STEP_MS_MAX;
                Request { id, time_ms, command: delete("nothing"), seen_ms: 0 }
            })
            .collect();
        let (time_ms, seen_ms) = (1_000 + (round * 12 + 11) * STEP_MS_MAX, u64::MAX);
        let one = |client, resolved_below| {
            let id = RequestId { client, sequence: round, resolved_below };
            Request { id, time_ms, command: put(&format!("{client}"), &round.to_be_bytes()), seen_ms }
        };
        batch.extend([one(1, round), one(2, round.saturating_sub(3))]);
        if round < 15 {
            batch.push(one(3, 0));
        }
        member.apply(index + 1, &batch).unwrap();
        index += batch.len() as u64;
        let before = (member.held(), member.published.load().sessions_digest);
        member.close();
        member = Member::open(dir.path()).unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!((member.held(), member.published.load().sessions_digest), before, "round {round}");
    }
    let Header { remembered, sessions, .. } = member.store().load(&Arc::default()).unwrap().1;
    assert!(remembered < 10, "{remembered} records are left");
    assert_eq!(sessions, 3);
    member.close();
}

#[test]
fn a_late_request_is_refused_also_after_a_restart_and_on_a_member_that_got_a_snapshot() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let with = |sequence, resolved_below, command| {
        let id = RequestId { client: 1, sequence, resolved_below };
        Request { id, time_ms: 1_000, command, seen_ms: 0 }
    };
    let (first, second) = (with(5, 5, put("x", b"1")), with(6, 6, put("x", b"2")));
    // Refused, so that it is not remembered; that its client moved on is.
    let refused =
        with(8, 8, Command::Update(tank_engine::command::Write::new(crate::support::key("none"), bytes::Bytes::new())));
    let given_up = with(7, 6, put("x", b"3"));
    let mut member = Member::open(here.path()).unwrap();
    member.apply(1, &[first.clone(), second, refused]).unwrap();
    let held = member.held();
    let is_late = |member: &Member, when: &str| {
        for late in [&first, &given_up] {
            assert_eq!(asked(member, late), Outcome::Refused(Refusal::MovedOn), "{late} {when}");
        }
    };
    is_late(&member, "at once");
    member.close();
    let mut member = Member::open(here.path()).unwrap();
    is_late(&member, "after a restart");
    let mut other = Member::open(there.path()).unwrap();
    let (frames, header) = member.frames();
    let received = other.receive(&frames).unwrap().unwrap();
    other.install(SnapshotData::Received(received), &header).unwrap();
    is_late(&other, "on another member");
    for member in [&mut member, &mut other] {
        member.apply(4, &[first.clone(), given_up.clone()]).unwrap();
        assert_eq!(member.held(), held);
    }
}

#[test]
fn a_lost_session_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let mut member = Member::open(dir.path()).unwrap();
    member.apply(1, &[request(1, 1, delete("nothing")), request(2, 1, put("a", b"1"))]).unwrap();
    drop(member.store());
    {
        let family = member.db().cf_handle("state_0").unwrap();
        let record = [&b"s"[..], &1u64.to_be_bytes()].concat();
        assert!(member.db().get_cf(&family, &record).unwrap().is_some());
        member.db().delete_cf(&family, &record).unwrap();
    }
    member.close();
    let error = Member::open(dir.path()).map(|_| ()).unwrap_err();
    assert!(matches!(error, EngineError::Corrupt { what: "state", .. }), "{error:?}");
}

/// A log as clusters with bad clocks and slow networks make it: requests twice and late, stamps
/// that jump, clients that fall silent for days.
fn log(rng: &mut Rng, entries: usize) -> Vec<Request> {
    let mut clock = 1_700_000_000_000u64;
    let mut next = [0u64; 4];
    let mut log: Vec<Request> = Vec::new();
    for entry in 0..entries {
        clock = match rng.below(12) {
            0 => clock + rng.below(200_000_000) as u64,
            1 => clock - rng.below(200_000_000) as u64,
            2..7 => clock + STEP_MS_MAX,
            _ => clock + rng.below(50) as u64,
        };
        if rng.below(4) == 0 && !log.is_empty() {
            let newest = if rng.below(4) == 0 { log.len() } else { log.len().min(30) };
            let again = log[log.len() - 1 - rng.below(newest)].clone();
            log.push(Request { time_ms: clock, ..again });
            continue;
        }
        let client = rng.below(if entry < entries / 3 { 4 } else { 2 });
        next[client] += 1;
        let (sequence, behind) = (next[client], rng.below(4) as u64);
        let id = RequestId { client: client as u64, sequence, resolved_below: sequence.saturating_sub(behind) };
        let name = format!("{}", rng.below(20));
        let command = match rng.below(6) {
            0 => delete(&name),
            1 => {
                Command::Create(tank_engine::command::Write::new(crate::support::key(&name), bytes::Bytes::from("new")))
            }
            _ => put(&name, &entry.to_be_bytes()),
        };
        // What a member knows of the time in the log may be old.
        let seen_ms = clock.saturating_sub(rng.below(100_000_000) as u64);
        log.push(Request { id, time_ms: clock, command, seen_ms });
    }
    log
}

/// All that members must agree on.
fn agreed(member: &Member) -> (Held, u64, LogTime) {
    let view = member.published.load();
    (crate::support::held_by(&view), view.sessions_digest, view.log_time)
}

#[test]
fn members_with_the_same_log_are_equal_whenever_they_restarted() {
    let seed = tank_sim::rng::seed("TANK_SEED", 3);
    let mut forgotten = 0;
    for round in 0..6 {
        let mut rng = Rng::new(seed.wrapping_add(round));
        let log = log(&mut rng, 900);
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        // One applies entry by entry and never stops; the other in batches, with restarts, and
        // sometimes by a snapshot of the first.
        let mut steady = Member::open(here.path()).unwrap();
        let mut other = Member::open(there.path()).unwrap();
        let (mut at, mut behind) = (0, 0);
        while at < log.len() {
            let failed = |at: usize| format!("seed {seed}, round {round}, entry {at}");
            let count = (1 + rng.below(40)).min(log.len() - at);
            for (index, request) in (at as u64 + 1..).zip(&log[at..at + count]) {
                steady.apply(index, std::slice::from_ref(request)).unwrap();
            }
            at += count;
            match rng.below(6) {
                0 => {
                    let (frames, header) = steady.frames();
                    let received = other.receive(&frames).unwrap().unwrap();
                    other.install(SnapshotData::Received(received), &header).unwrap();
                    behind = at;
                }
                1..4 => {
                    other.apply(behind as u64 + 1, &log[behind..at]).unwrap();
                    behind = at;
                }
                _ => {}
            }
            if rng.below(3) == 0 {
                other.close();
                other = Member::open(there.path()).unwrap_or_else(|error| panic!("{}: {error}", failed(at)));
            }
            if behind == at {
                assert_eq!(agreed(&other), agreed(&steady), "{}", failed(at));
            }
        }
        other.apply(behind as u64 + 1, &log[behind..]).unwrap();
        assert_eq!(agreed(&other), agreed(&steady), "seed {seed}, round {round}");
        // And to whatever comes next, they say the same.
        for request in &log {
            let say = |member: &Member| {
                let (mut state, _) = member.store().load(&Arc::default()).unwrap();
                state.apply(request, 1_000_000).outcome
            };
            if rng.below(20) == 0 {
                assert_eq!(say(&other), say(&steady), "seed {seed}, round {round}: {request}");
            }
        }
        let sessions = steady.store().load(&Arc::default()).unwrap().0.sessions;
        forgotten += u64::from(sessions.horizon_ms() > 0);
    }
    assert!(forgotten > 0, "seed {seed}: no client was ever forgotten");
}
