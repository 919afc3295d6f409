//! Whether the law is still right, while it runs: residuals of the last events, and how often events come before the quantiles.
//!
//! Residuals are Exp(1) if the law is right, so 1 - e^-residual is uniform. A fitted law never is quite right, so its drift is looked for against its own
//! past: of every `WINDOW` events in turn the distribution is compared with that of a window after which nothing more came of the start, by the test of Kolmogorov and
//! Smirnov for two samples. Independent residuals of an unchanged law pass its bound once in a thousand windows. That is a small difference with so many events, and a law
//! that misses a daily rhythm goes to and fro over it each day: so only a distance that is also relevant, as the pipeline has it, is a drift.
//!
//! At the start of a stream short gaps end first, and keys are little known. That fades slowly: one window is like the one before it long before it is over. So the
//! reference is the first of the windows 2, 4, 8, 16, ... that is like the one at half its number.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::base::number::{count_of, f64_of_count};

/// Events of a window.
pub const WINDOW: usize = 10_000;
/// Bins of 1 - e^-residual: distances are exact to 1e-3.
const BINS: usize = 1000;
/// How often an unchanged law is said to have drifted, per window.
pub const FALSE_ALARMS: f64 = 0.001;
/// Windows without a drift after which one is over: a law at the bound goes to and fro over it.
const OVER: u64 = 10;
/// Two samples of n differ by more than this times sqrt(2 / n) once in a thousand times (Smirnov 1939).
const ONE_IN_THOUSAND: f64 = 1.949;

/// Shared by all lanes of a run.
#[derive(Debug, Default)]
pub struct Trust(Mutex<Windows>);

#[derive(Debug, Default)]
struct Windows {
    /// The first window of number 2, 4, 8, ... that is like the one at half its number.
    reference: Option<Vec<u32>>,
    /// Until there is one, the last window whose number was a power of two.
    half: Vec<u32>,
    /// Full windows so far.
    full: u64,
    /// The last full window.
    last: Option<(Vec<u32>, f64)>,
    /// The one that fills.
    bins: Vec<u32>,
    count: usize,
    sum: f64,
    drifts: u64,
    compared: u64,
    /// Drifted windows since the drift began, and those since that had none.
    drifted: u64,
    clean: u64,
    quantiles: Vec<Coverage>,
}

/// Events that came by a quantile, of the current and the last `WINDOW` of them.
#[derive(Clone, Copy, Debug, Default)]
struct Coverage {
    quantile: f64,
    current: (usize, usize),
    last: Option<f64>,
}

/// A window whose residuals are not those of the first that had settled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drift {
    /// Largest distance between the two distributions.
    pub distance: f64,
    /// What it has passed: the distance that counts as relevant, and at least what an unchanged law passes once in a thousand windows.
    pub bound: f64,
    /// Mean residual of the window; above 1, events come later than the law says.
    pub mean: f64,
    /// How many windows have drifted since the drift began. It is over after ten that have not.
    pub windows: u64,
}

/// What is known now; `None` before the first window is full.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Largest distance between the last window's residuals and Exp(1).
    pub ks: Option<f64>,
    /// Their mean.
    pub mean: Option<f64>,
    /// Quantiles, and the shares of the last window's events that came by them.
    pub coverage: Vec<(f64, f64)>,
    /// Windows that were found to have drifted, of those that were compared with the first settled one.
    pub drifts: u64,
    /// Windows that were compared.
    pub compared: u64,
}

impl Trust {
    fn windows(&self) -> MutexGuard<'_, Windows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes residuals, those that are NaN left out. Says so when a window is full and has drifted by at least `relevant`.
    pub fn add(&self, residuals: &[f64], relevant: f64) -> Option<Drift> {
        let mut windows = self.windows();
        let mut found = None;
        for residual in residuals.iter().filter(|residual| !residual.is_nan()) {
            found = windows.add(*residual, relevant).or(found);
        }
        found
    }

    /// Takes events that were compared with a quantile: how many, and how many came by it.
    pub fn cover(&self, place: usize, quantile: f64, compared: usize, by: usize) {
        let mut windows = self.windows();
        if windows.quantiles.len() <= place {
            windows.quantiles.resize(place + 1, Coverage::default());
        }
        if let Some(own) = windows.quantiles.get_mut(place) {
            own.quantile = quantile;
            own.current = (own.current.0 + compared, own.current.1 + by);
            if own.current.0 >= WINDOW {
                own.last = Some(f64_of_count(own.current.1) / f64_of_count(own.current.0));
                own.current = (0, 0);
            }
        }
    }

    /// Another model from here on: begins anew, but for what was counted.
    pub fn clear(&self) {
        let mut windows = self.windows();
        let (drifts, compared) = (windows.drifts, windows.compared);
        *windows = Windows { drifts, compared, ..Windows::default() };
    }

    /// What is known now.
    #[must_use]
    pub fn read(&self) -> Reading {
        let windows = self.windows();
        let even: Vec<u32> = Vec::new();
        Reading {
            ks: windows.last.as_ref().map(|(bins, _)| distance(bins, &even)),
            mean: windows.last.as_ref().map(|(_, mean)| *mean),
            coverage: windows.quantiles.iter().filter_map(|own| Some((own.quantile, own.last?))).collect(),
            drifts: windows.drifts,
            compared: windows.compared,
        }
    }
}

impl Windows {
    fn add(&mut self, residual: f64, relevant: f64) -> Option<Drift> {
        if self.bins.is_empty() {
            self.bins = vec![0; BINS];
        }
        let u = -(-residual).exp_m1();
        if let Some(bin) = self.bins.get_mut(count_of(u * f64_of_count(BINS)).min(BINS - 1)) {
            *bin += 1;
        }
        self.count += 1;
        self.sum += residual;
        if self.count < WINDOW {
            return None;
        }
        let (bins, mean) = (std::mem::take(&mut self.bins), self.sum / f64_of_count(self.count));
        (self.count, self.sum) = (0, 0.0);
        let chance = ONE_IN_THOUSAND * (2.0 / f64_of_count(WINDOW)).sqrt();
        let bound = chance.max(relevant);
        let drift =
            self.reference.as_ref().map(|reference| Drift { distance: distance(&bins, reference), bound, mean, windows: self.drifted + 1 });
        self.compared += u64::from(self.reference.is_some());
        self.full += 1;
        if self.reference.is_none() && self.full.is_power_of_two() {
            if self.full > 1 && distance(&bins, &self.half) <= chance {
                self.reference = Some(bins.clone());
            }
            self.half.clone_from(&bins);
        }
        self.last = Some((bins, mean));
        let drift = drift.filter(|drift| drift.distance > drift.bound);
        self.drifts += u64::from(drift.is_some());
        match drift {
            Some(drift) => (self.drifted, self.clean) = (drift.windows, 0),
            None => self.clean += 1,
        }
        if self.clean >= OVER {
            self.drifted = 0;
        }
        drift
    }
}

/// Largest difference between the shares below each bin's end; an empty second sample stands for the uniform law.
fn distance(one: &[u32], other: &[u32]) -> f64 {
    let total = |bins: &[u32]| bins.iter().map(|bin| f64::from(*bin)).sum::<f64>();
    let (n, m) = (total(one), total(other));
    let (mut a, mut b, mut largest) = (0.0, 0.0, 0.0_f64);
    for (i, bin) in one.iter().enumerate() {
        a += f64::from(*bin) / n;
        b = match other.get(i) {
            Some(bin) => b + f64::from(*bin) / m,
            None => f64_of_count(i + 1) / f64_of_count(one.len()),
        };
        largest = largest.max((a - b).abs());
    }
    largest
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::distr::{Distribution, Uniform};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Every distance beyond chance is relevant.
    const ANY: f64 = 0.0;

    fn residuals(random: &mut ChaCha8Rng, count: usize, factor: f64) -> Vec<f64> {
        let uniform = Uniform::new(0.0_f64, 1.0).unwrap();
        (0..count).map(|_| -factor * (1.0 - uniform.sample(random)).ln()).collect()
    }

    #[test]
    fn an_unchanged_law_hardly_ever_drifts_and_a_changed_one_at_once() {
        let mut random = ChaCha8Rng::seed_from_u64(4);
        let trust = Trust::default();
        assert_eq!(trust.read(), Reading::default());
        let alarms = (0..300).filter(|_| trust.add(&residuals(&mut random, WINDOW, 1.1), ANY).is_some()).count();
        assert!(alarms <= 2, "{alarms} of 300 windows");
        let reading = trust.read();
        assert!((reading.mean.unwrap() - 1.1).abs() < 0.05 && (0.01..0.08).contains(&reading.ks.unwrap()), "{reading:?}");
        let drift = trust.add(&residuals(&mut random, WINDOW, 1.3), ANY).unwrap();
        assert!(drift.distance > drift.bound && drift.mean > 1.2 && drift.windows == 1, "{drift:?}");
        let reading = trust.read();
        assert_eq!(reading.drifts, u64::try_from(alarms).unwrap() + 1);
        assert!((290..=300).contains(&reading.compared), "{} windows", reading.compared);
        assert_eq!(trust.add(&residuals(&mut random, WINDOW, 1.1), ANY), None);
        assert_eq!(trust.add(&residuals(&mut random, WINDOW, 1.3), ANY).unwrap().windows, 2, "one window is no end");
        for _ in 0..OVER {
            assert_eq!(trust.add(&residuals(&mut random, WINDOW, 1.1), ANY), None);
        }
        assert_eq!(trust.add(&residuals(&mut random, WINDOW, 1.3), ANY).unwrap().windows, 1, "an end ends the count");
    }

    #[test]
    fn a_start_that_fades_slowly_is_no_drift_and_a_change_after_it_is() {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let trust = Trust::default();
        // From the tenth window on one is like the one before it; to the end it is another 0.2 of the mean.
        let alarms = (0..200)
            .filter(|window| trust.add(&residuals(&mut random, WINDOW, 1.0 - 0.8 * (-f64::from(*window) / 8.0).exp()), ANY).is_some())
            .count();
        assert!(alarms <= 1, "{alarms} of 200 windows");
        assert!(trust.read().compared > 100);
        assert!(trust.add(&residuals(&mut random, WINDOW, 0.9), ANY).is_some());
    }

    #[test]
    fn a_difference_that_is_not_relevant_is_no_drift() {
        let mut random = ChaCha8Rng::seed_from_u64(6);
        let trust = Trust::default();
        for _ in 0..4 {
            assert_eq!(trust.add(&residuals(&mut random, WINDOW, 1.0), 0.1), None);
        }
        // Another 15 % are some 0.05 away, another 50 % some 0.15.
        assert_eq!(trust.add(&residuals(&mut random, WINDOW, 1.15), 0.1), None);
        let drift = trust.add(&residuals(&mut random, WINDOW, 1.5), 0.1).unwrap();
        assert!((drift.bound, drift.windows) == (0.1, 1) && drift.distance > 0.1, "{drift:?}");
    }

    #[test]
    fn coverage_is_that_of_the_last_full_window() {
        let trust = Trust::default();
        trust.add(&[f64::NAN; 5], ANY);
        trust.cover(0, 0.5, 9_000, 4_000);
        assert!(trust.read().coverage.is_empty());
        trust.cover(0, 0.5, 1_000, 600);
        trust.cover(0, 0.5, 5_000, 0);
        assert_eq!(trust.read().coverage, [(0.5, 0.46)]);
    }
}
