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
const HEADER_BYTES: usize = 7;

/// The kinds of records in recycled logs (`db/log_format.h`).
const RECYCLED: [u8; 6] = [5, 6, 7, 8, 11, 131];

/// A record at the beginning of `rest`, the rest of its block.
pub(super) struct Record<'a> {
    rest: &'a [u8],
    kind: u8,
    /// Of all of it, header and all; maybe more than there are.
    bytes: usize,
}

impl<'a> Record<'a> {
    /// The record at the beginning of `rest`; `None` when no header fits there.
    pub(super) fn first(rest: &'a [u8]) -> Option<Self> {
        let &[_, _, _, _, low, high, kind] = rest.first_chunk::<HEADER_BYTES>()?;
        let bytes = HEADER_BYTES + usize::from(u16::from_le_bytes([low, high]));
        Some(Self { rest, kind, bytes })
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
}
