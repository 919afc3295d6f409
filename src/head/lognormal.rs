//! The head `lognormal_mixture`: F(tau) = sum_k w_k Phi((ln tau - mu_k) / sigma_k). Source and sums: `mixture`.

use super::elementary::{exp, ln};
use super::law::{Law, Point, Time};
use super::mixture::Mixture;
use super::solve::Solver;

/// A mixture of log-normal laws of the gap, with the search for its quantiles.
#[derive(Debug)]
pub(super) struct LogNormals {
    components: usize,
    mixture: Mixture,
    solver: Solver,
}

impl LogNormals {
    /// `components` of them, for these quantiles.
    pub(super) fn new(components: usize, quantiles: &[f64]) -> Self {
        LogNormals { components, mixture: Mixture::new(components), solver: Solver::new(quantiles) }
    }
}

impl Law for LogNormals {
    fn width(&self) -> usize {
        3 * self.components
    }

    fn read(&mut self, row: &[f32]) -> bool {
        self.mixture.read(row)
    }

    fn compensator(&self, time: Time) -> f64 {
        if time.tau > 0.0 { self.mixture.compensator(&self.mixture.sums(time.ln), time.ln) } else { 0.0 }
    }

    fn ln_hazard(&self, time: Time) -> f64 {
        let sums = self.mixture.sums(time.ln);
        self.mixture.ln_density(&sums, time.ln) + self.mixture.compensator(&sums, time.ln) - time.ln
    }

    fn at(&self, time: Time) -> Point {
        let sums = self.mixture.sums(time.ln);
        // The density of the gap is that of its logarithm over the gap.
        let ln_density = self.mixture.ln_density(&sums, time.ln) - time.ln;
        Point { ln_density, compensator: self.mixture.compensator(&sums, time.ln) }
    }

    fn ln_interval(&self, from: Time, to: Time) -> f64 {
        self.mixture.ln_interval(from.ln, to.ln)
    }

    fn below(&self, time: Time) -> f64 {
        if time.tau > 0.0 { self.mixture.below(time.ln) } else { 0.0 }
    }

    fn hazard(&self, time: Time) -> f64 {
        let sums = self.mixture.sums(time.ln);
        let ln_hazard = self.mixture.ln_density(&sums, time.ln) + self.mixture.compensator(&sums, time.ln);
        // Very small gaps can bring it beyond the largest number.
        (exp(ln_hazard) / time.tau).min(f64::MAX)
    }

    fn p_never(&self) -> f64 {
        0.0
    }

    /// By bisection of the compensator in ln tau, for any target: rows have their own search below.
    fn when(&self, target: f64) -> f64 {
        if target <= 0.0 {
            return 0.0;
        }
        let (mut low, mut high) = (-1e39_f64, 1e39_f64);
        while high - low > 1e-15 * (1.0 + low.abs().min(high.abs())) {
            // The interesting range is small; so are the first steps.
            let middle = if low < -1e3 && high > -1e3 {
                -1e3
            } else if low < 1e3 && high > 1e3 {
                1e3
            } else {
                0.5 * low + 0.5 * high
            };
            if middle <= low || middle >= high {
                break;
            }
            if self.mixture.compensator(&self.mixture.sums(middle), middle) < target {
                low = middle;
            } else {
                high = middle;
            }
        }
        exp(high)
    }

    /// A component by its weight, a normal number by Marsaglia's polar method ("A Convenient Method for Generating Normal Variables", SIAM Review 1964).
    fn sample(&self, uniform: &mut dyn FnMut() -> f64) -> f64 {
        let components =
            self.mixture.blocks().iter().flat_map(|block| block.weight.into_iter().zip(block.mean.into_iter().zip(block.inverse)));
        let (mut rest, mut chosen) = (uniform(), (0.0, 1.0));
        for (weight, component) in components.filter(|(weight, _)| *weight > 0.0) {
            chosen = component;
            rest -= weight;
            if rest < 0.0 {
                break;
            }
        }
        let (mean, inverse) = chosen;
        loop {
            let (x, y) = (2.0 * uniform() - 1.0, 2.0 * uniform() - 1.0);
            let square = x * x + y * y;
            if square > 0.0 && square < 1.0 {
                return exp(mean + x * (-2.0 * ln(square) / square).sqrt() / inverse);
            }
        }
    }

    fn quantiles(&mut self, _targets: &[f64], into: &mut Vec<f64>) {
        into.extend(self.solver.quantiles(&self.mixture).iter().map(|u| exp(*u)));
    }
}
