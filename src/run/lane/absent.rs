//! Fields that no event has: then the pipeline or the recipe has another name for them than the records.

use super::said::enough;
use crate::data::events::Column;

/// The columns of a lane's first events that have been empty so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Absent {
    events: usize,
    /// `None` before the first event.
    columns: Option<Vec<usize>>,
    /// Every column has had a value, or it has been said.
    settled: bool,
}

impl Absent {
    /// Decoded events.
    pub(super) fn note(&mut self, events: usize, columns: &[Column]) {
        if self.settled || events == 0 {
            return;
        }
        self.events += events;
        let absent = self.columns.get_or_insert_with(|| (0..columns.len()).collect());
        absent.retain(|at| columns.get(*at).is_some_and(|column| (0..events).all(|row| is_missing(column, row))));
        self.settled = absent.is_empty();
    }

    /// Events and the columns that none of them has, once: when they are enough to say so, fewer at the end of the input.
    pub(super) fn told(&mut self, ended: bool) -> Option<(usize, Vec<usize>)> {
        if self.settled || self.events < enough(ended) {
            return None;
        }
        self.settled = true;
        Some((self.events, self.columns.take()?))
    }
}

fn is_missing(column: &Column, row: usize) -> bool {
    match column {
        Column::Number(values) => values.get(row).is_none_or(|value| value.is_nan()),
        Column::Text(texts) => texts.get(row).is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::text::TextColumn;

    fn events(numbers: &[f64], texts: &[Option<&str>]) -> [Column; 2] {
        let mut column = TextColumn::default();
        texts.iter().for_each(|text| column.push_option(text.map(str::as_bytes)));
        [Column::Number(numbers.to_vec()), Column::Text(column)]
    }

    #[test]
    fn columns_that_stay_empty_are_told_once_of_many_events_or_of_fewer_at_the_end() {
        let mut absent = Absent::default();
        let some = events(&[f64::NAN; 600], &[None; 600]);
        absent.note(600, &some);
        assert_eq!(absent.told(false), None);
        absent.note(600, &events(&[f64::NAN; 600], &[Some("web"); 600]));
        assert_eq!(absent.told(false), Some((1200, vec![0])));
        assert_eq!(absent.told(true), None);

        let mut few = Absent::default();
        few.note(19, &some);
        assert_eq!(few.clone().told(true), None);
        few.note(1, &some);
        assert_eq!(few.told(true), Some((20, vec![0, 1])));

        let mut there = Absent::default();
        there.note(2, &events(&[f64::NAN, 1.0], &[Some("a"), None]));
        there.note(600, &some);
        there.note(600, &some);
        assert_eq!(there.told(true), None, "each has had a value");
    }
}
