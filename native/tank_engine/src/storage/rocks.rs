//! RocksDB: its settings and its column families.
//!
//! | column family | key | value |
//! |---|---|---|
//! | `state_<generation>` | first byte tells the kind | state record ([`crate::machine`]) |
//! | `meta` | a name | MessagePack |
//!
//! Nothing is written to RocksDB's write-ahead log. The state is put in place in files that are durable
//! (`tables.rs`), `meta` is flushed after each write.

use std::path::Path;
use std::sync::Arc;

use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DBCompressionType, DBWithThreadMode,
    MultiThreaded, Options, WriteOptions,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::EngineError;

use super::format::Identity;

/// The database. Column families are made and dropped while it is open.
pub type Db = DBWithThreadMode<MultiThreaded>;

/// Its directory, in a store's.
pub(crate) const DIR: &str = "db";

/// The column family of single values.
pub const META: &str = "meta";

/// The one that RocksDB insists on. It stays empty.
const DEFAULT: &str = rocksdb::DEFAULT_COLUMN_FAMILY_NAME;

const IDENTITY: &str = "identity";
const GENERATION: &str = "generation";
const JOINS: &str = "joins";
const IS_TO_VOTE: &str = "is_to_vote";

const MIB: usize = 1 << 20;

/// Opens the database in `dir`; `create` makes it.
///
/// # Errors
/// [`EngineError::Corrupt`] for a database that is missing or damaged.
pub fn open(dir: &Path, create: bool) -> Result<Db, EngineError> {
    open_through(dir, dir, create)
}

/// As [`open`], by the way `through` to the directory, which errors call `dir`.
pub(super) fn open_through(through: &Path, dir: &Path, create: bool) -> Result<Db, EngineError> {
    let path = through.join(DIR);
    let failed = |error: rocksdb::Error| EngineError::from_rocks(dir, &error);
    let options = db_options(create);
    let names = if create {
        vec![DEFAULT.to_owned(), META.to_owned(), state_name(0)]
    } else {
        super::framing::check(&path, dir)?;
        Db::list_cf(&options, &path).map_err(failed)?
    };
    if !names.iter().any(|name| name == META) {
        let detail = format!("the column family {META} is missing");
        return Err(EngineError::Corrupt { what: "database", detail });
    }
    let db = open_families(&options, &path, &names).map_err(failed)?;
    if create {
        write_meta(&db, dir, GENERATION, &0u64)?;
    }
    Ok(db)
}

fn open_families(options: &Options, path: &Path, names: &[String]) -> Result<Db, rocksdb::Error> {
    let cache = Cache::new_lru_cache(16 * MIB);
    let family = |name: &String| ColumnFamilyDescriptor::new(name, family_options(name, &cache));
    Db::open_cf_descriptors(options, path, names.iter().map(family))
}

/// The name of the state's column family of a generation: a snapshot that is installed makes the
/// next one.
pub fn state_name(generation: u64) -> String {
    format!("state_{generation}")
}

/// Settings for a new column family of the state.
pub fn state_options() -> Options {
    family_options(&state_name(0), &Cache::new_lru_cache(16 * MIB))
}

/// A handle on a column family.
///
/// # Errors
/// There is none of that name.
pub fn family<'db>(db: &'db Db, name: &str) -> Result<Arc<BoundColumnFamily<'db>>, EngineError> {
    db.cf_handle(name).ok_or_else(|| EngineError::Corrupt {
        what: "database",
        detail: format!("the column family {name} is missing"),
    })
}

/// Which generation of the state counts.
///
/// # Errors
/// It cannot be read.
pub fn generation(db: &Db) -> Result<u64, EngineError> {
    read_meta(db, GENERATION)?.ok_or_else(|| missing(GENERATION))
}

/// Makes `generation` the one that counts, durably, in the database of the store in `dir`.
///
/// # Errors
/// The disk's.
pub fn set_generation(db: &Db, dir: &Path, generation: u64) -> Result<(), EngineError> {
    write_meta(db, dir, GENERATION, &generation)?;
    flush_meta(db, dir)
}

/// Notes whose a new database is, and whether of a member that was made to join a cluster.
pub(super) fn begin(db: &Db, dir: &Path, identity: &Identity, joins: bool) -> Result<(), EngineError> {
    if joins {
        write_meta(db, dir, JOINS, &true)?;
    }
    write_identity(db, dir, identity)
}

pub(super) fn write_identity(db: &Db, dir: &Path, identity: &Identity) -> Result<(), EngineError> {
    write_meta(db, dir, IDENTITY, identity)?;
    flush_meta(db, dir)
}

pub(super) fn read_identity(db: &Db) -> Result<Identity, EngineError> {
    read_meta(db, IDENTITY)?.ok_or_else(|| missing(IDENTITY))
}

/// A value of the column family `meta`.
///
/// # Errors
/// It cannot be read or decoded.
pub fn read_meta<T: DeserializeOwned>(db: &Db, name: &str) -> Result<Option<T>, EngineError> {
    let bytes =
        db.get_pinned_cf(&family(db, META)?, name).map_err(|error| EngineError::from_rocks_read("database", &error))?;
    bytes.map(|bytes| decode(&bytes)).transpose()
}

/// Whether the database is of a member that was made to join a cluster.
///
/// # Errors
/// It cannot be read.
pub(super) fn read_joins(db: &Db) -> Result<bool, EngineError> {
    Ok(read_meta(db, JOINS)?.unwrap_or(false))
}

/// Notes, durably, whether the member is a learner that is to vote.
///
/// # Errors
/// The disk's.
pub(crate) fn write_is_to_vote(db: &Db, dir: &Path, is_to_vote: bool) -> Result<(), EngineError> {
    write_meta(db, dir, IS_TO_VOTE, &is_to_vote)?;
    flush_meta(db, dir)
}

/// Whether the member was noted to be a learner that is to vote.
///
/// # Errors
/// It cannot be read.
pub(crate) fn read_is_to_vote(db: &Db) -> Result<bool, EngineError> {
    Ok(read_meta(db, IS_TO_VOTE)?.unwrap_or(false))
}

/// MessagePack of a value.
///
/// # Errors
/// None that is known of, for the types used here.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, EngineError> {
    rmp_serde::to_vec(value).map_err(|error| EngineError::Storage(format!("encoding: {error}")))
}

/// Adds the MessagePack of a value to `bytes`.
///
/// # Errors
/// None that is known of, for the types used here.
pub(crate) fn encode_into<T: Serialize + ?Sized>(bytes: &mut Vec<u8>, value: &T) -> Result<(), EngineError> {
    rmp_serde::encode::write(bytes, value).map_err(|error| EngineError::Storage(format!("encoding: {error}")))
}

/// A value of its MessagePack.
///
/// # Errors
/// The bytes are not one.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, EngineError> {
    rmp_serde::from_slice(bytes).map_err(undecoded)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` calls")]
fn undecoded(error: rmp_serde::decode::Error) -> EngineError {
    EngineError::Corrupt { what: "database", detail: format!("decoding: {error}") }
}

/// Decodes values whose MessagePack stands one after the other.
pub(crate) struct Decoder<'a>(rmp_serde::Deserializer<rmp_serde::decode::ReadReader<&'a [u8]>>);

impl<'a> Decoder<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(rmp_serde::Deserializer::new(bytes))
    }

    /// The next value.
    ///
    /// # Errors
    /// The bytes that are left do not begin with one.
    pub(crate) fn decode<T: DeserializeOwned>(&mut self) -> Result<T, EngineError> {
        T::deserialize(&mut self.0).map_err(undecoded)
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.0.get_ref().is_empty()
    }
}

fn write_meta<T: Serialize>(db: &Db, dir: &Path, name: &str, value: &T) -> Result<(), EngineError> {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    let written = db.put_cf_opt(&family(db, META)?, name, encode(value)?, &options);
    written.map_err(|error| EngineError::from_rocks(dir, &error))
}

fn flush_meta(db: &Db, dir: &Path) -> Result<(), EngineError> {
    let flushed = db.flush_cf(&family(db, META)?);
    flushed.map_err(|error| EngineError::from_rocks(dir, &error))
}

fn missing(name: &str) -> EngineError {
    EngineError::Corrupt { what: "database", detail: format!("{name} is missing") }
}

fn db_options(create: bool) -> Options {
    let mut options = Options::default();
    options.create_if_missing(create);
    options.create_missing_column_families(create);
    options.set_paranoid_checks(true);
    options.set_max_open_files(256);
    options.set_max_background_jobs(2);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(4 * MIB);
    options.set_stats_dump_period_sec(0);
    options.set_manifest_preallocation_size(64 << 10);
    options
}

fn family_options(name: &str, cache: &Cache) -> Options {
    let mut options = Options::default();
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_format_version(5);
    options.set_block_based_table_factory(&blocks);
    // Next to nothing is written to a buffer.
    options.set_write_buffer_size(MIB);
    if ![META, DEFAULT].contains(&name) {
        options.set_compression_type(DBCompressionType::Lz4);
    }
    options
}
