//! Random questions, what they are as commands, and the answers in the model's terms.

use bytes::Bytes;
use proptest::prelude::*;
use tank_engine::command::{
    self, Command, Condition, Delete, How, LeaseCommand, Number, PutMany, Relation, Txn, Write,
};
use tank_engine::entry::Entry;
use tank_engine::key::{Component, Key};
use tank_engine::lease::Lease;
use tank_engine::outcome::{self, Found, Outcome, Refusal};
use tank_engine::pattern::{self, Pattern};

use super::plain::{Answer, Ask, Compare, Epoch, Held, Model, Op, Part, Place, Response, Value, When};

/// Longer than any test: none ends by itself.
const TTL_MS: u64 = 100_000_000;

/// The command, as it would be given to a store that is what the model is.
pub fn command(ask: &Ask, model: &Model) -> Command {
    let write = |place: &Place, payload: &[u8], when: &When| Write {
        condition: condition(when),
        ..Write::new(Key::of(place), Bytes::copy_from_slice(payload))
    };
    match ask {
        Ask::Put(place, payload, when, lease) => {
            Command::Put(Write { lease: model.epoch(*lease), ..write(place, payload, when) })
        }
        Ask::Create(place, payload, when) => Command::Create(write(place, payload, when)),
        Ask::Update(place, payload, when) => Command::Update(write(place, payload, when)),
        Ask::Delete(place, when) => Command::Delete(Delete { condition: condition(when), ..Key::of(place).into() }),
        Ask::PutMany(parts, payload) => Command::PutMany(PutMany {
            pattern: pattern(parts),
            payload: Bytes::copy_from_slice(payload),
            how: How::default(),
        }),
        Ask::DeleteMany(parts) => Command::DeleteMany(pattern(parts).into()),
        Ask::ClearMany(parts) => Command::ClearMany(pattern(parts).into()),
        Ask::Txn(compare, then, otherwise) => Command::Txn(Txn {
            compare: compare.iter().map(|compare| comparison(compare, model)).collect(),
            then: then.iter().map(|op| operation(op, model)).collect(),
            otherwise: otherwise.iter().map(|op| operation(op, model)).collect(),
        }),
        Ask::Acquire(name, holder) => Command::Lease(LeaseCommand::Acquire {
            name: lease_name(*name),
            holder: Bytes::copy_from_slice(&[*holder]),
            ttl_ms: TTL_MS,
        }),
        Ask::Renew(name, epoch) => {
            Command::Lease(LeaseCommand::Renew { name: lease_name(*name), epoch: model.epoch(*epoch) })
        }
        Ask::Release(name, epoch) => {
            Command::Lease(LeaseCommand::Release { name: lease_name(*name), epoch: model.epoch(*epoch) })
        }
        Ask::Compact(back) => Command::Compact { revision: model.revision.saturating_sub(*back) },
    }
}

pub fn answer(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Done { revision } => Answer::Done(revision),
        Outcome::Txn { succeeded, revision, responses } => {
            Answer::Txn(succeeded, revision, responses.iter().map(response).collect())
        }
        Outcome::Granted(lease) => Answer::Granted(held(&lease)),
        Outcome::Refused(Refusal::Held(lease)) => Answer::IsHeld(held(&lease)),
        Outcome::Refused(Refusal::LeaseEnded) => Answer::LeaseEnded,
        Outcome::Refused(Refusal::Exists(found)) => Answer::Exists(value(&found.entry)),
        Outcome::Refused(Refusal::NotFound) => Answer::NotFound,
        Outcome::Refused(Refusal::Conflict(found)) => Answer::Conflict(found.map(|found| value(&found.entry))),
        other => panic!("no command of the model gives {other:?}"),
    }
}

pub fn value(entry: &Entry) -> Value {
    let Entry { payload, revision, create_revision, version, lease, .. } = entry;
    Value {
        payload: payload.in_memory().unwrap().to_vec(),
        revision: *revision,
        create_revision: *create_revision,
        version: *version,
        lease: *lease,
    }
}

pub fn held(lease: &Lease) -> Held {
    Held { holder: lease.holder[0], epoch: lease.epoch, renewals: lease.renewals }
}

pub fn lease_name(name: u8) -> Bytes {
    Bytes::copy_from_slice(&[b'l', name])
}

fn response(response: &outcome::Response) -> Response {
    let found = |found: &Found| (value(&found.entry), found.child_count);
    match response {
        outcome::Response::Put(version) => Response::Put(*version),
        outcome::Response::Deleted(count) => Response::Deleted(*count),
        outcome::Response::Got(entry) => Response::Got(entry.as_ref().map(found)),
        outcome::Response::Listed(all) => {
            let listed = |one: &Found| (one.key.components().unwrap(), value(&one.entry), one.child_count);
            Response::Listed(all.iter().map(listed).collect())
        }
        outcome::Response::Changed(_) => panic!("no operation of the model asks for it"),
    }
}

fn condition(when: &When) -> Condition {
    match when {
        When::Always => Condition::Always,
        When::RevisionIs(revision) => Condition::RevisionIs(*revision),
        When::PayloadIs(payload) => Condition::PayloadIs(Bytes::copy_from_slice(payload)),
    }
}

fn pattern(parts: &[Part]) -> Pattern {
    let part = |part: &Part| match part {
        Part::Any => pattern::Part::one(pattern::Condition::Any),
        Part::Many => pattern::Part::many(pattern::Condition::Any),
        Part::Is(name) => {
            pattern::Part::one(pattern::Condition::Is(Key::of(std::slice::from_ref(name)).as_bytes().to_vec()))
        }
        Part::HasData => pattern::Part::one(pattern::Condition::HasData),
    };
    Pattern { parts: parts.iter().map(part).collect() }
}

fn comparison(compare: &Compare, model: &Model) -> command::Compare {
    match compare {
        Compare::Payload(place, equal, payload) => {
            let payload = Bytes::copy_from_slice(payload);
            command::Compare::Payload { key: Key::of(place), equal: *equal, payload }
        }
        Compare::Number(place, number, relation, operand) => {
            command::Compare::Number { key: Key::of(place), number: *number, relation: *relation, operand: *operand }
        }
        Compare::Below(place, relation, operand) => {
            command::Compare::Below { prefix: Key::of(place), relation: *relation, operand: *operand }
        }
        Compare::Lease(name, relation, epoch) => {
            command::Compare::Lease { name: lease_name(*name), relation: *relation, operand: model.epoch(*epoch) }
        }
    }
}

fn operation(op: &Op, model: &Model) -> command::Op {
    match op {
        Op::Put(place, payload, lease) => command::Op::Put(Write {
            lease: model.epoch(*lease),
            ..Write::new(Key::of(place), Bytes::copy_from_slice(payload))
        }),
        Op::Delete(place) => command::Op::Delete(Key::of(place).into()),
        Op::Clear(place) => command::Op::Clear(Key::of(place).into()),
        Op::Get(place) => command::Op::Get(Key::of(place)),
        Op::List(place) => command::Op::List(Key::of(place)),
    }
}

/// Few names, so that commands meet; those that an encoding could confuse among them.
fn component() -> impl Strategy<Value = Component> {
    let text = prop::sample::select(vec![&b"a"[..], b"b", b"ab", b"", b"\0", b"\x01", b"a\0", b"\x01\x01", b"\xff"]);
    (any::<bool>(), text).prop_map(
        |(atom, text)| {
            if atom { Component::Atom(text.to_vec()) } else { Component::String(text.to_vec()) }
        },
    )
}

/// The root only seldom: deleting it deletes all.
fn place() -> impl Strategy<Value = Place> {
    prop_oneof![1 => Just(Vec::new()), 20 => prop::collection::vec(component(), 1..4)]
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..6),
        1 => prop::sample::select(vec![vec![], vec![0], vec![1]]),
    ]
}

fn when() -> impl Strategy<Value = When> {
    prop_oneof![
        6 => Just(When::Always),
        2 => (0u64..12).prop_map(When::RevisionIs),
        1 => prop::sample::select(vec![vec![], vec![0], vec![1]]).prop_map(When::PayloadIs),
    ]
}

fn epoch() -> impl Strategy<Value = Epoch> {
    prop_oneof![
        6 => (0u8..3).prop_map(Epoch::Of),
        1 => (1u64..12).prop_map(Epoch::Guess),
    ]
}

/// Of an entry: mostly none.
fn attached() -> impl Strategy<Value = Epoch> {
    prop_oneof![4 => Just(Epoch::None), 1 => epoch()]
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let part = prop_oneof![
        3 => Just(Part::Any),
        1 => Just(Part::Many),
        4 => component().prop_map(Part::Is),
        1 => Just(Part::HasData),
    ];
    prop::collection::vec(part, 0..4)
}

fn relation() -> impl Strategy<Value = Relation> {
    use Relation::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    prop::sample::select(vec![Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual])
}

fn compare() -> impl Strategy<Value = Compare> {
    use Number::{ChildCount, CreateRevision, Exists, LeaseEpoch, Revision, Version};
    let number = prop::sample::select(vec![Version, Revision, CreateRevision, Exists, ChildCount, LeaseEpoch]);
    prop_oneof![
        (place(), any::<bool>(), payload()).prop_map(|(place, equal, payload)| Compare::Payload(place, equal, payload)),
        (place(), number, relation(), 0u64..4)
            .prop_map(|(p, number, relation, n)| Compare::Number(p, number, relation, n)),
        (place(), relation(), 0u64..20).prop_map(|(place, relation, n)| Compare::Below(place, relation, n)),
        (0u8..3, relation(), epoch()).prop_map(|(name, relation, epoch)| Compare::Lease(name, relation, epoch)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (place(), payload(), attached()).prop_map(|(place, payload, lease)| Op::Put(place, payload, lease)),
        1 => place().prop_map(Op::Delete),
        1 => place().prop_map(Op::Clear),
        1 => place().prop_map(Op::Get),
        1 => place().prop_map(Op::List),
    ]
}

pub fn ask() -> impl Strategy<Value = Ask> {
    let ops = || prop::collection::vec(op(), 0..6);
    prop_oneof![
        8 => (place(), payload(), when(), attached()).prop_map(|(p, payload, when, lease)| Ask::Put(p, payload, when, lease)),
        3 => (place(), payload(), when()).prop_map(|(place, payload, when)| Ask::Create(place, payload, when)),
        3 => (place(), payload(), when()).prop_map(|(place, payload, when)| Ask::Update(place, payload, when)),
        3 => (place(), when()).prop_map(|(place, when)| Ask::Delete(place, when)),
        1 => (parts(), payload()).prop_map(|(parts, payload)| Ask::PutMany(parts, payload)),
        1 => parts().prop_map(Ask::DeleteMany),
        1 => parts().prop_map(Ask::ClearMany),
        4 => (prop::collection::vec(compare(), 0..3), ops(), ops()).prop_map(|(c, then, otherwise)| Ask::Txn(c, then, otherwise)),
        2 => (0u8..3, any::<u8>()).prop_map(|(name, holder)| Ask::Acquire(name, holder)),
        1 => (0u8..3, epoch()).prop_map(|(name, epoch)| Ask::Renew(name, epoch)),
        1 => (0u8..3, epoch()).prop_map(|(name, epoch)| Ask::Release(name, epoch)),
        1 => (0u64..30).prop_map(Ask::Compact),
    ]
}
