//! The format of RocksDB's log files, which are its write-ahead logs and manifests: blocks of records.
//!
//! ```text
//! file   := block of BLOCK_BYTES, block, ..., a shorter one
//! block  := record, record, ..., less than a header of padding
//! record := checksum u32 | length u16 | kind u8 | length bytes        little-endian
//! ```
//!
//! No record crosses from one block to the next; a longer one stands there in parts. Our logs are
//! never recycled: records of recycled logs, whose headers are longer, are damage.

/// A file is written in blocks of this many bytes.
pub(super) const BLOCK_BYTES: usize = 32 << 10;

/// The bytes before a record's own.
pub(super) const HEADER_BYTES: usize = 7;

/// The kinds of records in recycled logs (`db/log_format.h`).
const RECYCLED: [u8; 6] = [5, 6, 7, 8, 11, 131];

/// Where a record stands among those that make up a longer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// It begins one, or goes on with it: more follows.
    More,
    /// It is one, or ends it.
    Last,
    /// It says something about the log.
    Other,
}

/// A record at the beginning of `rest`, the rest of its block.
pub(super) struct Record<'a> {
    rest: &'a [u8],
    checksum: u32,
    kind: u8,
    /// Of all of it, header and all; maybe more than there are.
    pub(super) bytes: usize,
}

impl<'a> Record<'a> {
    /// The record at the beginning of `rest`; `None` when no header fits there.
    pub(super) fn first(rest: &'a [u8]) -> Option<Self> {
        let &[a, b, c, d, low, high, kind] = rest.first_chunk::<HEADER_BYTES>()?;
        let bytes = HEADER_BYTES + usize::from(u16::from_le_bytes([low, high]));
        Some(Self { rest, checksum: u32::from_le_bytes([a, b, c, d]), kind, bytes })
    }

    /// Whether it is none: nothing was written here.
    pub(super) fn is_blank(&self) -> bool {
        self.kind == 0 && self.bytes == HEADER_BYTES
    }

    /// Whether it is of a recycled log.
    pub(super) fn is_recycled(&self) -> bool {
        RECYCLED.contains(&self.kind)
    }

    /// What follows it in the block; `None` when it has no end there.
    pub(super) fn behind(&self) -> Option<&'a [u8]> {
        self.rest.get(self.bytes..)
    }

    /// Whether all of it is there, as it was written.
    pub(super) fn is_whole(&self) -> bool {
        // The kind, the last byte of the header, is covered too.
        let covered = self.rest.get(HEADER_BYTES - 1..self.bytes);
        covered.is_some_and(|bytes| mask(crc32c::crc32c(bytes)) == self.checksum)
    }

    pub(super) fn part(&self) -> Part {
        match self.kind {
            2 | 3 => Part::More,
            1 | 4 => Part::Last,
            _ => Part::Other,
        }
    }
}

/// RocksDB keeps checksums so, in order that one of data with checksums in it is still a good one.
fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}
