//! Making a store of a backup.

use std::path::Path;
use std::sync::Arc;

use crate::error::EngineError;
use crate::log::alone;
use crate::machine::StateStore;
use crate::snapshot::{ReceivedSnapshot, SnapshotReceiver};
use crate::storage::{Directory, Restoring};

use super::read::Reader;
use super::{About, Progress, damaged};

/// Makes the directory `dir`, which must be missing or empty, a store that holds what the backup in `file`
/// holds: the only member, on `node`, of a new cluster, in a new history. Its id is `store_id`, or else the one that
/// the backup names. The backup is read to its end before anything is made.
///
/// # Errors
/// The backup is damaged ([`EngineError::Corrupt`]), of a newer format, or cannot be read; or the
/// directory cannot be used. It is left as it was then.
pub fn restore(
    file: &Path,
    dir: &Path,
    store_id: Option<&str>,
    node: &str,
    progress: &Progress,
) -> Result<About, EngineError> {
    check(file, progress)?;
    let restoring = Restoring::begin(dir)?;
    let mut reader = Reader::open(file)?;
    let store_id = store_id.unwrap_or(&reader.about.store_id).to_owned();
    let directory = Directory::open(&restoring.staging(), &store_id)?;
    let received = receive(&mut reader, &directory.path, progress)?;
    let me = directory.identity.member_id;
    let (applied, membership) = (alone::restored_id(me), alone::restored_membership(me, node)?);
    StateStore::open(Arc::clone(&directory.db), &directory.path)?.restore(&received, applied, membership)?;
    alone::begin_log(&directory.log(), me, node)?;
    restoring.finish(directory)?;
    Ok(reader.about)
}

/// Reads it all: nobody shall wait long for a directory that then is not to be had.
fn check(file: &Path, progress: &Progress) -> Result<(), EngineError> {
    let mut reader = Reader::open(file)?;
    progress.expect(2 * reader.bytes);
    while let Some(frame) = reader.frame()? {
        progress.add(frame.body.len())?;
    }
    Ok(())
}

fn receive(reader: &mut Reader, dir: &Path, progress: &Progress) -> Result<ReceivedSnapshot, EngineError> {
    let mut receiver = SnapshotReceiver::new(dir)?;
    let mut received = None;
    while let Some(frame) = reader.frame()? {
        progress.add(frame.body.len())?;
        received = receiver.accept(&frame).map_err(|error| damaged(error.to_string()))?;
    }
    received.ok_or_else(|| damaged("it has no end"))
}
