//! `intensity.onnx`: what the head asks about the time between two events. Inputs `law` [B, n] and `tau` [B, 1], output `lambda` [B, marks].

use std::fmt;
use std::path::Path;

use tract_onnx::prelude::*;

use super::eval;
use super::graph::is_batch;
use crate::base::error::{Error, Result};
use crate::base::number::index;
use crate::data::intensity::Intensities;
use crate::data::law::HeadSpec;

/// Its name in the package.
pub const FILE: &str = "intensity.onnx";
const INPUTS: [&str; 2] = ["law", "tau"];
const OUTPUT: &str = "lambda";
/// Most rows of one run: enough to amortise what a run costs, few enough to stay in the cache.
const ROWS: usize = 512;
/// Fewest: a smaller run is filled up with zeros. tract uses its vector kernels for an operator of two operands only where it can prove 32 elements, and of a
/// law of 16 units or of one mark it can prove that of no smaller batch.
const LEAST: usize = 32;

/// The graph, loaded once for all lanes.
pub struct IntensityGraph {
    plan: Arc<TypedRunnableModel>,
    width: usize,
    marks: usize,
}

/// The graph with a lane's scratch.
pub struct Intensity {
    state: TypedSimpleState,
    width: usize,
    marks: usize,
}

impl fmt::Debug for Intensity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Intensity of {} marks from {} floats", self.marks, self.width)
    }
}

impl IntensityGraph {
    /// Loads the graph of a package whose head needs one.
    ///
    /// # Errors
    /// It is missing or not ONNX, has other inputs, outputs or shapes, or a frozen batch axis.
    pub fn load(folder: &Path, head: &HeadSpec) -> Result<Option<Self>> {
        let HeadSpec::Intensity(law) = head else { return Ok(None) };
        let path = folder.join(FILE);
        let fault = |text: String| Error::config("model", text).at(path.display().to_string());
        if !path.is_file() {
            return Err(fault("there is no such file".to_owned())
                .help("a package whose head has the kind `intensity` holds intensity.onnx beside model.onnx"));
        }
        let broken = |what: &str, e: TractError| fault(format!("{what}: {e:#}"));
        let mut graph = tract_onnx::onnx().model_for_path(&path).map_err(|e| broken("not an ONNX graph that can be read", e))?;
        let names: Vec<(String, OutletId)> = graph.inputs.iter().map(|outlet| (graph.node(outlet.node).name.clone(), *outlet)).collect();
        let find = |wanted: &str| names.iter().find(|(name, _)| name == wanted).map(|(_, outlet)| *outlet);
        let (Some(law_in), Some(tau_in), 2) = (find(INPUTS[0]), find(INPUTS[1]), names.len()) else {
            let found = names.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            return Err(fault(format!("the graph takes {found}; it must take `law` and `tau`")));
        };
        graph.inputs = vec![law_in, tau_in];
        if graph.outputs.len() != 1 {
            return Err(fault(format!("the graph has {} outputs; it must have one, `{OUTPUT}`", graph.outputs.len())));
        }
        let typed = graph.into_typed().map_err(|e| broken("the graph cannot be typed", e))?;
        let (width, marks) = (law.parameters.unwrap_or_default(), law.marks.len().max(1));
        let shapes =
            typed.inputs.iter().chain(&typed.outputs).zip([("input `law`", width), ("input `tau`", 1), ("output `lambda`", marks)]);
        for (outlet, (what, expected)) in shapes {
            let fact = typed.outlet_fact(*outlet).map_err(|e| fault(e.to_string()))?;
            let dims: Vec<TDim> = fact.shape.iter().cloned().collect();
            let sound = matches!(&dims[..], [batch, own] if is_batch(batch) && own.to_i64().ok() == i64::try_from(expected).ok());
            if !sound || fact.datum_type != f32::datum_type() {
                return Err(fault(format!(
                    "{what} must be f32 [B, {expected}] with a symbolic B, found {:?} {:?}",
                    fact.datum_type, fact.shape
                )));
            }
        }
        typed
            .symbols
            .all_symbols()
            .iter()
            .try_for_each(|symbol| typed.symbols.add_assertion(format!("{symbol} >= {LEAST}")))
            .map_err(|e| broken("the batch axis cannot be bounded", e))?;
        let plan = typed.into_optimized().and_then(|graph| graph.into_runnable()).map_err(|e| broken("the graph cannot be planned", e))?;
        Ok(Some(IntensityGraph { plan, width, marks }))
    }

    /// The graph for one lane.
    ///
    /// # Errors
    /// tract cannot set up a run.
    pub fn spawn(&self) -> Result<Intensity> {
        let state = self.plan.spawn().map_err(|e| Error::config("model", format!("{FILE} cannot be run: {e:#}")))?;
        Ok(Intensity { state, width: self.width, marks: self.marks })
    }
}

impl Intensities for Intensity {
    fn marks(&self) -> usize {
        self.marks
    }

    fn at(&mut self, laws: &[f32], of: &[u32], taus: &[f32], into: &mut Vec<f32>) -> Result<()> {
        into.clear();
        of.chunks(ROWS).zip(taus.chunks(ROWS)).try_for_each(|(of, taus)| self.run(laws, of, taus, into)).map_err(|e| fault(&e))
    }
}

impl Intensity {
    /// One run of the graph; appends what it gives.
    fn run(&mut self, laws: &[f32], of: &[u32], taus: &[f32], into: &mut Vec<f32>) -> TractResult<()> {
        let rows = taus.len().max(LEAST);
        let mut law = Tensor::zero::<f32>(&[rows, self.width])?;
        for (to, row) in law.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?.chunks_exact_mut(self.width).zip(of) {
            let from = index(*row) * self.width;
            to.copy_from_slice(laws.get(from..from + self.width).unwrap_or_default());
        }
        let mut gaps = Tensor::zero::<f32>(&[rows, 1])?;
        gaps.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?.iter_mut().zip(taus).for_each(|(to, tau)| *to = *tau);
        let found = eval::run(&mut self.state, tvec![law.into_tvalue(), gaps.into_tvalue()])?;
        for value in found.iter().take(1) {
            into.extend_from_slice(value.try_as_plain_ram()?.as_slice::<f32>()?.get(..taus.len() * self.marks).unwrap_or_default());
        }
        Ok(())
    }
}

fn fault(e: &TractError) -> Error {
    Error::config("model", format!("{FILE} failed to run: {e:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::TimeUnit;
    use crate::data::law::LawSpec;
    use crate::model::onnx::Graph;

    fn head(parameters: usize) -> HeadSpec {
        HeadSpec::Intensity(LawSpec { parameters: Some(parameters), ..LawSpec::new(&["law"], TimeUnit::Hour, 1e-6) })
    }

    /// mu + e exp(-d tau).
    fn hawkes() -> Vec<u8> {
        let mut graph = Graph::new("intensity");
        graph.input("law", &[3]);
        graph.input("tau", &[1]);
        graph.positions("parts", &[1, 1, 1]);
        graph.node("Split", &["law", "parts"], &["mu", "e", "d"], &[("axis", 1)]);
        graph.node("Mul", &["d", "tau"], &["fallen"], &[]);
        graph.node("Neg", &["fallen"], &["falling"], &[]);
        graph.node("Exp", &["falling"], &["kept"], &[]);
        graph.node("Mul", &["e", "kept"], &["left"], &[]);
        graph.node("Add", &["mu", "left"], &["lambda"], &[]);
        graph.output("lambda", &[1]);
        graph.to_bytes()
    }

    #[test]
    fn the_second_graph_answers_in_any_batch_alike_and_is_refused_where_it_does_not_fit() {
        let folder = tempfile::tempdir().unwrap();
        let missing = IntensityGraph::load(folder.path(), &head(3)).err().unwrap().to_string();
        assert!(missing.contains("no such file"), "{missing}");
        std::fs::write(folder.path().join(FILE), hawkes()).unwrap();
        let mut graph = IntensityGraph::load(folder.path(), &head(3)).unwrap().unwrap().spawn().unwrap();
        let (mut whole, mut one) = (Vec::new(), Vec::new());
        let taus: Vec<f32> = (0..1100).map(|i| i as f32 * 0.07).collect();
        let laws = [0.2, 0.8, 1.0, 0.5, 0.1, 3.0];
        let of: Vec<u32> = (0..taus.len() as u32).map(|i| i % 2).collect();
        graph.at(&laws, &of, &taus, &mut whole).unwrap();
        for ((tau, row), lambda) in taus.iter().zip(&of).zip(&whole) {
            graph.at(&laws, &[*row], &[*tau], &mut one).unwrap();
            assert_eq!((one.len(), one[0].to_bits()), (1, lambda.to_bits()));
            let [mu, e, d] = laws[3 * *row as usize..][..3] else { panic!() };
            assert!((lambda - (mu + e * (-d * tau).exp())).abs() < 1e-6);
        }
        let refused = IntensityGraph::load(folder.path(), &head(5)).err().unwrap().to_string();
        assert!(refused.contains("must be f32 [B, 5]"), "{refused}");
        assert!(
            IntensityGraph::load(folder.path(), &HeadSpec::Exponential(LawSpec::new(&["law"], TimeUnit::Hour, 1.0))).unwrap().is_none()
        );
    }
}
