use super::*;

fn message(call_id: u64, lane: Lane, bytes: usize) -> Message {
    Message { kind: Kind::CallPart, call_id, lane, body: Bytes::from(vec![7; bytes]), expires: None }
}

fn all(link: &mut Link, now: Instant) -> Vec<Outgoing> {
    std::iter::from_fn(|| link.next(now)).collect()
}

#[test]
fn a_window_bounds_what_is_in_flight_and_small_messages_still_pass() {
    let now = Instant::now();
    let mut link = Link::new(1, now);
    link.queue(message(1, Lane::Bulk, 4 << 20));
    let sent: usize = all(&mut link, now).iter().map(|part| part.body.len()).sum();
    assert!((30 << 10..100 << 10).contains(&sent), "{sent}");
    link.queue(message(2, Lane::Log, 100));
    let small = all(&mut link, now);
    assert_eq!(small.iter().map(|part| part.call_id).collect::<Vec<_>>(), [2]);
    link.queue(message(3, Lane::Log, 1 << 20));
    assert!(all(&mut link, now).is_empty(), "a large one waits");
}

#[test]
fn acknowledged_parts_are_gone_and_the_next_ones_follow() {
    let now = Instant::now();
    let mut link = Link::new(1, now);
    link.queue(message(1, Lane::Log, 2 << 20));
    let (mut parts, mut at) = (all(&mut link, now), now);
    let mut bytes: usize = 0;
    while let Some(last) = parts.last() {
        bytes += parts.iter().map(|part| part.body.len()).sum::<usize>();
        let ack = Ack { link: 1, upto: last.part.sequence + 1, held_us: 0 };
        at += Duration::from_millis(1);
        assert!(link.acknowledged(&ack, &[], at));
        parts = all(&mut link, at);
    }
    assert_eq!(bytes, 2 << 20, "nothing twice");
    assert!(!link.has_something());
    assert_eq!(link.look_again_at(), None);
}

#[test]
fn a_missing_part_is_sent_again_and_only_that() {
    let now = Instant::now();
    let mut link = Link::new(1, now);
    link.queue(message(1, Lane::Log, 60 << 10));
    let sent = all(&mut link, now);
    assert_eq!(sent.len(), 2);
    let later = now + Duration::from_secs(10);
    link.acknowledged(&Ack { link: 1, upto: 1, held_us: 0 }, &[(1, 2)], now + Duration::from_millis(10));
    link.acknowledged(&Ack { link: 1, upto: 1, held_us: 0 }, &[(1, 2)], now + Duration::from_millis(20));
    let again = link.next(now + Duration::from_millis(20)).unwrap();
    assert_eq!((again.part.sequence, again.body.len()), (1, PART_BODY_MAX));
    assert!(link.next(now + Duration::from_millis(20)).is_none());
    assert!(!link.has_stalled(now + Duration::from_secs(1)) && link.has_stalled(later));
}

#[test]
fn an_acknowledgement_that_never_comes_has_the_oldest_part_sent_again() {
    let now = Instant::now();
    let mut link = Link::new(1, now);
    link.queue(message(1, Lane::Log, 10));
    assert!(link.next(now).is_some() && link.next(now).is_none());
    let at = link.look_again_at().unwrap();
    let again = link.next(at).unwrap();
    assert_eq!(again.part.sequence, 0);
    assert!(link.next(at).is_none());
}

#[test]
fn parts_that_were_all_lost_are_sent_again_within_some_round_trips() {
    const ROUND_TRIP: Duration = Duration::from_millis(10);
    let start = Instant::now();
    let mut link = Link::new(1, start);
    (0..100).for_each(|call| link.queue(message(call, Lane::Log, 10)));
    assert_eq!(all(&mut link, start).len(), 100);
    let (mut upto, mut now, mut sent) = (0, start, 0);
    while link.has_something() {
        now = link.look_again_at().unwrap();
        let again = all(&mut link, now);
        sent += again.len();
        for part in again {
            assert_eq!(part.part.sequence, upto, "each once, in order");
            upto += 1;
        }
        now += ROUND_TRIP;
        link.acknowledged(&Ack { link: 1, upto, held_us: 0 }, &[], now);
    }
    assert_eq!(sent, 100);
    assert!(now - start < Duration::from_millis(600), "{:?}", now - start);
}

#[test]
fn parts_that_were_held_up_are_not_sent_again_but_the_oldest_one() {
    let start = Instant::now();
    let mut link = Link::new(1, start);
    (0..100).for_each(|call| link.queue(message(call, Lane::Log, 10)));
    all(&mut link, start);
    let held_up = link.look_again_at().unwrap();
    assert_eq!(all(&mut link, held_up).len(), 1);
    let mut now = held_up + Duration::from_millis(100);
    for upto in [40, 80, 100] {
        link.acknowledged(&Ack { link: 1, upto, held_us: 0 }, &[], now);
        now += Duration::from_millis(20);
        assert!(all(&mut link, now).is_empty());
    }
}

#[test]
fn a_call_that_is_given_up_half_way_ends_with_an_empty_part() {
    let now = Instant::now();
    let mut link = Link::new(1, now);
    link.queue(message(1, Lane::Bulk, 10 << 20));
    link.queue(message(2, Lane::Bulk, 1 << 20));
    let sent = all(&mut link, now);
    assert!(sent.iter().any(|part| part.call_id == 1) && sent.iter().any(|part| part.call_id == 2), "in turns");
    link.cancel(1);
    let upto = sent.last().unwrap().part.sequence + 1;
    link.acknowledged(&Ack { link: 1, upto, held_us: 0 }, &[], now + Duration::from_millis(1));
    let rest = all(&mut link, now + Duration::from_millis(1));
    let of_one: Vec<_> = rest.iter().filter(|part| part.call_id == 1).map(|part| part.kind).collect();
    assert_eq!(of_one, [Kind::Abort]);
}

#[test]
fn other_lanes_get_a_turn_beside_a_busy_log() {
    let now = Instant::now();
    let mut link = Link::new(1, now);
    for call in 0..50 {
        link.queue(message(call, Lane::Log, 10 << 10));
    }
    link.queue(message(99, Lane::Bulk, 10 << 10));
    let sent = all(&mut link, now);
    assert!(sent.iter().take(5).any(|part| part.call_id == 99));
}

#[test]
fn answers_outlive_their_link() {
    let now = Instant::now();
    let mut link = Link::new(1, now);
    let answer = |call_id, bytes| Message { kind: Kind::AnswerPart, ..message(call_id, Lane::Control, bytes) };
    link.queue(answer(1, 10));
    link.queue(answer(2, 4 << 20));
    link.queue(message(3, Lane::Log, 10));
    all(&mut link, now);
    link.acknowledged(&Ack { link: 1, upto: 2, held_us: 0 }, &[], now);
    link.queue(answer(4, 10));
    link.queue(Message { expires: Some(now), ..answer(5, 10) });
    let left: Vec<_> = link.unacknowledged_answers(now).into_iter().map(|m| (m.call_id, m.body.len())).collect();
    assert_eq!(left, [(2, 4 << 20), (4, 10)], "1 and 3 arrived, 5 has expired");
}

#[test]
fn what_has_expired_is_not_sent() {
    let now = Instant::now();
    let mut link = Link::new(1, now);
    link.queue(Message { expires: Some(now + Duration::from_secs(1)), ..message(1, Lane::Bulk, 10) });
    assert!(link.next(now + Duration::from_secs(2)).is_none());
    assert!(!link.has_something());
}
