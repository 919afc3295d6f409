//! What every law of the next event's time can say. Time is the gap tau since the key's last event, in the law's unit.
//!
//! With the hazard lambda(tau), the compensator is Lambda(tau) = integral of lambda from 0 to tau, the survival S = e^-Lambda and the
//! density f = lambda S (Daley and Vere-Jones, *An Introduction to the Theory of Point Processes*, 2003, chapter 7). A law that has
//! these two and the inverse of Lambda has everything; one that knows better (sums that would cancel, several quantiles at once) says so itself.

use super::elementary::{exp, exp_m1, ln, ln_1p};

/// A gap and its logarithm, taken once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time {
    pub(super) tau: f64,
    /// -infinity at 0.
    pub(super) ln: f64,
}

impl Time {
    pub(super) fn of(tau: f64) -> Self {
        Time { tau, ln: ln(tau) }
    }
}

/// Density and compensator at one gap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    /// ln f, per unit.
    pub(super) ln_density: f64,
    /// Lambda.
    pub(super) compensator: f64,
}

/// How far a law is going to be asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Reach {
    /// Not at all.
    Unasked,
    /// Up to this gap.
    Gap(f64),
    /// Up to the gap at which the compensator comes to `target`, and at least up to `gap`.
    Compensator { target: f64, gap: f64 },
}

/// A law, whose parameters are those of the row it has read last.
///
/// With finite parameters nothing it gives is NaN; a gap may be infinite, which stands for "never".
pub(super) trait Law: std::fmt::Debug + Send {
    /// Floats of a row that are parameters of the time; logits of the marks follow, if there are any.
    fn width(&self) -> usize;

    /// Takes the parameters of a row of that width. `false`, and the law is not to be used, if they are not finite or not those of a law.
    fn read(&mut self, row: &[f32]) -> bool;

    /// Says which rows are going to be read with `take`, by their place among these, and how far each will be asked: for laws that cost less together.
    fn prepare(&mut self, _rows: &mut dyn Iterator<Item = (&[f32], Reach)>) {}

    /// As `read`, of the row that stood at this place among those that were prepared.
    fn take(&mut self, _place: usize, row: &[f32]) -> bool {
        self.read(row)
    }

    /// Lambda; finite for a finite gap.
    fn compensator(&self, time: Time) -> f64;

    /// ln lambda; finite for a gap that is finite and above 0.
    fn ln_hazard(&self, time: Time) -> f64;

    /// The gap at which the compensator comes to `target` (at least 0); infinite if it never does.
    fn when(&self, target: f64) -> f64;

    /// What the compensator comes to in the end: infinite if an event comes for certain.
    fn total(&self) -> f64 {
        f64::INFINITY
    }

    /// ln f and Lambda.
    fn at(&self, time: Time) -> Point {
        let compensator = self.compensator(time);
        Point { ln_density: finite(self.ln_hazard(time) - compensator), compensator }
    }

    /// ln(F(to) - F(from)), not positive.
    fn ln_interval(&self, from: Time, to: Time) -> f64 {
        let (before, rise) = (self.compensator(from), self.compensator(to) - self.compensator(from));
        finite(ln(-exp_m1(-rise)) - before).min(0.0)
    }

    /// F: the probability of an event within the gap.
    fn below(&self, time: Time) -> f64 {
        (0.0 - exp_m1(-self.compensator(time))).clamp(0.0, 1.0)
    }

    /// lambda, finite.
    fn hazard(&self, time: Time) -> f64 {
        exp(self.ln_hazard(time)).min(f64::MAX)
    }

    /// The probability that no event comes at all.
    fn p_never(&self) -> f64 {
        exp(-self.total()).clamp(0.0, 1.0)
    }

    /// Appends the gaps of the quantiles for which the law was made, in their order, never falling. `targets` are their compensators.
    fn quantiles(&mut self, targets: &[f64], into: &mut Vec<f64>) {
        let mut last = 0.0;
        for target in targets {
            // Two targets a rounding error apart must not change places.
            last = self.when(*target).max(last);
            into.push(last);
        }
    }

    /// How far a law is asked by `sample`.
    fn reach_of_samples(&self) -> Reach {
        Reach::Unasked
    }

    /// A gap drawn from the law, from numbers drawn uniformly from [0, 1); infinite if no event comes. By the inverse of the compensator, which is Exp(1) at
    /// the next event (time rescaling); a law whose compensator is not exact draws by thinning.
    fn sample(&self, uniform: &mut dyn FnMut() -> f64) -> f64 {
        self.when(0.0 - ln_1p(-uniform()))
    }

    /// Sets `into` to the intensity of each mark at a gap and says so; `false` where the mark does not depend on the gap and has logits.
    fn intensities(&self, _time: Time, _into: &mut Vec<f64>) -> bool {
        false
    }

    /// The probability of each mark, whenever the next event comes, to 1e-3; `None` where `intensities` says `false`.
    fn chances(&mut self) -> Option<&[f64]> {
        None
    }
}

/// What survives to be shared out among the marks where nothing more is asked: an error of theirs that no one sees.
pub(super) const RARELY: f64 = 1e-3;

/// Sums of logarithms that leave the range of numbers stay at its end: a law that gives nothing at all to a point cannot be told from one
/// that gives e^-1e300, and the latter is finite.
pub(super) fn finite(x: f64) -> f64 {
    if x.is_nan() { f64::MIN } else { x.clamp(f64::MIN, f64::MAX) }
}

/// Logarithms of rates, scales and shapes are taken into this range, so that products of several stay numbers.
pub(super) const LOG: (f64, f64) = (-200.0, 200.0);

/// A parameter that is a logarithm, in range.
pub(super) fn logarithm(value: f32) -> f64 {
    f64::from(value).clamp(LOG.0, LOG.1)
}

/// e^x, but at most 1e300: compensators must stay finite.
pub(super) fn exp_bounded(x: f64) -> f64 {
    /// ln 1e300.
    const HIGHEST: f64 = 690.775_527_898_213_7;
    exp(x.min(HIGHEST))
}

/// The gap at which a rising compensator comes to `target`, below its total: Newton's steps within a bracket that is doubled until it holds
/// the gap, replaced by bisection where they leave it. `both` gives compensator and hazard.
pub(super) fn invert(target: f64, both: impl Fn(f64) -> (f64, f64)) -> f64 {
    /// Enough to double from 1e-300 to infinity, and to bisect any bracket to nothing.
    const STEPS: usize = 2200;
    const WIDTH: f64 = 4e-16;
    if target <= 0.0 {
        return 0.0;
    }
    let (_, at_zero) = both(0.0);
    let first = target / at_zero;
    let mut high = if first > 0.0 && first.is_finite() { first } else { 1.0 };
    let mut low = 0.0;
    let mut tau = high;
    let mut open = true;
    for _ in 0..STEPS {
        let (value, hazard) = both(tau);
        let off = target - value;
        if off > 0.0 {
            low = tau;
            if open {
                high = 2.0 * tau;
            }
        } else {
            high = tau;
            open = false;
        }
        let next = tau + off / hazard;
        let inside = next > low && (next < high || open);
        let step = if inside { next } else { 0.5 * low + 0.5 * high };
        // While the bracket is open, a Newton step from a hazard that is nearly gone could lead beyond all numbers.
        let step = if open && inside { step.min(16.0 * tau) } else { step };
        if !step.is_finite() {
            return f64::INFINITY;
        }
        if (step - tau).abs() <= WIDTH * tau || (!open && high - low <= WIDTH * high) {
            return step;
        }
        tau = step;
    }
    tau
}

#[cfg(test)]
mod tests;
