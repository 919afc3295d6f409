//! The forecasts of two models for the same events, compared as they pass.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;

use super::ShadowCounts;
use crate::base::metrics::{DIFFERENCES, Histogram};
use crate::base::number::f64_of_count;
use crate::base::offset::{Offset, Partition};
use crate::data::field::{Field, Units};
use crate::data::forecasts::Forecasts;
use crate::data::layout::{FieldId, Layout};

/// Parts of a likelihood.
pub const PARTS: [&str; 3] = ["time", "mark", "value"];

/// What is compared.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Fields that both models give, as the first and as the second has them.
    fields: Vec<(Field, Field)>,
    units: Units,
    thresholds: Vec<(String, f64)>,
}

/// Differences of one field, second model less first.
#[derive(Debug)]
pub struct Differences {
    /// Their sum and number.
    pub sum: (f64, usize),
    /// Their sizes.
    pub sizes: Histogram,
}

/// Negative log-likelihoods of the same events, in nats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Losses {
    /// Sum of the first model's.
    pub first: f64,
    /// Sum of the shadow's.
    pub shadow: f64,
    /// Sum of the squares of their differences.
    pub square: f64,
    /// Events that both have one of.
    pub events: usize,
}

impl Losses {
    /// Mean difference of an event, the shadow's less the first model's, and its standard error if events are taken for independent.
    #[must_use]
    pub fn change(&self) -> Option<(f64, f64)> {
        let n = f64_of_count(self.events);
        let mean = (self.shadow - self.first) / n;
        (self.events > 1).then(|| (mean, ((self.square / n - mean * mean).max(0.0) / (n - 1.0)).sqrt()))
    }

    fn add(&mut self, first: f64, shadow: f64) {
        if first.is_finite() && shadow.is_finite() {
            self.first += first;
            self.shadow += shadow;
            self.square += (shadow - first) * (shadow - first);
            self.events += 1;
        }
    }
}

/// How often models agree that a forecast is an alert.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alerts {
    /// Both say so.
    pub both: u64,
    /// Only the first.
    pub first: u64,
    /// Only the shadow.
    pub shadow: u64,
    /// Neither.
    pub none: u64,
}

/// What has been compared so far.
#[derive(Debug, Default)]
pub struct Judged {
    /// Events that both models have a forecast of.
    pub events: u64,
    /// By field.
    pub differences: BTreeMap<String, Differences>,
    /// By part of `PARTS`.
    pub losses: [Losses; 3],
    /// By field of `thresholds`.
    pub alerts: BTreeMap<String, Alerts>,
}

impl Setting {
    /// For two models with these layouts of all their fields.
    #[must_use]
    pub fn new(first: &Layout, shadow: &Layout, units: Units, thresholds: Vec<(String, f64)>) -> Self {
        let theirs = Field::of(shadow);
        // Surprises are losses, which are summed up by themselves.
        let compared = |field: &Field| !matches!(field.id, FieldId::SurpriseTime | FieldId::SurpriseMark);
        let both = |field: Field| theirs.iter().find(|other| other.name == field.name).map(|other| (field.clone(), other.clone()));
        let fields = Field::of(first).into_iter().filter(compared).filter_map(both).collect();
        Setting { fields, units, thresholds }
    }
}

/// Compares batch by batch.
pub struct Compare {
    setting: Arc<Setting>,
    rows: HashMap<(Partition, Offset), usize>,
}

impl Compare {
    /// Nothing compared yet.
    #[must_use]
    pub fn new(setting: Arc<Setting>) -> Self {
        Compare { setting, rows: HashMap::new() }
    }

    /// Compares the forecasts of one batch that both models have.
    pub fn take(&mut self, first: &Forecasts, shadow: &Forecasts, counts: &ShadowCounts) {
        if first.is_empty() || shadow.is_empty() {
            return;
        }
        self.rows.clear();
        let at = |of: &Forecasts, row: usize| of.partitions.get(row).copied().zip(of.offsets.get(row).copied());
        for row in (0..first.len()).filter(|row| first.overdue_at(*row).is_none()) {
            if let Some(at) = at(first, row) {
                self.rows.insert(at, row);
            }
        }
        let mut judged = counts.judged();
        for row in (0..shadow.len()).filter(|row| shadow.overdue_at(*row).is_none()) {
            if let Some(other) = at(shadow, row).and_then(|at| self.rows.get(&at)) {
                judged.add(&self.setting, (first, *other), (shadow, row));
            }
        }
    }
}

impl Judged {
    fn add(&mut self, setting: &Setting, (first, a): (&Forecasts, usize), (shadow, b): (&Forecasts, usize)) {
        self.events += 1;
        let own = |column: &[f64], row: usize| column.get(row).copied().unwrap_or(f64::NAN);
        let convert = |id, value| setting.units.convert(id, value);
        let pairs = [
            (own(&first.surprise_time, a), convert(FieldId::SurpriseTime, own(&shadow.surprise_time, b))),
            (own(&first.surprise_mark, a), own(&shadow.surprise_mark, b)),
            (own(&first.surprise_value, a), own(&shadow.surprise_value, b)),
        ];
        self.losses.iter_mut().zip(pairs).for_each(|(losses, (first, shadow))| losses.add(first, shadow));
        for (mine, theirs) in &setting.fields {
            let (one, other) = (mine.value(first, a), convert(theirs.id, theirs.value(shadow, b)));
            if let Some((_, threshold)) = setting.thresholds.iter().find(|(name, _)| *name == mine.name) {
                let alerts = self.alerts.entry(mine.name.clone()).or_default();
                match (one >= *threshold, other >= *threshold) {
                    (true, true) => alerts.both += 1,
                    (true, false) => alerts.first += 1,
                    (false, true) => alerts.shadow += 1,
                    (false, false) => alerts.none += 1,
                }
            }
            let difference = other - one;
            if !difference.is_finite() {
                continue;
            }
            if !self.differences.contains_key(&mine.name) {
                self.differences.insert(mine.name.clone(), Differences { sum: (0.0, 0), sizes: Histogram::new(&DIFFERENCES) });
            }
            if let Some(differences) = self.differences.get_mut(&mine.name) {
                differences.sum.0 += difference;
                differences.sum.1 += 1;
                differences.sizes.observe_value(difference.abs());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::EventTime;
    use crate::data::forecasts::Identity;

    fn forecasts(rows: &[(i64, f64, f64)]) -> Forecasts {
        let identity = Identity { horizons: vec!["1h".to_owned()], ..Identity::default() };
        let mut all = Forecasts::new(Arc::new(identity));
        for (offset, surprise, p) in rows {
            all.partitions.push(Partition(0));
            all.offsets.push(Offset(*offset));
            all.event_times.push(EventTime(*offset));
            all.surprise_time.push(*surprise);
            all.p_within[0].push(*p);
        }
        all
    }

    #[test]
    fn the_same_events_are_compared_wherever_they_stand_in_the_batch() {
        let first = forecasts(&[(1, 2.0, 0.4), (2, 3.0, 0.6), (3, f64::NAN, 0.7)]);
        let shadow = forecasts(&[(2, 2.5, 0.5), (3, 1.0, 0.9), (4, 9.0, 0.9)]);
        let layout = Layout { fields: vec![("p_within_1h".to_owned(), FieldId::PWithin(0))] };
        let setting = Setting::new(&layout, &layout, Units::SAME, vec![("p_within_1h".to_owned(), 0.6)]);
        let counts = ShadowCounts::default();
        Compare::new(Arc::new(setting)).take(&first, &shadow, &counts);
        let judged = counts.judged();
        assert_eq!(judged.events, 2);
        assert_eq!(judged.losses[0], Losses { first: 3.0, shadow: 2.5, square: 0.25, events: 1 });
        assert_eq!(judged.alerts["p_within_1h"], Alerts { both: 1, first: 1, shadow: 0, none: 0 });
        let differences = &judged.differences["p_within_1h"];
        assert!((differences.sum.0 - 0.1).abs() < 1e-12 && differences.sum.1 == 2);
        assert!((differences.sizes.read().sum - 0.3).abs() < 1e-5 && differences.sizes.read().count == 2);
    }

    #[test]
    fn a_change_of_the_likelihood_has_its_standard_error() {
        let mut losses = Losses::default();
        [(1.0, 2.0), (1.0, 2.0), (2.0, 2.0), (2.0, 2.0)].iter().for_each(|(first, shadow)| losses.add(*first, *shadow));
        let (mean, error) = losses.change().unwrap();
        // Differences 1, 1, 0, 0: their sample variance is 1/3.
        assert!((mean - 0.5).abs() < 1e-12 && (error - (1.0_f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12, "{error}");
        assert_eq!(Losses::default().change(), None);
    }
}
