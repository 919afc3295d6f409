//! The head `weibull`: Lambda = (tau / s)^k with scale s = e^a and shape k = e^b, hazard (k / s) (tau / s)^(k - 1): falling for k < 1 (bursts),
//! rising for k > 1 (rhythm). Weibull, "A Statistical Distribution Function of Wide Applicability", J. Appl. Mech. 1951.

use super::elementary::{exp, ln};
use super::law::{Law, Time, exp_bounded, finite, logarithm};

/// ln of the shape is taken into this range: from bursts of 1 : e^20 to a clock of 5 % jitter.
const LOG_SHAPE: (f64, f64) = (-3.0, 3.0);

/// One row: a, b.
#[derive(Debug, Default)]
pub(super) struct Weibull {
    log_scale: f64,
    log_shape: f64,
    shape: f64,
}

impl Weibull {
    fn ln_compensator(&self, time: Time) -> f64 {
        self.shape * (time.ln - self.log_scale)
    }
}

impl Law for Weibull {
    fn width(&self) -> usize {
        2
    }

    fn read(&mut self, row: &[f32]) -> bool {
        let [a, b] = row else { return false };
        self.log_scale = logarithm(*a);
        self.log_shape = f64::from(*b).clamp(LOG_SHAPE.0, LOG_SHAPE.1);
        self.shape = exp(self.log_shape);
        a.is_finite() && b.is_finite()
    }

    fn compensator(&self, time: Time) -> f64 {
        exp_bounded(self.ln_compensator(time))
    }

    fn ln_hazard(&self, time: Time) -> f64 {
        finite(self.log_shape + self.ln_compensator(time) - time.ln)
    }

    fn when(&self, target: f64) -> f64 {
        exp(self.log_scale + ln(target) / self.shape)
    }
}
