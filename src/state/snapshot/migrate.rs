//! The states of one model as those of another: key by key, nothing is computed.

use super::columns::Columns;
use super::found::Found;
use crate::base::error::{Error, Result};
use crate::base::number::u32_of;
use crate::data::events::{Column, Events};
use crate::data::held::Held;
use crate::state::{KeyStates, Slot};

/// A stretch of the new hidden floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// As many floats of the old ones, from this one on.
    Kept {
        /// First of them.
        from: usize,
        /// How many.
        floats: usize,
    },
    /// As for a key that has not been seen.
    Anew {
        /// How many.
        floats: usize,
    },
}

/// What becomes of each key. The time of its last event, its count of events and its timers always stay: they say what has happened, and what was said
/// to be overdue of a forecast that was published.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// The hidden floats, in the order of the new model's.
    pub hidden: Vec<Part>,
    /// What the new model's hidden floats are for a key that has not been seen.
    pub init: Vec<f32>,
    /// Of each of the new recipe's aggregates, which of the old ones it is; `None`: begins at 0.
    pub aggregates: Vec<Option<usize>>,
    /// Timers a key.
    pub timers: usize,
    /// Of each field of the new pipeline's events, which of the old ones it is.
    pub fields: Vec<Option<usize>>,
}

impl Found {
    /// Its states as those of another model, and its held events with the fields that the other one reads.
    ///
    /// # Errors
    /// A file holds something else than its header says, or the change does not fit to the columns; a field that is not there is wanted of events that are
    /// held back.
    pub fn changed(self, change: &Change, to: &Columns) -> Result<(KeyStates, Held)> {
        let from = (*self.columns).clone();
        let mut old = KeyStates::new(&vec![0.0; from.hidden()], from.aggregates, change.timers);
        let held = self.load(&mut old)?;
        let held = Held { events: change.events(&held.events, to)?, watermark: held.watermark };
        let floats: usize = change.hidden.iter().map(|part| part.floats()).sum();
        if floats != to.hidden() || change.init.len() != floats || change.aggregates.len() != to.aggregates {
            return Err(Error::internal("state", "a change of other widths than the new model's"));
        }
        let mut new = KeyStates::new(&change.init, to.aggregates, change.timers);
        new.keys.reserve(old.len());
        for slot in (0..old.len()).map(|slot| Slot(u32_of(slot))) {
            let Some(key) = old.keys.key(slot) else { continue };
            let own = new.intern(key);
            new.metas.row_mut(own).copy_from_slice(old.metas.row(slot));
            change.copy(old.hidden.row(slot), new.hidden.row_mut(own));
            let aggregates = old.aggregates.row(slot);
            for (to, from) in new.aggregates.row_mut(own).iter_mut().zip(&change.aggregates) {
                *to = from.and_then(|from| aggregates.get(from)).copied().unwrap_or(0.0);
            }
            let due: Vec<_> = old.timers.of(slot).collect();
            if !due.is_empty() {
                let of = |timer| due.iter().find(|(which, _)| *which == timer).map(|(_, due)| *due);
                new.timers.set(own, old.timers.watched(slot), (0..).map(of));
            }
        }
        Ok((new, held))
    }
}

impl Part {
    fn floats(self) -> usize {
        match self {
            Part::Kept { floats, .. } | Part::Anew { floats } => floats,
        }
    }
}

impl Change {
    fn copy(&self, old: &[f32], new: &mut [f32]) {
        let mut at = 0;
        for part in &self.hidden {
            let floats = part.floats();
            if let Part::Kept { from, .. } = part
                && let (Some(new), Some(old)) = (new.get_mut(at..at + floats), old.get(*from..from + floats))
            {
                new.copy_from_slice(old);
            }
            at += floats;
        }
    }

    fn events(&self, old: &Events, to: &Columns) -> Result<Events> {
        let columns: Option<Vec<Column>> = self.fields.iter().map(|from| old.columns.get((*from)?).cloned()).collect();
        match columns {
            Some(columns) => Ok(Events { columns, ..old.clone() }),
            None if old.is_empty() => Ok(to.no_events()),
            None => Err(Error::internal("state", "a field of held events that was not read")),
        }
    }
}
