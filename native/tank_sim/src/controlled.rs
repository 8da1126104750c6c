//! Any disk, with a test's hand on its syncs and reads.

use std::io;
use std::ops::Range;

use tank_engine::command::{Request, RequestId};
use tank_engine::error::EngineError;
use tank_engine::log::disk::{LogDisk, LogWrite, Recovered};
use tank_engine::raft::LogEntry;

use crate::control::Control;

/// A disk whose syncs a [`Control`] counts, holds back or lets fail. What is held back or fails is
/// not written at all: that is one of the things a failed write may have done.
#[derive(Debug)]
pub struct Controlled<D> {
    disk: D,
    control: Control,
}

impl<D> Controlled<D> {
    /// `disk`, controlled by `control`.
    pub fn new(disk: D, control: Control) -> Self {
        Self { disk, control }
    }
}

impl<D: LogDisk> LogDisk for Controlled<D> {
    fn recover(&self) -> Result<Recovered, EngineError> {
        self.disk.recover()
    }

    fn write(&self, writes: &[LogWrite]) -> io::Result<()> {
        self.control.sync(|| self.disk.write(writes))
    }

    fn next_takes_long(&self) -> bool {
        self.disk.next_takes_long()
    }

    fn bytes(&self) -> u64 {
        self.disk.bytes()
    }

    fn stage(&self, request: &Request) {
        self.disk.stage(request);
    }

    fn unstage(&self, id: RequestId) {
        self.disk.unstage(id);
    }

    fn end_staging(&self) {
        self.disk.end_staging();
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<LogEntry>> {
        self.control.read(|| self.disk.read(range, bytes_max))
    }
}
