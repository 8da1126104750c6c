//! The file FORMAT: what a directory is.
//!
//! A few lines of text, so that a person can read it too; the last line is a checksum of those
//! before it.

use std::cmp::Ordering;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::EngineError;
use crate::types::random_id;

use super::Formation;

/// The layout of the directory and of all in it that this release writes. It reads this one only.
pub const FORMAT_VERSION: u32 = 2;

/// The file's name.
pub(super) const FILE: &str = "FORMAT";
const FIRST_LINE: &str = "tank_store";

/// Who a member is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The store's id.
    pub store_id: String,
    /// Drawn when the cluster was made.
    pub cluster_id: u64,
    /// Drawn when this directory was made; never used again once it is gone.
    pub member_id: u64,
}

/// How far the making of a directory got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Creating,
    Ready,
}

/// The contents of FORMAT.
#[derive(Clone, Debug)]
pub(super) struct Format {
    pub(super) stage: Stage,
    pub(super) identity: Identity,
}

impl Identity {
    /// The identity of a new directory.
    ///
    /// # Errors
    /// The operating system gives no randomness.
    pub fn of_new(store_id: &str, formation: Formation) -> Result<Self, EngineError> {
        let (cluster_id, member_id) = match formation {
            Formation::NewCluster => (random_id()?, random_id()?),
            Formation::Joining { cluster_id, member_id } => (cluster_id, member_id),
            Formation::ForceNew { cluster_id } => (cluster_id, random_id()?),
        };
        Ok(Self { store_id: store_id.to_owned(), cluster_id, member_id })
    }
}

impl Format {
    /// Reads FORMAT; `None` when there is none.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, EngineError> {
        let text = match fs::read(dir.join(FILE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(EngineError::from_io(dir, &error)),
        };
        parse(&text).map(Some)
    }

    /// As [`Format::read`], of what will be in the directory once [`super::aside::settle`] has ended what was under way.
    pub(super) fn read_settled(dir: &Path) -> Result<Option<Self>, EngineError> {
        match super::aside::place_after_settling(dir) {
            None => Ok(None),
            Some(dir) => Self::read(&dir),
        }
    }

    pub(super) fn write(&self, dir: &Path) -> Result<(), EngineError> {
        let path = dir.join(FILE);
        crate::files::write_file(&path, self.to_text().as_bytes()).map_err(|error| EngineError::from_io(&path, &error))
    }

    pub(super) fn check_store(&self, store_id: &str) -> Result<(), EngineError> {
        if self.identity.store_id == store_id {
            return Ok(());
        }
        Err(EngineError::WrongStore { expected: store_id.to_owned(), found: self.identity.store_id.clone() })
    }

    fn to_text(&self) -> String {
        let Identity { store_id, cluster_id, member_id } = &self.identity;
        let stage = match self.stage {
            Stage::Creating => "creating",
            Stage::Ready => "ready",
        };
        let body = format!(
            "{FIRST_LINE}\nformat {FORMAT_VERSION}\nstage {stage}\nstore {store_id}\ncluster {cluster_id}\nmember {member_id}\n"
        );
        let crc = crc32c::crc32c(body.as_bytes());
        format!("{body}crc32c {crc:08x}\n")
    }
}

fn parse(bytes: &[u8]) -> Result<Format, EngineError> {
    let corrupt = |detail: &str| EngineError::Corrupt { what: "format", detail: format!("FORMAT {detail}") };
    let text = std::str::from_utf8(bytes).map_err(|_| corrupt("is not text"))?;
    let (body, crc) = text.rsplit_once("crc32c ").ok_or_else(|| corrupt("has no checksum"))?;
    if crc != format!("{:08x}\n", crc32c::crc32c(body.as_bytes())) {
        return Err(corrupt("does not match its checksum"));
    }
    // From here on, what is written is what was meant.
    let mut lines = body.lines();
    if lines.next() != Some(FIRST_LINE) {
        return Err(corrupt("is not a store's"));
    }
    let mut field = |name: &str| {
        let value = lines.next().and_then(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.ok_or_else(|| corrupt(&format!("has no line {name:?}")))
    };
    let number = |text: &str| text.parse().map_err(|_| corrupt("has a number that is none"));
    let found = u32::try_from(number(field("format")?)?).unwrap_or(u32::MAX);
    let supported = FORMAT_VERSION;
    match found.cmp(&supported) {
        Ordering::Less => return Err(EngineError::OlderFormat { found, supported }),
        Ordering::Equal => {}
        Ordering::Greater => return Err(EngineError::NewerFormat { found, supported }),
    }
    let stage = if field("stage")? == "ready" { Stage::Ready } else { Stage::Creating };
    let store_id = field("store")?.to_owned();
    let (cluster_id, member_id) = (number(field("cluster")?)?, number(field("member")?)?);
    Ok(Format { stage, identity: Identity { store_id, cluster_id, member_id } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format() -> Format {
        Format { stage: Stage::Ready, identity: Identity::of_new("tank", Formation::NewCluster).unwrap() }
    }

    #[test]
    fn it_comes_back() {
        let format = format();
        assert_eq!(parse(format.to_text().as_bytes()).unwrap().identity, format.identity);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let text = format().to_text().into_bytes();
        for at in 0..text.len() {
            assert!(parse(&text[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut flipped = text.clone();
                flipped[at] ^= 1 << bit;
                assert!(matches!(parse(&flipped), Err(EngineError::Corrupt { .. })), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn other_formats_are_named() {
        let supported = FORMAT_VERSION;
        let error_of = |found| {
            let body = format().to_text().replace(&format!("format {supported}\n"), &format!("format {found}\n"));
            let body = body.rsplit_once("crc32c").unwrap().0.to_owned();
            let text = format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes()));
            parse(text.as_bytes()).unwrap_err()
        };
        assert_eq!(error_of(7), EngineError::NewerFormat { found: 7, supported });
        assert_eq!(error_of(1), EngineError::OlderFormat { found: 1, supported });
    }
}
