//! The chances of the marks of the next event, whenever it comes, of a law that gives mark and time together: of mark k the integral of lambda_k(t) S(t) dt.
//!
//! By Gauss and Legendre's rule in the gap, span by span. The weights of a span are made to sum to the law's own probability of it, so that where shares stay as
//! they are the result is exact however the survival falls. (A rule in the probability itself has no such spans: after a burst the share of a mark can fall
//! like a step there.)

use super::elementary::exp;

/// Nodes and weights of the rule on (0, 1): exact for polynomials to degree 7.
const NODES: [(f64, f64); 4] = [
    (0.069_431_844_202_973_71, 0.173_927_422_568_726_93),
    (0.330_009_478_207_571_87, 0.326_072_577_431_273_07),
    (0.669_990_521_792_428_1, 0.326_072_577_431_273_07),
    (0.930_568_155_797_026_3, 0.173_927_422_568_726_93),
];
/// Probabilities that are next to nothing: the shares of one node will do.
const LITTLE: f64 = 1e-4;

/// Sums over spans, and what they are computed with.
#[derive(Clone, Debug, Default)]
pub(super) struct Chances {
    /// By mark.
    sums: Vec<f64>,
    /// Intensities at a node.
    at: Vec<f64>,
    /// Sums of the span.
    span: Vec<f64>,
}

impl Chances {
    /// Begins the next law, of so many marks.
    pub(super) fn clear(&mut self, marks: usize) {
        for of in [&mut self.sums, &mut self.span] {
            of.clear();
            of.resize(marks, 0.0);
        }
    }

    /// Adds the events that come between two gaps, with what survives until each. `law` sets its argument to the intensities at a gap and gives the compensator.
    pub(super) fn add(&mut self, (from, to): (f64, f64), (before, after): (f64, f64), mut law: impl FnMut(f64, &mut Vec<f64>) -> f64) {
        let comes = before - after;
        if comes <= 0.0 {
            return;
        }
        if comes < LITTLE {
            law(0.5 * (from + to), &mut self.at);
            return self.share(comes);
        }
        self.span.iter_mut().for_each(|sum| *sum = 0.0);
        for (node, weight) in NODES {
            let compensator = law(from + (to - from) * node, &mut self.at);
            let weight = weight * exp(-compensator);
            self.span.iter_mut().zip(&self.at).for_each(|(sum, lambda)| *sum += weight * lambda);
        }
        std::mem::swap(&mut self.at, &mut self.span);
        self.share(comes);
        self.span.resize(self.sums.len(), 0.0);
    }

    /// Adds this much probability, shared as these intensities are.
    pub(super) fn add_rest(&mut self, comes: f64, intensities: impl Iterator<Item = f64>) {
        self.at.clear();
        self.at.extend(intensities);
        self.share(comes);
    }

    /// Adds this much probability, shared as `at` is.
    fn share(&mut self, comes: f64) {
        let all: f64 = self.at.iter().sum();
        if all > 0.0 {
            self.sums.iter_mut().zip(&self.at).for_each(|(sum, own)| *sum += comes * own / all);
        }
    }

    /// The sum of each mark.
    pub(super) fn sums(&self) -> &[f64] {
        &self.sums
    }
}
