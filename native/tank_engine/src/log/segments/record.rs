//! The records of a segment.
//!
//! ```text
//! record := checksum u32 | length u32 | kind u8 | length bytes        big-endian
//! ```
//!
//! The checksum (CRC-32C) covers all behind it, and where the record stands: the segment's number
//! and the offset in it. So no bytes that were copied from elsewhere are taken for a record, not
//! even those of a client's value that looks like one.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The bytes before a record's own.
pub(super) const HEAD_BYTES: usize = 9;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The first one of each segment ([`super::segment::Head`]).
    Head,
    /// The first one of each write: up to where the segment was synced before it.
    Batch,
    /// A log entry: its index (u64 big-endian), and its MessagePack.
    Entry,
    /// All entries from this index on are gone.
    TruncateFrom,
    /// All entries up to this log id are gone.
    Purge,
    /// The vote.
    Vote,
    /// The last log id known to be committed.
    Committed,
    /// A log entry whose command is in a file of its own: its index, and its MessagePack ([`super::blobs`]).
    Detached,
}

/// Where bytes stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// A whole record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) kind: Kind,
    pub(super) body: &'a [u8],
}

impl Kind {
    const ALL: [(u8, Self); 8] = [
        (1, Self::Head),
        (2, Self::Batch),
        (3, Self::Entry),
        (4, Self::TruncateFrom),
        (5, Self::Purge),
        (6, Self::Vote),
        (7, Self::Committed),
        (8, Self::Detached),
    ];

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.iter().find(|(code, _)| *code == byte).map(|(_, kind)| *kind)
    }

    fn code(self) -> u8 {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or(0, |(code, _)| *code)
    }
}

impl Place {
    fn behind(self, bytes: usize) -> Self {
        Self { offset: self.offset + bytes as u64, ..self }
    }
}

impl<'a> Record<'a> {
    /// The record at the beginning of `bytes`, which stand at `place`; `None` when there is no whole one.
    pub(super) fn first(bytes: &'a [u8], place: Place) -> Option<Self> {
        let (checksum, rest) = bytes.split_first_chunk::<4>()?;
        let (length, body) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (&kind, body) = body.split_first()?;
        let body = body.get(..length)?;
        let covered = rest.get(..HEAD_BYTES - 4 + length)?;
        let kind = Kind::of(kind)?;
        (checksum_of(covered, place) == u32::from_be_bytes(*checksum)).then_some(Self { kind, body })
    }

    /// Of all of it, header and all.
    pub(super) fn bytes(&self) -> usize {
        HEAD_BYTES + self.body.len()
    }

    /// Its body, from MessagePack.
    pub(super) fn decode<T: DeserializeOwned>(&self) -> Result<T, String> {
        decode(self.body)
    }
}

pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    rmp_serde::from_slice(body).map_err(|error| format!("a record cannot be decoded: {error}"))
}

/// Appends a record to `buffer`: `prefix`, and the MessagePack of `body`. `buffer` will be written at `place`.
pub(super) fn put<T: Serialize>(
    buffer: &mut Vec<u8>,
    place: Place,
    kind: Kind,
    prefix: &[u8],
    body: &T,
) -> std::io::Result<()> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEAD_BYTES]);
    buffer.extend_from_slice(prefix);
    rmp_serde::encode::write(buffer, body).map_err(std::io::Error::other)?;
    let Some((checksum, covered)) = buffer.get_mut(start..).and_then(<[u8]>::split_first_chunk_mut::<4>) else {
        return Err(std::io::Error::other("a record without a head"));
    };
    let length = u32::try_from(covered.len() + 4 - HEAD_BYTES).map_err(std::io::Error::other)?;
    let head = length.to_be_bytes().into_iter().chain([kind.code()]);
    covered.iter_mut().zip(head).for_each(|(to, from)| *to = from);
    *checksum = checksum_of(covered, place.behind(start)).to_be_bytes();
    Ok(())
}

/// The maximum size of a batch record's body, which is a number in MessagePack.
const BATCH_BYTES_MAX: usize = 9;

/// Finds the batch record that `wanted` accepts. `bytes` begin at `place` in the segment.
/// It looks at every offset, because the bytes before the record may be anything. They may even be megabytes that look
/// like the heads of long records, whose checksums would take hours to compute. So only short records are checked.
pub(super) fn find_batch(bytes: &[u8], place: Place, wanted: impl Fn(u64) -> bool) -> Option<Place> {
    (0..bytes.len()).find_map(|at| {
        let rest = bytes.get(at..)?;
        // Compute a checksum only for what may be a batch record.
        let length = rest.get(4..8).and_then(|bytes| bytes.first_chunk::<4>()).map(|bytes| u32::from_be_bytes(*bytes));
        let may_be = rest.get(HEAD_BYTES - 1) == Some(&Kind::Batch.code())
            && length.is_some_and(|length| length as usize <= BATCH_BYTES_MAX);
        if !may_be {
            return None;
        }
        let place = place.behind(at);
        let record = Record::first(rest, place).filter(|record| record.kind == Kind::Batch)?;
        record.decode().is_ok_and(&wanted).then_some(place)
    })
}

fn checksum_of(covered: &[u8], place: Place) -> u32 {
    let Place { segment, offset } = place;
    let seed = crc32c::crc32c_append(crc32c::crc32c(&segment.to_be_bytes()), &offset.to_be_bytes());
    crc32c::crc32c_append(seed, covered)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { segment: 3, offset: 40 };

    fn two() -> Vec<u8> {
        let mut buffer = Vec::new();
        put(&mut buffer, PLACE, Kind::Batch, &[], &17u64).unwrap();
        put(&mut buffer, PLACE, Kind::Entry, &7u64.to_be_bytes(), &"value").unwrap();
        buffer
    }

    #[test]
    fn records_come_back_one_after_the_other() {
        let bytes = two();
        let first = Record::first(&bytes, PLACE).unwrap();
        assert_eq!((first.kind, first.decode::<u64>().unwrap()), (Kind::Batch, 17));
        let second = Record::first(&bytes[first.bytes()..], PLACE.behind(first.bytes())).unwrap();
        assert_eq!((second.kind, &second.body[..8]), (Kind::Entry, &7u64.to_be_bytes()[..]));
        assert_eq!(decode::<String>(&second.body[8..]).unwrap(), "value");
        assert_eq!(first.bytes() + second.bytes(), bytes.len());
    }

    #[test]
    fn a_flipped_bit_a_cut_and_another_place_are_noticed() {
        let bytes = two();
        let whole = Record::first(&bytes, PLACE).unwrap().bytes();
        for at in 0..whole {
            assert!(Record::first(&bytes[..at], PLACE).is_none(), "cut at {at}");
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(Record::first(&flipped, PLACE).is_none(), "bit {bit} of byte {at}");
            }
        }
        assert!(Record::first(&bytes, PLACE.behind(1)).is_none());
        assert!(Record::first(&bytes, Place { segment: 4, ..PLACE }).is_none());
        assert!(Record::first(&[0; 64], PLACE).is_none(), "what nobody wrote is none");
    }

    #[test]
    fn a_batch_is_found_behind_anything() {
        let mut bytes = vec![2; 100];
        put(&mut bytes, PLACE, Kind::Batch, &[], &17u64).unwrap();
        assert_eq!(find_batch(&bytes, PLACE, |synced| synced == 17), Some(PLACE.behind(100)));
        assert_eq!(find_batch(&bytes, PLACE, |synced| synced > 17), None);
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert_eq!(find_batch(&bytes, PLACE, |_| true), None);
    }

    #[test]
    fn a_batch_is_found_behind_megabytes_that_look_like_long_ones() {
        // As if each fifth byte began a batch of a megabyte.
        let mut bytes = [0, 0x10, 0, 0, 2].repeat(1 << 20);
        let at = bytes.len();
        put(&mut bytes, PLACE, Kind::Batch, &[], &u64::MAX).unwrap();
        assert_eq!(find_batch(&bytes, PLACE, |synced| synced == u64::MAX), Some(PLACE.behind(at)));
    }
}
