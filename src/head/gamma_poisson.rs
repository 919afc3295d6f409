//! The head `gamma_poisson`: events of a key come at a constant rate of which only a gamma law is known, of shape e^a and rate e^b (in units of
//! time). The gap is then Lomax: S = (1 + tau / e^b)^(-e^a), hazard e^a / (e^b + tau). After n events in a time T the law of the rate has the shape
//! a_0 + n and the rate b_0 + T, which is all that such a model learns. Greenwood and Yule, J. Royal Stat. Soc. 1920; Lomax, JASA 1954.

use super::elementary::{exp, exp_m1, ln, ln_1p};
use super::law::{Law, Time, logarithm};

/// One row: a, b.
#[derive(Debug, Default)]
pub(super) struct GammaPoisson {
    log_shape: f64,
    shape: f64,
    rate: f64,
}

impl Law for GammaPoisson {
    fn width(&self) -> usize {
        2
    }

    fn read(&mut self, row: &[f32]) -> bool {
        let [a, b] = row else { return false };
        self.log_shape = logarithm(*a);
        self.shape = exp(self.log_shape);
        self.rate = exp(logarithm(*b));
        a.is_finite() && b.is_finite()
    }

    fn compensator(&self, time: Time) -> f64 {
        self.shape * ln_1p(time.tau / self.rate)
    }

    fn ln_hazard(&self, time: Time) -> f64 {
        self.log_shape - ln(self.rate + time.tau)
    }

    fn when(&self, target: f64) -> f64 {
        self.rate * exp_m1(target / self.shape)
    }
}
