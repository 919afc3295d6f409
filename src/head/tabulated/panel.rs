//! Intensities on a span of gaps as polynomials: interpolated at Chebyshev's nodes, integrated exactly (Clenshaw and Curtis, Numerische Mathematik 1960).

use crate::base::number::{f32_of, f64_of_count};

/// Nodes of a panel; the polynomials have one degree less.
pub(super) const NODES: usize = 16;
/// Last coefficients that are small enough, relative to the largest of the sum over marks. Single precision gives about 1e-7.
const TOLERANCE: f64 = 1e-6;

/// From one gap to a later one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span {
    pub(super) from: f64,
    pub(super) to: f64,
}

impl Span {
    /// Two spans that together are this one. What is short after an event changes faster: a long span is cut near its beginning.
    pub(super) fn halves(self) -> [Span; 2] {
        let Span { from, to } = self;
        let cut = if from == 0.0 {
            0.125 * to
        } else if to > 2.0 * from {
            (from * to).sqrt()
        } else {
            0.5 * from + 0.5 * to
        };
        [Span { from, to: cut }, Span { from: cut, to }]
    }
}

/// Nodes and the transform from values to coefficients, computed once, with cosines that are the same on every machine.
#[derive(Debug)]
pub(super) struct Rule {
    /// cos(pi (2 j + 1) / (2 NODES)): nodes in x from -1 to 1.
    nodes: [f64; NODES],
    /// By coefficient and node.
    transform: [[f64; NODES]; NODES],
}

impl Rule {
    pub(super) fn new() -> Self {
        let n = f64_of_count(NODES);
        let cos = |k: usize, j: usize| libm::cos(std::f64::consts::PI * f64_of_count(k) * (2.0 * f64_of_count(j) + 1.0) / (2.0 * n));
        let weight = |k: usize| if k == 0 { 1.0 / n } else { 2.0 / n };
        Rule {
            nodes: std::array::from_fn(|j| cos(1, j)),
            transform: std::array::from_fn(|k| std::array::from_fn(|j| weight(k) * cos(k, j))),
        }
    }

    /// The gaps at which the intensities of a panel are asked for.
    pub(super) fn taus(&self, span: Span) -> impl Iterator<Item = f32> {
        self.nodes.iter().map(move |x| f32_of(0.5 * (span.from + span.to) + 0.5 * (span.to - span.from) * x))
    }

    /// The polynomials through the values at the nodes, `[NODES, marks]`.
    pub(super) fn panel(&self, span: Span, values: &[f32], marks: usize) -> Panel {
        let mut own = vec![[0.0; NODES]; marks];
        for (mark, coefficients) in own.iter_mut().enumerate() {
            let mut at_nodes = [0.0; NODES];
            at_nodes.iter_mut().zip(values.iter().skip(mark).step_by(marks)).for_each(|(to, value)| *to = f64::from(*value));
            for (coefficient, row) in coefficients.iter_mut().zip(&self.transform) {
                *coefficient = row.iter().zip(&at_nodes).map(|(weight, value)| weight * value).sum();
            }
        }
        Panel::new(span, own)
    }
}

/// Polynomials of all marks on a span.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    pub(super) span: Span,
    /// Compensator where it begins; set once all earlier panels are known.
    pub(super) before: f64,
    /// Compensator over the panel.
    pub(super) rise: f64,
    /// No value of the sum over marks is larger: Chebyshev's polynomials stay between -1 and 1.
    pub(super) bound: f64,
    /// Chebyshev coefficients of the sum over marks, and of its integral from the beginning on, in x from -1 to 1.
    total: [f64; NODES],
    integral: [f64; NODES + 1],
    /// Those of each mark.
    marks: Vec<[f64; NODES]>,
}

/// sum c_k T_k(x) by Clenshaw's recurrence.
fn series(coefficients: &[f64], x: f64) -> f64 {
    let (mut one, mut two) = (0.0, 0.0);
    for c in coefficients.iter().skip(1).rev() {
        (one, two) = (2.0 * x * one - two + c, one);
    }
    x * one - two + coefficients.first().copied().unwrap_or(0.0)
}

impl Panel {
    fn new(span: Span, marks: Vec<[f64; NODES]>) -> Self {
        let total: [f64; NODES] = std::array::from_fn(|k| marks.iter().filter_map(|mark| mark.get(k)).sum());
        let at = |k: usize| total.get(k).copied().unwrap_or(0.0);
        // The integral of T_k is (T_(k+1) / (k+1) - T_(k-1) / (k-1)) / 2, and the constant makes it 0 at x = -1.
        let half = 0.5 * (span.to - span.from);
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
        let bound = total.iter().map(|c| c.abs()).sum();
        Panel { span, before: 0.0, rise, bound, total, integral, marks }
    }

    fn x(&self, tau: f64) -> f64 {
        let Span { from, to } = self.span;
        ((2.0 * tau - from - to) / (to - from)).clamp(-1.0, 1.0)
    }

    /// Lambda.
    pub(super) fn compensator(&self, tau: f64) -> f64 {
        self.before + series(&self.integral, self.x(tau)).clamp(0.0, self.rise)
    }

    /// Sum of the intensities.
    pub(super) fn hazard(&self, tau: f64) -> f64 {
        series(&self.total, self.x(tau)).max(0.0)
    }

    /// The intensity of each mark.
    pub(super) fn intensities(&self, tau: f64) -> impl Iterator<Item = f64> {
        let x = self.x(tau);
        self.marks.iter().map(move |mark| series(mark, x).max(0.0))
    }

    /// Whether the polynomials have come to their end before the degree has.
    pub(super) fn is_smooth(&self) -> bool {
        let largest = self.total.iter().fold(0.0_f64, |a, c| a.max(c.abs()));
        self.marks.iter().all(|mark| mark.iter().rev().take(2).all(|c| c.abs() <= TOLERANCE * largest))
    }

    /// The gap at which the compensator comes to `target`, which it does within the panel: Newton's steps within a bracket, bisection where they leave it.
    pub(super) fn when(&self, target: f64) -> f64 {
        /// Enough to bisect the panel to nothing.
        const STEPS: usize = 100;
        const WIDTH: f64 = 1e-14;
        let Span { from: mut low, to: mut high } = self.span;
        let mut tau = if self.rise > 0.0 { low + (high - low) * ((target - self.before) / self.rise).clamp(0.0, 1.0) } else { high };
        for _ in 0..STEPS {
            let off = target - self.compensator(tau);
            if off > 0.0 {
                low = tau;
            } else {
                high = tau;
            }
            let next = tau + off / self.hazard(tau);
            let next = if next > low && next < high { next } else { 0.5 * low + 0.5 * high };
            if (next - tau).abs() <= WIDTH * high || high - low <= WIDTH * high {
                return next;
            }
            tau = next;
        }
        tau
    }
}
