//! The head `piecewise_constant`: the hazard is e^(a_i) between the edges t_i and t_(i+1), t_0 = 0, and beyond the last edge that of the last bin.
//! An edge belongs to the bin that it ends. Lambda is the sum of hazard times time spent in each bin. Friedman, "Piecewise Exponential Models for Survival Data with Covariates", Annals of
//! Statistics 1982. With bins that count a key's own gaps it is its history density.

use super::elementary::exp;
use super::law::{Law, Time, logarithm};

/// A bin that has begun.
#[derive(Clone, Copy, Debug)]
struct Bin {
    /// Where it begins.
    from: f64,
    /// Lambda there.
    before: f64,
    log_hazard: f64,
    hazard: f64,
}

/// One row: all a.
#[derive(Debug)]
pub(super) struct Piecewise {
    bins: Vec<Bin>,
}

impl Piecewise {
    /// Bins that end at these gaps, and one beyond.
    pub(super) fn new(edges: &[f64]) -> Self {
        let bin = |from| Bin { from, before: 0.0, log_hazard: 0.0, hazard: 1.0 };
        Piecewise { bins: std::iter::once(0.0).chain(edges.iter().copied()).map(bin).collect() }
    }

    /// The last bin that `begun` says to have begun.
    fn bin(&self, begun: impl Fn(&Bin) -> bool) -> Bin {
        let after = self.bins.partition_point(begun).max(1);
        self.bins.get(after - 1).copied().unwrap_or(Bin { from: 0.0, before: 0.0, log_hazard: 0.0, hazard: 1.0 })
    }
}

impl Law for Piecewise {
    fn width(&self) -> usize {
        self.bins.len()
    }

    fn read(&mut self, row: &[f32]) -> bool {
        let (mut before, mut from, mut hazard) = (0.0, 0.0, 0.0);
        for (bin, a) in self.bins.iter_mut().zip(row) {
            before += hazard * (bin.from - from);
            (from, bin.before, bin.log_hazard) = (bin.from, before, logarithm(*a));
            hazard = exp(bin.log_hazard);
            bin.hazard = hazard;
        }
        row.len() == self.bins.len() && row.iter().all(|a| a.is_finite())
    }

    fn compensator(&self, time: Time) -> f64 {
        let bin = self.bin(|bin| bin.from < time.tau);
        bin.before + bin.hazard * (time.tau - bin.from)
    }

    fn ln_hazard(&self, time: Time) -> f64 {
        self.bin(|bin| bin.from < time.tau).log_hazard
    }

    fn when(&self, target: f64) -> f64 {
        let bin = self.bin(|bin| bin.before < target);
        bin.from + ((target - bin.before) / bin.hazard).max(0.0)
    }
}
