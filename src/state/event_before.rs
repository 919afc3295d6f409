//! The event before: what is kept of each key so that its last step can be tried again with other features, behind its recurrent tensors and its law.

use crate::base::number::{f32_of, f64_of, i64_of};
use crate::base::time::Gap;

/// Floats of a gap: microseconds in pieces of 21 bits, each of which a float holds exactly.
const GAP: usize = 3;
const BITS: u32 = 21;

/// Floats of the event before, in order: the recurrent tensors before its step, its row of features, its gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventBefore {
    /// Floats of the recurrent tensors.
    pub tensors: usize,
    /// Columns of a row.
    pub columns: usize,
}

/// The event before of one key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step<'a> {
    /// The recurrent tensors before its step.
    pub tensors: &'a [f32],
    /// Its row of features.
    pub row: &'a [f32],
    /// Its gap; none of a first event.
    pub gap: Option<Gap>,
}

impl EventBefore {
    /// Floats a key.
    #[must_use]
    pub fn floats(self) -> usize {
        self.tensors + self.columns + GAP
    }

    /// What a key has of which no event is known.
    pub fn none(self) -> impl Iterator<Item = f32> {
        std::iter::repeat_n(f32::NAN, self.floats())
    }

    /// Writes an event down in `floats`, of which there are as many as `floats` says.
    pub fn write(self, floats: &mut [f32], event: Step<'_>) {
        let (tensors, rest) = floats.split_at_mut_checked(self.tensors).unwrap_or_default();
        let (row, gap) = rest.split_at_mut_checked(self.columns).unwrap_or_default();
        if tensors.len() == event.tensors.len() && row.len() == event.row.len() {
            tensors.copy_from_slice(event.tensors);
            row.copy_from_slice(event.row);
        }
        let micros = event.gap.map_or(0, |gap| gap.0.max(0));
        for (piece, float) in (0..).zip(gap.iter_mut()) {
            *float = f32_of(f64_of((micros >> (BITS * piece)) & ((1 << BITS) - 1)));
        }
        // Of a first event the lowest piece, of no event all of them are no number.
        if let (None, Some(lowest)) = (event.gap, gap.first_mut()) {
            *lowest = f32::NAN;
        }
    }

    /// Reads what `write` has written; `None` where no event is known.
    #[must_use]
    pub fn read(self, floats: &[f32]) -> Option<Step<'_>> {
        let (tensors, rest) = floats.split_at_checked(self.tensors)?;
        let (row, gap) = rest.split_at_checked(self.columns)?;
        let &[low, middle, high] = gap else { return None };
        if high.is_nan() {
            return None;
        }
        let micros = [high, middle, low].into_iter().fold(0, |micros, piece| (micros << BITS) | i64_of(f64::from(piece)));
        Some(Step { tensors, row, gap: (!low.is_nan()).then_some(Gap(micros)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_as_it_was_written_to_the_microsecond_and_none_is_none() {
        let kept = EventBefore { tensors: 2, columns: 3 };
        let mut floats: Vec<f32> = kept.none().collect();
        assert_eq!((floats.len(), kept.read(&floats)), (8, None));
        let (tensors, row) = ([0.5, -1.0], [0.0, 2.0, 1e-30]);
        for gap in [0, 1, (1 << 21) - 1, 1 << 21, 86_400_000_001, (1 << 62) + 12_345, i64::MAX]
            .map(|micros| Some(Gap(micros)))
            .into_iter()
            .chain([None])
        {
            let event = Step { tensors: &tensors, row: &row, gap };
            kept.write(&mut floats, event);
            assert_eq!(kept.read(&floats), Some(event));
        }
        assert_eq!(kept.read(&floats[..7]), None);
    }
}
