//! Forecasts of one model against those of another, or against what was sent, for the same events: how far distributions move, whose likelihood is better,
//! whose decisions change, and which keys change most.
//!
//! Sums run over all events. Quantiles and distances are of a sample of at most `sample::MOST` pairs, which depends on the events alone. Both samples
//! are of the same events, so a distance is a size and no test: one of independent samples would call it significant far too seldom.

pub mod report;
pub mod sample;
pub mod statistics;
pub mod text;

use crate::base::number::f64_of_count;
use crate::base::time::EventTime;
pub use crate::data::field::Units;
use crate::data::field::{Field, Scale};
use crate::data::layout::FieldId;
use report::{Decisions, FieldShift, Gain, Likelihood, Spread, TopKey};
use sample::Sample;
use statistics::{distance, quantile, stability};

/// Least distance from 0 and 1 of a probability whose logarithm is taken.
const LEAST: f64 = 1e-12;

/// What is compared.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Fields that both sides have.
    pub fields: Vec<Field>,
    /// The field, by index, that decisions are taken on, and from which value on there is an alert.
    pub threshold: Option<(usize, f64)>,
    /// Keys that are named.
    pub top: usize,
}

/// One event's forecasts on both sides.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// When it was.
    pub time: EventTime,
    /// What tells it from others.
    pub hash: u64,
    /// Whether what was to be found came true; NaN where unknown.
    pub label: f64,
    /// The fields' values before.
    pub before: &'a [f64],
    /// And after.
    pub after: &'a [f64],
}

/// Sums of a field.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    before: (f64, usize),
    after: (f64, usize),
    /// Sum of the absolute differences where both have a value.
    moved: (f64, usize),
}

/// Sums of two losses of the same events.
#[derive(Clone, Copy, Debug, Default)]
struct Losses {
    before: f64,
    after: f64,
    square: f64,
    count: usize,
}

/// A comparison under way.
#[derive(Debug)]
pub struct Shift {
    settings: Settings,
    events: usize,
    sums: Vec<Sums>,
    sample: Sample,
    time: Losses,
    mark: Losses,
    label: Losses,
    decisions: Decisions,
    lead: Option<usize>,
    top: Vec<TopKey>,
}

impl Shift {
    /// Nothing compared yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let lead = settings.threshold.map(|(field, _)| field).or_else(|| lead(&settings.fields));
        Shift {
            events: 0,
            sums: vec![Sums::default(); settings.fields.len()],
            sample: Sample::new(settings.fields.len(), sample::MOST),
            time: Losses::default(),
            mark: Losses::default(),
            label: Losses::default(),
            decisions: Decisions::default(),
            lead,
            top: Vec::new(),
            settings,
        }
    }

    /// The field that keys are ranked by.
    #[must_use]
    pub fn lead(&self) -> Option<&Field> {
        self.settings.fields.get(self.lead?)
    }

    /// Takes one event.
    pub fn add(&mut self, pair: Pair<'_>) {
        self.events += 1;
        for ((sums, before), after) in self.sums.iter_mut().zip(pair.before).zip(pair.after) {
            sums.add(*before, *after);
        }
        self.sample.add(pair.hash, pair.before, pair.after);
        let both = |field: usize| Some((*pair.before.get(field)?, *pair.after.get(field)?)).filter(|(a, b)| !a.is_nan() && !b.is_nan());
        let of = |id: FieldId| self.settings.fields.iter().position(|field| field.id == id).and_then(both);
        if let Some((before, after)) = of(FieldId::SurpriseTime) {
            self.time.add(before, after);
        }
        if let Some((before, after)) = of(FieldId::SurpriseMark) {
            self.mark.add(before, after);
        }
        if let Some((before, after)) = of(FieldId::Score)
            && !pair.label.is_nan()
        {
            let loss = |p: f64| if pair.label > 0.5 { -p.max(LEAST).ln() } else { -(1.0 - p).max(LEAST).ln() };
            self.label.add(loss(before), loss(after));
        }
        if let Some((field, threshold)) = self.settings.threshold
            && let Some((before, after)) = both(field)
        {
            self.decisions.add(before >= threshold, after >= threshold);
        }
        if let Some((before, after)) = self.lead.and_then(both) {
            self.rank(&pair, before, after);
        }
    }

    /// Keeps the keys whose largest change is largest. A key that comes late or goes and comes again is ranked by its largest all the same: that one either
    /// finds a place, or as many keys have larger ones.
    fn rank(&mut self, pair: &Pair<'_>, before: f64, after: f64) {
        let change = match self.lead().map(Field::scale) {
            Some(Scale::Seconds) => (after.max(1e-6) / before.max(1e-6)).ln(),
            _ => after - before,
        };
        let size = change.abs();
        let least = self.top.last().map_or(f64::NEG_INFINITY, |last| last.change.abs());
        if size <= 0.0 || (self.top.len() >= self.settings.top && size <= least) {
            return;
        }
        let key = String::from_utf8_lossy(pair.key).into_owned();
        if let Some(at) = self.top.iter().position(|other| other.key == key) {
            if self.top.get(at).is_some_and(|other| other.change.abs() >= size) {
                return;
            }
            self.top.remove(at);
        }
        let at = self.top.partition_point(|other| other.change.abs() >= size);
        self.top.insert(at, TopKey { key, event_time: pair.time.to_string(), before, after, change });
        self.top.truncate(self.settings.top);
    }

    /// What was found.
    #[must_use]
    pub fn close(self) -> report::Figures {
        let fields = self.settings.fields.iter().zip(&self.sums).enumerate();
        let fields = fields.map(|(i, (field, sums))| {
            let (before, after) = self.sample.sorted(i);
            let is_probability = field.scale() == Scale::Probability;
            FieldShift {
                name: field.name.clone(),
                unit: if field.scale() == Scale::Seconds { "s until the next event" } else { "" }.to_owned(),
                before: Spread::of(&before, sums.before),
                after: Spread::of(&after, sums.after),
                mean_absolute_change: mean(sums.moved),
                ks: finite(distance(&before, &after)),
                psi: if is_probability { finite(stability(&before, &after)) } else { None },
            }
        });
        report::Figures {
            events: self.events,
            sampled: self.sample.len(),
            likelihood: Likelihood { time: self.time.gain(), mark: self.mark.gain(), label: self.label.gain() },
            decisions: self.settings.threshold.and_then(|(field, threshold)| {
                let field = self.settings.fields.get(field)?;
                Some(Decisions { field: field.name.clone(), threshold, ..self.decisions.clone() })
            }),
            fields: fields.collect(),
            ranked_by: self.lead().map(|field| field.name.clone()),
            top: self.top.clone(),
        }
    }
}

/// The field that says most: a score, else the time by which the next event is as likely as not, else the first.
fn lead(fields: &[Field]) -> Option<usize> {
    let score = fields.iter().position(|field| field.id == FieldId::Score);
    let median = fields.iter().position(|field| field.name == "next_time_q50");
    let time = fields.iter().position(|field| field.scale() == Scale::Seconds);
    score.or(median).or(time).or_else(|| (!fields.is_empty()).then_some(0))
}

impl Sums {
    fn add(&mut self, before: f64, after: f64) {
        let add = |to: &mut (f64, usize), value: f64| {
            if !value.is_nan() {
                *to = (to.0 + value, to.1 + 1);
            }
        };
        add(&mut self.before, before);
        add(&mut self.after, after);
        add(&mut self.moved, (after - before).abs());
    }
}

fn mean((sum, count): (f64, usize)) -> Option<f64> {
    (count > 0).then(|| sum / f64_of_count(count))
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

impl Losses {
    fn add(&mut self, before: f64, after: f64) {
        self.before += before;
        self.after += after;
        self.square += (after - before) * (after - before);
        self.count += 1;
    }

    fn gain(&self) -> Option<Gain> {
        let n = f64_of_count(self.count);
        let change = (self.after - self.before) / n;
        let spread = (self.square / n - change * change).max(0.0);
        (self.count > 0).then(|| Gain {
            events: self.count,
            before: self.before / n,
            after: self.after / n,
            change,
            standard_error: (spread / n).sqrt(),
        })
    }
}

impl Decisions {
    fn add(&mut self, before: bool, after: bool) {
        self.events += 1;
        self.alerts_before += usize::from(before);
        self.alerts_after += usize::from(after);
        self.new_alerts += usize::from(after && !before);
        self.lost_alerts += usize::from(before && !after);
    }
}

impl Spread {
    fn of(sorted: &[f64], sums: (f64, usize)) -> Spread {
        let at = |q: f64| finite(quantile(sorted, q));
        Spread { values: sums.1, mean: mean(sums), q05: at(0.05), q25: at(0.25), q50: at(0.5), q75: at(0.75), q95: at(0.95) }
    }
}

#[cfg(test)]
mod tests;
