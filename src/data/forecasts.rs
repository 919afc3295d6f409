//! Forecast rows as columns: what the sinks write. See `schemas/` for the contract by name and type.

use std::sync::Arc;

use super::flags::Flags;
use super::text::TextColumn;
use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;

/// A likely next mark.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MarkChance {
    /// Index into `Identity::marks`.
    pub mark: u32,
    /// Its probability; NaN where the row has none, and then the row's list is empty when written.
    pub p: f32,
}

/// A reason that a forecast names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Named {
    /// Index into `Identity::reasons`.
    pub reason: u32,
    /// How much of the score's log-odds, or of the surprise in nats, is due to it; NaN where the row names no more.
    pub effect: f32,
}

impl Named {
    /// No reason.
    pub const NONE: Named = Named { reason: 0, effect: f32::NAN };
}

/// What is the same for every row of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    /// Name of the pipeline.
    pub pipeline: String,
    /// Name of the model package.
    pub model: String,
    /// Its version.
    pub model_version: String,
    /// Hash of everything the state depends on.
    pub fingerprint: String,
    /// Names of the marks of the law.
    pub marks: Vec<String>,
    /// Quantiles of the next event's time that are computed, ascending, in (0, 1).
    pub quantiles: Vec<f64>,
    /// Those of them, by index, that are not written but only watched over.
    pub unwritten: Vec<usize>,
    /// Those of them, by index, that make a key overdue when they pass without an event.
    pub overdue: Vec<usize>,
    /// Names of the horizons as the pipeline writes them (`1h`), in its order.
    pub horizons: Vec<String>,
    /// Codes of the reasons that forecasts may name; empty where none are asked for.
    pub reasons: Vec<String>,
    /// Quantiles of the next event's value, ascending, in (0, 1); `None` where the head has no law of it.
    pub value_quantiles: Option<Vec<f64>>,
}

/// A quantile of a key's law has passed without an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Overdue {
    /// Row of the batch before which that was known.
    pub before: usize,
    /// The key.
    pub key: Box<[u8]>,
    /// When the quantile passed.
    pub time: EventTime,
    /// Position of the record of the key's last event.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
    /// Events of the key so far.
    pub n_events: u64,
    /// Seconds from the last event until `time`.
    pub gap_s: f64,
    /// Which quantile.
    pub quantile: f64,
}

/// Forecasts, one row per event, and those that say that none has come. A NaN in a number column means "has none" and is written as null.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forecasts {
    /// Names shared by all rows.
    pub identity: Arc<Identity>,
    /// Key of the event.
    pub keys: TextColumn,
    /// Id of the event.
    pub event_ids: TextColumn,
    /// When the event happened (as taken: a late one at its key's last time).
    pub event_times: Vec<EventTime>,
    /// Partition of the event's record.
    pub partitions: Vec<Partition>,
    /// Offset of the event's record.
    pub offsets: Vec<Offset>,
    /// How many events of its key so far, this one included.
    pub n_events: Vec<u64>,
    /// Seconds since the key's last event; NaN for the first.
    pub gap_s: Vec<f64>,
    /// Surprise of the arrival time in nats: negative log density of the gap in the model's time unit
    /// (or of its interval, where the package states a resolution). NaN for the first event of a key.
    pub surprise_time: Vec<f64>,
    /// Surprise of the mark in nats. NaN without marks or before.
    pub surprise_mark: Vec<f64>,
    /// Surprise of the value in nats: negative log density in the field's unit. NaN without a law of it or before, or where the event has no value.
    pub surprise_value: Vec<f64>,
    /// Compensator over the gap; Exp(1) distributed if the model is right. Of a coarse clock -ln(1 - u), where u has half of the tick's probability before it.
    pub residual: Vec<f64>,
    /// Share of the law of the value that lay below the one that came, in (0, 1); uniform if the model is right.
    pub residual_value: Vec<f64>,
    /// Score of the arrived event, a probability, where the model has one.
    pub score: Vec<f64>,
    /// Time of the next event, one column per quantile; `None` where it never comes to that.
    pub next_times: Vec<Vec<Option<EventTime>>>,
    /// Value of the next event, one column per quantile.
    pub next_values: Vec<Vec<f64>>,
    /// Probability that no further event comes.
    pub p_never: Vec<f64>,
    /// Probability of an event that the clock shows within each horizon, one column per horizon.
    pub p_within: Vec<Vec<f64>>,
    /// The likeliest next marks, `marks_per_row` a row, likeliest first.
    pub next_marks: Vec<MarkChance>,
    /// Entries of `next_marks` per row.
    pub marks_per_row: usize,
    /// Intensity of the next event right after this one, per the model's time unit.
    pub intensity_now: Vec<f64>,
    /// Reasons of the score or the surprise, `reasons_per_row` a row, the largest effect first. Empty where none are asked for.
    pub reasons: Vec<Named>,
    /// Entries of `reasons` per row.
    pub reasons_per_row: usize,
    /// What was unusual.
    pub flags: Vec<Flags>,
    /// Of rows of the kind `overdue` the quantile that has passed; NaN of others. Empty where there is no such row.
    pub overdue: Vec<f64>,
}

impl Forecasts {
    /// Empty columns for one run.
    #[must_use]
    pub fn new(identity: Arc<Identity>) -> Self {
        let next_times = identity.quantiles.iter().map(|_| Vec::new()).collect();
        let p_within = identity.horizons.iter().map(|_| Vec::new()).collect();
        let next_values = identity.value_quantiles.iter().flatten().map(|_| Vec::new()).collect();
        Forecasts { identity, next_times, next_values, p_within, ..Forecasts::default() }
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.event_times.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.event_times.is_empty()
    }

    /// The quantile that has passed, of a row of the kind `overdue`; `None` of a forecast.
    #[must_use]
    pub fn overdue_at(&self, row: usize) -> Option<f64> {
        self.overdue.get(row).copied().filter(|quantile| !quantile.is_nan())
    }

    /// Rows of the kind `overdue`.
    #[must_use]
    pub fn count_overdue(&self) -> usize {
        self.overdue.iter().filter(|quantile| !quantile.is_nan()).count()
    }

    /// Puts in, each before its row, that keys are overdue, and keeps of the other rows those for which `keep` says so.
    pub fn insert_overdue(&mut self, overdue: &[Overdue], keep: &[bool]) {
        let rows = self.len();
        let (marks_per_row, reasons_per_row) = (self.marks_per_row, self.reasons_per_row);
        let mut all = Forecasts { marks_per_row, reasons_per_row, ..Forecasts::new(Arc::clone(&self.identity)) };
        let mut overdue = overdue.iter().peekable();
        for row in 0..=rows {
            while let Some(due) = overdue.next_if(|due| due.before <= row) {
                all.push_overdue(due);
            }
            if row < rows && keep.get(row).copied().unwrap_or(true) {
                all.push_from(self, row);
            }
        }
        *self = all;
    }

    fn push_overdue(&mut self, due: &Overdue) {
        self.keys.push(&due.key);
        self.event_ids.push_missing();
        self.event_times.push(due.time);
        self.partitions.push(due.partition);
        self.offsets.push(due.offset);
        self.n_events.push(due.n_events);
        self.gap_s.push(due.gap_s);
        for column in self.numbers() {
            column.push(f64::NAN);
        }
        self.next_times.iter_mut().for_each(|column| column.push(None));
        self.next_marks.extend((0..self.marks_per_row).map(|_| MarkChance { mark: 0, p: f32::NAN }));
        self.reasons.extend((0..self.reasons_per_row).map(|_| Named::NONE));
        self.flags.push(Flags::NONE);
        self.overdue.push(due.quantile);
    }

    fn push_from(&mut self, other: &Forecasts, row: usize) {
        fn copy<T: Copy>(to: &mut Vec<T>, from: &[T], row: usize) {
            to.extend(from.get(row));
        }
        self.keys.push_from(&other.keys, row);
        self.event_ids.push_from(&other.event_ids, row);
        copy(&mut self.event_times, &other.event_times, row);
        copy(&mut self.partitions, &other.partitions, row);
        copy(&mut self.offsets, &other.offsets, row);
        copy(&mut self.n_events, &other.n_events, row);
        copy(&mut self.gap_s, &other.gap_s, row);
        copy(&mut self.surprise_time, &other.surprise_time, row);
        copy(&mut self.surprise_mark, &other.surprise_mark, row);
        copy(&mut self.surprise_value, &other.surprise_value, row);
        copy(&mut self.residual, &other.residual, row);
        copy(&mut self.residual_value, &other.residual_value, row);
        copy(&mut self.score, &other.score, row);
        self.next_times.iter_mut().zip(&other.next_times).for_each(|(to, from)| copy(to, from, row));
        self.next_values.iter_mut().zip(&other.next_values).for_each(|(to, from)| copy(to, from, row));
        copy(&mut self.p_never, &other.p_never, row);
        self.p_within.iter_mut().zip(&other.p_within).for_each(|(to, from)| copy(to, from, row));
        let marks = row * other.marks_per_row;
        self.next_marks.extend_from_slice(other.next_marks.get(marks..marks + other.marks_per_row).unwrap_or_default());
        copy(&mut self.intensity_now, &other.intensity_now, row);
        let reasons = row * other.reasons_per_row;
        self.reasons.extend_from_slice(other.reasons.get(reasons..reasons + other.reasons_per_row).unwrap_or_default());
        copy(&mut self.flags, &other.flags, row);
        self.overdue.push(other.overdue_at(row).unwrap_or(f64::NAN));
    }

    /// The columns of numbers that the head fills.
    fn numbers(&mut self) -> impl Iterator<Item = &mut Vec<f64>> {
        let single = [&mut self.surprise_time, &mut self.surprise_mark, &mut self.residual, &mut self.score, &mut self.p_never];
        let of_value = [&mut self.surprise_value, &mut self.residual_value].into_iter().chain(&mut self.next_values);
        single.into_iter().chain(of_value).chain([&mut self.intensity_now]).chain(&mut self.p_within)
    }

    /// Keeps the rows for which `keep` says so.
    pub fn retain(&mut self, keep: &[bool]) {
        fn only<T>(values: &mut Vec<T>, keep: &[bool]) {
            let mut flags = keep.iter();
            values.retain(|_| flags.next().copied().unwrap_or(true));
        }
        fn only_groups<T>(values: &mut Vec<T>, per_row: usize, keep: &[bool]) {
            let mut entry = 0;
            values.retain(|_| {
                let row = entry / per_row.max(1);
                entry += 1;
                keep.get(row).copied().unwrap_or(true)
            });
        }
        fn only_texts(texts: &mut TextColumn, keep: &[bool]) {
            let mut kept = TextColumn::default();
            for (row, _) in keep.iter().enumerate().filter(|(_, keep)| **keep) {
                kept.push_from(texts, row);
            }
            *texts = kept;
        }
        only_texts(&mut self.keys, keep);
        only_texts(&mut self.event_ids, keep);
        only(&mut self.event_times, keep);
        only(&mut self.partitions, keep);
        only(&mut self.offsets, keep);
        only(&mut self.n_events, keep);
        only(&mut self.gap_s, keep);
        self.numbers().for_each(|column| only(column, keep));
        self.next_times.iter_mut().for_each(|column| only(column, keep));
        only(&mut self.flags, keep);
        only_groups(&mut self.next_marks, self.marks_per_row, keep);
        only_groups(&mut self.reasons, self.reasons_per_row, keep);
    }

    /// Removes all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.keys.clear();
        self.event_ids.clear();
        self.event_times.clear();
        self.partitions.clear();
        self.offsets.clear();
        self.n_events.clear();
        self.gap_s.clear();
        self.numbers().for_each(Vec::clear);
        self.next_times.iter_mut().for_each(Vec::clear);
        self.next_marks.clear();
        self.reasons.clear();
        self.flags.clear();
        self.overdue.clear();
    }
}
