//! One recipe column for a whole batch.

use super::recipe::{Encoding, GapScale, NumericScale, Spec};
use super::{Context, Prepared, calendar};
use crate::base::number::{f32_of, f64_of_count};
use crate::data::events::Events;

impl Prepared {
    /// Writes this column into every row of `rows` (`[n, width]`).
    pub(super) fn write(&self, events: &Events, context: Context<'_>, width: usize, rows: &mut [f32]) {
        let cells = rows.chunks_exact_mut(width).map(|row| row.get_mut(self.at..).unwrap_or_default());
        match &self.spec {
            Spec::Gap { unit, scale, mean, std, floor, longest, first } => {
                for (cell, gap) in cells.zip(context.gaps) {
                    let value = match gap.map(|gap| gap.in_unit(*unit).min(longest.unwrap_or(f64::INFINITY))) {
                        None => *first,
                        Some(gap) => match scale {
                            GapScale::Raw => gap,
                            GapScale::Log1p => libm::log1p(gap),
                            GapScale::LogStandard => (libm::log(gap.max(*floor)) - mean) / std,
                        },
                    };
                    put(cell, 0, f32_of(value));
                }
            }
            Spec::IsFirst {} => {
                for (cell, gap) in cells.zip(context.gaps) {
                    put(cell, 0, f32::from(u8::from(gap.is_none())));
                }
            }
            Spec::Numeric { scale, mean, std, clip, missing, missing_flag, .. } => {
                let Some(values) = events.columns.get(self.field).and_then(|column| column.numbers()) else { return };
                for (cell, value) in cells.zip(values) {
                    // Tables can say infinity, JSON cannot: it is no reading, like no number at all.
                    let number = if !value.is_finite() {
                        *missing
                    } else {
                        let value = clip.map_or(*value, |[low, high]| value.clamp(low, high));
                        match scale {
                            NumericScale::Identity => value,
                            NumericScale::Log1p => libm::log1p(value.abs()).copysign(value),
                            NumericScale::Standardise => (value - mean) / std,
                        }
                    };
                    // A number beyond f32 would poison the state for ever: the largest finite one says as much.
                    put(cell, 0, f32_of(number).clamp(f32::MIN, f32::MAX));
                    if *missing_flag {
                        put(cell, 1, f32::from(u8::from(!value.is_finite())));
                    }
                }
            }
            Spec::Category { encoding, unknown, vocabulary, .. } => {
                let Some(values) = events.columns.get(self.field).and_then(|column| column.texts()) else { return };
                for (cell, value) in cells.zip(values.iter()) {
                    let known = value.and_then(|value| self.vocabulary.get(value).copied());
                    match (encoding, known) {
                        (Encoding::OneHot, Some(index)) => put(cell, index, 1.0),
                        (Encoding::OneHot, None) if *unknown => put(cell, vocabulary.len(), 1.0),
                        (Encoding::OneHot, None) => {}
                        (Encoding::Index, Some(index)) => put(cell, 0, f32_of(f64_of_count(index))),
                        (Encoding::Index, None) => put(cell, 0, self.unknown()),
                    }
                }
            }
            Spec::Calendar { cycle, .. } => {
                let mut last = None;
                for (cell, time) in cells.zip(&events.times) {
                    let (sin, cos) = calendar::position(*time, *cycle, self.zone, &mut last);
                    put(cell, 0, sin);
                    put(cell, 1, cos);
                }
            }
            Spec::Constant { value } => {
                for cell in cells {
                    put(cell, 0, f32_of(*value));
                }
            }
            Spec::Decay { .. } | Spec::Deviation { .. } => {}
        }
    }
}

fn put(row: &mut [f32], index: usize, value: f32) {
    if let Some(cell) = row.get_mut(index) {
        *cell = value;
    }
}
