//! A chain to one full file, from its files alone: no lane waits for it.

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;

use super::columns::Columns;
use super::decode::{Rows, damaged, held, open};
use super::encode::{Encoded, File, Groups, arrow};
use super::found::Part;
use super::manifest::{Header, Kind};
use crate::base::clock;
use crate::base::error::{Error, Result};
use crate::state::KeyTable;

/// Merges a chain, its newest file first. The header is that of a full snapshot at the newest one's offset.
pub(super) fn merge(columns: &Columns, chain: &[Part]) -> Result<(Header, Encoded)> {
    let newest = chain.first().ok_or_else(|| Error::internal("state", "a chain has no files"))?;
    let header = Header { kind: Kind::Full, base: None, written: clock::now(), migrated: None, ..newest.manifest.header.clone() };
    let events = held(columns, &newest.manifest.header, &newest.bytes)?;
    let mut held = Groups::new(&events);
    let size: usize = chain.iter().map(|part| part.bytes.len()).sum();
    let mut file = File::begin(columns, &header, size)?;
    // Keys whose newest row has been written.
    let mut seen = KeyTable::new();
    for (position, part) in chain.iter().enumerate() {
        let last = position + 1 == chain.len();
        for batch in open(columns, &part.manifest.header, &part.bytes).map_err(damaged)? {
            let batch = batch.map_err(|e| damaged(e.to_string()))?;
            let rows = Rows::new(columns, &batch)?;
            // No file has a state of one key twice, so the keys of the oldest need not be remembered.
            let mut wanted = |row: usize| {
                let key = rows.keys.value(row);
                if rows.is_forgotten(row) {
                    seen.intern(key);
                }
                rows.has_state(row) && if last { seen.find(key).is_none() } else { seen.intern(key).1 }
            };
            let mask: BooleanArray = (0..rows.len()).map(|row| Some(wanted(row))).collect();
            let kept = if mask.true_count() == rows.len() { batch.clone() } else { filter_record_batch(&batch, &mask).map_err(arrow)? };
            if kept.num_rows() == 0 {
                continue;
            }
            let rows = Rows::new(columns, &kept)?;
            let column = held.column(columns, (0..rows.len()).map(|row| rows.keys.value(row)))?;
            let mut arrays = kept.columns().to_vec();
            if let Some(last) = arrays.last_mut() {
                *last = column;
            }
            file.write(arrays)?;
        }
    }
    file.write_rest(columns, held)?;
    Ok((header, file.end()?))
}
