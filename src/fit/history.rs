//! History as training needs it: feature rows in per-key time order, what came next, and which split each event belongs to.

use std::ops::Range;

use super::loss::{Objective, Target};

/// Part of the history an event belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Weights are fitted to these.
    Train,
    /// Training stops when these no longer improve.
    Valid,
    /// Nothing is chosen by these.
    Test,
    /// States advance, nothing counts.
    Other,
}

impl Part {
    /// The three parts with figures.
    pub const SCORED: [Part; 3] = [Part::Train, Part::Valid, Part::Test];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Part::Train => "train",
            Part::Valid => "valid",
            Part::Test => "test",
            Part::Other => "other",
        }
    }
}

/// Events in order of key, then time. All vectors have one entry per event, except where said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Feature rows `[n, width]`, made by the code that serves.
    pub rows: Vec<f32>,
    /// Floats per row.
    pub width: usize,
    /// The events of each key (a key that expired in between counts as two).
    pub keys: Vec<Range<usize>>,
    /// Gap to the key's next event, in the law's unit; NaN for the last.
    pub gaps_next: Vec<f64>,
    /// Mark of the key's next event; empty without marks.
    pub marks_next: Vec<Option<u32>>,
    /// Value of the key's next event, NaN where it is missing; empty without a law of it.
    pub values_next: Vec<f64>,
    /// Label of the event, NaN where unknown; empty without a label.
    pub labels: Vec<f64>,
    /// Part each event belongs to.
    pub parts: Vec<Part>,
}

impl History {
    /// Number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Feature row of an event.
    #[must_use]
    pub fn row(&self, event: usize) -> &[f32] {
        self.rows.get(event * self.width..(event + 1) * self.width).unwrap_or_default()
    }

    /// The part in which the outputs of event `event` are scored: a law is scored by the event that comes next, a score by its own.
    #[must_use]
    pub fn scored_in(&self, event: usize, objective: &Objective) -> Option<Part> {
        match objective {
            Objective::Law { .. } if self.gaps_next.get(event)?.is_nan() => None,
            Objective::Law { .. } => self.parts.get(event + 1).copied(),
            Objective::Score if self.labels.get(event)?.is_nan() => None,
            Objective::Score => self.parts.get(event).copied(),
        }
    }

    /// What the outputs of `event` are scored against, if that counts for `part`.
    #[must_use]
    pub fn target(&self, event: usize, objective: &Objective, part: Part) -> Target {
        if self.scored_in(event, objective) != Some(part) {
            return Target::NONE;
        }
        Target {
            gap: self.gaps_next.get(event).copied().unwrap_or(f64::NAN),
            mark: self.marks_next.get(event).copied().flatten(),
            value: self.values_next.get(event).copied().unwrap_or(f64::NAN),
            label: self.labels.get(event).copied().unwrap_or(f64::NAN),
        }
    }

    /// Gaps that count for `part`, in the law's unit.
    pub fn gaps_of(&self, part: Part) -> impl Iterator<Item = f64> {
        let parts = self.parts.iter().skip(1);
        self.gaps_next.iter().zip(parts).filter(move |(gap, next)| !gap.is_nan() && **next == part).map(|(gap, _)| *gap)
    }

    /// Marks of the next events that count for `part`.
    pub fn marks_of(&self, part: Part) -> impl Iterator<Item = u32> {
        let parts = self.parts.iter().skip(1);
        let next = self.gaps_next.iter().zip(&self.marks_next).zip(parts);
        next.filter(move |((gap, _), next)| !gap.is_nan() && **next == part).filter_map(|((_, mark), _)| *mark)
    }

    /// Values of the next events that count for `part`, each with the event before it; finite ones only.
    pub fn values_of(&self, part: Part) -> impl Iterator<Item = (usize, f64)> {
        let parts = self.parts.iter().skip(1);
        let next = self.gaps_next.iter().zip(&self.values_next).zip(parts).enumerate();
        let counts = move |(_, ((gap, value), next)): &(usize, ((&f64, &f64), &Part))| !gap.is_nan() && value.is_finite() && **next == part;
        next.filter(counts).map(|(event, ((_, value), _))| (event, *value))
    }

    /// Known labels that count for `part`.
    pub fn labels_of(&self, part: Part) -> impl Iterator<Item = f64> {
        self.labels.iter().zip(&self.parts).filter(move |(label, own)| !label.is_nan() && **own == part).map(|(label, _)| *label)
    }
}
