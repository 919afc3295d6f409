//! A reading against its key's own earlier readings, in O(1) state: how many of their standard deviations it lies off their mean.
//!
//! Mean and variance forget exponentially by readings, not by time: with memory M the weight of a reading that is n readings old is 2^(-n/M). With the
//! weight w of all, which tends to 1 / (1 - 2^(-1/M)), West's update (Communications of the ACM 1979) is mean += d / w, M2 = 2^(-1/M) M2 + d (y - mean),
//! where d = y - mean before. Few readings say little of how far the next one may lie: to the variance M2 / w is added (`START` mean / w)^2. The three numbers
//! w, mean, M2 are the key's.

use super::Prepared;
use super::recipe::Spec;
use crate::base::number::f32_of;
use crate::base::time::Gap;
use crate::data::events::Events;

/// What is thought of the spread after one reading, as a share of it.
const START: f64 = 0.1;
/// Largest deviation written, in standard deviations.
const CLIP: f64 = 10.0;

impl Prepared {
    /// Writes the deviation of this reading from the earlier ones, takes it in, and writes mean and ln of the standard deviation as they then are. A missing
    /// reading deviates by 0 and changes nothing.
    pub(super) fn deviation(&self, events: &Events, row: usize, gap: Option<Gap>, aggregates: &mut [f64], out: &mut [f32]) {
        let Spec::Deviation { transform, memory, floor, .. } = &self.spec else { return };
        let Some([weight, mean, squares, ..]) = aggregates.get_mut(self.aggregate..) else { return };
        let value = events.columns.get(self.field).and_then(|c| c.numbers()).and_then(|v| v.get(row)).copied().unwrap_or(f64::NAN);
        let y = transform.apply(value);
        let mut deviation = 0.0;
        if y.is_finite() {
            if gap.is_some() && *weight > 0.0 {
                deviation = ((y - *mean) / spread(*weight, *mean, *squares, *floor)).clamp(-CLIP, CLIP);
            }
            let keep = libm::exp2(-1.0 / f64::from(*memory));
            *weight = keep * *weight + 1.0;
            let off = y - *mean;
            *mean += off / *weight;
            *squares = keep * *squares + off * (y - *mean);
        }
        let cells = [deviation, *mean, libm::log(spread(*weight, *mean, *squares, *floor))];
        for (cell, number) in out.iter_mut().skip(self.at).zip(cells) {
            *cell = f32_of(number).clamp(f32::MIN, f32::MAX);
        }
    }
}

fn spread(weight: f64, mean: f64, squares: f64, floor: f64) -> f64 {
    let weight = weight.max(1.0);
    let start = START * mean.abs() / weight;
    libm::sqrt(squares.max(0.0) / weight + start * start + floor * floor).min(f64::MAX)
}
