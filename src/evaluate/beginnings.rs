//! The first events of keys, as the model was given them: what is known of how a new key fares.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::base::time::{EventTime, Gap};

/// Beginnings of one run, in the order of their first events.
#[derive(Debug)]
pub struct Beginnings {
    events: usize,
    most: usize,
    /// The beginning of each key that is not complete.
    open: HashMap<Box<[u8]>, usize, FixedState>,
    /// All of them.
    pub all: Vec<Beginning>,
}

/// The first events of one key (a key that expired begins again).
#[derive(Clone, Debug, Default)]
pub struct Beginning {
    /// The events, the first one without a gap.
    pub events: Vec<First>,
    /// Their feature rows, one after the other.
    pub rows: Vec<f32>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct First {
    /// When it happened.
    pub time: EventTime,
    /// Since the key's last one.
    pub gap: Option<Gap>,
    /// Its mark, by index.
    pub mark: Option<u32>,
    /// Its value, where the model has a law of one; NaN where unknown.
    pub value: f64,
    /// Its label; NaN where unknown.
    pub label: f64,
}

impl Beginnings {
    /// None yet: the first `events` events of at most `most` keys.
    #[must_use]
    pub fn new(events: usize, most: usize) -> Self {
        Beginnings { events, most, open: HashMap::default(), all: Vec::new() }
    }

    /// An event of a key with its feature row. `counted`: a key that begins with it counts.
    pub fn add(&mut self, key: &[u8], event: First, counted: bool, row: &[f32]) {
        if event.gap.is_none() {
            self.open.remove(key);
            if !counted || self.all.len() >= self.most {
                return;
            }
            self.open.insert(key.into(), self.all.len());
            self.all.push(Beginning::default());
        }
        let Some(beginning) = self.open.get(key).and_then(|place| self.all.get_mut(*place)) else { return };
        beginning.events.push(event);
        beginning.rows.extend_from_slice(row);
        if beginning.events.len() >= self.events {
            self.open.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_events_of_each_key_are_kept_and_a_key_that_expired_begins_again() {
        let mut beginnings = Beginnings::new(3, 3);
        let mut add = |key: &str, time: i64, first: bool, counted: bool| {
            let gap = (!first).then_some(Gap(1));
            beginnings.add(
                key.as_bytes(),
                First { time: EventTime(time), gap, mark: None, value: f64::NAN, label: f64::NAN },
                counted,
                &[time as f32],
            );
        };
        add("a", 0, true, true);
        add("b", 1, true, false);
        add("b", 2, false, true);
        (3..8).for_each(|time| add("a", time, false, true));
        add("a", 8, true, true);
        add("c", 9, true, true);
        add("a", 10, false, false);
        add("d", 11, true, true);
        let rows: Vec<Vec<f32>> = beginnings.all.iter().map(|beginning| beginning.rows.clone()).collect();
        assert_eq!(rows, [vec![0.0, 3.0, 4.0], vec![8.0, 10.0], vec![9.0]]);
    }
}
