//! The head `intensity`: lambda_k(tau) is whatever the package's second graph says, such as that of a neural Hawkes process, whose state decays between
//! events (Mei and Eisner, "The Neural Hawkes Process", NeurIPS 2017). Its compensator has no closed form.
//!
//! For each row the intensities are asked for at Chebyshev's nodes of panels that double in width, [0, 2^-10], [2^-10, 2^-9] .. [2^11, 2^12] units of the law,
//! and interpolated by polynomials of degree 8, whose integral is exact (Clenshaw and Curtis, Numerische Mathematik 1960). A panel whose last two
//! coefficients are more than 1e-6 of its largest is halved, at most `DEPTH` times; what they are then times the width bounds the error of
//! the compensator for intensities that are smooth there. Beyond the last panel each intensity stays as it is at its end.

use super::law::{Law, Time, finite};
use crate::base::number::{f32_of, f64_of_count};
use crate::data::intensity::Intensities;

/// Nodes of a panel.
const NODES: usize = 9;
/// First panel ends at 2^FIRST units, the last one at 2^LAST.
const FIRST: i32 = -10;
const LAST: i32 = 12;
/// How often a panel may be halved.
const DEPTH: usize = 5;
/// Last coefficients that are small enough, relative to the largest of the panel. Single precision gives about 1e-7.
const TOLERANCE: f64 = 1e-6;

/// Polynomials of all marks on [from, to].
#[derive(Clone, Debug)]
struct Panel {
    from: f64,
    to: f64,
    /// Compensator at `from`.
    before: f64,
    /// Compensator over the panel.
    rise: f64,
    /// Chebyshev coefficients of the sum over marks, and of its integral from `from` on, in x from -1 to 1.
    total: [f64; NODES],
    integral: [f64; NODES + 1],
    /// Those of each mark.
    marks: Vec<[f64; NODES]>,
}

/// A law that is known by its intensities alone.
#[derive(Debug)]
pub(super) struct Tabulated {
    source: Box<dyn Intensities>,
    width: usize,
    panels: Vec<Panel>,
    /// Intensities beyond the last panel.
    end: Vec<f64>,
    taus: Vec<f32>,
    found: Vec<f32>,
    /// cos(pi (2 j + 1) / 18): nodes in x.
    nodes: [f64; NODES],
}

/// sum c_k T_k(x) by Clenshaw's recurrence.
fn series(coefficients: &[f64], x: f64) -> f64 {
    let (mut one, mut two) = (0.0, 0.0);
    for c in coefficients.iter().skip(1).rev() {
        (one, two) = (2.0 * x * one - two + c, one);
    }
    x * one - two + coefficients.first().copied().unwrap_or(0.0)
}

impl Tabulated {
    /// For rows of so many floats.
    pub(super) fn new(source: Box<dyn Intensities>, width: usize) -> Self {
        let node = |j: usize| (std::f64::consts::PI * (2.0 * f64_of_count(j) + 1.0) / (2.0 * f64_of_count(NODES))).cos();
        Tabulated {
            source,
            width,
            panels: Vec::new(),
            end: Vec::new(),
            taus: Vec::new(),
            found: Vec::new(),
            nodes: std::array::from_fn(node),
        }
    }

    /// Asks for the intensities on panels, and gives their polynomials; `None` if one is not a number, or negative.
    fn ask(&mut self, law: &[f32], spans: &[(f64, f64)]) -> Option<Vec<Panel>> {
        self.taus.clear();
        for (from, to) in spans {
            self.taus.extend(self.nodes.iter().map(|x| f32_of(0.5 * (from + to) + 0.5 * (to - from) * x)));
        }
        let (taus, mut found) = (std::mem::take(&mut self.taus), std::mem::take(&mut self.found));
        let answered = self.source.at(law, &taus, &mut found);
        let marks = self.source.marks();
        let sound =
            answered.is_ok() && found.len() == taus.len() * marks && found.iter().all(|lambda| lambda.is_finite() && *lambda >= 0.0);
        let panels =
            sound.then(|| spans.iter().zip(found.chunks_exact(NODES * marks)).map(|(span, values)| panel(*span, values, marks)).collect());
        (self.taus, self.found) = (taus, found);
        if let Err(error) = answered {
            tracing::warn!(%error, "the intensities cannot be computed");
        }
        panels
    }
}

/// Interpolates the values at the nodes.
fn panel((from, to): (f64, f64), values: &[f32], marks: usize) -> Panel {
    let n = f64_of_count(NODES);
    let own = |mark: usize| -> [f64; NODES] {
        std::array::from_fn(|k| {
            let sum: f64 = (0..NODES)
                .map(|j| {
                    let angle = std::f64::consts::PI * f64_of_count(k) * (2.0 * f64_of_count(j) + 1.0) / (2.0 * n);
                    f64::from(values.get(j * marks + mark).copied().unwrap_or(0.0)) * angle.cos()
                })
                .sum();
            sum * if k == 0 { 1.0 } else { 2.0 } / n
        })
    };
    let marks: Vec<[f64; NODES]> = (0..marks).map(own).collect();
    let total: [f64; NODES] = std::array::from_fn(|k| marks.iter().filter_map(|mark| mark.get(k)).sum());
    let at = |k: usize| total.get(k).copied().unwrap_or(0.0);
    // The integral of T_k is (T_(k+1) / (k+1) - T_(k-1) / (k-1)) / 2, and the constant makes it 0 at x = -1.
    let half = 0.5 * (to - from);
    let mut integral: [f64; NODES + 1] = std::array::from_fn(|k| match k {
        0 => 0.0,
        1 => half * (at(0) - 0.5 * at(2)),
        k => half * (at(k - 1) - at(k + 1)) / (2.0 * f64_of_count(k)),
    });
    let start = series(&integral, -1.0);
    if let Some(constant) = integral.first_mut() {
        *constant = -start;
    }
    let rise = series(&integral, 1.0).max(0.0);
    Panel { from, to, before: 0.0, rise, total, integral, marks }
}

impl Panel {
    fn x(&self, tau: f64) -> f64 {
        ((2.0 * tau - self.from - self.to) / (self.to - self.from)).clamp(-1.0, 1.0)
    }

    fn compensator(&self, tau: f64) -> f64 {
        self.before + series(&self.integral, self.x(tau)).clamp(0.0, self.rise)
    }

    /// Whether the polynomials have come to their end before the degree has.
    fn is_smooth(&self) -> bool {
        let last = |coefficients: &[f64; NODES]| {
            let largest = coefficients.iter().fold(0.0_f64, |a, c| a.max(c.abs()));
            coefficients.iter().rev().take(2).all(|c| c.abs() <= TOLERANCE * largest)
        };
        self.marks.iter().all(last)
    }
}

impl Law for Tabulated {
    fn width(&self) -> usize {
        self.width
    }

    fn read(&mut self, row: &[f32]) -> bool {
        if row.len() != self.width || !row.iter().all(|value| value.is_finite()) {
            return false;
        }
        let edge = |i: i32| 2.0_f64.powi(i);
        let mut spans: Vec<(f64, f64)> = std::iter::once((0.0, edge(FIRST))).chain((FIRST..LAST).map(|i| (edge(i), edge(i + 1)))).collect();
        let mut panels: Vec<Panel> = Vec::new();
        for depth in 0..=DEPTH {
            let Some(found) = self.ask(row, &spans) else { return false };
            spans.clear();
            for panel in found {
                if depth < DEPTH && !panel.is_smooth() {
                    let middle = 0.5 * (panel.from + panel.to);
                    spans.extend([(panel.from, middle), (middle, panel.to)]);
                } else {
                    panels.push(panel);
                }
            }
            if spans.is_empty() {
                break;
            }
        }
        panels.sort_by(|a, b| a.from.total_cmp(&b.from));
        let mut before = 0.0;
        for panel in &mut panels {
            panel.before = before;
            before += panel.rise;
        }
        self.end = panels.last().map(|panel| panel.marks.iter().map(|mark| series(mark, 1.0).max(0.0)).collect()).unwrap_or_default();
        self.panels = panels;
        !self.panels.is_empty()
    }

    fn compensator(&self, time: Time) -> f64 {
        let at = self.panels.partition_point(|panel| panel.to < time.tau);
        match (self.panels.get(at), self.panels.last()) {
            (Some(panel), _) => panel.compensator(time.tau),
            (None, Some(last)) => (last.before + last.rise + self.end.iter().sum::<f64>() * (time.tau - last.to)).min(f64::MAX),
            (None, None) => 0.0,
        }
    }

    fn ln_hazard(&self, time: Time) -> f64 {
        let at = self.panels.partition_point(|panel| panel.to < time.tau);
        let hazard = self.panels.get(at).map_or_else(|| self.end.iter().sum(), |panel| series(&panel.total, panel.x(time.tau)));
        finite(super::elementary::ln(hazard.max(0.0)))
    }

    fn when(&self, target: f64) -> f64 {
        if target <= 0.0 {
            return 0.0;
        }
        let at = self.panels.partition_point(|panel| panel.before + panel.rise < target);
        let Some(panel) = self.panels.get(at) else {
            let (end, hazard) = self.panels.last().map_or((0.0, 0.0), |last| (last.to, self.end.iter().sum::<f64>()));
            let beyond = target - self.panels.last().map_or(0.0, |last| last.before + last.rise);
            return if hazard > 0.0 { end + beyond / hazard } else { f64::INFINITY };
        };
        let (mut low, mut high) = (panel.from, panel.to);
        while high - low > 1e-14 * high {
            let middle = 0.5 * (low + high);
            if middle <= low || middle >= high {
                break;
            }
            if panel.compensator(middle) < target {
                low = middle;
            } else {
                high = middle;
            }
        }
        high
    }

    fn total(&self) -> f64 {
        if self.end.iter().sum::<f64>() > 0.0 { f64::INFINITY } else { self.panels.last().map_or(0.0, |last| last.before + last.rise) }
    }

    fn intensities(&self, time: Time, into: &mut Vec<f64>) -> bool {
        into.clear();
        let at = self.panels.partition_point(|panel| panel.to < time.tau);
        match self.panels.get(at) {
            Some(panel) => into.extend(panel.marks.iter().map(|mark| series(mark, panel.x(time.tau)).max(0.0))),
            None => into.extend(&self.end),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::error::Result;
    use crate::head::hawkes::Hawkes;

    /// A Hawkes process by its intensities: mu, then e, then d of each mark.
    #[derive(Debug)]
    struct Known(usize);

    impl Intensities for Known {
        fn marks(&self) -> usize {
            self.0
        }

        fn at(&mut self, law: &[f32], taus: &[f32], into: &mut Vec<f32>) -> Result<()> {
            into.clear();
            let n = self.0;
            for tau in taus {
                into.extend((0..n).map(|k| law[k] + law[n + k] * (-law[2 * n + k] * tau).exp()));
            }
            Ok(())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn quadrature_agrees_with_the_closed_form_of_a_hawkes_process(row in prop::collection::vec(0.05_f32..3.0, 6), target in 0.01_f64..5.0) {
            let (mut closed, mut table) = (Hawkes::new(2, 1), Tabulated::new(Box::new(Known(2)), 6));
            prop_assert!(closed.read(&row) && table.read(&row));
            for i in -12..10 {
                let time = Time::of(1.7_f64.powi(i));
                let (a, b) = (closed.compensator(time), table.compensator(time));
                prop_assert!((a - b).abs() <= 1e-5 * a.max(1e-3), "{} at {}: {}", a, time.tau, b);
                prop_assert!((closed.ln_hazard(time) - table.ln_hazard(time)).abs() < 1e-5);
            }
            prop_assert!((closed.when(target) / table.when(target) - 1.0).abs() < 1e-5);
            let (mut a, mut b) = (Vec::new(), Vec::new());
            closed.intensities(Time::of(0.7), &mut a);
            table.intensities(Time::of(0.7), &mut b);
            prop_assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5 * a));
        }
    }

    #[test]
    fn an_intensity_that_dies_out_leaves_a_chance_of_never_and_bad_ones_are_refused() {
        let mut table = Tabulated::new(Box::new(Known(1)), 3);
        assert!(table.read(&[0.0, 2.0, 1.0]));
        assert!((table.p_never() - (-2.0_f64).exp()).abs() < 1e-6, "{}", table.p_never());
        assert_eq!(table.when(2.5), f64::INFINITY);
        assert!(!table.read(&[-1.0, 0.5, 1.0]) && !table.read(&[f32::NAN, 1.0, 1.0]) && !table.read(&[1.0, 1.0]));
        assert!(table.read(&[1.0, 0.5, 1.0]) && table.total() == f64::INFINITY);
        assert!((table.compensator(Time::of(1e5)) / (1e5 + 0.5) - 1.0).abs() < 1e-6);
    }
}
