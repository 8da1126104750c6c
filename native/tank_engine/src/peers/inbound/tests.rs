use proptest::prelude::*;

use super::*;
use crate::peers::link::{Link, Message, Outgoing};

fn head(kind: Kind, call_id: u64) -> Head {
    let ack = Ack::default();
    Head { kind, cluster_id: 0, from: 0, to: 0, instance: 0, call_id, ack, sent_us: 0, ttl_ms: 0 }
}

fn take(inbound: &mut Inbound, part: &Outgoing, now: Instant) -> Vec<Received> {
    inbound.part(head(part.kind, part.call_id), &part.part, &part.body, now).unwrap()
}

fn message(call_id: u64, lane: Lane, bytes: usize) -> Message {
    let body = (0..bytes).map(|at| (at as u64 * 31 + call_id) as u8).collect::<Vec<u8>>().into();
    Message { kind: Kind::CallPart, call_id, lane, body, expires: None }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    // Whatever the network does to parts, each message comes once, whole, and in its lane's order.
    #[test]
    fn messages_arrive_once_and_in_order(
        sizes in prop::collection::vec((0usize..200_000, any::<bool>()), 1..20),
        fates in prop::collection::vec(0u8..10, 1..200),
    ) {
        let start = Instant::now();
        let (mut link, mut inbound) = (Link::new(9, start), Inbound::new(9));
        let lane = |bulk: bool| if bulk { Lane::Bulk } else { Lane::Log };
        for (call, (bytes, bulk)) in sizes.iter().enumerate() {
            link.queue(message(call as u64, lane(*bulk), *bytes));
        }
        // Not all may be lost for ever.
        let fates: Vec<u8> = fates.into_iter().chain([9, 9]).collect();
        let (mut now, mut fates, mut received) = (start, fates.iter().cycle(), Vec::new());
        let mut late: Vec<Outgoing> = Vec::new();
        for _ in 0..200_000 {
            if !link.has_something() {
                break;
            }
            now += std::time::Duration::from_millis(3);
            let mut parts: Vec<Outgoing> = std::iter::from_fn(|| link.next(now)).take(8).collect();
            parts.append(&mut late);
            for part in parts {
                match fates.next().unwrap() {
                    0 => {}
                    1 => late.push(part),
                    2 => {
                        received.extend(take(&mut inbound, &part, now));
                        received.extend(take(&mut inbound, &part, now));
                    }
                    _ => received.extend(take(&mut inbound, &part, now)),
                }
            }
            if fates.next() != Some(&0) {
                let missing = inbound.missing();
                link.acknowledged(&inbound.acknowledge(true, now), &missing, now);
            }
        }
        prop_assert!(!link.has_something(), "all was acknowledged");
        let mut calls: Vec<u64> = received.iter().map(|message| message.head.call_id).collect();
        for message in &received {
            let sent = self::message(message.head.call_id, message.lane, message.body.len());
            prop_assert!(message.body == sent.body, "the bytes of call {}", message.head.call_id);
        }
        let log: Vec<u64> = received.iter().filter(|m| m.lane == Lane::Log).map(|m| m.head.call_id).collect();
        prop_assert!(log.is_sorted(), "{log:?}");
        calls.sort_unstable();
        prop_assert_eq!(calls, (0..sizes.len() as u64).collect::<Vec<_>>());
    }
}

#[test]
fn a_message_that_was_aborted_holds_up_nobody() {
    let now = Instant::now();
    let (mut link, mut inbound) = (Link::new(9, now), Inbound::new(9));
    link.queue(message(1, Lane::Log, 10 << 20));
    link.queue(message(2, Lane::Log, 10));
    let (mut at, mut received, mut first) = (now, Vec::new(), true);
    while link.has_something() {
        let parts: Vec<_> = std::iter::from_fn(|| link.next(at)).collect();
        received.extend(parts.iter().flat_map(|part| take(&mut inbound, part, at)));
        at += std::time::Duration::from_millis(1);
        link.acknowledged(&inbound.acknowledge(true, at), &[], at);
        if std::mem::take(&mut first) {
            link.cancel(1);
        }
    }
    assert_eq!(received.iter().map(|message| message.head.call_id).collect::<Vec<_>>(), [2]);
    assert_eq!(inbound.partial_bytes, 0);
}

#[test]
fn an_acknowledgement_waits_a_moment_unless_a_part_is_missing() {
    let now = Instant::now();
    let (mut link, mut inbound) = (Link::new(9, now), Inbound::new(9));
    for call in 0..4 {
        link.queue(message(call, Lane::Log, 10));
    }
    let parts: Vec<_> = std::iter::from_fn(|| link.next(now)).collect();
    assert_eq!(inbound.acknowledge_at(), None);
    take(&mut inbound, &parts[0], now);
    assert_eq!(inbound.acknowledge_at(), Some(now + ACK_DELAY));
    inbound.acknowledge(true, now);
    assert_eq!(inbound.acknowledge_at(), None);
    take(&mut inbound, &parts[2], now);
    assert_eq!((inbound.acknowledge_at(), inbound.missing()), (Some(now), vec![(1, 2)]));
}

#[test]
fn a_part_that_comes_after_its_message_was_aborted_is_ignored() {
    let now = Instant::now();
    let mut inbound = Inbound::new(9);
    let part = Part { link: 9, sequence: 0, lane: Lane::Bulk.number(), message: 0, offset: 0, total: 1 << 20 };
    let abort = Part { sequence: 1, ..part };
    assert!(inbound.part(head(Kind::Abort, 1), &abort, b"", now).unwrap().is_empty());
    assert!(inbound.part(head(Kind::CallPart, 1), &part, b"late", now).unwrap().is_empty());
    assert_eq!((inbound.partial_bytes, inbound.partial.len()), (0, 0));
    assert_eq!(inbound.acknowledge(true, now).upto, 2);
}

#[test]
fn an_acknowledgement_says_how_long_the_last_part_waited() {
    let now = Instant::now();
    let at = |ms| now + std::time::Duration::from_millis(ms);
    let mut inbound = Inbound::new(9);
    let part = Part { link: 9, sequence: 0, lane: Lane::Bulk.number(), message: 0, offset: 0, total: 1 << 20 };
    inbound.part(head(Kind::CallPart, 1), &part, b"one", now);
    inbound.part(head(Kind::CallPart, 1), &Part { sequence: 1, offset: 3, ..part }, b"two", at(300));
    assert_eq!(inbound.acknowledge(true, at(302)), Ack { link: 9, upto: 2, held_us: 2_000 });
}

#[test]
fn parts_that_cannot_be_are_malformed() {
    let now = Instant::now();
    let mut inbound = Inbound::new(9);
    let part = Part { link: 9, sequence: 0, lane: Lane::Log.number(), message: 0, offset: 0, total: 4 };
    for (part, body) in [
        (Part { lane: 77, ..part }, &b"body"[..]),
        (Part { offset: 1, ..part }, b"body"),
        (Part { total: u32::MAX, ..part }, b"body"),
        (part, b""),
    ] {
        assert!(inbound.part(head(Kind::CallPart, 1), &part, body, now).is_none(), "{part:?}");
    }
    assert_eq!(inbound.part(head(Kind::CallPart, 1), &part, b"body", now).unwrap().len(), 1);
}
