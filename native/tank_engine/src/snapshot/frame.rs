//! What a snapshot is cut into for its journey.
//!
//! `format u8 | last u8 | sequence u32 | crc32c u32 | body`, big-endian. The bodies together are
//! records, `key length u32 | value length u32 | key | value`, cut wherever a frame is full.

use bytes::Bytes;

use crate::error::EngineError;

/// A frame's body at the most. Four of these on the way do not delay a heartbeat on the same
/// connection; larger ones do.
pub const FRAME_BYTES: usize = 64 << 10;

const FRAME_FORMAT: u8 = 1;
const HEAD_BYTES: usize = 10;

/// One piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// 0 for the first, +1 for each.
    pub sequence: u32,
    /// Whether none follows.
    pub last: bool,
    /// The piece.
    pub body: Bytes,
}

impl Frame {
    /// The frame as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.body.len());
        bytes.extend_from_slice(&[FRAME_FORMAT, u8::from(self.last)]);
        bytes.extend_from_slice(&self.sequence.to_be_bytes());
        bytes.extend_from_slice(&self.checksum().to_be_bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The frame of bytes.
    ///
    /// # Errors
    /// They are not one, or were changed on the way.
    pub fn decode(bytes: &[u8]) -> Result<Self, EngineError> {
        let (head, body) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or_else(|| damaged("it is too short"))?;
        let [format, last, s0, s1, s2, s3, c0, c1, c2, c3] = *head;
        if format != FRAME_FORMAT || last > 1 || body.len() > FRAME_BYTES {
            return Err(damaged("its head makes no sense"));
        }
        let sequence = u32::from_be_bytes([s0, s1, s2, s3]);
        let frame = Self { sequence, last: last == 1, body: Bytes::copy_from_slice(body) };
        if frame.checksum() != u32::from_be_bytes([c0, c1, c2, c3]) {
            return Err(damaged("it does not match its checksum"));
        }
        Ok(frame)
    }

    /// Of head and body: a frame that is whole but claims to be another is damaged too.
    fn checksum(&self) -> u32 {
        let head = crc32c::crc32c_append(u32::from(self.last), &self.sequence.to_be_bytes());
        crc32c::crc32c_append(head, &self.body)
    }
}

fn damaged(why: &str) -> EngineError {
    EngineError::Corrupt { what: "snapshot", detail: format!("a frame: {why}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_and_every_flipped_bit_is_noticed() {
        let frame = Frame { sequence: 7, last: false, body: Bytes::from_static(b"some records") };
        let bytes = frame.encode();
        assert_eq!(Frame::decode(&bytes).unwrap(), frame);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(Frame::decode(&flipped).is_err(), "bit {bit} of byte {at}");
            }
            assert!(Frame::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
