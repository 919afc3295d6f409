//! The head `hawkes`: each mark k has the intensity lambda_k(tau) = mu_k + sum_m e_km e^(-d_km tau), which is what an exponential Hawkes process
//! is between two of its events: the state holds what earlier events left, the step decays it by the gap and adds the kernel of the arrived
//! mark. Lambda = sum_k (mu_k tau + sum_m e_km (1 - e^(-d_km tau)) / d_km). Several decays a mark hold kernels that are sums of exponentials, or
//! a decay for each pair of marks. Hawkes, Biometrika 1971; Ozaki, "Maximum Likelihood Estimation of Hawkes' Self-Exciting Point Processes",
//! Ann. Inst. Statist. Math. 1979. An excitation may be negative as long as no intensity can be: mu_k + the sum of the negative e_km >= 0.

use super::elementary::{exp, exp_m1, ln};
use super::law::{Law, Time, finite, invert};

#[derive(Clone, Copy, Debug, Default)]
struct Part {
    excitation: f64,
    decay: f64,
}

/// One row: all mu, all e, all d.
#[derive(Debug)]
pub(super) struct Hawkes {
    /// mu.
    bases: Vec<f64>,
    /// e and d, those of a mark side by side.
    parts: Vec<Part>,
    per_mark: usize,
    /// Sum of mu.
    base: f64,
}

impl Hawkes {
    /// For so many marks (one, if events have none) and decays a mark.
    pub(super) fn new(marks: usize, decays: usize) -> Self {
        Hawkes { bases: vec![0.0; marks], parts: vec![Part::default(); marks * decays], per_mark: decays, base: 0.0 }
    }

    fn marks(&self) -> impl Iterator<Item = (f64, &[Part])> {
        self.bases.iter().copied().zip(self.parts.chunks(self.per_mark))
    }

    fn hazard_at(&self, tau: f64) -> f64 {
        self.base + self.parts.iter().map(|part| part.excitation * exp(-part.decay * tau)).sum::<f64>()
    }

    fn compensator_at(&self, tau: f64) -> f64 {
        // e (1 - e^(-d tau)) / d, which is e tau where nothing decays.
        let left = |part: &Part| {
            if part.decay > 0.0 { part.excitation * (-exp_m1(-part.decay * tau) / part.decay) } else { part.excitation * tau }
        };
        (self.base * tau + self.parts.iter().map(left).sum::<f64>()).max(0.0)
    }
}

impl Law for Hawkes {
    fn width(&self) -> usize {
        self.bases.len() + 2 * self.parts.len()
    }

    fn read(&mut self, row: &[f32]) -> bool {
        let (Some((bases, rest)), count) = (row.split_at_checked(self.bases.len()), self.parts.len()) else { return false };
        let Some((excitations, decays)) = rest.split_at_checked(count) else { return false };
        if decays.len() != count || !row.iter().all(|value| value.is_finite()) {
            return false;
        }
        self.bases.iter_mut().zip(bases).for_each(|(to, mu)| *to = f64::from(*mu));
        for (part, (e, d)) in self.parts.iter_mut().zip(excitations.iter().zip(decays)) {
            *part = Part { excitation: f64::from(*e), decay: f64::from(*d) };
        }
        self.base = self.bases.iter().sum();
        let sound = |(base, parts): (f64, &[Part])| {
            let least = parts.iter().fold(base, |least, part| least + part.excitation.min(0.0));
            // Single precision cannot tell -mu from the sum that was meant to cancel it.
            least >= -1e-6 * base && base >= 0.0 && parts.iter().all(|part| part.decay >= 0.0)
        };
        self.marks().all(sound)
    }

    fn compensator(&self, time: Time) -> f64 {
        self.compensator_at(time.tau).min(f64::MAX)
    }

    fn ln_hazard(&self, time: Time) -> f64 {
        finite(ln(self.hazard_at(time.tau).max(0.0)))
    }

    fn when(&self, target: f64) -> f64 {
        if target > 0.0 && target >= self.total() {
            return f64::INFINITY;
        }
        invert(target, |tau| (self.compensator_at(tau), self.hazard_at(tau)))
    }

    fn total(&self) -> f64 {
        let lasting = self.base + self.parts.iter().filter(|part| part.decay == 0.0).map(|part| part.excitation).sum::<f64>();
        if lasting > 0.0 {
            f64::INFINITY
        } else {
            self.parts.iter().filter(|part| part.decay > 0.0).map(|part| part.excitation / part.decay).sum::<f64>().max(0.0)
        }
    }

    fn intensities(&self, time: Time, into: &mut Vec<f64>) -> bool {
        into.clear();
        let at = |(base, parts): (f64, &[Part])| {
            let excited: f64 = parts.iter().map(|part| part.excitation * exp(-part.decay * time.tau)).sum();
            (base + excited).max(0.0)
        };
        into.extend(self.marks().map(at));
        true
    }
}
