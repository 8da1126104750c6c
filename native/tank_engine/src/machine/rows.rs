//! Rows of the state's column family, to be put there all at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::entry::Entry;
use crate::error::EngineError;
use crate::storage::Tables;
use crate::storage::rocks;

use super::store::damaged;

/// Rows by their keys.
#[derive(Default)]
pub(super) struct Rows(BTreeMap<Vec<u8>, Row>);

enum Row {
    Value(Vec<u8>),
    /// The entry's record.
    Entry(Arc<Entry>),
    /// There is none any more.
    Removed,
}

impl Rows {
    pub(super) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.0.insert(key, Row::Value(value));
    }

    pub(super) fn put_entry(&mut self, key: Vec<u8>, entry: &Arc<Entry>) {
        self.0.insert(key, Row::Entry(Arc::clone(entry)));
    }

    /// Puts the MessagePack of a value.
    pub(super) fn encode<T: Serialize + ?Sized>(&mut self, key: Vec<u8>, value: &T) -> Result<(), EngineError> {
        let mut bytes = Vec::new();
        rocks::encode_into(&mut bytes, value)?;
        self.put(key, bytes);
        Ok(())
    }

    /// Removes a row that is on the disk.
    pub(super) fn remove(&mut self, key: Vec<u8>) {
        self.0.insert(key, Row::Removed);
    }

    /// Takes out a row that was put here.
    pub(super) fn take_out(&mut self, key: &[u8]) {
        self.0.remove(key);
    }

    /// Writes them, in order.
    pub(super) fn write(&self, tables: &mut Tables) -> Result<(), EngineError> {
        let mut record = Vec::new();
        for (key, row) in &self.0 {
            match row {
                Row::Value(value) => tables.put(key, value)?,
                Row::Removed => tables.remove(key)?,
                Row::Entry(entry) => {
                    let payload = entry.payload.peek();
                    let payload = payload.ok_or_else(|| damaged("a new entry without its payload".to_owned()))?;
                    record.clear();
                    entry.write_record(&payload, &mut record);
                    tables.put(key, &record)?;
                }
            }
        }
        Ok(())
    }
}
