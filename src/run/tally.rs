//! A sink in front of a sink: sums up the forecasts that pass, and compares each forecast time with what then happened.

use std::hash::BuildHasher;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::counts::Counts;
use super::stage::Sinks;
use super::trust::{self, Drift};
use crate::base::clock;
use crate::base::error::Result;
use crate::base::number::f64_of_count;
use crate::base::offset::{Offset, Partition};
use crate::base::rfc3339;
use crate::base::time::EventTime;
use crate::data::alarm::Alarm;
use crate::data::commit::{Commit, Commits};
use crate::data::flags::Flags;
use crate::data::forecasts::{Forecasts, Identity};
use crate::sink::alarm::Alarms;
use crate::sink::{ForecastSink, Sink};

/// What the forecasts that passed say of themselves.
#[derive(Clone, Debug, Default)]
pub struct Calibration {
    /// Quantiles that are checked.
    pub quantiles: Vec<f64>,
    /// Per quantile: next events that came at or before it.
    pub before: Vec<usize>,
    /// Next events compared.
    pub compared: usize,
    /// Sum and number of `surprise_time`.
    pub surprise_time: (f64, usize),
    /// Sum and number of `surprise_mark`.
    pub surprise_mark: (f64, usize),
    /// Sum and number of `surprise_value`.
    pub surprise_value: (f64, usize),
    /// Sum and number of `residual`; the mean is 1 if the law is right.
    pub residual: (f64, usize),
    /// Sum and number of `score`.
    pub score: (f64, usize),
    pending: Pending,
}

/// Most keys whose forecasts are kept to be compared: what a summary says must not cost memory for every key.
const FOLLOWED: usize = 100_000;

/// Times of the quantiles of a forecast; `None` for never.
type Times = Box<[Option<EventTime>]>;

/// The last forecast of some keys: of all as long as they are few, then of those whose hashes are low enough.
#[derive(Clone, Debug, Default)]
struct Pending {
    next: HashMap<Box<[u8]>, Times, FixedState>,
    /// Bits of a hash that must be 0.
    halved: u32,
}

/// Bits that are 0, of those that the map does not look at.
fn zeros(hasher: &FixedState, key: &[u8]) -> u32 {
    (hasher.hash_one(key) >> 32).trailing_zeros()
}

impl Pending {
    fn follows(&self, key: &[u8]) -> bool {
        self.halved == 0 || zeros(self.next.hasher(), key) >= self.halved
    }

    /// Another forecast of a key, and the one before it.
    fn put(&mut self, key: &[u8], next: impl Iterator<Item = Option<EventTime>>, compare: impl FnOnce(&[Option<EventTime>])) {
        if !self.follows(key) {
            return;
        }
        if let Some(forecast) = self.next.get_mut(key) {
            compare(forecast);
            forecast.iter_mut().zip(next).for_each(|(own, next)| *own = next);
            return;
        }
        self.next.insert(key.into(), next.collect());
        while self.next.len() > FOLLOWED {
            self.halved += 1;
            let (hasher, halved) = (self.next.hasher().clone(), self.halved);
            self.next.retain(|key, _| zeros(&hasher, key) >= halved);
        }
    }
}

impl Calibration {
    /// Share of next events at or before each quantile; `None` before any was compared.
    #[must_use]
    pub fn shares(&self) -> Option<Vec<f64>> {
        (self.compared > 0).then(|| self.before.iter().map(|n| f64_of_count(*n) / f64_of_count(self.compared)).collect())
    }

    /// Takes rows into account. Rows of a key must come in order.
    pub fn observe(&mut self, forecasts: &Forecasts) {
        if self.quantiles.is_empty() {
            self.quantiles.clone_from(&forecasts.identity.quantiles);
            self.before = vec![0; self.quantiles.len()];
        }
        add(&mut self.surprise_time, &forecasts.surprise_time);
        add(&mut self.surprise_mark, &forecasts.surprise_mark);
        add(&mut self.surprise_value, &forecasts.surprise_value);
        add(&mut self.residual, &forecasts.residual);
        add(&mut self.score, &forecasts.score);
        if forecasts.next_times.is_empty() {
            return;
        }
        // That no event has come is said of the forecast before, not of an event.
        for (row, time) in forecasts.event_times.iter().enumerate().filter(|(row, _)| forecasts.overdue_at(*row).is_none()) {
            let next = forecasts.next_times.iter().map(|column| column.get(row).copied().flatten());
            let first = forecasts.n_events.get(row) == Some(&1);
            let (compared, before) = (&mut self.compared, &mut self.before);
            self.pending.put(forecasts.keys.bytes_at(row), next, |forecast| {
                if !first {
                    *compared += 1;
                    for (count, bound) in before.iter_mut().zip(forecast) {
                        *count += usize::from(bound.is_some_and(|bound| *time <= bound));
                    }
                }
            });
        }
    }

    /// Adds what another lane saw.
    pub fn merge(&mut self, other: Calibration) {
        if self.quantiles.is_empty() {
            *self = other;
            return;
        }
        self.compared += other.compared;
        for (mine, theirs) in self.before.iter_mut().zip(other.before) {
            *mine += theirs;
        }
        let pairs = [
            (&mut self.surprise_time, other.surprise_time),
            (&mut self.surprise_mark, other.surprise_mark),
            (&mut self.surprise_value, other.surprise_value),
            (&mut self.residual, other.residual),
            (&mut self.score, other.score),
        ];
        for (mine, theirs) in pairs {
            mine.0 += theirs.0;
            mine.1 += theirs.1;
        }
    }
}

fn add(sum: &mut (f64, usize), values: &[f64]) {
    for value in values.iter().filter(|value| !value.is_nan()) {
        sum.0 += value;
        sum.1 += 1;
    }
}

/// Alarms of a run, with what is the same in all of them.
pub struct Raise {
    /// Where they are raised.
    pub alarms: Alarms,
    /// Name of the pipeline.
    pub pipeline: String,
    /// The model.
    pub identity: Arc<Identity>,
}

impl Raise {
    fn drift(&self, drift: &Drift) {
        let mut time = Vec::new();
        rfc3339::write_micros(&mut time, clock::now());
        self.alarms.raise(Alarm {
            kind: "drift",
            pipeline: self.pipeline.clone(),
            time: String::from_utf8_lossy(&time).into_owned(),
            windows: drift.windows,
            window_events: trust::WINDOW,
            distance: drift.distance,
            bound: drift.bound,
            false_alarms: trust::FALSE_ALARMS,
            mean_residual: drift.mean,
            model: self.identity.model.clone(),
            model_version: self.identity.model_version.clone(),
            fingerprint: self.identity.fingerprint.clone(),
        });
    }
}

/// Forwards rows to another sink and notes them.
pub struct Tally {
    inner: Box<dyn ForecastSink>,
    counts: Arc<Counts>,
    alarms: Option<Arc<Raise>>,
    /// From which distance on a drift is one.
    drift: f64,
    /// The input goes on: what is logged is of today. Of one that ends the summary says it.
    live: bool,
    shared: Arc<Mutex<Calibration>>,
    own: Calibration,
}

impl Tally {
    /// Wraps a lane's sinks; what passed is added to `shared` when the lane closes. `live`: the input goes on; `drift`: from which distance on one is called.
    #[must_use]
    pub fn wrap(
        sinks: Sinks,
        shared: &Arc<Mutex<Calibration>>,
        counts: &Arc<Counts>,
        alarms: Option<&Arc<Raise>>,
        (live, drift): (bool, f64),
    ) -> Sinks {
        let (counts, alarms) = (Arc::clone(counts), alarms.map(Arc::clone));
        let Sinks { forecasts: inner, dead_letters, shadow } = sinks;
        let tally = Tally { inner, counts, alarms, drift, live, shared: Arc::clone(shared), own: Calibration::default() };
        Sinks { forecasts: Box::new(tally), dead_letters, shadow }
    }

    fn count_flags(&self, rows: &[Flags]) {
        for ((flag, _), count) in Flags::NAMES.iter().zip(&self.counts.flagged) {
            let flagged = rows.iter().filter(|flags| flags.has(*flag)).count();
            if flagged > 0 {
                count.fetch_add(u64::try_from(flagged).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
        }
    }
}

impl ForecastSink for Tally {
    fn write(&mut self, forecasts: &Forecasts) -> Result<()> {
        let (compared, before) = (self.own.compared, self.own.before.clone());
        self.own.observe(forecasts);
        self.count_flags(&forecasts.flags);
        let trust = &self.counts.trust;
        for (place, (quantile, by)) in self.own.quantiles.iter().zip(&self.own.before).enumerate() {
            trust.cover(place, *quantile, self.own.compared - compared, by - before.get(place).copied().unwrap_or(0));
        }
        // Every doubling of a drift's length is worth a line: a law that stays wrong must not fill the log.
        if let Some(drift) = trust.add(&forecasts.residual, self.drift).filter(|drift| drift.windows.is_power_of_two()) {
            if self.live {
                tracing::warn!(
                    windows = drift.windows,
                    distance = format!("{:.4}", drift.distance),
                    bound = format!("{:.4}", drift.bound),
                    mean_residual = format!("{:.3}", drift.mean),
                    "drift: the residuals of the last 10,000 events are not those from after the start"
                );
            }
            if let Some(alarms) = &self.alarms {
                alarms.drift(&drift);
            }
        }
        self.inner.write(forecasts)
    }
}

impl Sink for Tally {
    fn recover(&mut self, partition: Partition) -> Result<Option<Commit>> {
        self.inner.recover(partition)
    }

    fn begin(&mut self, partition: Partition, from: Offset) -> Result<()> {
        self.inner.begin(partition, from)
    }

    fn release(&mut self, partition: Partition) -> Result<()> {
        self.inner.release(partition)
    }

    fn due(&self) -> bool {
        self.inner.due()
    }

    fn committed(&mut self) -> Result<Option<Commits>> {
        self.inner.committed()
    }

    fn is_prompt(&self) -> bool {
        self.inner.is_prompt()
    }

    fn is_full(&self) -> bool {
        self.inner.is_full()
    }

    fn keeps_offsets(&self) -> bool {
        self.inner.keeps_offsets()
    }

    fn written(&self) -> u64 {
        self.inner.written()
    }

    fn durable(&mut self) -> Result<u64> {
        self.inner.durable()
    }

    fn end_epoch(&mut self, commits: &Commits, force: bool) -> Result<bool> {
        self.inner.end_epoch(commits, force)
    }

    fn close(&mut self) -> Result<()> {
        if let Ok(mut shared) = self.shared.lock() {
            shared.merge(std::mem::take(&mut self.own));
        }
        self.inner.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_compared_while_they_are_few_and_a_fair_share_of_them_when_they_are_many() {
        let mut pending = Pending::default();
        let key = |i: usize| format!("c{i:07}").into_bytes();
        let due = |i: usize| std::iter::once(Some(EventTime(i as i64)));
        for i in 0..FOLLOWED {
            pending.put(&key(i), due(i), |_| panic!("nothing came before"));
        }
        let mut compared = 0;
        for i in 0..FOLLOWED {
            pending.put(&key(i), due(i + 1), |before| compared += usize::from(before == [Some(EventTime(i as i64))]));
        }
        assert_eq!(compared, FOLLOWED);
        for i in FOLLOWED..8 * FOLLOWED {
            pending.put(&key(i), due(i), |_| panic!("nothing came before"));
        }
        assert!((FOLLOWED / 3..=FOLLOWED).contains(&pending.next.len()), "{}", pending.next.len());
        let mut odd = 0;
        for i in 0..8 * FOLLOWED {
            pending.put(&key(i), due(i), |_| odd += i % 2);
        }
        let half = pending.next.len() / 2;
        assert!(odd.abs_diff(half) < half / 20, "{odd} of {half}: who is followed has nothing to do with the key");
    }
}
