//! A snapshot that was found and checked, with all files of its chain: to load, to merge, to look into.

use std::sync::Arc;

use super::columns::Columns;
use super::decode::{Rows, damaged, held, open};
use super::manifest::{Manifest, Migrated};
use super::merge;
use crate::base::error::{Error, Result};
use crate::base::number::u32_of;
use crate::base::offset::Offset;
use crate::base::time::EventTime;
use crate::data::held::Held;
use crate::state::{KeyMeta, KeyStates, KeyTable, Slot, Watched};

/// A file of a chain with its manifest.
#[derive(Debug)]
pub(super) struct Part {
    pub manifest: Manifest,
    pub bytes: Vec<u8>,
}

/// A usable snapshot: what it says of itself, and its chain in memory.
#[derive(Debug)]
pub struct Found {
    /// The state contains every record below it.
    pub offset: Offset,
    /// What was noted when it was taken.
    pub note: String,
    /// Keys of the state.
    pub keys: usize,
    /// Files of the chain.
    pub files: usize,
    /// Bytes of those files.
    pub bytes: u64,
    pub(super) columns: Arc<Columns>,
    /// The snapshot, its base, the base of that, down to a full one.
    pub(super) chain: Vec<Part>,
}

impl Found {
    pub(super) fn new(columns: Arc<Columns>, chain: Vec<Part>) -> Result<Self> {
        let newest = &chain.first().ok_or_else(|| Error::internal("state", "a chain has no files"))?.manifest.header;
        Ok(Found {
            offset: Offset(newest.offset),
            note: newest.note.clone(),
            keys: usize::try_from(newest.keys).unwrap_or(usize::MAX),
            files: chain.len(),
            bytes: chain.iter().map(|part| part.manifest.bytes).sum(),
            columns,
            chain,
        })
    }

    /// Fills empty key states, bit for bit as they were cut (slots may differ, and nothing depends on them), and gives what event-time
    /// order goes on from.
    ///
    /// # Errors
    /// The states are not empty or of other widths, or a file holds something else than its header says.
    pub fn load(self, keys: &mut KeyStates) -> Result<Held> {
        let columns = &self.columns;
        if !keys.is_empty() || keys.hidden.width() != columns.hidden() || keys.aggregates.width() != columns.aggregates {
            return Err(Error::internal("state", "a snapshot is loaded into empty states of its own widths"));
        }
        let newest = self.newest()?;
        keys.keys.reserve(self.keys);
        let mut hidden = Vec::with_capacity(columns.hidden());
        let mut forgotten = KeyTable::new();
        // From the newest file to the oldest: the first row that says something of a key's state is the one that holds.
        for part in &self.chain {
            for batch in open(columns, &part.manifest.header, &part.bytes).map_err(damaged)? {
                let batch = batch.map_err(|e| damaged(e.to_string()))?;
                let rows = Rows::new(columns, &batch)?;
                for row in 0..rows.len() {
                    if rows.is_forgotten(row) {
                        forgotten.intern(rows.keys.value(row));
                    }
                    let Some(state) = rows.state(row, &mut hidden) else { continue };
                    if (forgotten.is_empty() || forgotten.find(state.key).is_none()) && keys.keys.intern(state.key).1 {
                        keys.metas.push(&[KeyMeta { last: state.last, events: state.events, ..KeyMeta::default() }]);
                        keys.hidden.push(&hidden);
                        keys.aggregates.push(state.aggregates);
                        keys.timers.push();
                        let timers = rows.timers(row)?;
                        if let Some((_, _, offset)) = timers.first() {
                            let after = Watched { offset: *offset, time: state.last, events: state.events };
                            let due = |timer| timers.iter().find(|(which, ..)| *which == timer).map(|(_, due, _)| *due);
                            keys.timers.set(Slot(u32_of(keys.metas.len() - 1)), after, (0..).map(due));
                        }
                    }
                }
            }
        }
        if keys.len() != self.keys {
            return Err(damaged(format!("its chain has {} keys, its header says {}", keys.len(), self.keys)));
        }
        keys.mark_clean();
        let header = &newest.manifest.header;
        Ok(Held { events: held(columns, header, &newest.bytes)?, watermark: header.watermark })
    }

    /// The whole state as one Arrow IPC file: of a full snapshot its own, of a chain a merged one.
    ///
    /// # Errors
    /// A file holds something else than its header says.
    pub fn merged(&self) -> Result<Vec<u8>> {
        match self.chain.as_slice() {
            [only] => Ok(only.bytes.clone()),
            chain => Ok(merge::merge(&self.columns, chain)?.1.bytes),
        }
    }

    /// Where its states come from, if they were another model's at the bottom of its chain or are so here.
    #[must_use]
    pub fn migrated(&self) -> Option<&Migrated> {
        self.chain.iter().find_map(|part| part.manifest.header.migrated.as_ref())
    }

    /// When it was written.
    #[must_use]
    pub fn written(&self) -> Option<EventTime> {
        self.chain.first().map(|part| part.manifest.header.written)
    }

    /// Events that are held back.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.chain.first().map_or(0, |part| part.manifest.header.held)
    }

    pub(super) fn newest(&self) -> Result<&Part> {
        self.chain.first().ok_or_else(|| Error::internal("state", "a chain has no files"))
    }
}
