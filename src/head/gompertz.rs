//! The head `gompertz`, the law of RMTPP: lambda(tau) = e^(v + w tau), Lambda = e^v (e^(w tau) - 1) / w. For w < 0 the hazard dies away and
//! no further event may come: p_never = exp(-e^v / |w|). Du et al., "Recurrent Marked Temporal Point Processes", KDD 2016, equation 11.

use super::elementary::{exp, exp_m1, ln, ln_1p};
use super::law::{Law, Time, exp_bounded, finite, logarithm};

/// w is taken into this range, per unit: a hazard that changes by e^100 in a unit is a jump.
const SLOPE: f64 = 100.0;

/// One row: v, w.
#[derive(Debug, Default)]
pub(super) struct Gompertz {
    log_now: f64,
    now: f64,
    slope: f64,
}

impl Law for Gompertz {
    fn width(&self) -> usize {
        2
    }

    fn read(&mut self, row: &[f32]) -> bool {
        let [v, w] = row else { return false };
        self.log_now = logarithm(*v);
        self.now = exp(self.log_now);
        self.slope = f64::from(*w).clamp(-SLOPE, SLOPE);
        v.is_finite() && w.is_finite()
    }

    fn compensator(&self, time: Time) -> f64 {
        let x = self.slope * time.tau;
        if x.abs() < 1e-300 {
            self.now * time.tau
        } else if x < 1.0 {
            // (e^x - 1) / x is between 0 and 1.72 here.
            self.now * time.tau * (exp_m1(x) / x)
        } else {
            // Beyond, e^x may leave the range before the product does.
            exp_bounded(self.log_now + x) / self.slope - self.now / self.slope
        }
    }

    fn ln_hazard(&self, time: Time) -> f64 {
        self.log_now + self.slope * time.tau
    }

    fn when(&self, target: f64) -> f64 {
        let y = target * self.slope / self.now;
        if y <= -1.0 {
            f64::INFINITY
        } else if y.abs() < 1e-300 {
            target / self.now
        } else {
            ln_1p(y) / self.slope
        }
    }

    /// Where the hazard has died away compensators are equal to the last digit: their difference is e^(v + w from) (e^(w width) - 1) / w, in logarithms.
    fn ln_interval(&self, from: Time, to: Time) -> f64 {
        /// ln(1 - e^-x) is ln x - x / 2, to the last digit, for x below e^-25.
        const SMALL: f64 = -25.0;
        let (x, width) = (self.slope * (to.tau - from.tau), to.tau - from.tau);
        // ln((e^x - 1) / x).
        let growth = if x.abs() < 1e-300 {
            0.0
        } else if x < 30.0 {
            ln(exp_m1(x) / x)
        } else {
            x - ln(x)
        };
        let ln_rise = self.log_now + self.slope * from.tau + ln(width) + growth;
        let own = if ln_rise < SMALL { ln_rise } else { ln(-exp_m1(-exp_bounded(ln_rise))) };
        finite(own - self.compensator(from)).min(0.0)
    }

    fn total(&self) -> f64 {
        if self.slope < 0.0 { self.now / -self.slope } else { f64::INFINITY }
    }
}
