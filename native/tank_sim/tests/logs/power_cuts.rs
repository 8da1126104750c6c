//! Random writes to the log, and power cuts between and within them: all that was acknowledged is
//! there afterwards, and nothing that was never written.
//!
//! `TANK_SEED` chooses the first seed; a failing one is printed.

use std::path::Path;
use std::sync::Arc;

use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use tank_engine::health::Health;
use tank_engine::log::disk::LogWrite;
use tank_engine::log::{LogCloser, LogStore};
use tank_engine::raft::Types;
use tank_sim::contents::Contents;
use tank_sim::disk::Tear;
use tank_sim::{Rng, SimDisk, rng};

use crate::support::{acknowledged, block_on, entries, log_id, vote};

const SEEDS: u64 = 300;
const CUTS: u64 = 5;
const STEPS: usize = 12;

/// What may be on the disk: one state for each single thing that was written, in order.
struct Model {
    states: Vec<Contents>,
    /// From this one on: all before were acknowledged to be gone over.
    acknowledged: usize,
}

impl Model {
    fn now(&self) -> &Contents {
        self.states.last().unwrap()
    }

    fn wrote(&mut self, write: &LogWrite) {
        let mut next = self.now().clone();
        next.apply(write).unwrap();
        self.states.push(next);
    }

    /// Goes on from what a power cut left; says what is wrong with it.
    fn survived(&mut self, found: &Contents) -> Result<(), String> {
        let place = (self.acknowledged..self.states.len()).find(|&at| self.states[at] == *found);
        let Some(place) = place else {
            let wanted = &self.states[self.acknowledged..];
            return Err(format!("found {found:?}, which is none of the {} possible: {wanted:?}", wanted.len()));
        };
        self.states.truncate(place + 1);
        self.acknowledged = place;
        Ok(())
    }
}

fn open(disk: &SimDisk) -> (LogStore<SimDisk>, LogCloser) {
    let health = Arc::new(Health::new(Box::new(|_| {})));
    LogStore::open(disk.clone(), Path::new("simulated"), &health).unwrap()
}

/// One random write. Waits for it unless the syncs are held back.
async fn step(log: &mut LogStore<SimDisk>, model: &mut Model, rng: &mut Rng, term: u64, held: bool) {
    let last = model.now().recover().unwrap().last.map(|id| id.index());
    match rng.below(8) {
        0 if !held => {
            log.save_vote(&vote(term)).await.unwrap();
            model.wrote(&LogWrite::Vote(vote(term)));
            model.acknowledged = model.states.len() - 1;
        }
        1 => {
            log.save_committed(last.map(|index| log_id(term, index))).await.unwrap();
            model.wrote(&LogWrite::Committed(last.map(|index| log_id(term, index))));
        }
        2 if !held && !model.now().entries.is_empty() => {
            let at = rng.below(model.now().entries.len());
            let id = model.now().entries.values().nth(at).unwrap().log_id();
            // No leader removes what is committed, and the log refuses it.
            let committed = model.now().recover().unwrap().committed.map(|id| id.index());
            if committed > Some(id.index()) {
                return;
            }
            log.truncate_after(Some(id)).await.unwrap();
            model.wrote(&LogWrite::TruncateFrom(id.index() + 1));
            model.acknowledged = model.states.len() - 1;
        }
        3 if !model.now().entries.is_empty() => {
            let at = rng.below(model.now().entries.len());
            let id = model.now().entries.values().nth(at).unwrap().log_id();
            log.purge(id).await.unwrap();
            model.wrote(&LogWrite::Purge(id));
        }
        _ => {
            let start = last.map_or(0, |index| index + 1);
            let new = entries(term, start..start + 1 + rng.below(5) as u64);
            let (sender, receiver) = Types::oneshot();
            // It would wait as well.
            if !held && rng.below(2) == 0 {
                log.at_once().ask();
            }
            log.append(new.clone(), IOFlushed::signal(sender)).await.unwrap();
            for entry in new {
                model.wrote(&LogWrite::Append(vec![entry]));
            }
            if !held {
                acknowledged(receiver).await.unwrap();
                model.acknowledged = model.states.len() - 1;
            }
        }
    }
}

/// Runs one seed; the error says what was lost.
async fn run(seed: u64, mut disk: SimDisk) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let mut model = Model { states: vec![Contents::default()], acknowledged: 0 };
    for term in 1..=CUTS {
        let (mut log, closer) = open(&disk);
        let found: Vec<_> = log.try_get_log_entries(..).await.unwrap();
        assert_eq!(found, model.now().entries.values().cloned().collect::<Vec<_>>(), "seed {seed}");
        let (free, held_steps) = (rng.below(STEPS), rng.below(STEPS));
        for _ in 0..free {
            step(&mut log, &mut model, &mut rng, term, false).await;
        }
        let held = disk.control().hold();
        for _ in 0..held_steps {
            step(&mut log, &mut model, &mut rng, term, true).await;
        }
        // The writer may be anywhere: before, in or behind the sync that is held back.
        let after = disk.crash(Tear::Prefix(&mut rng));
        drop(held);
        drop(log);
        closer.join();
        disk = after;
        model.survived(&disk.durable())?;
    }
    Ok(())
}

#[test]
fn what_was_acknowledged_survives_power_cuts() {
    let first = rng::seed("TANK_SEED", 1);
    block_on(async {
        for seed in first..first + SEEDS {
            run(seed, SimDisk::new()).await.unwrap_or_else(|lost| panic!("TANK_SEED={seed}: {lost}"));
        }
    });
    eprintln!("{SEEDS} seeds from {first}, {CUTS} power cuts each");
}

#[test]
fn a_disk_that_lies_about_syncs_is_caught() {
    let first = rng::seed("TANK_SEED", 1);
    let caught = block_on(async {
        let mut caught = 0;
        for seed in first..first + 20 {
            caught += usize::from(run(seed, SimDisk::lying()).await.is_err());
        }
        caught
    });
    eprintln!("lost writes were seen in {caught} of 20 seeds");
    assert!(caught >= 15, "the test must see lost writes: it saw them in {caught} of 20 seeds");
}
