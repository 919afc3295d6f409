//! Forecasts against what then happened. Takes the lane's own output batch by batch, so that what is measured is what is served.
//!
//! An event is scored against the law that was published with its key's previous event (likelihood, residual, mark); a law is scored by what
//! happened by each of its deadlines (quantiles, horizons). Reading order: this file, `uniform`, `deadline`, `value`, `ranking`, `unusual`, `next` (several events ahead) with
//! `transport` and `precision`, `report`, then what shows it:
//! `text`, `html`, `plot`.

pub mod beginnings;
pub mod deadline;
pub mod history;
pub mod html;
pub mod laws;
pub mod next;
pub mod parity;
pub mod plot;
pub mod precision;
pub mod ranking;
pub mod report;
pub mod shift;
pub mod text;
pub mod transport;
pub mod uniform;
pub mod unusual;
pub mod value;

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::base::number::{f64_of_count, index, u32_of};
use crate::base::time::{EventTime, Gap, TimeUnit};
use crate::data::forecasts::Forecasts;
use deadline::Deadlines;
use ranking::Ranking;
use report::{Horizon, MarkRow, Marks, NextTime, Open, Quantile, Report, Residuals, TimeLaw};
use uniform::{Uniform, distance_bound};
use unusual::Unusual;
use value::{OfValue, Values};

/// Bins of the residuals: the distance from their law is exact to 1e-5.
const FINE: usize = 100_000;
/// The same of one mark.
const COARSE: usize = 4_000;
/// Marks whose residuals are looked at one by one.
const MARKS: usize = 64;
/// Bars of the histogram that is reported.
const BARS: usize = 20;
/// No such mark, or none known.
const NO_MARK: u32 = u32::MAX;

/// What is evaluated.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Unit of the law's gaps and densities; `None` for a score.
    pub unit: Option<TimeUnit>,
    /// Gap below which the law takes none, in its unit; 0 for a score.
    pub min_gap: f64,
    /// Whether the law is one of a coarse clock.
    pub coarse: bool,
    /// Whether the mark depends on the gap (`hawkes`, `intensity`): the residuals of the gaps that end with one mark are then not those of all gaps.
    pub joint: bool,
    /// Quantiles that the forecasts have, in their order.
    pub quantiles: Vec<f64>,
    /// Horizons with their names, in their order.
    pub horizons: Vec<(String, Gap)>,
    /// Names of the marks.
    pub marks: Vec<String>,
    /// The law of the value, if there is one.
    pub value: Option<Values>,
    /// How many events and keys a day are looked at of a score.
    pub k: usize,
}

/// The lane's output for one batch, with what only the lane knows of the arrived events. Columns of equal length.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The forecasts.
    pub forecasts: &'a Forecasts,
    /// Marks of the arrived events.
    pub marks: &'a [Option<u32>],
    /// Values of the arrived events in the field of the law of the value; NaN where missing. Empty without such a law.
    pub values: &'a [f64],
    /// Labels of the arrived events; NaN where unknown. Empty without labels.
    pub labels: &'a [f64],
    /// Whether the event counts. What does not still says when the law before it ended.
    pub counted: &'a [bool],
}

/// A mean under way.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: f64,
    count: usize,
}

impl Mean {
    fn add(&mut self, value: f64) {
        if !value.is_nan() {
            self.sum += value;
            self.count += 1;
        }
    }

    fn get(self) -> f64 {
        self.sum / f64_of_count(self.count)
    }
}

/// The law that a key's last event published.
#[derive(Clone, Copy, Debug)]
struct Law {
    /// Time of that event.
    at: EventTime,
    /// Whether it counts.
    counted: bool,
    /// Likeliest next mark.
    mark: u32,
}

#[derive(Clone, Debug)]
struct OfMark {
    residuals: Uniform,
    loss: Mean,
    right: usize,
    seen: usize,
}

/// Sums under way.
#[derive(Debug)]
pub struct Evaluation {
    settings: Settings,
    keys: HashMap<Box<[u8]>, u32, FixedState>,
    hasher: FixedState,
    laws: Vec<Law>,
    /// Quantiles of each key's law; `i64::MAX` where it never comes to that.
    next_times: Vec<i64>,
    /// Probabilities of each key's law, by horizon.
    within: Vec<f64>,
    clock: i64,
    events: usize,
    first: usize,
    late: usize,
    not_finite: usize,
    surprise_time: Mean,
    surprise_mark: Mean,
    residual: Mean,
    gap: Mean,
    /// The same as the law takes them: none below its smallest.
    taken_gap: Mean,
    residuals: Uniform,
    error: Mean,
    square_error: Mean,
    quantiles: Vec<Deadlines>,
    horizons: Vec<Deadlines>,
    value: Option<OfValue>,
    marks: Vec<OfMark>,
    right: usize,
    guessed: usize,
    ranking: Ranking,
    unusual: Unusual,
    open: Option<Mean>,
}

impl Evaluation {
    /// Scores of the events that count, each with its label.
    #[must_use]
    pub fn scored(&self) -> &[(f32, bool)] {
        self.ranking.scored()
    }

    /// Mean gap of the events that were scored so far, in seconds; NaN without any.
    #[must_use]
    pub fn mean_gap_s(&self) -> f64 {
        self.gap.get()
    }

    /// Nothing seen yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let of_mark = OfMark { residuals: Uniform::new(COARSE), loss: Mean::default(), right: 0, seen: 0 };
        Evaluation {
            keys: HashMap::default(),
            hasher: FixedState::default(),
            laws: Vec::new(),
            next_times: Vec::new(),
            within: Vec::new(),
            clock: i64::MIN,
            events: 0,
            first: 0,
            late: 0,
            not_finite: 0,
            surprise_time: Mean::default(),
            surprise_mark: Mean::default(),
            residual: Mean::default(),
            gap: Mean::default(),
            taken_gap: Mean::default(),
            residuals: Uniform::new(FINE),
            error: Mean::default(),
            square_error: Mean::default(),
            quantiles: vec![Deadlines::default(); settings.quantiles.len()],
            horizons: vec![Deadlines::default(); settings.horizons.len()],
            value: settings.value.clone().map(OfValue::new),
            marks: vec![of_mark; settings.marks.len().min(MARKS)],
            right: 0,
            guessed: 0,
            ranking: Ranking::new(settings.k),
            unusual: Unusual::default(),
            open: None,
            settings,
        }
    }

    /// Takes a batch into account. Rows of a key come in order.
    pub fn add(&mut self, batch: &Batch<'_>) {
        let forecasts = batch.forecasts;
        for (row, time) in forecasts.event_times.iter().enumerate() {
            let counted = batch.counted.get(row).copied().unwrap_or(true);
            self.clock = self.clock.max(time.0);
            let mark = batch.marks.get(row).copied().flatten();
            let labelled = !batch.labels.is_empty() && self.settings.unit.is_some();
            let unusual = if labelled { self.unusual.score(forecasts, row) } else { None };
            if counted {
                self.score(forecasts, row, mark);
                let label = batch.labels.get(row).copied().unwrap_or(f64::NAN);
                // A law scores no label; how unusual the event was is then what is ranked.
                let score = unusual.or_else(|| forecasts.score.get(row).copied()).unwrap_or(f64::NAN);
                if !label.is_nan() && !score.is_nan() {
                    let key = self.hasher.hash_one(forecasts.keys.bytes_at(row));
                    self.ranking.add(score, label > 0.5, time.0, key);
                }
            }
            if self.settings.unit.is_some() {
                let slot = self.settle(forecasts, row, counted, mark);
                if let Some((of_value, slot)) = self.value.as_mut().zip(slot) {
                    let value = batch.values.get(row).copied().unwrap_or(f64::NAN);
                    of_value.settle(slot, forecasts, row, value, counted);
                }
            }
        }
    }

    /// Whether the last event of a key counts, and with it the law that it has published.
    #[must_use]
    pub fn counts(&self, key: &[u8]) -> bool {
        self.keys.get(key).and_then(|slot| self.laws.get(index(*slot))).is_some_and(|law| law.counted)
    }

    /// The law of a key whose next event has not come by the end of the data: its compensator from the last event until then.
    pub fn add_open(&mut self, compensator: f64) {
        self.open.get_or_insert_default().add(compensator);
    }

    /// What the row says of its own event.
    fn score(&mut self, forecasts: &Forecasts, row: usize, mark: Option<u32>) {
        let value = |column: &[f64]| column.get(row).copied().unwrap_or(f64::NAN);
        self.events += 1;
        let gap = value(&forecasts.gap_s);
        self.first += usize::from(gap.is_nan());
        self.late += usize::from(forecasts.flags.get(row).is_some_and(|flags| flags.has(crate::data::flags::Flags::LATE_CLAMPED)));
        self.not_finite += usize::from(forecasts.flags.get(row).is_some_and(|flags| flags.has(crate::data::flags::Flags::NOT_FINITE)));
        let (surprise, residual) = (value(&forecasts.surprise_time), value(&forecasts.residual));
        self.surprise_time.add(surprise);
        let loss = value(&forecasts.surprise_mark);
        self.surprise_mark.add(loss);
        self.residual.add(residual);
        if !residual.is_nan() {
            self.gap.add(gap);
            // The constant rate is judged with the gaps that the law is judged with.
            let least = self.settings.unit.map_or(0.0, |unit| self.settings.min_gap * unit.seconds());
            self.taken_gap.add(gap.max(least));
        }
        let u = self.probability(forecasts, row, surprise, residual);
        self.residuals.add(u);
        if let Some(own) = mark.and_then(|mark| self.marks.get_mut(index(mark))) {
            own.residuals.add(u);
            own.loss.add(loss);
        }
    }

    /// F of the gap, uniform if the law is right. Of a coarse clock a number drawn from the tick's share of the law (Czado, Gneiting and Held, *Predictive
    /// Model Assessment for Count Data*, Biometrics 2009), by the position of the record, so that it is the same each time. The residual of such a law says where
    /// the middle of that share is, the surprise how large it is.
    fn probability(&self, forecasts: &Forecasts, row: usize, surprise: f64, residual: f64) -> f64 {
        let u = -(-residual).exp_m1();
        if !self.settings.coarse {
            return u;
        }
        let at = forecasts.partitions.get(row).zip(forecasts.offsets.get(row)).map(|(p, o)| (p.0, o.0));
        let draw = self.hasher.hash_one(at) >> 11;
        let draw = f64_of_count(usize::try_from(draw).unwrap_or(0)) / f64_of_count(1 << 53);
        (u + (draw - 0.5) * (-surprise).exp()).clamp(0.0, 1.0)
    }

    /// Ends the law that the key's previous event published, and takes down the one that this row publishes. Gives the key's place.
    fn settle(&mut self, forecasts: &Forecasts, row: usize, counted: bool, mark: Option<u32>) -> Option<usize> {
        let time = forecasts.event_times.get(row).copied()?;
        let key = forecasts.keys.bytes_at(row);
        let known = self.keys.get(key).copied();
        let (quantiles, horizons) = (self.settings.quantiles.len(), self.settings.horizons.len());
        let slot = match known {
            Some(slot) => {
                self.end(index(slot), Some(time), mark, forecasts.gap_s.get(row).is_some_and(|gap| !gap.is_nan()));
                index(slot)
            }
            None => {
                let slot = self.laws.len();
                self.keys.insert(key.into(), u32_of(slot));
                self.laws.push(Law { at: time, counted, mark: NO_MARK });
                self.next_times.resize(self.next_times.len() + quantiles, i64::MAX);
                self.within.resize(self.within.len() + horizons, f64::NAN);
                slot
            }
        };
        let likeliest =
            forecasts.next_marks.get(row * forecasts.marks_per_row).filter(|chance| forecasts.marks_per_row > 0 && !chance.p.is_nan());
        if let Some(law) = self.laws.get_mut(slot) {
            *law = Law { at: time, counted, mark: likeliest.map_or(NO_MARK, |chance| chance.mark) };
        }
        for (to, column) in self.next_times.iter_mut().skip(slot * quantiles).zip(&forecasts.next_times) {
            *to = column.get(row).copied().flatten().map_or(i64::MAX, |time| time.0);
        }
        for (to, column) in self.within.iter_mut().skip(slot * horizons).zip(&forecasts.p_within) {
            *to = column.get(row).copied().unwrap_or(f64::NAN);
        }
        Some(slot)
    }

    /// A key's law has ended with an event, or with the data. `scored`: the event was scored against it.
    fn end(&mut self, slot: usize, came: Option<EventTime>, mark: Option<u32>, scored: bool) {
        let Some(law) = self.laws.get(slot).copied().filter(|law| law.counted) else { return };
        let (quantiles, horizons, clock) = (self.settings.quantiles.len(), self.settings.horizons.len(), self.clock);
        let by = |deadline: i64| came.is_some_and(|came| came.0 <= deadline);
        let own = self.next_times.get(slot * quantiles..(slot + 1) * quantiles).unwrap_or_default();
        for ((q, deadlines), deadline) in self.settings.quantiles.iter().zip(&mut self.quantiles).zip(own) {
            if *deadline < i64::MAX {
                deadlines.add(*deadline, *q, by(*deadline), clock);
            }
            if let Some(came) = came
                && scored
                && *q == 0.5
                && *deadline < i64::MAX
            {
                let error = Gap(came.0.saturating_sub(*deadline)).seconds();
                self.error.add(error.abs());
                self.square_error.add(error * error);
            }
        }
        let own = self.within.get(slot * horizons..(slot + 1) * horizons).unwrap_or_default();
        for (((_, horizon), deadlines), p) in self.settings.horizons.iter().zip(&mut self.horizons).zip(own) {
            if !p.is_nan() {
                let deadline = law.at.after(*horizon).0;
                deadlines.add(deadline, *p, by(deadline), clock);
            }
        }
        if let Some(mark) = mark
            && scored
            && law.mark != NO_MARK
        {
            self.guessed += 1;
            self.right += usize::from(law.mark == mark);
            if let Some(own) = self.marks.get_mut(index(mark)) {
                own.seen += 1;
                own.right += usize::from(law.mark == mark);
            }
        }
    }

    /// Everything, once the data has ended.
    #[must_use]
    pub fn close(mut self) -> Report {
        for slot in 0..self.laws.len() {
            self.end(slot, None, None, false);
        }
        let end = self.clock;
        let keys = self.keys.len();
        let settings = self.settings;
        let time = settings.unit.map(|unit| {
            let scored = self.surprise_time.count;
            let total = self.surprise_time.sum + if self.surprise_mark.count > 0 { self.surprise_mark.sum } else { 0.0 };
            let open = self.open.map(|open| Open { keys: open.count, nll_per_event: (total + open.sum) / f64_of_count(self.events) });
            TimeLaw {
                unit: unit.name().to_owned(),
                coarse: settings.coarse,
                scored,
                nll: self.surprise_time.get(),
                nll_with_marks: total / f64_of_count(scored),
                nll_per_event: total / f64_of_count(self.events),
                constant_rate: (!settings.coarse).then(|| 1.0 + (self.taken_gap.get() / unit.seconds()).ln()),
                open,
                residuals: Residuals {
                    mean: self.residual.get(),
                    ks: self.residuals.distance(),
                    ks_bound: distance_bound(scored),
                    pit: self.residuals.shares(BARS),
                    qq: qq(&self.residuals),
                    calibration: (0..=50).map(|i| (f64::from(i) / 50.0, below(&self.residuals, f64::from(i) / 50.0))).collect(),
                },
                next_time: NextTime { events: self.error.count, mae_s: self.error.get(), rmse_s: self.square_error.get().sqrt() },
                quantiles: settings
                    .quantiles
                    .iter()
                    .zip(self.quantiles)
                    .map(|(q, deadlines)| {
                        let sums = deadlines.close(end);
                        Quantile { quantile: *q, coverage: sums.rate(), laws: sums.count }
                    })
                    .collect(),
                horizons: settings
                    .horizons
                    .iter()
                    .zip(self.horizons)
                    .map(|((name, _), deadlines)| {
                        let sums = deadlines.close(end);
                        let rate = sums.rate();
                        Horizon {
                            horizon: name.clone(),
                            laws: sums.count,
                            mean_p: sums.mean(),
                            rate,
                            brier: sums.brier(),
                            brier_rate: rate * (1.0 - rate),
                            reliability: sums.reliability(),
                        }
                    })
                    .collect(),
            }
        });
        let marks = (self.surprise_mark.count > 0).then(|| Marks {
            scored: self.surprise_mark.count,
            log_loss: self.surprise_mark.get(),
            accuracy: f64_of_count(self.right) / f64_of_count(self.guessed),
            by_mark: settings
                .marks
                .iter()
                .zip(&self.marks)
                .filter(|(_, own)| own.loss.count > 0)
                .map(|(name, own)| MarkRow {
                    mark: name.clone(),
                    events: own.loss.count,
                    log_loss: own.loss.get(),
                    recall: f64_of_count(own.right) / f64_of_count(own.seen),
                    ks: (!settings.joint).then(|| own.residuals.distance()),
                    ks_bound: distance_bound(own.residuals.len()),
                })
                .collect(),
        });
        Report {
            events: self.events,
            keys,
            first: self.first,
            late: self.late,
            not_finite: self.not_finite,
            time,
            marks,
            value: self.value.map(OfValue::close),
            score: self.ranking.close(),
            ..Report::default()
        }
    }
}

/// Share of the numbers below a point.
fn below(numbers: &Uniform, point: f64) -> f64 {
    if numbers.is_empty() {
        return f64::NAN;
    }
    numbers.shares(100).iter().take(crate::base::number::count_of(point * 100.0 + 0.5)).sum()
}

/// Pairs of quantiles, of Exp(1) and of the residuals.
fn qq(numbers: &Uniform) -> Vec<(f64, f64)> {
    if numbers.is_empty() {
        return Vec::new();
    }
    let shares = (1..100).map(|i| f64::from(i) / 100.0).chain([0.995, 0.999]);
    shares.map(|share| (-(-share).ln_1p(), -(-numbers.quantile(share).min(1.0 - 1e-5)).ln_1p())).collect()
}

#[cfg(test)]
mod tests;
