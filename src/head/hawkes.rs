//! The head `hawkes`: each mark k has the intensity lambda_k(tau) = mu_k + sum_m e_km e^(-d_km tau), which is what an exponential Hawkes process
//! is between two of its events: the state holds what earlier events left, the step decays it by the gap and adds the kernel of the arrived
//! mark. Lambda = sum_k (mu_k tau + sum_m e_km (1 - e^(-d_km tau)) / d_km). Several decays a mark hold kernels that are sums of exponentials, or
//! a decay for each pair of marks. Hawkes, Biometrika 1971; Ozaki, "Maximum Likelihood Estimation of Hawkes' Self-Exciting Point Processes",
//! Ann. Inst. Statist. Math. 1979. An excitation may be negative as long as no intensity can be: mu_k + the sum of the negative e_km >= 0.

use super::chances::Chances;
use super::elementary::{exp, exp_m1, ln};
use super::law::{Law, Time, finite, invert};

/// Each span of the chances of the marks ends so many times as far as the one before, the first one where the fastest excitation that matters is gone by 1 - 1/e.
const SPANS: f64 = 3.0;
/// Most spans: from a microsecond to beyond all years.
const MOST_SPANS: usize = 64;
/// Events that an excitation brings, to be worth a span.
const MATTERS: f64 = 1e-4;
/// What survives of a law to be shared out as it is there.
const LEFT: f64 = 1e-4;

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
    chances: Chances,
}

impl Hawkes {
    /// For so many marks (one, if events have none) and decays a mark.
    pub(super) fn new(marks: usize, decays: usize) -> Self {
        Hawkes {
            bases: vec![0.0; marks],
            parts: vec![Part::default(); marks * decays],
            per_mark: decays,
            base: 0.0,
            chances: Chances::default(),
        }
    }

    fn marks(&self) -> impl Iterator<Item = (f64, &[Part])> {
        self.bases.iter().copied().zip(self.parts.chunks(self.per_mark))
    }

    fn hazard_at(&self, tau: f64) -> f64 {
        self.base + self.parts.iter().map(|part| part.excitation * exp(-part.decay * tau)).sum::<f64>()
    }

    /// The intensities of the marks, and the compensator, by one exponential a part.
    fn at_node(&self, tau: f64, into: &mut Vec<f64>) -> f64 {
        let mut compensator = self.base * tau;
        into.clear();
        into.extend(self.marks().map(|(base, parts)| {
            let mut lambda = base;
            for part in parts {
                let fall = exp(-part.decay * tau);
                lambda += part.excitation * fall;
                compensator += if part.decay > 0.0 { part.excitation * ((1.0 - fall) / part.decay) } else { part.excitation * tau };
            }
            lambda.max(0.0)
        }));
        compensator.max(0.0)
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

    /// The span that reaches to the next one is three times as long, until an event has come or only what lasts is left, of which the shares stay.
    fn chances(&mut self) -> Option<&[f64]> {
        let mut chances = std::mem::take(&mut self.chances);
        chances.clear(self.bases.len());
        let matters = |part: &&Part| part.decay > 0.0 && part.excitation.abs() > MATTERS * part.decay;
        let fastest = self.parts.iter().filter(matters).map(|part| part.decay).fold(0.0, f64::max);
        let never = self.p_never();
        let (mut from, mut before) = (0.0, 1.0);
        let mut to = 1.0 / f64::max(fastest, self.hazard_at(0.0));
        for _ in 0..MOST_SPANS {
            // What excitations still bring.
            let left: f64 =
                self.parts.iter().filter(matters).map(|part| part.excitation.abs() / part.decay * exp(-part.decay * from)).sum();
            if left < MATTERS || before < LEFT {
                break;
            }
            let after = exp(-self.compensator_at(to));
            chances.add((from, to), (before, after), |tau, into| self.at_node(tau, into));
            (from, to, before) = (to, SPANS * to, after);
        }
        // In the end, or where everything dies out, as it is here.
        let lasting =
            |(base, parts): (f64, &[Part])| base + parts.iter().filter(|part| part.decay == 0.0).map(|part| part.excitation).sum::<f64>();
        if self.marks().map(lasting).sum::<f64>() > 0.0 && before >= LEFT {
            chances.add_rest(before - never, self.marks().map(|mark| lasting(mark).max(0.0)));
        } else if before > never {
            let here =
                |(base, parts): (f64, &[Part])| base + parts.iter().map(|part| part.excitation * exp(-part.decay * from)).sum::<f64>();
            chances.add_rest(before - never, self.marks().map(|mark| here(mark).max(0.0)));
        }
        self.chances = chances;
        Some(self.chances.sums())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::head::tabulated::Tabulated;
    use crate::head::tabulated::tests::Known;

    /// The integrals of lambda_k S by the trapezoid rule in ln t, 12,000 steps from e^-30 to e^40, normalised.
    fn finely(law: &Hawkes) -> Vec<f64> {
        let mut sums = vec![0.0; law.bases.len()];
        let mut at = Vec::new();
        let steps = 12_000;
        for i in 0..=steps {
            let t = (-30.0 + 70.0 * f64::from(i) / f64::from(steps)).exp();
            let compensator = law.at_node(t, &mut at);
            sums.iter_mut().zip(&at).for_each(|(sum, lambda)| *sum += lambda * (-compensator).exp() * t);
        }
        let all: f64 = sums.iter().sum();
        sums.iter().map(|sum| sum / all).collect()
    }

    fn off(law: &mut dyn Law, exact: &[f64]) -> f64 {
        let chances = law.chances().unwrap();
        let all: f64 = chances.iter().sum();
        chances.iter().zip(exact).map(|(chance, exact)| (chance / all - exact).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn the_chances_of_the_marks_are_right_where_a_share_falls_like_a_step() {
        for row in [
            // Bursts of b, hours after hours: what is left of the burst ends between two nodes of any rule in the probability.
            [0.016_492, 1e-6, 5e-4, 3.1, 0.76, 5.12],
            [0.016_492, 1e-6, 5e-4, 2.4, 0.76, 5.12],
            [0.01, 0.01, 0.0, 3000.0, 1.0, 4000.0],
            [1e-6, 1e-6, 0.4, 0.1, 0.5, 0.5],
            [0.0, 0.0, 0.4, 0.8, 0.5, 3.0],
            [0.0, 0.0, 400.0, 8.0, 0.5, 3.0],
            [0.3, 0.1, -0.2, 2.0, 0.7, 0.3],
            [0.3, 0.1, 0.2, 2.0, 0.0, 30.0],
            [0.3, 0.1, 0.0, 0.0, 1.0, 1.0],
        ] {
            let mut law = Hawkes::new(2, 1);
            assert!(law.read(&row));
            let exact = finely(&law);
            let off = off(&mut law, &exact);
            assert!(off < 3e-4, "{row:?} {exact:?}: {off} {:?}", law.chances());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn the_chances_of_the_marks_are_the_integrals_of_their_intensities(
            logs in prop::collection::vec(-6.0_f32..3.0, 3),
            sizes in prop::collection::vec(-3.0_f32..3.0, 3),
            decays in prop::collection::vec(-5.0_f32..6.0, 3),
        ) {
            // As many events to come of each excitation, e / d, as one in twenty or twenty.
            let jumps = sizes.iter().zip(&decays).map(|(size, decay)| (size + decay).exp());
            let row: Vec<f32> = logs.iter().map(|log| log.exp()).chain(jumps).chain(decays.iter().map(|decay| decay.exp())).collect();
            let mut law = Hawkes::new(3, 1);
            prop_assert!(law.read(&row));
            let exact = finely(&law);
            let found = off(&mut law, &exact);
            prop_assert!(found < 3e-4, "{:?} {:?}: {}", row, exact, found);
            // What is tabulated has the same, as far as it is asked.
            let mut table = Tabulated::new(Box::new(Known(3)), 9);
            prop_assert!(table.read(&row));
            let found = off(&mut table, &exact);
            prop_assert!(found < 1e-3, "tabulated {:?} {:?}: {}", row, exact, found);
        }
    }
}
