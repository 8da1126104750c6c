//! A small record that is written in place, again and again, without a sync.
//!
//! Two slots are written in turn, each in sectors of its own: a torn write spoils one at the most, and the other one has
//! the record before. What tells the newer one is in the record.

use std::fs::File;
use std::os::unix::fs::FileExt;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// How many there are.
pub(crate) const SLOTS: u64 = 2;

/// `length u16 | crc32c u32 | MessagePack`, big-endian.
const HEAD_BYTES: usize = 6;

/// Writes `record` as the one with this number.
pub(crate) fn write(file: &File, slot_bytes: u64, sequence: u64, record: &impl Serialize) -> std::io::Result<()> {
    let bytes = encode(record)?;
    if bytes.len() as u64 > slot_bytes {
        return Err(std::io::Error::other("the record is larger than its slot"));
    }
    file.write_all_at(&bytes, sequence % SLOTS * slot_bytes)
}

/// The records that are whole.
pub(crate) fn read_all<T: DeserializeOwned>(file: &File, slot_bytes: u64) -> std::io::Result<Vec<T>> {
    (0..SLOTS).filter_map(|slot| read(file, slot_bytes, slot).transpose()).collect()
}

fn encode(record: &impl Serialize) -> std::io::Result<Vec<u8>> {
    let body = rmp_serde::to_vec(record).map_err(std::io::Error::other)?;
    let length = u16::try_from(body.len()).map_err(std::io::Error::other)?;
    let mut bytes = Vec::with_capacity(body.len() + HEAD_BYTES);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// The record in a slot, if it is whole.
pub(crate) fn read<T: DeserializeOwned>(file: &File, slot_bytes: u64, slot: u64) -> std::io::Result<Option<T>> {
    let mut bytes = vec![0; usize::try_from(slot_bytes).unwrap_or_default()];
    match file.read_exact_at(&mut bytes, slot * slot_bytes) {
        Ok(()) => Ok(decode(&bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let body = rest.get(..usize::from(u16::from_be_bytes(*length)))?;
    if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
        return None;
    }
    rmp_serde::from_slice(body).ok()
}
