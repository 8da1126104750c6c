//! What one frame between two members holds.
//!
//! ```text
//! version u8 | kind u8 | cluster u64 | from u64 | to u64 | instance u64 | call u64
//!   | ack link u64 | ack up to u64 | ack held us u32 | sent us u64 | time to live ms u32     (head)
//!   | link u64 | sequence u64 | lane u8 | message u64 | offset u32 | total u32               (parts only)
//!   | body
//! ```
//!
//! Numbers are big-endian. A body is MessagePack of a call, of an answer, or of missing ranges
//! ([`Kind::Ack`]); a part's body is a piece of one. Cluster and member ids are random, so a frame
//! of another store, of a cluster's former life or for a member that is gone fits nobody.
//! `instance` is random for each opening of a store: a frame from before a restart fits nobody either.

use crate::types::MemberId;

const VERSION: u8 = 2;
const HEAD_BYTES: usize = 74;
const PART_BYTES: usize = 33;

/// The most bytes that a part carries. It takes 15 ms at 16 Mbit/s, and stays below the size from which
/// Erlang distribution cuts a message into fragments.
pub(crate) const PART_BODY_MAX: usize = 30 << 10;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A whole call that may get lost.
    Call,
    /// A whole answer that may get lost.
    Answer,
    /// Only the acknowledgement in its head, and which parts are missing below it.
    Ack,
    /// A piece of a call that is sent until it arrives.
    CallPart,
    /// A piece of an answer that is sent until it arrives.
    AnswerPart,
    /// The rest of a message will not come.
    Abort,
}

impl Kind {
    const ALL: [Self; 6] = [Self::Call, Self::Answer, Self::Ack, Self::CallPart, Self::AnswerPart, Self::Abort];

    fn is_part(self) -> bool {
        matches!(self, Self::CallPart | Self::AnswerPart | Self::Abort)
    }
}

/// Which parts have arrived: all of `link` below `upto`. Nothing when `upto` is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) link: u64,
    pub(crate) upto: u64,
    /// For how long the acknowledgement of the last part was held back, in microseconds.
    pub(crate) held_us: u32,
}

/// Who a frame is from and for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) cluster_id: u64,
    pub(crate) from: MemberId,
    pub(crate) to: MemberId,
    /// Which opening of its store the sender is.
    pub(crate) instance: u64,
    /// The call that is asked or answered.
    pub(crate) call_id: u64,
    pub(crate) ack: Ack,
    /// The sender's clock, in microseconds since it was opened.
    pub(crate) sent_us: u64,
    /// Milliseconds after sending from which the receiver drops the message; 0: never.
    pub(crate) ttl_ms: u32,
}

/// Which piece of which message a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) link: u64,
    /// Rises by one with each part of the link.
    pub(crate) sequence: u64,
    pub(crate) lane: u8,
    /// Rises by one with each message of the lane.
    pub(crate) message: u64,
    pub(crate) offset: u32,
    /// The message's bytes.
    pub(crate) total: u32,
}

/// A frame, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) head: Head,
    /// For parts only.
    pub(crate) part: Option<Part>,
    pub(crate) body: &'a [u8],
}

/// A frame as bytes.
pub(crate) fn encode(head: &Head, part: Option<&Part>, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD_BYTES + PART_BYTES + body.len());
    frame.push(VERSION);
    frame.push(Kind::ALL.iter().position(|kind| *kind == head.kind).map_or(u8::MAX, |at| at as u8));
    for number in [head.cluster_id, head.from, head.to, head.instance, head.call_id, head.ack.link, head.ack.upto] {
        frame.extend_from_slice(&number.to_be_bytes());
    }
    frame.extend_from_slice(&head.ack.held_us.to_be_bytes());
    frame.extend_from_slice(&head.sent_us.to_be_bytes());
    frame.extend_from_slice(&head.ttl_ms.to_be_bytes());
    debug_assert_eq!(frame.len(), HEAD_BYTES);
    if let Some(part) = part {
        frame.extend_from_slice(&part.link.to_be_bytes());
        frame.extend_from_slice(&part.sequence.to_be_bytes());
        frame.push(part.lane);
        frame.extend_from_slice(&part.message.to_be_bytes());
        frame.extend_from_slice(&part.offset.to_be_bytes());
        frame.extend_from_slice(&part.total.to_be_bytes());
    }
    frame.extend_from_slice(body);
    frame
}

/// Takes a frame apart; `None` for bytes that are no frame, or of another version.
pub(crate) fn decode(frame: &[u8]) -> Option<Frame<'_>> {
    let mut rest = frame;
    if take::<1>(&mut rest)? != [VERSION] {
        return None;
    }
    let [kind] = take::<1>(&mut rest)?;
    let kind = *Kind::ALL.get(usize::from(kind))?;
    let (cluster_id, from, to) = (long(&mut rest)?, long(&mut rest)?, long(&mut rest)?);
    let (instance, call_id) = (long(&mut rest)?, long(&mut rest)?);
    let ack = Ack { link: long(&mut rest)?, upto: long(&mut rest)?, held_us: int(&mut rest)? };
    let (sent_us, ttl_ms) = (long(&mut rest)?, int(&mut rest)?);
    let head = Head { kind, cluster_id, from, to, instance, call_id, ack, sent_us, ttl_ms };
    let part = if kind.is_part() {
        let (link, sequence) = (long(&mut rest)?, long(&mut rest)?);
        let [lane] = take::<1>(&mut rest)?;
        let (message, offset, total) = (long(&mut rest)?, int(&mut rest)?, int(&mut rest)?);
        Some(Part { link, sequence, lane, message, offset, total })
    } else {
        None
    };
    Some(Frame { head, part, body: rest })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

fn long(bytes: &mut &[u8]) -> Option<u64> {
    take(bytes).map(u64::from_be_bytes)
}

fn int(bytes: &mut &[u8]) -> Option<u32> {
    take(bytes).map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(kind: Kind) -> Head {
        let ack = Ack { link: 5, upto: 6, held_us: 7 };
        Head { kind, cluster_id: 1, from: 2, to: u64::MAX, instance: 3, call_id: 4, ack, sent_us: 8, ttl_ms: 9 }
    }

    #[test]
    fn a_frame_comes_back_and_a_cut_one_is_refused() {
        let part = Part { link: 1, sequence: 2, lane: 3, message: 4, offset: 5, total: 6 };
        for (kind, part) in [(Kind::Answer, None), (Kind::CallPart, Some(part)), (Kind::Abort, Some(part))] {
            let mut bytes = encode(&head(kind), part.as_ref(), b"body");
            assert_eq!(decode(&bytes), Some(Frame { head: head(kind), part, body: b"body" }));
            for cut in 0..bytes.len() - 4 {
                assert_eq!(decode(&bytes[..cut]), None, "{kind:?} cut at {cut}");
            }
            bytes[0] = VERSION + 1;
            assert_eq!(decode(&bytes), None, "another version");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_none(bytes in prop::collection::vec(any::<u8>(), 0..160)) {
            let _ = decode(&bytes);
            let known = [&[VERSION, 3][..], &bytes].concat();
            let _ = decode(&known);
        }
    }
}
