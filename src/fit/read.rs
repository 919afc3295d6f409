//! Reads history with the code that serves: the same decoding, order, key states and features, so that a row seen in training is the row that
//! is seen in production.

use std::time::Duration;

use super::history::{History, Part};
use super::split;
use crate::base::error::{Error, Kind, Result};
use crate::base::number::{index, u32_of};
use crate::base::time::{EventTime, Gap, TimeUnit};
use crate::data::events::Events;
use crate::data::input::Input;
use crate::data::rejected::{Rejected, too_many};
use crate::data::schema::EventSchema;
use crate::decode::Decoder;
use crate::features::recipe::Recipe;
use crate::features::{Context, Features};
use crate::order::{Late, Order};
use crate::pipeline::plan::Plan;
use crate::source::{Feed, Polled};
use crate::state::{KeyMeta, KeyStates, Slot};

/// Records taken from the source at once.
const POLL: usize = 65_536;
/// Records that could not be used of which the text is kept for error messages.
const KEPT_FAULTS: usize = 3;
/// Clock ticks that are looked for, in microseconds: a day, an hour, a minute, a second, a millisecond, a microsecond.
const TICKS: [i64; 6] = [86_400_000_000, 3_600_000_000, 60_000_000, 1_000_000, 1_000, 1];

/// Everything that happened, in the order in which the stage would take it.
#[derive(Debug, Default)]
pub struct Seen {
    /// The events, with the times they are taken at.
    pub events: Events,
    /// Key of each, numbered by first sight.
    pub slots: Vec<Slot>,
    /// Gap since the key's last event; `None` for a first one and after an expiry.
    pub gaps: Vec<Option<Gap>>,
    /// Part of each.
    pub parts: Vec<Part>,
    /// Number of keys.
    pub keys: usize,
    /// Records that could not be used.
    pub rejected: usize,
    /// What was wrong with the first of them.
    pub faults: Vec<String>,
}

impl Seen {
    /// Values of a number field over the train split, NaN where missing.
    pub fn train_numbers<'a>(&'a self, field: &str, schema: &EventSchema) -> impl Iterator<Item = f64> + 'a {
        let column = schema.field(field).and_then(|i| self.events.columns.get(i)).and_then(|column| column.numbers()).unwrap_or_default();
        column.iter().zip(&self.parts).filter(|(_, part)| **part == Part::Train).map(|(value, _)| *value)
    }

    /// Values of a text field over the train split.
    pub fn train_texts<'a>(&'a self, field: &str, schema: &EventSchema) -> impl Iterator<Item = Option<&'a [u8]>> + 'a {
        let column = schema.field(field).and_then(|i| self.events.columns.get(i)).and_then(|column| column.texts());
        let parts = self.parts.iter().enumerate().filter(|(_, part)| **part == Part::Train);
        parts.map(move |(row, _)| column.and_then(|column| column.get(row)))
    }

    /// Gaps that end in an event of the train split.
    pub fn train_gaps(&self, unit: TimeUnit) -> Vec<f64> {
        let gaps = self.gaps.iter().zip(&self.parts).filter(|(_, part)| **part == Part::Train);
        gaps.filter_map(|(gap, _)| gap.map(|gap| gap.in_unit(unit))).collect()
    }

    /// The coarsest clock tick of which all event times are whole multiples.
    #[must_use]
    pub fn tick(&self) -> Gap {
        let whole = |tick: &&i64| self.events.times.iter().all(|time| time.0.rem_euclid(**tick) == 0);
        Gap(TICKS.iter().find(whole).copied().unwrap_or(1))
    }
}

/// Reads a feed to its end.
///
/// # Errors
/// The source fails, no record can be used, more bad records than `max_bad_ratio` allows, or the split names are not to be found.
pub fn read(plan: &Plan, feed: &mut dyn Feed, progress: &mut dyn FnMut(usize, Option<u64>)) -> Result<Seen> {
    let (mut decoder, mut input) = (Decoder::of(&plan.schema, plan.schemas.as_ref()), Input::default());
    let (mut decoded, mut rejected) = (Events::new(&plan.schema), Rejected::default());
    let mut order = Order::new(plan.order, Events::new(&plan.schema));
    let mut released = Events::new(&plan.schema);
    let mut taking = Taking::new(plan);
    let (mut records, mut bad, mut faults) = (0usize, 0usize, Vec::new());
    loop {
        input.clear();
        let polled = feed.poll(POLL, Duration::from_millis(100), &mut input)?;
        records += input.len();
        decoded.clear();
        decoder.decode(&input, &mut decoded, &mut rejected)?;
        for row in 0..decoded.len() {
            order.take(&decoded, row, &mut released)?;
        }
        if polled == Polled::Ended {
            order.finish(&mut released);
        }
        taking.take(&released);
        released.clear();
        bad += rejected.len();
        // Each of them once: records of one source are wrong in the same way.
        for (detail, reason) in rejected.details.iter().zip(&rejected.reasons) {
            if faults.len() >= KEPT_FAULTS {
                break;
            }
            let fault = format!("{}: {detail}", reason.code());
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        }
        rejected.clear();
        progress(records, feed.backlog());
        if polled == Polled::Ended {
            break;
        }
    }
    feed.close()?;
    let mut seen = taking.seen;
    seen.keys = taking.states.len();
    seen.rejected = bad + taking.late;
    seen.faults = faults;
    if let Some(doubt) = seen.events.times.first().and_then(|first| plan.schema.doubt(*first)) {
        tracing::warn!("{doubt}");
    }
    if seen.events.is_empty() {
        let text = format!("the history holds no event: {records} records were read, {bad} of them cannot be used");
        let help = seen.faults.first().cloned().unwrap_or_else(|| "check --from".to_owned());
        return Err(Error::new(Kind::Data, "fit", text).help(help));
    }
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    if too_many(count(bad), count(records), plan.max_bad_ratio) {
        let text = format!("{bad} of {records} records cannot be used; max_bad_ratio allows a share of {}", plan.max_bad_ratio);
        return Err(Error::new(Kind::Data, "fit", text).help(format!("the first: {}", seen.faults.join("; "))));
    }
    seen.parts = split::parts(&plan.fit.split, &plan.schema, &seen)?;
    Ok(seen)
}

/// Takes released events into key states: late ones are clamped or dropped, gaps measured, idle keys forgotten.
struct Taking {
    late_policy: Late,
    expiry: Option<Gap>,
    states: KeyStates,
    seen: Seen,
    late: usize,
}

impl Taking {
    fn new(plan: &Plan) -> Self {
        let seen = Seen { events: Events::new(&plan.schema), ..Seen::default() };
        Taking { late_policy: plan.order.late, expiry: plan.state.expiry, states: KeyStates::new(&[], 0, 0), seen, late: 0 }
    }

    fn take(&mut self, released: &Events) {
        for (row, time) in released.times.iter().enumerate() {
            let slot = self.states.intern(released.keys.bytes_at(row));
            let Some(meta) = self.states.metas.row_mut(slot).first_mut() else { continue };
            let mut gap = (meta.events > 0).then(|| time.since(meta.last));
            if gap.is_some_and(|gap| gap < Gap::ZERO) {
                if self.late_policy == Late::DeadLetter {
                    self.late += 1;
                    continue;
                }
                gap = Some(Gap::ZERO);
            }
            if let (Some(length), Some(expiry)) = (gap, self.expiry)
                && length > expiry
            {
                gap = None;
                *meta = KeyMeta::default();
            }
            meta.last = if meta.events > 0 { meta.last.max(*time) } else { *time };
            meta.events += 1;
            let taken = meta.last;
            self.seen.events.push_from(released, row);
            if let Some(time) = self.seen.events.times.last_mut() {
                *time = taken;
            }
            self.seen.slots.push(slot);
            self.seen.gaps.push(gap);
        }
    }
}

/// History in order of key and time, with the row of `Seen` that each event came from.
pub struct Prepared {
    /// What training reads.
    pub history: History,
    /// Row in `Seen` of each event of the history.
    pub rows: Vec<u32>,
}

/// Makes feature rows and lays the events out by key. `value` is the column whose next value is forecast.
///
/// # Errors
/// The recipe asks for a field that the schema does not have.
pub fn prepare(
    seen: &Seen,
    schema: &EventSchema,
    recipe: &Recipe,
    unit: TimeUnit,
    marks: &[String],
    value: Option<usize>,
) -> Result<Prepared> {
    let features = Features::new(recipe, schema)?;
    let width = features.width();
    let mut made = Vec::new();
    features.rows(&seen.events, Context { gaps: &seen.gaps }, &mut made);
    decay(seen, &features, &mut made);
    let mut rows: Vec<u32> = (0..u32_of(seen.events.len())).collect();
    rows.sort_by_key(|row| seen.slots.get(index(*row)).copied());
    let mut history = History { width, rows: Vec::with_capacity(made.len()), ..History::default() };
    let label = schema.label.and_then(|i| seen.events.columns.get(i)).and_then(|column| column.numbers());
    let mark = schema.mark.and_then(|i| seen.events.columns.get(i)).and_then(|column| column.texts());
    let values = value.and_then(|i| seen.events.columns.get(i)).and_then(|column| column.numbers());
    let mark_of =
        |row: usize| mark.and_then(|column| column.get(row)).and_then(|name| marks.iter().position(|mark| mark.as_bytes() == name));
    let mut start = 0;
    for (at, row) in rows.iter().map(|row| index(*row)).enumerate() {
        let gap = seen.gaps.get(row).copied().flatten();
        match gap {
            // The gap to this event is what came after the one before, which is of the same key.
            Some(gap) => {
                if let Some(before) = history.gaps_next.last_mut() {
                    *before = gap.in_unit(unit);
                }
                if let (Some(before), Some(values)) = (history.values_next.last_mut(), values) {
                    *before = values.get(row).copied().unwrap_or(f64::NAN);
                }
                if let Some(before) = history.marks_next.last_mut() {
                    *before = mark_of(row).map(u32_of);
                }
            }
            None if at > 0 => {
                history.keys.push(start..at);
                start = at;
            }
            None => {}
        }
        history.rows.extend_from_slice(made.get(row * width..(row + 1) * width).unwrap_or_default());
        history.gaps_next.push(f64::NAN);
        if mark.is_some() && !marks.is_empty() {
            history.marks_next.push(None);
        }
        if values.is_some() {
            history.values_next.push(f64::NAN);
        }
        if let Some(label) = label {
            history.labels.push(label.get(row).copied().unwrap_or(f64::NAN));
        }
        history.parts.push(seen.parts.get(row).copied().unwrap_or(Part::Other));
    }
    history.keys.push(start..rows.len());
    Ok(Prepared { history, rows })
}

/// Adds the decaying columns, event by event with the key's aggregates.
fn decay(seen: &Seen, features: &Features, made: &mut [f32]) {
    if features.aggregates() == 0 {
        return;
    }
    let mut states: Vec<Vec<f64>> = vec![vec![0.0; features.aggregates()]; seen.keys];
    let rows = made.chunks_exact_mut(features.width()).zip(seen.slots.iter().zip(&seen.gaps));
    for (row, (out, (slot, gap))) in rows.enumerate() {
        if let Some(aggregates) = states.get_mut(index(slot.0)) {
            if gap.is_none() {
                aggregates.fill(0.0);
            }
            features.decay(&seen.events, row, *gap, aggregates, out);
        }
    }
}

/// The unit in which the median of the gaps is at least 1 and less than one of the next larger unit. Where half of the gaps and more are 0 it is that of the others.
#[must_use]
pub fn unit_of(gaps_in_seconds: &mut [f64]) -> TimeUnit {
    gaps_in_seconds.sort_by(f64::total_cmp);
    let median = |gaps: &[f64]| gaps.get(gaps.len() / 2).copied().filter(|gap| *gap > 0.0);
    let some = gaps_in_seconds.get(gaps_in_seconds.partition_point(|gap| *gap <= 0.0)..).unwrap_or_default();
    unit_at(median(gaps_in_seconds).or_else(|| median(some)).unwrap_or(1.0))
}

/// The same of the mean, for a law that is served from panels of so many units (`head/tabulated.rs`) and trained in mean gaps: where most gaps are next to
/// nothing, the median says nothing of how far it must reach.
#[must_use]
pub fn unit_of_mean(gaps_in_seconds: &[f64]) -> TimeUnit {
    let count = crate::base::number::f64_of_count(gaps_in_seconds.len());
    unit_at(if gaps_in_seconds.is_empty() { 1.0 } else { gaps_in_seconds.iter().sum::<f64>() / count })
}

fn unit_at(seconds: f64) -> TimeUnit {
    let units = [TimeUnit::Day, TimeUnit::Hour, TimeUnit::Minute, TimeUnit::Second, TimeUnit::Millisecond];
    units.into_iter().find(|unit| seconds >= unit.seconds()).unwrap_or(TimeUnit::Microsecond)
}

/// The earliest and the latest event time.
#[must_use]
pub fn span(seen: &Seen) -> Option<(EventTime, EventTime)> {
    seen.events.times.iter().min().copied().zip(seen.events.times.iter().max().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_largest_that_the_median_gap_reaches() {
        for (median, unit) in [
            (5.0, TimeUnit::Second),
            (90.0, TimeUnit::Minute),
            (86_399.0, TimeUnit::Hour),
            (1e7, TimeUnit::Day),
            (0.02, TimeUnit::Millisecond),
            (1e-9, TimeUnit::Microsecond),
        ] {
            assert_eq!(unit_of(&mut [median * 3.0, median, median / 2.0]), unit, "{median}");
            assert_eq!(unit_of_mean(&[0.0, 0.0, 0.0, 4.0 * median]), unit, "{median}");
        }
    }

    #[test]
    fn the_tick_is_the_coarsest_that_divides_all_times() {
        for (times, tick) in
            [(vec![0, 86_400_000_000], 86_400_000_000), (vec![3_600_000_000, -60_000_000], 60_000_000), (vec![1_000, 2_001], 1)]
        {
            let events = Events { times: times.into_iter().map(EventTime).collect(), ..Events::default() };
            assert_eq!(Seen { events, ..Seen::default() }.tick(), Gap(tick));
        }
    }
}
