//! One key's state, for people.

use super::decode::{Rows, damaged, open};
use super::found::Found;
use crate::base::error::Result;
use crate::base::offset::Partition;
use crate::base::time::EventTime;
use crate::data::events::Events;

/// What a snapshot holds of one key.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyState {
    /// Time of its last event; none if it has only held events.
    pub last: Option<EventTime>,
    /// Events so far.
    pub events: u64,
    /// Name and values of each state tensor, then of the law.
    pub tensors: Vec<(String, Vec<f32>)>,
    /// Numbers of the recipe's decaying columns.
    pub aggregates: Vec<f64>,
    /// When the key will be overdue: index into `[forecast] overdue`, and the time.
    pub overdue: Vec<(usize, EventTime)>,
    /// Events that wait for earlier ones.
    pub held: Events,
}

impl Found {
    /// The state of one key; `None` if the snapshot does not know it.
    ///
    /// # Errors
    /// A file holds something else than its header says.
    pub fn key(&self, key: &[u8]) -> Result<Option<KeyState>> {
        let mut found: Option<KeyState> = None;
        let mut hidden = Vec::new();
        for (position, part) in self.chain.iter().enumerate() {
            for batch in open(&self.columns, &part.manifest.header, &part.bytes).map_err(damaged)? {
                let batch = batch.map_err(|e| damaged(e.to_string()))?;
                let rows = Rows::new(&self.columns, &batch)?;
                for row in (0..rows.len()).filter(|row| rows.keys.value(*row) == key) {
                    if position == 0 {
                        let mut held = self.columns.no_events();
                        rows.held(row, Partition(part.manifest.header.partition), &mut held)?;
                        found.get_or_insert_with(|| self.unknown()).held = held;
                    }
                    if rows.is_forgotten(row) {
                        return Ok(found);
                    }
                    let Some(state) = rows.state(row, &mut hidden) else { continue };
                    let known = found.get_or_insert_with(|| self.unknown());
                    known.last = Some(state.last);
                    known.events = state.events;
                    known.aggregates = state.aggregates.to_vec();
                    known.overdue = rows.timers(row)?.into_iter().map(|(timer, due, _)| (timer, due)).collect();
                    let mut values = hidden.iter().copied();
                    let tensors = self.columns.tensors.iter();
                    known.tensors = tensors.map(|(name, width)| (name.clone(), values.by_ref().take(*width).collect())).collect();
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    fn unknown(&self) -> KeyState {
        KeyState { last: None, events: 0, tensors: Vec::new(), aggregates: Vec::new(), overdue: Vec::new(), held: self.columns.no_events() }
    }
}
