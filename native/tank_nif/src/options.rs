//! Decodes the options of a store. Elixir has checked them; a wrong one here is a bug there.

use rustler::{Atom, Decoder, Error, NifResult, Term};
use tank_engine::options::{First, Formation, Opening, Options};
use tank_engine::storage::{Expected, FileSystem};
use tank_engine::types::random_id;

use crate::atoms;

/// The options in `map`: `dir`, `store_id` and `node` as binaries; the others are positive
/// integers, and those that are missing keep the engine's defaults. `joining` is the id of the
/// cluster that a new member is to join, as a witness when `witness` is there; `alone` is there when the member shall become a cluster of
/// its own; without either, a new directory is a new cluster's.
pub(crate) fn decode(map: Term<'_>) -> NifResult<Options> {
    let dir: String = required(map, atoms::dir())?;
    let mut options = Options::new(dir, required::<String>(map, atoms::store_id())?);
    options.node = required(map, atoms::node())?;
    set(&mut options.in_flight_max, map, atoms::in_flight_max())?;
    set(&mut options.in_flight_bytes_max, map, atoms::in_flight_bytes_max())?;
    set(&mut options.value_bytes_max, map, atoms::value_bytes_max())?;
    set(&mut options.txn_bytes_max, map, atoms::txn_bytes_max())?;
    set(&mut options.txn_operations_max, map, atoms::txn_operations_max())?;
    set(&mut options.keys.component_bytes_max, map, atoms::path_component_bytes_max())?;
    set(&mut options.keys.path_bytes_max, map, atoms::path_bytes_max())?;
    set(&mut options.memory_bytes_max, map, atoms::memory_bytes_max())?;
    set(&mut options.history_revisions, map, atoms::history_revisions())?;
    set(&mut options.history_age_ms, map, atoms::history_age_ms())?;
    set(&mut options.watch_buffer_bytes_max, map, atoms::watch_buffer_bytes_max())?;
    let timing = &mut options.timing;
    set(&mut timing.heartbeat_interval_ms, map, atoms::heartbeat_interval_ms())?;
    set(&mut timing.election_timeout_ms, map, atoms::election_timeout_ms())?;
    set(&mut timing.snapshot_interval_entries, map, atoms::snapshot_interval_entries())?;
    set(&mut timing.log_retention_entries, map, atoms::log_retention_entries())?;
    set(&mut timing.purge_batch, map, atoms::purge_batch())?;
    set(&mut timing.segment_bytes, map, atoms::segment_bytes())?;
    set(&mut timing.checkpoint_bytes, map, atoms::checkpoint_bytes())?;
    if let Ok(cluster_id) = map.map_get(atoms::joining()) {
        let member_id = random_id().map_err(|error| Error::Term(Box::new(error.to_string())))?;
        options.formation = Formation::Joining { cluster_id: cluster_id.decode()?, member_id };
    }
    options.witness = map.map_get(atoms::witness()).is_ok();
    if map.map_get(atoms::alone()).is_ok() {
        let cluster_id = random_id().map_err(|error| Error::Term(Box::new(error.to_string())))?;
        options.formation = Formation::ForceNew { cluster_id };
    }
    options.opening = opening(map)?;
    Ok(options)
}

/// What [`Expected`] is in Elixir.
pub(crate) type ExpectedTerm = (Option<u64>, u64, (u64, u64));

/// What a directory must hold when it is opened again, for Elixir to keep.
pub(crate) fn expected_term(expected: Expected) -> ExpectedTerm {
    let Expected { cluster_id, member_id, file_system } = expected;
    (cluster_id, member_id, (file_system.device, file_system.id))
}

fn opening(map: Term<'_>) -> NifResult<Opening> {
    if let Ok(again) = map.map_get(atoms::again()) {
        let again: Vec<ExpectedTerm> = again.decode()?;
        let expected = again.into_iter().map(|(cluster_id, member_id, (device, id))| Expected {
            cluster_id,
            member_id,
            file_system: FileSystem { device, id },
        });
        return Ok(Opening::Again(expected.collect()));
    }
    let may_create: bool = required(map, atoms::create())?;
    Ok(Opening::First(if may_create { First::MayCreate } else { First::MustExist }))
}

fn required<'a, T: Decoder<'a>>(map: Term<'a>, key: Atom) -> NifResult<T> {
    map.map_get(key).map_err(|_| Error::BadArg)?.decode()
}

fn set<'a, T: Decoder<'a>>(target: &mut T, map: Term<'a>, key: Atom) -> NifResult<()> {
    if let Ok(value) = map.map_get(key) {
        *target = value.decode()?;
    }
    Ok(())
}
