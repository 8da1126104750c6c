use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::entries::Entries;
use crate::entry::Entry;
use crate::key::Component;
use crate::nodes::{Nodes, Tree};

type Place = Vec<Component>;

/// What a pattern means, in the simplest form: tried part by part, going back when it fails.
fn naive(parts: &[Part], entries: &Entries, place: &[Component], depth: usize) -> bool {
    let Some((part, rest)) = parts.split_first() else { return depth == place.len() };
    let last = if part.many { place.len() } else { (depth + 1).min(place.len()) };
    (depth + 1..=last).any(|to| naive_holds(&part.condition, entries, &place[..to]) && naive(rest, entries, place, to))
}

fn naive_holds(condition: &Condition, entries: &Entries, place: &[Component]) -> bool {
    let key = Key::of(place);
    let entry = entries.get(&key);
    let (Component::Atom(text) | Component::String(text)) = place.last().unwrap();
    match condition {
        Condition::Any => true,
        Condition::Is(name) => Key::of(&place[place.len() - 1..]).as_bytes() == name,
        Condition::Name(regex) => regex::bytes::Regex::new(regex.source()).unwrap().is_match(text),
        Condition::Payload(payload) => {
            entry.is_some_and(|entry| entry.payload.in_memory().as_deref() == Some(&payload[..]))
        }
        Condition::HasData => entry.is_some(),
        Condition::Kind(_) | Condition::PayloadVersion(..) | Condition::ChildListVersion(..) => unreachable!(),
        Condition::Version(relation, n) => relation.holds(entry.map_or(0, |entry| entry.version), *n),
        Condition::ChildCount(relation, n) => {
            let children =
                nodes(entries).into_iter().filter(|node| node.len() == place.len() + 1 && node.starts_with(place));
            relation.holds(children.count() as u64, *n)
        }
        Condition::All(all) => all.iter().all(|one| naive_holds(one, entries, place)),
        Condition::AnyOf(any) => any.iter().any(|one| naive_holds(one, entries, place)),
        Condition::Not(one) => !naive_holds(one, entries, place),
    }
}

/// Every path that has a value or something below it, in order.
fn nodes(entries: &Entries) -> BTreeSet<Place> {
    let places = entries.keys().map(|key| key.components().unwrap());
    places.flat_map(|place| (0..=place.len()).map(move |n| place[..n].to_vec())).collect()
}

fn component() -> impl Strategy<Value = Component> {
    let text = prop_oneof![Just("a"), Just("b"), Just("ab"), Just(""), Just("a\0"), Just("\u{1}")];
    (any::<bool>(), text).prop_map(|(atom, text)| match text.as_bytes().to_vec() {
        text if atom => Component::Atom(text),
        text => Component::String(text),
    })
}

fn tree() -> impl Strategy<Value = Entries> {
    let entry = (prop::collection::vec(component(), 0..5), 0u8..3, 1u64..4);
    prop::collection::vec(entry, 0..40).prop_map(|entries| {
        let entry = |(place, payload, version): (Place, u8, u64)| {
            let key = Key::of(&place);
            let first = Entry::created(&key, Bytes::from(vec![payload]), 1, 0);
            let last = (1..version)
                .fold(first, |entry, at| entry.updated(&key, entry.payload.in_memory().unwrap(), at + 1, 0));
            (key, Arc::new(last))
        };
        entries.into_iter().map(entry).collect()
    })
}

fn relation() -> impl Strategy<Value = Relation> {
    use Relation::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    prop::sample::select(vec![Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual])
}

/// A condition on a name alone.
fn name() -> impl Strategy<Value = Condition> {
    let leaf = prop_oneof![
        4 => component().prop_map(|name| Condition::Is(Key::of(&[name]).as_bytes().to_vec())),
        2 => Just(Condition::Any),
        1 => prop::sample::select(vec!["a", "^a$", "^$", "b|^a", "[^b]"])
            .prop_map(|source| Condition::Name(NameRegex::new(source.to_owned()))),
    ];
    combined(leaf)
}

fn condition() -> impl Strategy<Value = Condition> {
    let leaf = prop_oneof![
        7 => name(),
        1 => (0u8..3).prop_map(|payload| Condition::Payload(Bytes::from(vec![payload]))),
        1 => Just(Condition::HasData),
        1 => (relation(), 0u64..4).prop_map(|(relation, n)| Condition::Version(relation, n)),
        1 => (relation(), 0u64..4).prop_map(|(relation, n)| Condition::ChildCount(relation, n)),
    ];
    combined(leaf)
}

fn combined(leaf: impl Strategy<Value = Condition> + 'static) -> impl Strategy<Value = Condition> {
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Condition::All),
            prop::collection::vec(inner.clone(), 0..3).prop_map(Condition::AnyOf),
            inner.prop_map(|condition| Condition::Not(Box::new(condition))),
        ]
    })
}

fn pattern() -> impl Strategy<Value = Pattern> {
    let part = (prop::bool::weighted(0.3), condition()).prop_map(|(many, condition)| Part { many, condition });
    prop::collection::vec(part, 0..5).prop_map(|parts| Pattern { parts })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_walk_finds_what_a_naive_matcher_does(entries in tree(), pattern in pattern(), after in prop::collection::vec(component(), 0..4)) {
        prop_assert_eq!(pattern.check(usize::MAX), Ok(()));
        let wanted: Vec<Place> = nodes(&entries).into_iter().filter(|place| naive(&pattern.parts, &entries, place, 0)).collect();
        let nodes_of = Nodes::of(&entries);
        let tree = Tree { entries: &entries, nodes: &nodes_of };
        let walk = |after| pattern.walk(tree, after).map(|node| node.key.components().unwrap()).collect::<Vec<_>>();
        prop_assert_eq!(&walk(None), &wanted);
        let behind: Vec<Place> = wanted.iter().filter(|place| **place > after).cloned().collect();
        prop_assert_eq!(walk(Some(Key::of(&after))), behind, "behind {:?}", after);
        for node in pattern.walk(tree, None) {
            prop_assert_eq!(node.entry, entries.get(&*node.key));
            prop_assert!(node.key.is_within(&pattern.prefix().0));
        }
        for place in nodes(&entries) {
            prop_assert_eq!(pattern.matches(tree, &Key::of(&place)), wanted.contains(&place), "{:?}", place);
        }
    }

    #[test]
    fn a_local_pattern_is_told_by_an_entry_alone(entries in tree(), above in prop::collection::vec((any::<bool>(), name()), 0..4), last in (any::<bool>(), condition())) {
        let part = |(many, condition)| Part { many, condition };
        let pattern = Pattern { parts: above.into_iter().chain([last]).map(part).collect() };
        prop_assume!(pattern.check_local().is_ok());
        let nodes = Nodes::of(&entries);
        let tree = Tree { entries: &entries, nodes: &nodes };
        let names = pattern.names();
        for (key, entry) in &entries {
            let matches = pattern.matches(tree, key);
            prop_assert_eq!(pattern.matches_entry(key, entry), matches, "{:?}", key);
            prop_assert!(!matches || names.matches_names(key), "{:?} by names", key);
        }
    }

    #[test]
    fn a_pattern_survives_the_log(pattern in pattern()) {
        let bytes = rmp_serde::to_vec(&pattern).unwrap();
        prop_assert_eq!(rmp_serde::from_slice::<Pattern>(&bytes).unwrap(), pattern);
    }
}

fn string(text: &str) -> Condition {
    Condition::Is(Key::of(&[Component::String(text.into())]).as_bytes().to_vec())
}

fn wide() -> Entries {
    let places = (0..100u32).flat_map(|a| (0..100u32).map(move |b| [a, b]));
    let keys = places.map(|place| Key::of(&place.map(|n| Component::String(format!("{n:03}").into_bytes()))));
    keys.map(|key| (key.clone(), Arc::new(Entry::created(&key, Bytes::new(), 1, 0)))).collect()
}

#[test]
fn what_cannot_match_is_skipped() {
    let entries = wide();
    let nodes = Nodes::of(&entries);
    let tree = Tree { entries: &entries, nodes: &nodes };
    for (parts, found, steps) in [
        (vec![Part::one(string("042")), Part::one(Condition::Any)], 100, 110),
        (vec![Part::one(Condition::Any), Part::one(string("042"))], 100, 600),
        (vec![Part::one(Condition::Any)], 100, 1_500),
        (vec![Part::one(string("042")), Part::one(string("042"))], 1, 10),
        (vec![Part::one(string("nobody")), Part::many(Condition::Any)], 0, 10),
        (vec![], 1, 2),
    ] {
        let pattern = Pattern { parts };
        let mut walk = pattern.walk(tree, None);
        assert_eq!(walk.by_ref().count(), found);
        assert!(walk.steps() <= steps, "{} steps for {pattern:?}", walk.steps());
    }
    assert_eq!(tree.child_count(&Key::default()), 100);
}

#[test]
fn names_are_matched_as_bytes() {
    for (source, name, matches) in [
        (r"^\w+$", "abc_1", true),
        (r"^\w+$", "é", false),
        ("(?i)^ABC$", "abc", true),
        ("é", "é", true),
        ("^..$", "é", true),
        (r"\x00", "\0", true),
    ] {
        assert_eq!(NameRegex::new(source.to_owned()).is_match(name.as_bytes()), matches, "{source} {name}");
    }
}

#[test]
fn expressions_are_told_apart_however_many_there_are() {
    for turn in 0..2 {
        for n in 10..60 {
            let regex = NameRegex::new(format!("^{n}$"));
            regex.check().unwrap();
            let matching: Vec<u32> = (10..60).filter(|name| regex.is_match(name.to_string().as_bytes())).collect();
            assert_eq!(matching, [n], "turn {turn}");
        }
    }
}

#[test]
fn a_pattern_is_ready_once_its_expressions_are_compiled() {
    let pattern = || Pattern {
        parts: (0..5).map(|n| Part::one(Condition::Name(NameRegex::new(format!("^ready{n}$"))))).collect(),
    };
    let first = pattern();
    assert!(!first.is_ready());
    first.check(usize::MAX).unwrap();
    assert!(first.is_ready(), "it was compiled");
    assert!(Pattern { parts: vec![Part::one(Condition::Any)] }.is_ready());
    // Too much to be compiled is refused at once.
    let regex = |n: usize| Condition::Name(NameRegex::new(format!("^many{n}$")));
    let many = |count| Pattern { parts: vec![Part::one(Condition::AnyOf((0..count).map(regex).collect()))] };
    assert_eq!((many(REGEXES_MAX).is_ready(), many(REGEXES_MAX).check(usize::MAX)), (false, Ok(())));
    let refused = many(REGEXES_MAX + 1);
    assert!(refused.is_ready());
    assert!(matches!(refused.check(usize::MAX), Err(EngineError::TooLarge { what: "regexes", limit: 64, .. })));
    let long = Pattern { parts: vec![Part::one(Condition::Name(NameRegex::new("a".repeat(2_000))))] };
    assert!(long.is_ready() && long.check(usize::MAX).is_err());
}

#[test]
fn what_other_entries_decide_is_not_local() {
    let of = |above: Condition, last: Condition| Pattern { parts: vec![Part::one(above), Part::one(last)] };
    let not = |condition| Condition::Not(Box::new(condition));
    assert_eq!(of(Condition::Any, not(Condition::HasData)).check_local(), Ok(()));
    for other in [
        of(Condition::Any, Condition::ChildCount(Relation::Equal, 0)),
        of(Condition::HasData, Condition::Any),
        of(not(Condition::Version(Relation::Equal, 1)), Condition::Any),
        of(Condition::AnyOf(vec![Condition::Any, Condition::Payload(Bytes::new())]), Condition::Any),
    ] {
        assert!(matches!(other.check_local(), Err(EngineError::InvalidPattern(_))), "{other:?}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let one = |condition| Pattern { parts: vec![Part::one(condition)] };
    let regex = |source: &str| one(Condition::Name(NameRegex::new(source.to_owned())));
    for invalid in ["(", r"(a)\1", "(?=a)", "a{100000}{1000}"] {
        let refused = regex(invalid).check(usize::MAX);
        assert!(matches!(refused, Err(EngineError::InvalidPattern(_))), "{invalid}: {refused:?}");
    }
    assert!(matches!(regex(&"a".repeat(2_000)).check(usize::MAX), Err(EngineError::TooLarge { what: "regex", .. })));
    assert!(!NameRegex::new("(".to_owned()).is_match(b"("), "one that came in the log all the same");
    let deep = (0..40).fold(Condition::Any, |inner, _| Condition::Not(Box::new(inner)));
    assert!(matches!(one(deep).check(usize::MAX), Err(EngineError::InvalidPattern(_))));
    let long = Pattern { parts: vec![Part::one(Condition::Any); 64] };
    assert!(matches!(long.check(usize::MAX), Err(EngineError::TooLarge { what: "pattern", limit: 63, .. })));
    assert!(one(Condition::Is(b"\x02a\0\x02b\0".to_vec())).check(usize::MAX).is_err());
    assert!(one(Condition::Is(Vec::new())).check(usize::MAX).is_err());
    assert!(matches!(
        one(Condition::Payload(Bytes::from("12345"))).check(4),
        Err(EngineError::TooLarge { what: "value", .. })
    ));
}
