//! Paths as bytes that sort as paths do.
//!
//! A key is the encoding of a path's components, one after the other:
//!
//! ```text
//! component := tag bytes' 0x00      tag: 0x01 atom, 0x02 string
//! bytes'    := bytes with 0x00 written as 0x01 0x01, and 0x01 as 0x01 0x02
//! ```
//!
//! No zero stands within a component, and escaping keeps the order of bytes. So a key is a strict
//! prefix of the keys below it, of no others, and keys sort as paths do.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::EngineError;

/// How large paths may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyLimits {
    /// One component, in bytes.
    pub component_bytes_max: usize,
    /// All of them together.
    pub path_bytes_max: usize,
}

impl KeyLimits {
    /// Those of a store that is not told otherwise.
    pub const DEFAULT: Self = Self { component_bytes_max: 255, path_bytes_max: 1024 };
    /// The largest paths that a store takes at all: what a key may do to the log and the database is bounded.
    pub const WIDEST: Self = Self { component_bytes_max: 65_535, path_bytes_max: 65_535 };

    /// No key of a path within these limits is longer: each byte may be escaped, and each component has a tag and an end.
    #[must_use]
    pub const fn key_bytes_max(self) -> usize {
        4 * self.path_bytes_max
    }
}

const ATOM: u8 = 0x01;
const STRING: u8 = 0x02;
const END: u8 = 0x00;
const ESCAPE: u8 = 0x01;
/// Above every byte that can follow a key in the keys below it.
const ABOVE: u8 = 0xFF;

/// Keys up to this long stand in the map's nodes themselves: looking one up then touches a few
/// cache lines, not one more for each comparison, and copying a node counts no references. With
/// the length and the kind it makes 48 bytes, no more than a pointer to as much would take.
const INLINE_BYTES_MAX: usize = 46;

/// An encoded path. `Default` is the root.
#[derive(Clone)]
pub struct Key(Repr);

#[derive(Clone)]
enum Repr {
    /// `length` is within `bytes`.
    Inline {
        length: u8,
        bytes: [u8; INLINE_BYTES_MAX],
    },
    Shared(Arc<[u8]>),
}

/// One component of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// An Erlang atom, by its text.
    Atom(Vec<u8>),
    /// Any bytes.
    String(Vec<u8>),
}

impl Key {
    /// The key of a path.
    ///
    /// ```
    /// use tank_engine::key::{Component, Key};
    /// let key = Key::of(&[Component::Atom(b"pods".to_vec()), Component::String(b"web".to_vec())]);
    /// assert_eq!(key.as_bytes(), b"\x01pods\x00\x02web\x00");
    /// ```
    pub fn of(path: &[Component]) -> Self {
        let mut bytes = Vec::new();
        for component in path {
            push_component(&mut bytes, component);
        }
        Self::from_bytes(&bytes)
    }

    /// Takes bytes as a key without a look at them. What comes from outside goes through
    /// [`Key::checked`]; a command's key is looked at again when it is applied.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut inline = [0; INLINE_BYTES_MAX];
        match (inline.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(room), Ok(length)) => {
                room.copy_from_slice(bytes);
                Self(Repr::Inline { length, bytes: inline })
            }
            _ => Self(Repr::Shared(bytes.into())),
        }
    }

    /// Takes bytes as a key if they encode a path within the widest limits.
    ///
    /// # Errors
    /// [`EngineError::InvalidPath`] or [`EngineError::TooLarge`].
    pub fn checked(bytes: &[u8]) -> Result<Self, EngineError> {
        check(bytes, KeyLimits::WIDEST)?;
        Ok(Self::from_bytes(bytes))
    }

    /// Whether this is the encoding of a path within limits.
    ///
    /// # Errors
    /// [`EngineError::InvalidPath`] or [`EngineError::TooLarge`].
    pub fn check(&self, limits: KeyLimits) -> Result<(), EngineError> {
        check(self.as_bytes(), limits)
    }

    /// The encoding.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Repr::Shared(bytes) => bytes,
        }
    }

    /// Whether this is the key of `other` or of a path below it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.as_bytes().starts_with(other.as_bytes())
    }

    /// Whether it is the key of the root.
    pub fn is_root(&self) -> bool {
        self.as_bytes().is_empty()
    }

    /// The key of a child, by the encoding of its name.
    pub fn child(&self, name: &[u8]) -> Self {
        Self::from_bytes(&[self.as_bytes(), name].concat())
    }

    /// The key of the path above; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let (_end, rest) = self.as_bytes().split_last()?;
        let length = rest.iter().rposition(|byte| *byte == END).map_or(0, |end| end + 1);
        rest.get(..length).map(Self::from_bytes)
    }

    /// The encoding of the last component; empty for the root.
    pub(crate) fn name(&self) -> &[u8] {
        let above = self.parent().map_or(0, |parent| parent.as_bytes().len());
        self.as_bytes().get(above..).unwrap_or_default()
    }

    /// The first key after this one and all keys below it.
    pub fn after_subtree(&self) -> Self {
        let mut bytes = Vec::with_capacity(self.as_bytes().len() + 1);
        bytes.extend_from_slice(self.as_bytes());
        bytes.push(ABOVE);
        Self::from_bytes(&bytes)
    }

    /// The components.
    ///
    /// # Errors
    /// [`EngineError::InvalidPath`] when the bytes are not the encoding of a path.
    pub fn components(&self) -> Result<Vec<Component>, EngineError> {
        Components { rest: self.as_bytes() }.collect()
    }

    /// The components of an encoded path, each as a path of its own.
    pub fn split(encoded: &[u8]) -> impl Iterator<Item = Self> {
        encoded.split_inclusive(|&byte| byte == END).map(Self::from_bytes)
    }

    /// The components below `prefix`; `None` when this key is not within it.
    pub fn components_below(&self, prefix: &Self) -> Option<Result<Vec<Component>, EngineError>> {
        let rest = self.as_bytes().strip_prefix(prefix.as_bytes())?;
        Some(Components { rest }.collect())
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.as_bytes())
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(KeyVisitor)
    }
}

/// Most keys are decoded without memory of their own.
struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes of a key")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Key, E> {
        Ok(Key::from_bytes(bytes))
    }
}

impl std::borrow::Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Default for Key {
    fn default() -> Self {
        Self::from_bytes(&[])
    }
}

// As the bytes compare and hash, however they are kept: `Borrow` promises that.

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.as_bytes().escape_ascii())
    }
}

/// Whether `encoded` is the encoding of a single component: the zero at its end is its only one.
pub(crate) fn is_one_component(encoded: &[u8]) -> bool {
    first_component(encoded).is_some_and(|first| first.len() == encoded.len())
}

/// The encoding of the first component, with its zero.
pub(crate) fn first_component(encoded: &[u8]) -> Option<&[u8]> {
    let end = encoded.iter().position(|&byte| byte == END)?;
    encoded.get(..=end)
}

fn push_component(bytes: &mut Vec<u8>, component: &Component) {
    let (tag, text) = match component {
        Component::Atom(text) => (ATOM, text),
        Component::String(text) => (STRING, text),
    };
    bytes.push(tag);
    for &byte in text {
        if byte <= ESCAPE {
            bytes.push(ESCAPE);
            bytes.push(byte + 1);
        } else {
            bytes.push(byte);
        }
    }
    bytes.push(END);
}

fn check(bytes: &[u8], limits: KeyLimits) -> Result<(), EngineError> {
    let (mut rest, mut total) = (bytes, 0);
    while let Some((&tag, text)) = rest.split_first() {
        let mut size = 0;
        rest = decode(tag, text, |_| size += 1)?;
        too_large("path_component", size, limits.component_bytes_max)?;
        total += size;
    }
    too_large("path", total, limits.path_bytes_max)
}

fn too_large(what: &'static str, size: usize, limit: usize) -> Result<(), EngineError> {
    if size > limit { Err(EngineError::TooLarge { what, size, limit }) } else { Ok(()) }
}

/// Decodes the text of a component with this tag, byte by byte, and returns what follows the component.
fn decode(tag: u8, mut text: &[u8], mut take: impl FnMut(u8)) -> Result<&[u8], EngineError> {
    let invalid = |why: &str| Err(EngineError::InvalidPath(why.to_owned()));
    loop {
        match text {
            [ESCAPE, escaped @ (1 | 2), tail @ ..] => {
                take(*escaped - 1);
                text = tail;
            }
            [ESCAPE, ..] => return invalid("an escape sequence is neither of the two"),
            [END, tail @ ..] if matches!(tag, ATOM | STRING) => return Ok(tail),
            [END, ..] => return invalid("a component's kind is neither atom nor string"),
            [byte, tail @ ..] => {
                take(*byte);
                text = tail;
            }
            [] => return invalid("a component does not end"),
        }
    }
}

/// Decodes components until the bytes end or are not those of a path.
struct Components<'a> {
    rest: &'a [u8],
}

impl Iterator for Components<'_> {
    type Item = Result<Component, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&tag, encoded) = std::mem::take(&mut self.rest).split_first()?;
        let mut text = Vec::new();
        let decoded = decode(tag, encoded, |byte| text.push(byte));
        Some(decoded.map(|rest| {
            self.rest = rest;
            if tag == ATOM { Component::Atom(text) } else { Component::String(text) }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn component() -> impl Strategy<Value = Component> {
        let bytes = prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(2), Just(255), any::<u8>()], 0..6);
        (any::<bool>(), bytes)
            .prop_map(|(atom, text)| if atom { Component::Atom(text) } else { Component::String(text) })
    }

    proptest! {
        #[test]
        fn a_path_survives_and_keys_sort_as_paths_do(
            a in prop::collection::vec(component(), 0..5),
            b in prop::collection::vec(component(), 0..5),
        ) {
            let (ka, kb) = (Key::of(&a), Key::of(&b));
            prop_assert_eq!(&ka.components().unwrap(), &a);
            prop_assert_eq!(ka.cmp(&kb), a.cmp(&b));
            prop_assert_eq!(kb.is_within(&ka), b.starts_with(&a));
            let inside = kb >= ka && kb < ka.after_subtree();
            prop_assert_eq!(inside, b.starts_with(&a));
        }

        #[test]
        fn any_bytes_are_a_path_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let path = Key::from_bytes(&bytes).components();
            prop_assert_eq!(Key::checked(&bytes).err(), path.as_ref().err().cloned());
            if let Ok(path) = path {
                let again = Key::of(&path);
                prop_assert_eq!(again.as_bytes(), &bytes[..]);
            }
        }
    }

    #[test]
    fn a_key_is_the_same_inline_or_not() {
        for length in [0, 1, INLINE_BYTES_MAX - 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 300] {
            let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let key = Key::from_bytes(&bytes);
            assert_eq!(key.as_bytes(), bytes);
            assert_eq!(matches!(key.0, Repr::Inline { .. }), length <= INLINE_BYTES_MAX);
            assert_eq!(key, Key(Repr::Shared(bytes.as_slice().into())));
        }
        assert_eq!(size_of::<Key>(), 48);
    }

    #[test]
    fn limits_are_exact() {
        let of = |n: usize| Key::of(&[Component::String(vec![b'x'; n])]);
        assert_eq!(of(255).check(KeyLimits::DEFAULT), Ok(()));
        let too_large = |size, limit| Err(EngineError::TooLarge { what: "path_component", size, limit });
        assert_eq!(of(256).check(KeyLimits::DEFAULT), too_large(256, 255));
        let long = Key::of(&vec![Component::String(vec![0; 205]); 5]);
        assert!(matches!(long.check(KeyLimits::DEFAULT), Err(EngineError::TooLarge { what: "path", .. })));
        assert!(Key::checked(long.as_bytes()).is_ok());
        assert!(Key::checked(of(65_535).as_bytes()).is_ok());
        assert_eq!(of(65_536).check(KeyLimits::WIDEST), too_large(65_536, 65_535));
        assert!(of(65_535).as_bytes().len() <= KeyLimits::WIDEST.key_bytes_max());
    }
}
