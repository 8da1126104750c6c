//! A request that is asked again with its id is applied once, and answered with what it gave:
//! also after a restart, and on a member that got the state as a snapshot.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]
#![allow(missing_docs, unreachable_pub, dead_code)]

mod support;

use tank_engine::command::{Command, Request, RequestId};
use tank_engine::error::EngineError;
use tank_engine::machine::Header;
use tank_engine::outcome::Outcome;
use tank_engine::snapshot::SnapshotData;

use support::{Held, Member, delete, put};

fn request(client: u64, sequence: u64, command: Command) -> Request {
    Request { id: RequestId { client, sequence, resolved_below: 0 }, time_ms: 1_000, command }
}

/// What the state says to a request, without applying it.
fn asked(member: &Member, request: &Request) -> Outcome {
    let (mut state, _) = member.store().load(&std::sync::Arc::default()).unwrap();
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
        // What a damaged write-ahead log may do: the entry was written again later, the record of
        // the first request was not.
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
        // never and falls silent half way, until it is forgotten by the time in the log.
        let time_ms = 1_000 + round * 120_000;
        let one = |client, resolved_below| {
            let id = RequestId { client, sequence: round, resolved_below };
            Request { id, time_ms, command: put(&format!("{client}"), &round.to_be_bytes()) }
        };
        let mut batch = vec![one(1, round), one(2, round.saturating_sub(3))];
        if round < 15 {
            batch.push(one(3, 0));
        }
        index += 1;
        member.apply(index, &batch).unwrap();
        index += batch.len() as u64;
        let before = member.held();
        member.close();
        member = Member::open(dir.path()).unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(member.held(), before, "round {round}");
    }
    let Header { remembered, .. } = member.store().load(&std::sync::Arc::default()).unwrap().1;
    assert!(remembered < 10, "{remembered} records are left");
    member.close();
}
