use std::collections::HashSet;

use tank_sim::Rng;

use super::*;
use crate::state::{LogTime, STEP_MS_MAX};

fn id(client: u64, sequence: u64, resolved_below: u64) -> RequestId {
    RequestId { client, sequence, resolved_below }
}

fn done(revision: u64) -> Presented {
    Presented::Repeated(Outcome::Done { revision })
}

fn moved_on() -> Presented {
    Presented::Late(Refusal::MovedOn)
}

/// Sessions with a time, in a log whose every entry is a batch of its own.
#[derive(Default)]
struct Log {
    sessions: Sessions,
    now_ms: u64,
    index: u64,
}

impl Log {
    fn present(&mut self, id: RequestId, seen_ms: u64) -> Presented {
        self.sessions.present(id, seen_ms, self.now_ms)
    }

    /// Applies a request that was made just now, at revision ten times its sequence.
    fn apply(&mut self, id: RequestId) {
        assert_eq!(self.present(id, self.now_ms), Presented::New, "{id:?}");
        self.index += 1;
        let remembered = Remembered { id, revision: id.sequence * 10, outcome: None, time_ms: self.now_ms };
        assert!(self.sessions.remember(remembered, self.index), "{id:?}");
    }
}

#[test]
fn a_request_is_found_until_its_client_moved_on_and_is_refused_then() {
    let mut log = Log::default();
    log.apply(id(1, 1, 0));
    log.apply(id(1, 2, 0));
    assert_eq!(log.present(id(1, 1, 0), 0), done(10));
    assert_eq!(log.present(id(2, 1, 0), 0), Presented::New, "another client's request of that number");
    log.apply(id(1, 3, 2));
    assert_eq!(log.present(id(1, 1, 0), 0), moved_on());
    assert_eq!(log.present(id(1, 2, 0), 0), done(20));
    assert_eq!(log.sessions.take_dead_records(), [1], "nothing is left in the first record");
    assert_eq!(log.sessions.len(), 2);
}

#[test]
fn the_floor_also_rises_with_a_request_that_changes_nothing() {
    let mut log = Log::default();
    log.apply(id(1, 1, 0));
    assert_eq!(log.present(id(1, 3, 3), 0), Presented::New);
    assert_eq!(log.present(id(1, 1, 0), 0), moved_on());
    assert_eq!(log.present(id(1, 2, 0), 0), moved_on(), "it was never applied, and its client gave up");
    assert_eq!(log.present(id(1, 3, 0), 0), Presented::New, "it changed nothing");
    assert!(log.sessions.is_empty());
}

#[test]
fn a_late_request_changes_nothing() {
    let mut log = Log::default();
    log.apply(id(1, 5, 5));
    log.sessions.take_changed();
    let before = log.sessions.clone();
    log.now_ms += 1_000;
    assert_eq!(log.present(id(1, 4, 9), 0), moved_on());
    assert_eq!(log.sessions, before);
}

#[test]
fn a_record_that_is_used_again_in_its_batch_stays() {
    let mut sessions = Sessions::default();
    let remembered = |id| Remembered { id, revision: 1, outcome: None, time_ms: 0 };
    for sequence in [1, 2] {
        assert_eq!(sessions.present(id(1, sequence, sequence), 0, 0), Presented::New);
        assert!(sessions.remember(remembered(id(1, sequence, sequence)), 100));
    }
    assert_eq!((sessions.take_dead_records(), sessions.records()), (vec![], 1));
}

#[test]
fn a_silent_client_is_forgotten_and_its_late_requests_are_refused() {
    let mut log = Log { now_ms: 1_000, ..Log::default() };
    log.apply(id(1, 1, 1));
    log.now_ms += SESSION_MS;
    assert_eq!(log.present(id(2, 1, 1), log.now_ms), Presented::New);
    assert_eq!(log.sessions.clients(), 2, "not silent for longer than that yet");
    log.now_ms += 1;
    let ended = Presented::Late(Refusal::SessionEnded { log_ms: log.now_ms });
    for seen_ms in [0, 999, 1_000] {
        assert_eq!(log.present(id(1, 1, 1), seen_ms), ended, "made at {seen_ms}");
    }
    assert_eq!((log.sessions.clients(), log.sessions.len()), (1, 0));
    assert_eq!(log.sessions.take_dead_records(), [1]);
    // The client itself goes on, with what it makes now.
    log.apply(id(1, 2, 2));
    assert_eq!(log.present(id(1, 1, 1), log.now_ms), moved_on());
}

#[test]
fn an_open_request_of_a_forgotten_session_is_refused_after_its_client_began_again() {
    let mut log = Log { now_ms: 1_000, ..Log::default() };
    // Its answer is lost: the client does not know, and may ask again.
    log.apply(id(1, 10, 10));
    log.now_ms += SESSION_MS + 1;
    log.apply(id(1, 11, 10));
    let ended = Presented::Late(Refusal::SessionEnded { log_ms: log.now_ms });
    assert_eq!(log.present(id(1, 10, 10), 1_000), ended, "it was applied by the session before");
    assert_eq!(log.present(id(1, 11, 10), 1_000), done(110), "a repeated one is answered all the same");
    log.apply(id(1, 12, 10));
}

#[test]
fn a_client_that_resolves_nothing_is_bounded() {
    let mut log = Log::default();
    for sequence in 0..REQUESTS_MAX as u64 + 10 {
        log.apply(id(1, sequence, 0));
    }
    assert_eq!(log.sessions.len(), REQUESTS_MAX);
    assert_eq!(log.present(id(1, 9, 0), 0), moved_on(), "forgotten, not new");
    assert_eq!(log.present(id(1, 10, 0), 0), done(100));
}

#[test]
fn of_too_many_sessions_the_oldest_are_forgotten_and_refused() {
    let mut log = Log::default();
    for client in 0..SESSIONS_MAX as u64 + 3 {
        log.now_ms += 1;
        log.apply(id(client, 1, 1));
    }
    assert_eq!(log.sessions.clients(), SESSIONS_MAX);
    for client in 0..3 {
        let late = log.present(id(client, 1, 1), client + 1);
        assert!(matches!(late, Presented::Late(Refusal::SessionEnded { .. })), "{client}: {late:?}");
    }
    assert_eq!(log.present(id(3, 1, 1), 4), done(10));
}

#[test]
fn sessions_that_were_read_back_are_the_same() {
    let mut log = Log::default();
    let mut written = Vec::new();
    for sequence in 0..50 {
        log.now_ms += 10;
        let client = sequence % 3;
        let id = id(client, sequence, if client == 2 { 0 } else { sequence });
        log.apply(id);
        written.push(Remembered { id, revision: sequence * 10, outcome: None, time_ms: log.now_ms });
    }
    let mut read = Sessions::default();
    for (client, record) in log.sessions.take_changed() {
        read.load(client, record.unwrap());
    }
    for (record, remembered) in (1..).zip(written) {
        read.remember(remembered, record);
    }
    read.loaded(log.sessions.horizon_ms());
    log.sessions.take_dead_records();
    assert_eq!(read, log.sessions);
}

/// A copy of a request on its way: it may arrive at any time, and again.
#[derive(Clone, Copy, Debug)]
struct Sent {
    id: RequestId,
    seen_ms: u64,
}

#[derive(Default)]
struct Client {
    next: u64,
    open: BTreeSet<u64>,
}

/// Clients whose requests arrive late, twice, or after they gave up, while clocks jump.
#[test]
fn no_request_is_ever_applied_twice_and_none_that_is_in_time_is_refused() {
    let seed = tank_sim::rng::seed("TANK_SEED", 15);
    for round in 0..60 {
        let mut rng = Rng::new(seed.wrapping_add(round));
        let mut sessions = Sessions::default();
        let (mut time, mut clock) = (LogTime::default(), 1_700_000_000_000);
        let mut clients: Vec<Client> = (0..4).map(|_| Client::default()).collect();
        let (mut sent, mut applied): (Vec<Sent>, HashSet<(u64, u64)>) = Default::default();
        for step in 0..3_000u64 {
            let failed = || format!("seed {seed}, round {round}, step {step}");
            clock = match rng.below(40) {
                0 => clock - rng.below(40_000_000) as u64,
                1 => clock + rng.below(40_000_000) as u64,
                2..10 => clock + STEP_MS_MAX,
                _ => clock + rng.below(100) as u64,
            };
            let client = rng.below(if step < 1_500 { 4 } else { 3 });
            match rng.below(4) {
                0 => {
                    let own = &mut clients[client];
                    let sequence = own.next;
                    own.next += 1;
                    own.open.insert(sequence);
                    let resolved_below = own.open.first().copied().unwrap_or(sequence);
                    let id = id(client as u64, sequence, resolved_below);
                    sent.push(Sent { id, seen_ms: time.now_ms() });
                }
                1 => {
                    let gives_up = clients[client].open.iter().copied().nth(rng.below(3));
                    gives_up.map(|sequence| clients[client].open.remove(&sequence));
                }
                _ if sent.is_empty() => {}
                _ => {
                    // Mostly a fresh one.
                    let newest = if rng.below(3) == 0 { sent.len() } else { sent.len().min(6) };
                    let from_end = rng.below(newest);
                    let Sent { id, seen_ms } = sent[sent.len() - 1 - from_end];
                    time.advance(clock);
                    let now_ms = time.now_ms();
                    let is_open = clients[id.client as usize].open.contains(&id.sequence);
                    match sessions.present(id, seen_ms, now_ms) {
                        Presented::New if rng.below(5) > 0 => {
                            assert!(applied.insert((id.client, id.sequence)), "{}: {id:?} again", failed());
                            let revision = id.client * 1_000_000 + id.sequence;
                            let remembered = Remembered { id, revision, outcome: None, time_ms: now_ms };
                            assert!(sessions.remember(remembered, step), "{}: {id:?}", failed());
                        }
                        Presented::New => {}
                        Presented::Repeated(outcome) => {
                            let revision = id.client * 1_000_000 + id.sequence;
                            assert_eq!(outcome, Outcome::Done { revision }, "{}", failed());
                            assert!(applied.contains(&(id.client, id.sequence)), "{}", failed());
                        }
                        Presented::Late(why) => {
                            let in_time = is_open && now_ms - seen_ms <= SESSION_MS;
                            assert!(!in_time, "{}: {id:?} is refused: {why:?}", failed());
                        }
                    }
                }
            }
        }
        assert!(applied.len() > 100, "seed {seed}, round {round}: {} were applied", applied.len());
    }
}
