//! Sending a snapshot: a few frames on their way at a time, an end when nothing moves.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use openraft::raft::SnapshotResponse;
use serde_bytes::ByteBuf;
use tokio::time::Instant;

use crate::environment;
use crate::raft::{Member, MemberId, SnapshotMeta, Types, Vote};
use crate::runtime;
use crate::snapshot::{Frame, PinnedSnapshot};
use crate::storage::format::random_id;

use super::Lane;
use super::message::{Answer, Call};
use super::rpc::{CallError, Rpc};

/// Frames on their way: with more, heartbeats on the same connection come late.
const WINDOW: usize = 4;

/// A frame that is not taken for so long ends the transfer; raft begins another one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// After so long without an answer a frame is sent again: it may have been lost. The first one often
/// is, when it comes before the member that was just started has opened its store.
const BEGIN_AGAIN: Duration = Duration::from_millis(250);
const SEND_AGAIN: Duration = Duration::from_secs(2);

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
    let ask = |call: Call, again, timeout| async move { ask(rpc, to, member, &call, again, timeout).await };
    match ask(Call::SnapshotBegin { transfer, vote, meta }, BEGIN_AGAIN, IDLE_TIMEOUT).await? {
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
            let call = Call::SnapshotFrame { transfer, frame: ByteBuf::from(frame.encode()) };
            sent.push_back(ask(call, SEND_AGAIN, timeout));
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

/// Asks again, `again` after the last time, until there is an answer or `timeout` has passed. Ends at
/// once when the connection is known to be lost.
async fn ask(
    rpc: &Rpc,
    to: MemberId,
    member: &Member,
    call: &Call,
    mut again: Duration,
    timeout: Duration,
) -> Result<Answer, CallError> {
    let deadline = Instant::now() + timeout;
    loop {
        let answer = rpc.call(to, member, Lane::Snapshot, call, again).await;
        if !matches!(answer, Err(CallError::Timeout)) || Instant::now() >= deadline {
            return answer;
        }
        // Installing takes longer the more there is; what is sent meanwhile waits there.
        again = (again * 2).min(IDLE_TIMEOUT);
    }
}

/// Reads the frames on a thread that may block. It ends when the transfer does.
fn read_frames(pinned: Arc<PinnedSnapshot>) -> tokio::sync::mpsc::Receiver<Result<Frame, crate::error::EngineError>> {
    let (sender, frames) = tokio::sync::mpsc::channel(WINDOW);
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
