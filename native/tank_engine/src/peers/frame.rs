//! What travels between members.
//!
//! `version u8 | kind u8 | cluster id u64 | from u64 | to u64 | call id u64 | body`, big-endian;
//! the body is MessagePack of a call or an answer. Cluster and member ids are random, so a frame
//! of another store, of a cluster's former life or for a member that is gone fits nobody.

use crate::raft::MemberId;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 34;

/// Whether a frame asks or answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Call,
    Answer,
}

/// Who a frame is from and for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) cluster_id: u64,
    pub(super) from: MemberId,
    pub(super) to: MemberId,
    pub(super) call_id: u64,
}

impl Head {
    /// The head, with room for `body_bytes` more.
    pub(super) fn encode(&self, body_bytes: usize) -> Vec<u8> {
        let mut frame = Vec::with_capacity(HEAD_BYTES + body_bytes);
        frame.push(VERSION);
        frame.push(match self.kind {
            Kind::Call => 0,
            Kind::Answer => 1,
        });
        for number in [self.cluster_id, self.from, self.to, self.call_id] {
            frame.extend_from_slice(&number.to_be_bytes());
        }
        frame
    }

    /// The head and the body of a frame; `None` for what is none, or of another version.
    pub(super) fn decode(frame: &[u8]) -> Option<(Self, &[u8])> {
        let (&[version, kind], rest) = frame.split_first_chunk::<2>()?;
        if version != VERSION {
            return None;
        }
        let kind = match kind {
            0 => Kind::Call,
            1 => Kind::Answer,
            _ => return None,
        };
        let (cluster_id, rest) = number(rest)?;
        let (from, rest) = number(rest)?;
        let (to, rest) = number(rest)?;
        let (call_id, body) = number(rest)?;
        Some((Self { kind, cluster_id, from, to, call_id }, body))
    }
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*head), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_head_comes_back_and_a_cut_one_is_refused() {
        let head = Head { kind: Kind::Answer, cluster_id: 1, from: 2, to: u64::MAX, call_id: 4 };
        let mut frame = head.encode(4);
        frame.extend_from_slice(b"body");
        assert_eq!(Head::decode(&frame), Some((head, &b"body"[..])));
        for cut in 0..HEAD_BYTES {
            assert_eq!(Head::decode(&frame[..cut]), None, "cut at {cut}");
        }
        frame[0] = VERSION + 1;
        assert_eq!(Head::decode(&frame), None, "another version");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_none(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Head::decode(&bytes);
        }
    }
}
