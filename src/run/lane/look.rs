//! What a lane lets others see, for evaluation, replay and reasons. Nothing here changes a state.

use std::sync::Arc;

use super::Lane;
use super::reasons::Tried;
use crate::base::error::Result;
use crate::base::number::{f64_of_count, u32_of};
use crate::base::time::{EventTime, Gap};
use crate::data::events::Column;
use crate::data::flags::Flags;
use crate::data::forecasts::Forecasts;
use crate::data::outputs::Outputs;
use crate::head::Arrivals;
use crate::state::Slot;

/// What a lane knows of the events of a batch beside their forecasts.
#[derive(Clone, Copy)]
pub struct Arrived<'a> {
    /// Their marks, by index.
    pub marks: &'a [Option<u32>],
    /// Their gaps.
    pub gaps: &'a [Option<Gap>],
    /// Their values in the field of which the head has a law; empty without such a law.
    pub values: &'a [f64],
    /// Their fields, in the order of the plan's schema.
    pub columns: &'a [Column],
    /// Their feature rows, one after the other.
    pub rows: &'a [f32],
    /// The parameters that the head has read.
    pub laws: &'a Outputs,
}

/// The law that a key's last event has published.
#[derive(Clone, Copy, Debug)]
pub struct OpenLaw<'a> {
    /// The key.
    pub key: &'a [u8],
    /// When that event was.
    pub last: EventTime,
    /// Parameters of the law.
    pub law: &'a [f32],
}

/// What the model says of an event, in one number that effects can be measured in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effect {
    /// ln of the score's odds.
    LogOdds(f64),
    /// ln of the median gap until the next event, in seconds.
    LogMedian(f64),
}

impl Effect {
    /// The number.
    #[must_use]
    pub fn value(self) -> f64 {
        match self {
            Effect::LogOdds(value) | Effect::LogMedian(value) => value,
        }
    }
}

impl Lane {
    /// What the last `advance` knew of the events of its forecasts, one of each a row, where no key was overdue and nothing was replayed.
    #[must_use]
    pub fn arrived(&self) -> Arrived<'_> {
        let values = self.values();
        Arrived {
            marks: &self.seen.marks,
            gaps: &self.seen.gaps,
            values,
            columns: &self.ready.columns,
            rows: &self.rows,
            laws: &self.outputs,
        }
    }

    /// Values of the ready events in the field of which the head has a law.
    pub(super) fn values(&self) -> &[f64] {
        self.value.and_then(|at| self.ready.columns.get(at)).and_then(Column::numbers).unwrap_or_default()
    }

    /// Hazard and compensator of a row of parameters at each gap after its event.
    pub fn curve(&mut self, law: &[f32], gaps: &[Gap]) -> Vec<(f64, f64)> {
        self.head.curve(law, gaps)
    }

    /// The law that each key's last event has published.
    pub fn open_laws(&self, each: &mut dyn FnMut(OpenLaw<'_>)) {
        let (width, end) = (self.head.width(), self.model.initial_hidden().len());
        for state in self.partitions.iter().filter(|_| self.head.scores_arrivals()) {
            for slot in (0..state.keys.len()).map(|slot| Slot(u32_of(slot))) {
                let hidden = state.keys.hidden.row(slot);
                let law = hidden.get(end.saturating_sub(width)..end);
                if let (Some(meta), Some(key), Some(law)) = (state.keys.metas.row(slot).first(), state.keys.keys.key(slot), law) {
                    each(OpenLaw { key, last: meta.last, law });
                }
            }
        }
    }

    /// Hidden floats of a key: its recurrent tensors, then the law that was published last, if the head has one. `None` for a key without a state.
    #[must_use]
    pub fn hidden_of(&self, key: &[u8]) -> Option<&[f32]> {
        let width = self.model.initial_hidden().len();
        self.partitions.iter().find_map(|state| state.keys.hidden.row(state.keys.keys.find(key)?).get(..width))
    }

    /// Hidden floats of a key that has not been seen.
    #[must_use]
    pub fn initial_hidden(&self) -> &[f32] {
        self.model.initial_hidden()
    }

    /// What the model says of an event with these feature rows, each stepped from `hidden`, with the same gap.
    ///
    /// # Errors
    /// The graph fails to run.
    pub fn try_rows(&mut self, hidden: &[f32], rows: &[f32], gap: Option<Gap>) -> Result<Vec<Option<Effect>>> {
        let count = rows.len() / self.features.width().max(1);
        let mut tried = Tried { width: hidden.len(), hidden: hidden.repeat(count) };
        let mut outputs = Outputs::default();
        self.model.steps(rows, &vec![gap; count], &vec![0; count], &mut tried, &mut outputs)?;
        let mut forecasts = Forecasts { flags: vec![Flags::NONE; count], ..Forecasts::new(Arc::clone(&self.forecasts.identity)) };
        let arrivals = Arrivals {
            times: &vec![EventTime(0); count],
            gaps: &vec![None; count],
            marks: &vec![None; count],
            values: &vec![f64::NAN; count],
        };
        self.head.forecasts(&arrivals, &outputs, &mut forecasts);
        let median = forecasts.identity.quantiles.iter().position(|q| *q == 0.5);
        let effect = |row: usize| {
            let own = outputs.after.get(row * outputs.width..(row + 1) * outputs.width).unwrap_or_default();
            if let Some(odds) = self.head.log_odds(own) {
                return Some(Effect::LogOdds(odds));
            }
            let time = median.and_then(|at| forecasts.next_times.get(at)).and_then(|column| column.get(row)).copied().flatten();
            time.map(|time| Effect::LogMedian(Gap(time.0.max(1)).seconds().ln()))
        };
        Ok((0..count).map(effect).collect())
    }

    /// Bytes of state per key, if there is one.
    #[must_use]
    pub fn bytes_per_key(&self) -> Option<f64> {
        let (keys, bytes) = self.size();
        (keys > 0).then(|| f64_of_count(bytes) / f64_of_count(keys))
    }
}
