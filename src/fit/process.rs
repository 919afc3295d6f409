//! Steps that are known in closed form: processes whose state is a few sums over a key's past, fitted by maximum likelihood, without gradients.

use super::batch::Sequence;
use super::history::History;
use super::step::{Forward, Step};
use super::train::Each;
use crate::base::error::Result;
use crate::base::number::{f32_of, shown};
use crate::base::time::TimeUnit;
use crate::model::manifest::{InputSpec, StateSpec};
use crate::model::onnx::Graph;

/// Input that takes the feature row, and the one that takes the gap.
const FEATURES: &str = "x";
const GAP: &str = "dt";
/// ONNX's number for f32, for `Cast`.
const FLOAT: i64 = 1;
/// Wider than any gap: where the last bin ends.
const FAR: f32 = 1e30;

/// A process with its constants. Units of time are those of the law.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A constant rate: ln of it. The row is a constant.
    Poisson {
        /// ln of the rate.
        log_rate: f64,
    },
    /// A rate per key, of which the law is learnt from the key's own count and time: Gamma(shape + n, rate + T). The row says whether it is the first event.
    GammaPoisson {
        /// Shape before any event.
        shape: f64,
        /// Rate before any event, in units of time.
        rate: f64,
    },
    /// Hazards in bins from the key's own gaps, with those of all keys as a beginning. The row says whether it is the first event.
    History {
        /// Ends of all bins but the last.
        edges: Vec<f64>,
        /// Gaps that a beginning key is taken to have ended in each bin.
        counts: Vec<f64>,
        /// And the time that they spent in it.
        exposures: Vec<f64>,
    },
    /// Exponential Hawkes process. The row is the mark, one-hot (or a constant without marks).
    Hawkes {
        /// mu of each mark.
        bases: Vec<f64>,
        /// How much an event of mark j (column) raises the intensity of mark k (row): `[D, D]`, row-major.
        jumps: Vec<f64>,
        /// Decay of each mark's excitation, per unit of time.
        decays: Vec<f64>,
    },
}

/// A process whose events carry marks that do not depend on time, unless it is a Hawkes process.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    /// Which.
    pub kind: Kind,
    /// ln of the frequencies of the marks; empty without marks and for a Hawkes process.
    pub marks: Vec<f64>,
    /// Unit of its gaps.
    pub unit: TimeUnit,
    /// Floats of a feature row.
    pub width: usize,
}

impl Process {
    /// The state after an event, from that before it: single precision, as the graph computes it.
    fn advance(&self, state: &mut [f32], first: bool, gap: f64, row: &[f32]) {
        let gap = f32_of(gap);
        match &self.kind {
            Kind::Poisson { .. } => {}
            Kind::GammaPoisson { .. } => {
                if let [n, t] = state {
                    *n += if first { 0.0 } else { 1.0 };
                    *t += gap;
                }
            }
            Kind::History { edges, .. } => {
                let (counts, exposures) = state.split_at_mut(edges.len() + 1);
                for (i, (count, exposure)) in counts.iter_mut().zip(exposures).enumerate() {
                    let from = i.checked_sub(1).and_then(|i| edges.get(i)).map_or(0.0, |edge| f32_of(*edge));
                    let to = edges.get(i).map_or(FAR, |edge| f32_of(*edge));
                    *exposure += (gap - from).max(0.0).min(to - from);
                    let above = gap > if i == 0 { -1.0 } else { from };
                    *count += if above && gap <= to && !first { 1.0 } else { 0.0 };
                }
            }
            Kind::Hawkes { jumps, decays, .. } => {
                let marks = decays.len();
                for (k, (excitation, decay)) in state.iter_mut().zip(decays).enumerate() {
                    *excitation *= (gap * f32_of(-decay)).exp();
                    let own = jumps.get(k * marks..(k + 1) * marks).unwrap_or_default();
                    *excitation += own.iter().zip(row).map(|(jump, x)| f32_of(*jump) * x).sum::<f32>();
                }
            }
        }
    }

    /// The head's parameters after an event.
    fn outputs(&self, state: &[f32]) -> Vec<f32> {
        let mut out: Vec<f32> = match &self.kind {
            Kind::Poisson { log_rate } => vec![f32_of(*log_rate)],
            Kind::GammaPoisson { shape, rate } => {
                state.iter().zip([shape, rate]).map(|(own, before)| (own + f32_of(*before)).ln()).collect()
            }
            Kind::History { counts, exposures, .. } => {
                let (own, times) = state.split_at(counts.len());
                let hazard =
                    |((n, t), (count, exposure)): ((&f32, &f32), (&f64, &f64))| ((n + f32_of(*count)) / (t + f32_of(*exposure))).ln();
                own.iter().zip(times).zip(counts.iter().zip(exposures)).map(hazard).collect()
            }
            Kind::Hawkes { bases, decays, .. } => {
                let constant = |values: &[f64]| values.iter().map(|value| f32_of(*value)).collect::<Vec<f32>>();
                [constant(bases), state.to_vec(), constant(decays)].concat()
            }
        };
        out.extend(self.marks.iter().map(|ln| f32_of(*ln)));
        out
    }

    /// Floats of state.
    fn floats(&self) -> usize {
        self.states().iter().map(StateSpec::floats).sum()
    }

    /// Floats of the head's parameters.
    fn parameters(&self) -> usize {
        self.outputs(&vec![1.0; self.floats()]).len()
    }
}

impl Forward for Process {
    fn forward(&self, history: &History, group: &[Sequence], each: &mut Each<'_>) -> Result<()> {
        for sequence in group {
            let mut state = vec![0.0; self.floats()];
            for event in sequence.start..sequence.start + sequence.len {
                let first = event == sequence.start;
                let gap = if first { 0.0 } else { history.gaps_next.get(event - 1).copied().unwrap_or(0.0) };
                self.advance(&mut state, first, gap, history.row(event));
                each(event, &self.outputs(&state), &state);
            }
        }
        Ok(())
    }
}

impl Step for Process {
    fn input(&self) -> InputSpec {
        let gap = (self.floats() > 0).then(|| GAP.to_owned());
        InputSpec { features: FEATURES.to_owned(), gap, gap_unit: self.unit }
    }

    fn states(&self) -> Vec<StateSpec> {
        let state = |name: &str, floats: usize| StateSpec {
            input: name.to_owned(),
            output: format!("{name}_next"),
            shape: vec![floats],
            init: 0.0,
        };
        match &self.kind {
            Kind::Poisson { .. } => Vec::new(),
            Kind::GammaPoisson { .. } => vec![state("n", 1), state("t", 1)],
            Kind::History { counts, .. } => vec![state("counts", counts.len()), state("exposures", counts.len())],
            Kind::Hawkes { decays, .. } => vec![state("excitation", decays.len())],
        }
    }

    fn graph(&self, output: &str) -> Result<Vec<u8>> {
        let mut graph = Graph::new("process");
        graph.input(FEATURES, &[self.width]);
        let states = self.states();
        if !states.is_empty() {
            graph.input(GAP, &[1]);
        }
        for state in &states {
            graph.input(&state.input, &state.shape);
        }
        let f32s = |values: &[f64]| values.iter().map(|value| f32_of(*value)).collect::<Vec<f32>>();
        // A row of constants for each row of the batch: the features times zero, and the constants added.
        let rows = |graph: &mut Graph, name: &str, values: &[f64]| {
            let (zeros, constants, product) = (format!("{name}_zeros"), format!("{name}_constants"), format!("{name}_nothing"));
            graph.constant(&zeros, &[self.width, values.len()], &vec![0.0; self.width * values.len()]);
            graph.constant(&constants, &[values.len()], &f32s(values));
            graph.node("MatMul", &[FEATURES, &zeros], &[&product], &[]);
            graph.node("Add", &[&product, &constants], &[name], &[]);
        };
        let mut parts: Vec<&str> = Vec::new();
        match &self.kind {
            Kind::Poisson { log_rate } => {
                rows(&mut graph, "rate", &[*log_rate]);
                parts.push("rate");
            }
            Kind::GammaPoisson { shape, rate } => {
                graph.constant("one", &[1], &[1.0]);
                graph.constant("shape_0", &[1], &[f32_of(*shape)]);
                graph.constant("rate_0", &[1], &[f32_of(*rate)]);
                graph.node("Sub", &["one", FEATURES], &["counted"], &[]);
                graph.node("Add", &["n", "counted"], &["n_next"], &[]);
                graph.node("Add", &["t", GAP], &["t_next"], &[]);
                graph.node("Add", &["n_next", "shape_0"], &["shape"], &[]);
                graph.node("Add", &["t_next", "rate_0"], &["rate"], &[]);
                graph.node("Log", &["shape"], &["log_shape"], &[]);
                graph.node("Log", &["rate"], &["log_rate"], &[]);
                parts.extend(["log_shape", "log_rate"]);
            }
            Kind::History { edges, counts, exposures } => {
                let from: Vec<f32> = std::iter::once(0.0).chain(f32s(edges)).collect();
                let to: Vec<f32> = f32s(edges).into_iter().chain([FAR]).collect();
                let widths: Vec<f32> = from.iter().zip(&to).map(|(from, to)| to - from).collect();
                // A gap of nothing ends in the first bin.
                let above: Vec<f32> = std::iter::once(-1.0).chain(f32s(edges)).collect();
                let bins = counts.len();
                for (name, values) in [("from", &from), ("to", &to), ("widths", &widths), ("above", &above)] {
                    graph.constant(name, &[bins], values);
                }
                graph.constant("zero", &[1], &[0.0]);
                graph.constant("one", &[1], &[1.0]);
                graph.constant("counts_0", &[bins], &f32s(counts));
                graph.constant("exposures_0", &[bins], &f32s(exposures));
                graph.node("Sub", &[GAP, "from"], &["beyond"], &[]);
                graph.node("Max", &["beyond", "zero"], &["inside"], &[]);
                graph.node("Min", &["inside", "widths"], &["spent"], &[]);
                graph.node("Add", &["exposures", "spent"], &["exposures_next"], &[]);
                graph.node("Greater", &[GAP, "above"], &["is_above"], &[]);
                graph.node("Greater", &[GAP, "to"], &["is_beyond"], &[]);
                graph.node("Cast", &["is_above"], &["above_1"], &[("to", FLOAT)]);
                graph.node("Cast", &["is_beyond"], &["beyond_1"], &[("to", FLOAT)]);
                graph.node("Sub", &["above_1", "beyond_1"], &["ended"], &[]);
                graph.node("Sub", &["one", FEATURES], &["counted"], &[]);
                graph.node("Mul", &["ended", "counted"], &["ended_here"], &[]);
                graph.node("Add", &["counts", "ended_here"], &["counts_next"], &[]);
                graph.node("Add", &["counts_next", "counts_0"], &["all_counts"], &[]);
                graph.node("Add", &["exposures_next", "exposures_0"], &["all_exposures"], &[]);
                graph.node("Div", &["all_counts", "all_exposures"], &["hazards"], &[]);
                graph.node("Log", &["hazards"], &["log_hazards"], &[]);
                parts.push("log_hazards");
            }
            Kind::Hawkes { bases, jumps, decays } => {
                let marks = decays.len();
                let falling: Vec<f32> = decays.iter().map(|decay| f32_of(-decay)).collect();
                // Transposed: rows are the marks of the arrived event.
                let to: Vec<f32> = (0..marks)
                    .flat_map(|j| (0..marks).map(move |k| (k, j)))
                    .map(|(k, j)| f32_of(jumps.get(k * marks + j).copied().unwrap_or(0.0)))
                    .collect();
                graph.constant("falling", &[marks], &falling);
                graph.constant("jumps", &[self.width, marks], &to);
                graph.node("Mul", &[GAP, "falling"], &["fallen"], &[]);
                graph.node("Exp", &["fallen"], &["kept"], &[]);
                graph.node("Mul", &["excitation", "kept"], &["left"], &[]);
                graph.node("MatMul", &[FEATURES, "jumps"], &["jump"], &[]);
                graph.node("Add", &["left", "jump"], &["excitation_next"], &[]);
                rows(&mut graph, "bases", bases);
                rows(&mut graph, "decays", decays);
                parts.extend(["bases", "excitation_next", "decays"]);
            }
        }
        if !self.marks.is_empty() {
            rows(&mut graph, "marks", &self.marks);
            parts.push("marks");
        }
        graph.node("Concat", &parts, &[output], &[("axis", 1)]);
        graph.output(output, &[self.parameters()]);
        for state in &states {
            graph.output(&state.output, &state.shape);
        }
        Ok(graph.to_bytes())
    }

    fn weights(&self) -> usize {
        self.marks.len()
            + match &self.kind {
                Kind::Poisson { .. } => 1,
                Kind::GammaPoisson { .. } => 2,
                Kind::History { edges, counts, exposures } => edges.len() + counts.len() + exposures.len(),
                Kind::Hawkes { bases, jumps, decays } => bases.len() + jumps.len() + decays.len(),
            }
    }

    fn describe(&self) -> String {
        let unit = self.unit.name();
        match &self.kind {
            Kind::Poisson { log_rate } => {
                format!("A Poisson process: {:.6} events per `{unit}` and key, whatever came before.", log_rate.exp())
            }
            Kind::GammaPoisson { shape, rate } => {
                format!(
                    "A rate for each key, learnt from its own events; before the first one it is known to be Gamma({shape:.4}, {rate:.4} {unit})."
                )
            }
            Kind::History { edges, .. } => {
                format!(
                    "The hazard of each key in {} bins of the gap, counted from its own gaps on top of those of all keys.",
                    edges.len() + 1
                )
            }
            Kind::Hawkes { bases, jumps, decays } => {
                let list = |values: &[f64]| values.iter().map(|value| shown(*value, 4)).collect::<Vec<_>>().join(", ");
                format!(
                    "An exponential Hawkes process, per `{unit}`: bases [{}], jumps [{}] (rows: the mark that is excited), decays [{}].",
                    list(bases),
                    list(jumps),
                    list(decays)
                )
            }
        }
    }
}
