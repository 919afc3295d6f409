//! The head `exponential`: the hazard is constant until the next event, lambda(tau) = e^a, Lambda = e^a tau. With a constant `a` it is the
//! homogeneous Poisson process (Daley and Vere-Jones 2003, chapter 2).

use super::elementary::exp;
use super::law::{Law, Time, logarithm};

/// One row: a.
#[derive(Debug, Default)]
pub(super) struct Exponential {
    log_rate: f64,
    rate: f64,
}

impl Law for Exponential {
    fn width(&self) -> usize {
        1
    }

    fn read(&mut self, row: &[f32]) -> bool {
        let [a] = row else { return false };
        self.log_rate = logarithm(*a);
        self.rate = exp(self.log_rate);
        a.is_finite()
    }

    fn compensator(&self, time: Time) -> f64 {
        self.rate * time.tau
    }

    fn ln_hazard(&self, _time: Time) -> f64 {
        self.log_rate
    }

    fn when(&self, target: f64) -> f64 {
        target / self.rate
    }
}
