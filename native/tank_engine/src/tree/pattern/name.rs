//! Regular expressions for names.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use once_cell::sync::Lazy;
use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::EngineError;
use crate::sync::lock;

use super::within;

/// The longest regular expression, in bytes.
const SOURCE_BYTES_MAX: usize = 1_024;
/// What a compiled one may take: compiling one of this size takes milliseconds.
const COMPILED_BYTES_MAX: usize = 256 << 10;
/// What searching with it may take.
const DFA_BYTES_MAX: usize = 256 << 10;

/// How many are kept, compiled: callers ask with the same few again and again, and compiling one takes as
/// long as matching hundreds of names. A clone shares what is compiled, not the memory that searching takes.
const KEPT_MAX: usize = 16;

static KEPT: Lazy<Mutex<HashMap<String, Regex>>> = Lazy::new(Mutex::default);

/// A regular expression over the bytes of a name.
///
/// It is searched in time linear in the name, so it knows neither back-references nor look-around.
/// Classes such as `\w` are those of ASCII: members of different releases must agree, and tables of
/// Unicode change. Stands in the log as its source: one that a member cannot compile matches
/// nothing there.
#[derive(Clone, Debug)]
pub struct NameRegex {
    source: String,
    compiled: Arc<OnceLock<Option<Regex>>>,
}

impl NameRegex {
    /// Of this source, which may be wrong: see [`NameRegex::check`].
    pub fn new(source: String) -> Self {
        Self { source, compiled: Arc::default() }
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it is found in `name`.
    pub fn is_match(&self, name: &[u8]) -> bool {
        let compiled = self.compiled.get_or_init(|| {
            within("regex", self.source.len(), SOURCE_BYTES_MAX).ok()?;
            compile(&self.source).ok()
        });
        compiled.as_ref().is_some_and(|regex| regex.is_match(name))
    }

    /// Whether matching and checking it cost little: it is compiled, or too long to be.
    pub fn is_ready(&self) -> bool {
        if self.compiled.get().is_some() || self.source.len() > SOURCE_BYTES_MAX {
            return true;
        }
        let kept = lock(&KEPT).get(&self.source).cloned();
        kept.map(|regex| self.compiled.set(Some(regex))).is_some()
    }

    /// Whether it is one.
    ///
    /// # Errors
    /// [`EngineError::InvalidPattern`] or [`EngineError::TooLarge`].
    pub fn check(&self) -> Result<(), EngineError> {
        within("regex", self.source.len(), SOURCE_BYTES_MAX)?;
        if matches!(self.compiled.get(), Some(Some(_))) {
            return Ok(());
        }
        let regex = compile(&self.source).map_err(|error| EngineError::InvalidPattern(error.to_string()))?;
        let _ = self.compiled.set(Some(regex));
        Ok(())
    }
}

fn compile(source: &str) -> Result<Regex, regex::Error> {
    if let Some(kept) = lock(&KEPT).get(source) {
        return Ok(kept.clone());
    }
    let mut builder = RegexBuilder::new(source);
    let regex = builder.unicode(false).size_limit(COMPILED_BYTES_MAX).dfa_size_limit(DFA_BYTES_MAX).build()?;
    let mut kept = lock(&KEPT);
    if kept.len() >= KEPT_MAX {
        kept.clear();
    }
    kept.insert(source.to_owned(), regex.clone());
    Ok(regex)
}

impl PartialEq for NameRegex {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for NameRegex {}

impl Serialize for NameRegex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.source.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for NameRegex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}
