//! Exponentially decaying statistics: the O(1) form of a rolling window.
//!
//! With half-life T the weight of an event of age a is 2^(-a/T). The sum over a key's events at time t is
//! S(t) = S(t') 2^(-(t - t')/T) for any earlier t' without events in between, and grows by the value at an event.

use super::Prepared;
use super::recipe::{DecayScale, Spec, Statistic};
use crate::base::number::f32_of;
use crate::base::time::Gap;
use crate::data::events::Events;

impl Prepared {
    /// Decays this column's aggregates over the gap, writes the statistic of the earlier events, then adds this one.
    pub(super) fn decay(&self, events: &Events, row: usize, gap: Option<Gap>, aggregates: &mut [f64], out: &mut [f32]) {
        let Spec::Decay { statistic, scale, .. } = &self.spec else { return };
        let keep = gap.map_or(1.0, |gap| libm::exp2(-gap.seconds() / self.half_life_s));
        let value = match statistic {
            Statistic::Count => 1.0,
            _ => events.columns.get(self.field).and_then(|c| c.numbers()).and_then(|v| v.get(row)).copied().unwrap_or(f64::NAN),
        };
        // A value that is not finite must not stay in the sum for ever.
        let value = value.is_finite().then_some(value);
        let aggregates = aggregates.get_mut(self.aggregate..).unwrap_or_default();
        let number = match (statistic, aggregates) {
            (Statistic::Mean, [sum, count, ..]) => {
                *sum *= keep;
                *count *= keep;
                let mean = if *count > 0.0 { *sum / *count } else { 0.0 };
                if let Some(value) = value {
                    *sum += value;
                    *count += 1.0;
                }
                mean
            }
            (_, [sum, ..]) => {
                *sum *= keep;
                let before = *sum;
                *sum += value.unwrap_or(0.0);
                before
            }
            (_, []) => 0.0,
        };
        let number = match scale {
            DecayScale::Identity => number,
            DecayScale::Log1p => libm::log1p(number.abs()).copysign(number),
        };
        if let Some(cell) = out.get_mut(self.at) {
            *cell = f32_of(number).clamp(f32::MIN, f32::MAX);
        }
    }
}
