//! Sends a snapshot. The link limits how many frames are in flight. A transfer without progress fails.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use openraft::raft::SnapshotResponse;
use serde_bytes::ByteBuf;
use tokio::time::{Instant, sleep};

use crate::environment;
use crate::runtime;
use crate::snapshot::{Frame, PinnedSnapshot};
use crate::sync::lock;
use crate::types::random_id;

use crate::peers::Lane;
use crate::peers::message::{Answer, Call};
use crate::peers::rpc::{CallError, Rpc, Wait};

use super::{Member, MemberId, SnapshotMeta, Types, Vote};

/// Frames that wait for their answer, of 64 KB each. The link decides how many are on their way; these
/// keep one busy that carries 200 Mbit/s over a round trip of 300 ms.
const WINDOW: usize = 128;

/// A frame that is not taken for so long ends the transfer; raft begins another one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// When a frame is sent again that came before one that was lost.
const GAP_RETRY: Duration = Duration::from_millis(50);

/// Sends `pinned` to a member, and waits until it is installed there.
pub(super) async fn send(
    rpc: &Rpc,
    to: MemberId,
    member: &Member,
    vote: Vote,
    meta: SnapshotMeta,
    pinned: &Arc<PinnedSnapshot>,
) -> Result<SnapshotResponse<Types>, CallError> {
    let failed = |error: crate::error::EngineError| CallError::Failed(error.to_string());
    let transfer = random_id().map_err(failed)?;
    // When a frame was last taken.
    let moved_at = &Mutex::new(Instant::now());
    let ask = |call: Call| async move { ask(rpc, to, member, &call, moved_at).await };
    match ask(Call::SnapshotBegin { transfer, vote, meta }).await? {
        Answer::SnapshotTaken => {}
        Answer::SnapshotDone(response) => return Ok(response),
        other => return Err(unexpected(&other)),
    }
    let mut frames = read_frames(Arc::clone(pinned));
    let (mut sent, mut ended) = (FuturesOrdered::new(), false);
    loop {
        // Reading may be slower than the link: answers are taken meanwhile.
        tokio::select! {
            biased;
            Some(answer) = sent.next(), if !sent.is_empty() => match answer? {
                Answer::SnapshotTaken => {}
                Answer::SnapshotDone(response) => return Ok(response),
                other => return Err(unexpected(&other)),
            },
            frame = frames.recv(), if !ended && sent.len() < WINDOW => match frame {
                Some(frame) => {
                    let frame = ByteBuf::from(frame.map_err(failed)?.encode());
                    sent.push_back(ask(Call::SnapshotFrame { transfer, frame }));
                }
                None => ended = true,
            },
            else => return Err(CallError::Failed("a snapshot without an end".to_owned())),
        }
    }
}

/// Asks again when the link failed on the way or a frame before this one is missing, until no frame was
/// taken for [`IDLE_TIMEOUT`]. Ends at once when the connection is known to be lost.
async fn ask(
    rpc: &Rpc,
    to: MemberId,
    member: &Member,
    call: &Call,
    moved_at: &Mutex<Instant>,
) -> Result<Answer, CallError> {
    let idle = || lock(moved_at).elapsed() > IDLE_TIMEOUT;
    loop {
        let answer = rpc.call(to, member, Lane::Snapshot, call, Wait::WhileAlive).await;
        match answer {
            Ok(Answer::SnapshotGap) if !idle() => sleep(GAP_RETRY).await,
            Err(CallError::Timeout) if !idle() => {}
            answer => {
                *lock(moved_at) = Instant::now();
                return answer;
            }
        }
    }
}

/// Reads the frames on a thread that may block. It ends when the transfer does.
fn read_frames(pinned: Arc<PinnedSnapshot>) -> tokio::sync::mpsc::Receiver<Result<Frame, crate::error::EngineError>> {
    const READ_AHEAD: usize = 4;
    let (sender, frames) = tokio::sync::mpsc::channel(READ_AHEAD);
    if environment::is_simulated() {
        // There is no other thread: all at once, of a state that is small.
        runtime::spawn_simulated(async move {
            let read = pinned.frames().map(Iterator::collect::<Vec<_>>);
            for frame in read.unwrap_or_else(|error| vec![Err(error)]) {
                if sender.send(frame).await.is_err() {
                    return;
                }
            }
        });
        return frames;
    }
    tokio::task::spawn_blocking(move || match pinned.frames() {
        Ok(read) => {
            for frame in read {
                if sender.blocking_send(frame).is_err() {
                    return;
                }
            }
        }
        Err(error) => drop(sender.blocking_send(Err(error))),
    });
    frames
}

fn unexpected(answer: &Answer) -> CallError {
    CallError::Failed(format!("an answer to another question: {answer:?}"))
}
