//! What a report shows of one key: its last events, the intensity and survival between them, and what a model with attention looked at.

use std::cmp::Reverse;

use super::Watcher;
use crate::base::error::Result;
use crate::base::time::{EventTime, Gap};
use crate::evaluate::history::{Arrival, KeyHistory, Moment};

/// Moments between two of the events.
const MOMENTS: i64 = 24;
const HOUR: f64 = 3600.0;

impl Watcher<'_> {
    /// What is shown of one key.
    pub(super) fn history(&mut self) -> Result<Option<KeyHistory>> {
        // Of several the first by name: the order of a hash map is another in every run.
        let longest = self.histories.iter().max_by_key(|(key, laws)| (laws.len(), Reverse(*key)));
        let law = self.stage.plan.model.as_ref().and_then(|(manifest, _)| manifest.head.law());
        let (Some(law), Some((key, laws))) = (law, longest) else { return Ok(None) };
        let Some(first) = laws.first().map(|law| law.time) else { return Ok(None) };
        let hours = |time: EventTime| time.since(first).seconds() / HOUR;
        let mut history = KeyHistory { key: String::from_utf8_lossy(key).into_owned(), ..KeyHistory::default() };
        for (i, own) in laws.iter().enumerate() {
            let mark = own.mark.and_then(|mark| law.marks.get(crate::base::number::index(mark))).cloned();
            history.events.push(Arrival { hour: hours(own.time), time: own.time.to_string(), surprise: own.surprise, mark });
            let Some(next) = laws.get(i + 1) else { break };
            let whole = next.time.since(own.time).0;
            let gaps: Vec<Gap> = (0..=MOMENTS).map(|i| Gap(whole / MOMENTS * i)).collect();
            for (gap, (intensity, compensator)) in gaps.iter().zip(self.lane.curve(&own.parameters, &gaps)) {
                history.curve.push(Moment { hour: hours(own.time.after(*gap)), intensity, survival: (-compensator).exp() });
            }
        }
        history.attention = self.attention(key, laws.len())?;
        Ok(Some(history))
    }

    /// What the last `shown` events of a key look at: its steps once more, with the weights. A key with more steps than are kept begins in the middle of its past:
    /// a window that lies within them is the same.
    fn attention(&self, key: &[u8], shown: usize) -> Result<Vec<Vec<f32>>> {
        let Some(steps) = self.steps.as_ref().and_then(|steps| steps.get(key)) else { return Ok(Vec::new()) };
        let Some(mut attention) = self.stage.package.attention()? else { return Ok(Vec::new()) };
        let mut weights = steps.iter().map(|(row, gap)| attention.step(row, *gap)).collect::<Result<Vec<_>>>()?;
        Ok(weights.split_off(weights.len().saturating_sub(shown)))
    }
}
