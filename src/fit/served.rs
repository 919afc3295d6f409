//! The figures once more by the path that serves: the written package, loaded, stepped by tract in batches of many keys in order of arrival, and
//! scored by the served head. They must be those of the trainer.

use std::path::Path;

use hashbrown::HashMap;

use super::history::Part;
use super::read::{Prepared, Seen};
use super::report::{Figures, Report};
use crate::base::clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::number::{f64_of_count, index};
use crate::base::time::{EventTime, Gap};
use crate::data::flags::Flags;
use crate::data::forecasts::Forecasts;
use crate::data::outputs::Outputs;
use crate::data::schema::EventSchema;
use crate::head::{Arrivals, Asks, Head};
use crate::model::{Memory, Package};
use crate::state::Slot;

/// Largest difference between the served figure and the trainer's, in nats per event, for figures around 1.
pub const TOLERANCE: f64 = 1e-4;
/// Events stepped at once.
const BATCH: usize = 4096;

/// Means per event over one part, by the served path; NaN where there is nothing of the kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Served {
    /// Which part: test, or valid if there is no test.
    pub part: Part,
    /// Events scored.
    pub events: usize,
    /// Negative log-likelihood of the gaps.
    pub time: f64,
    /// Log-loss of the marks.
    pub mark: f64,
    /// Negative log-likelihood of the values.
    pub value: f64,
    /// Log-loss of the labels.
    pub label: f64,
    /// Largest distance between the residuals' law and Exp(1); NaN for a score, and for a coarse clock, whose residuals have steps.
    pub ks: f64,
    /// Mean absolute error of the median as a forecast of the next event's time, in seconds.
    pub error_s: f64,
    /// Nanoseconds an event: step and head, without reading and features.
    pub ns: f64,
    /// Bytes of state a key: recurrent tensors and published law.
    pub bytes: usize,
}

/// A sum that becomes a mean.
#[derive(Clone, Copy, Debug, Default)]
struct Mean(f64, usize);

impl Mean {
    fn add(&mut self, value: f64) {
        if !value.is_nan() {
            self.0 += value;
            self.1 += 1;
        }
    }

    fn get(self) -> f64 {
        self.0 / f64_of_count(self.1)
    }
}

/// Runs the package in `folder` over the keys that have events of the test part (of the valid part, if there is no test) and compares.
///
/// # Errors
/// The package is refused, or its figures are not the trainer's.
pub fn check(folder: &Path, seen: &Seen, prepared: &Prepared, schema: &EventSchema, report: &Report) -> Result<Option<Served>> {
    let with_events = |part: &Part| report.part(*part).is_some_and(|figures| figures.events > 0);
    let Some(part) = [Part::Test, Part::Valid].into_iter().find(with_events) else { return Ok(None) };
    let served = figures(folder, seen, prepared, schema, part)?;
    if let Some(trained) = report.part(part) {
        compare(&served, trained)?;
    }
    Ok(Some(served))
}

fn compare(served: &Served, trained: &Figures) -> Result<()> {
    let pairs = [
        ("gaps", served.time, trained.time.map(|time| time.nll)),
        ("marks", served.mark, trained.mark.map(|mark| mark.log_loss).filter(|loss| !loss.is_nan())),
        ("values", served.value, trained.value.map(|value| value.nll)),
        ("labels", served.label, trained.score.map(|score| score.log_loss)),
    ];
    for (what, served, trained) in pairs.into_iter().filter_map(|(what, served, trained)| Some((what, served, trained?))) {
        let difference = (served - trained).abs();
        if difference.is_nan() || difference > TOLERANCE * trained.abs().max(1.0) {
            let text = format!("the loss of the {what} is {trained:.6} by the trainer and {served:.6} by the served path");
            return Err(Error::new(Kind::Internal, "fit", text).help("please report this with the pipeline file: nothing was written"));
        }
    }
    Ok(())
}

fn figures(folder: &Path, seen: &Seen, prepared: &Prepared, schema: &EventSchema, part: Part) -> Result<Served> {
    let package = Package::load(folder)?;
    let mut model = package.model()?;
    let timed = package.manifest.head.is_timed();
    let value = package.manifest.head.value().and_then(|value| schema.field(&value.field));
    let asks = Asks { quantiles: if timed { vec![0.5] } else { Vec::new() }, ..Asks::default() };
    let mut head = Head::new(&package.manifest.head, asks)?;
    let (mut time, mut mark, mut value_nll, mut label, mut events) =
        (Mean::default(), Mean::default(), Mean::default(), Mean::default(), 0);
    let (mut error, mut residuals, mut spent, mut stepped) = (Mean::default(), Vec::new(), std::time::Duration::ZERO, 0_usize);
    let mut medians: HashMap<Slot, EventTime> = HashMap::new();
    let (mut outputs, mut forecasts) = (Outputs::default(), Forecasts::default());
    let mut states = States { init: model.initial_hidden().to_vec(), ..States::default() };
    for batch in wanted(seen, part).chunks(BATCH) {
        let columns = Columns::of(batch, seen, prepared, schema, &head, value);
        states.enter(&columns);
        clear(&mut forecasts, batch.len(), timed);
        let arrivals = Arrivals { times: &columns.times, gaps: &columns.gaps, marks: &columns.marks, values: &columns.values };
        let began = clock::tick();
        model.steps(&columns.rows, &columns.gaps, &columns.occurrences, &mut states, &mut outputs)?;
        head.forecasts(&arrivals, &outputs, &mut forecasts);
        spent += began.elapsed();
        stepped += batch.len();
        for (i, event) in batch.iter().enumerate() {
            let own = seen.parts.get(event.row) == Some(&part);
            if let (Some(median), Some(now), true) =
                (medians.get(&event.slot), columns.times.get(i), own && columns.gaps.get(i).copied().flatten().is_some())
            {
                error.add(now.since(*median).seconds().abs());
            }
            if let Some(median) = forecasts.next_times.first().and_then(|column| column.get(i)).copied().flatten() {
                medians.insert(event.slot, median);
            }
            if !own {
                continue;
            }
            let value = |column: &[f64]| column.get(i).copied().unwrap_or(f64::NAN);
            time.add(value(&forecasts.surprise_time));
            residuals.push(1.0 - (-value(&forecasts.residual)).exp());
            mark.add(value(&forecasts.surprise_mark));
            value_nll.add(value(&forecasts.surprise_value));
            let truth = prepared.history.labels.get(event.history).copied().unwrap_or(f64::NAN);
            let p = value(&forecasts.score);
            label.add(-(truth * p.ln() + (1.0 - truth) * (-p).ln_1p()));
            events += 1;
        }
    }
    let coarse = package.manifest.head.law().is_some_and(|law| law.resolution.is_some());
    Ok(Served {
        part,
        events: time.1.max(label.1).min(events),
        time: time.get(),
        mark: mark.get(),
        value: value_nll.get(),
        label: label.get(),
        ks: if coarse { f64::NAN } else { distance(residuals) },
        error_s: error.get(),
        ns: spent.as_secs_f64() * 1e9 / f64_of_count(stepped.max(1)),
        bytes: 4 * model.initial_hidden().len(),
    })
}

/// Largest distance between the law of numbers and the uniform one; NaN without numbers.
fn distance(mut numbers: Vec<f64>) -> f64 {
    numbers.retain(|u| !u.is_nan());
    numbers.sort_by(f64::total_cmp);
    let n = f64_of_count(numbers.len());
    let far = |(i, u): (usize, &f64)| (u - f64_of_count(i) / n).abs().max((f64_of_count(i + 1) / n - u).abs());
    if numbers.is_empty() { f64::NAN } else { numbers.iter().enumerate().map(far).fold(0.0, f64::max) }
}

/// Empties the columns that the head fills, and gives it flags to fill.
fn clear(forecasts: &mut Forecasts, rows: usize, timed: bool) {
    let next_times = if timed { vec![Vec::new()] } else { Vec::new() };
    *forecasts = Forecasts { flags: vec![Flags::NONE; rows], next_times, ..Forecasts::default() };
}

/// Where an event stands: in order of arrival and in the history by key.
#[derive(Clone, Copy, Debug)]
struct Event {
    row: usize,
    history: usize,
    slot: Slot,
}

/// All events of the keys that have an event of `part`, in order of arrival, with their place in the history.
fn wanted(seen: &Seen, part: Part) -> Vec<Event> {
    let mut counts = vec![0usize; seen.keys];
    let mut has = vec![false; seen.keys];
    for (slot, own) in seen.slots.iter().zip(&seen.parts) {
        if let (Some(count), Some(has)) = (counts.get_mut(index(slot.0)), has.get_mut(index(slot.0))) {
            *count += 1;
            *has |= *own == part;
        }
    }
    // The history holds the keys one after the other in order of their slots, and each in order of arrival.
    let mut next = counts
        .iter()
        .scan(0, |start, count| {
            let own = *start;
            *start += count;
            Some(own)
        })
        .collect::<Vec<usize>>();
    let mut events = Vec::new();
    for (row, slot) in seen.slots.iter().enumerate() {
        let Some(place) = next.get_mut(index(slot.0)) else { continue };
        if has.get(index(slot.0)) == Some(&true) {
            events.push(Event { row, history: *place, slot: *slot });
        }
        *place += 1;
    }
    events
}

/// A batch as the lane would hand it on.
#[derive(Default)]
struct Columns {
    rows: Vec<f32>,
    times: Vec<EventTime>,
    gaps: Vec<Option<Gap>>,
    marks: Vec<Option<u32>>,
    values: Vec<f64>,
    occurrences: Vec<u32>,
    slots: Vec<Slot>,
}

impl Columns {
    fn of(batch: &[Event], seen: &Seen, prepared: &Prepared, schema: &EventSchema, head: &Head, value: Option<usize>) -> Self {
        let mut columns = Columns::default();
        let mark = schema.mark.and_then(|i| seen.events.columns.get(i)).and_then(|column| column.texts());
        let values = value.and_then(|i| seen.events.columns.get(i)).and_then(|column| column.numbers());
        let mut met: HashMap<Slot, u32> = HashMap::new();
        for event in batch {
            columns.rows.extend_from_slice(prepared.history.row(event.history));
            columns.times.push(seen.events.times.get(event.row).copied().unwrap_or_default());
            columns.gaps.push(seen.gaps.get(event.row).copied().flatten());
            columns.marks.push(mark.and_then(|column| column.get(event.row)).and_then(|mark| head.mark_index(mark)));
            columns.values.push(values.and_then(|column| column.get(event.row)).copied().unwrap_or(f64::NAN));
            let count = met.entry(event.slot).or_insert(0);
            columns.occurrences.push(*count);
            *count += 1;
            columns.slots.push(event.slot);
        }
        columns
    }
}

/// Hidden floats of each key.
#[derive(Default)]
struct States {
    init: Vec<f32>,
    keys: HashMap<Slot, Vec<f32>>,
    slots: Vec<Slot>,
    first: Vec<bool>,
}

impl States {
    /// Says whose the rows of the coming batch are.
    fn enter(&mut self, columns: &Columns) {
        self.slots.clone_from(&columns.slots);
        self.first = columns.gaps.iter().map(Option::is_none).collect();
    }
}

impl Memory for States {
    fn begin(&mut self, row: usize) {
        if let (Some(slot), Some(true)) = (self.slots.get(row), self.first.get(row)) {
            self.keys.insert(*slot, self.init.clone());
        }
    }

    fn hidden(&mut self, row: usize) -> &mut [f32] {
        let slot = self.slots.get(row).copied().unwrap_or_default();
        self.keys.get_mut(&slot).map(Vec::as_mut_slice).unwrap_or_default()
    }
}
