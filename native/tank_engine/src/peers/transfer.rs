//! Sending a snapshot: a few frames on their way at a time, an end when nothing moves.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use openraft::raft::SnapshotResponse;
use serde_bytes::ByteBuf;

use crate::raft::{Member, MemberId, SnapshotMeta, Types, Vote};
use crate::snapshot::{Frame, PinnedSnapshot};
use crate::storage::format::random_id;

use super::Lane;
use super::message::{Answer, Call};
use super::rpc::{CallError, Rpc};

/// Frames on their way: with more, heartbeats on the same connection come late.
const WINDOW: usize = 4;

/// A frame that is not taken for so long ends the transfer; raft begins another one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Installing, after the last frame, takes as long as reading the whole state does.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(600);

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
    let ask = |call: Call, timeout| async move { rpc.call(to, member, Lane::Snapshot, &call, timeout).await };
    match ask(Call::SnapshotBegin { transfer, vote, meta }, IDLE_TIMEOUT).await? {
        Answer::SnapshotTaken => {}
        Answer::SnapshotDone(response) => return Ok(response),
        other => return Err(unexpected(&other)),
    }
    let mut frames = read_frames(Arc::clone(pinned));
    let mut sent = FuturesOrdered::new();
    loop {
        while sent.len() < WINDOW
            && let Some(frame) = frames.recv().await
        {
            let frame = frame.map_err(failed)?;
            let timeout = if frame.last { INSTALL_TIMEOUT } else { IDLE_TIMEOUT };
            sent.push_back(ask(Call::SnapshotFrame { transfer, frame: ByteBuf::from(frame.encode()) }, timeout));
        }
        match sent.next().await {
            Some(Ok(Answer::SnapshotTaken)) => {}
            Some(Ok(Answer::SnapshotDone(response))) => return Ok(response),
            Some(Ok(other)) => return Err(unexpected(&other)),
            Some(Err(error)) => return Err(error),
            None => return Err(CallError::Failed("a snapshot without an end".to_owned())),
        }
    }
}

/// Reads the frames on a thread that may block. It ends when the transfer does.
fn read_frames(pinned: Arc<PinnedSnapshot>) -> tokio::sync::mpsc::Receiver<Result<Frame, crate::error::EngineError>> {
    let (sender, frames) = tokio::sync::mpsc::channel(WINDOW);
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
