//! The ONNX graph in tract: loaded, compared with the manifest, optimised with its batch axis left symbolic.
//!
//! A batch axis that is fixed to a number would change bits with the batch size; so it is refused.

use std::path::Path;
use std::sync::Arc;

use tract_onnx::prelude::*;

use super::manifest::Manifest;
use crate::base::error::{Error, Result};

/// What the graph takes and gives, after loading.
#[derive(Clone, Debug, PartialEq)]
pub struct Signature {
    /// Width of the feature row, F.
    pub features: usize,
    /// Width of each head output, in the manifest's order.
    pub outputs: Vec<usize>,
    /// Floats of state per key.
    pub state_floats: usize,
    /// Operators of the optimised graph.
    pub operators: usize,
}

/// A runnable step graph. Inputs in the order features, gap (if any), states; outputs in the order head outputs, states.
pub struct Graph {
    pub plan: Arc<TypedRunnableModel>,
    pub signature: Signature,
}

impl Graph {
    pub fn load(path: &Path, manifest: &Manifest) -> Result<Self> {
        let place = path.display().to_string();
        let fault = |text: String| Error::config("model", text).at(place.clone());
        if !path.is_file() {
            return Err(fault("there is no such file".to_owned()).help("a model package holds model.onnx beside model.toml"));
        }
        let broken = |what: &str, e: TractError| fault(format!("{what}: {e:#}"));
        let onnx = tract_onnx::onnx();
        let mut inference = onnx.model_for_path(path).map_err(|e| broken("not an ONNX graph that can be read", e))?;
        let names = order_inputs(&mut inference, manifest).map_err(&fault)?;
        order_outputs(&mut inference, manifest).map_err(&fault)?;
        let typed = inference.into_typed().map_err(|e| broken("the graph cannot be typed", e))?;
        let signature = check_shapes(&typed, manifest, &names).map_err(&fault)?;
        say_batches_are_not_empty(&typed).map_err(|e| broken("the batch axis cannot be bounded", e))?;
        let optimised = typed.into_optimized().map_err(|e| broken("the graph cannot be optimised", e))?;
        let operators = optimised.nodes().len();
        let plan = optimised.into_runnable().map_err(|e| broken("the graph cannot be planned", e))?;
        Ok(Graph { plan, signature: Signature { operators, ..signature } })
    }
}

/// The graph for its output `wanted` [B, n] and the next states, in this order; not for serving.
pub fn looked_at(path: &Path, manifest: &Manifest, wanted: &str) -> Result<Arc<TypedRunnableModel>> {
    let place = path.display().to_string();
    let fault = |text: String| Error::config("model", text).at(place.clone());
    let broken = |e: TractError| fault(format!("the graph cannot be run for its output `{wanted}`: {e:#}"));
    let mut inference = tract_onnx::onnx().model_for_path(path).map_err(broken)?;
    order_inputs(&mut inference, manifest).map_err(&fault)?;
    let states = manifest.states.iter().map(|state| state.output.as_str());
    pick_outputs(&mut inference, &std::iter::once(wanted).chain(states).collect::<Vec<_>>()).map_err(&fault)?;
    let typed = inference.into_typed().map_err(broken)?;
    if let Some(outlet) = typed.outputs.first() {
        let shape = shape_of(typed.outlet_fact(*outlet).map_err(broken)?, &format!("output `{wanted}`")).map_err(&fault)?;
        if shape.len() != 1 {
            return Err(fault(format!("output `{wanted}` must be [B, n], found [B, {shape:?}]")));
        }
    }
    typed.into_optimized().and_then(|model| model.into_runnable()).map_err(broken)
}

/// Tells tract that a batch has at least one row. Only with that can it prove that an element-wise operator has enough elements for its
/// vector kernels; without it each element goes through a function pointer (a GRU step of F = 32, H = 64 then takes three times as long).
fn say_batches_are_not_empty(model: &TypedModel) -> TractResult<()> {
    model.symbols.all_symbols().iter().try_for_each(|symbol| model.symbols.add_assertion(format!("{symbol} >= 1")))
}

fn input_names(manifest: &Manifest) -> Vec<&str> {
    let states = manifest.states.iter().map(|state| state.input.as_str());
    std::iter::once(manifest.input.features.as_str()).chain(manifest.input.gap.as_deref()).chain(states).collect()
}

fn output_names(manifest: &Manifest) -> Vec<&str> {
    let states = manifest.states.iter().map(|state| state.output.as_str());
    manifest.head.outputs().iter().map(String::as_str).chain(states).collect()
}

/// Puts the graph's inputs into the manifest's order; every graph input must be named there, and the reverse.
fn order_inputs(model: &mut InferenceModel, manifest: &Manifest) -> std::result::Result<Vec<String>, String> {
    let wanted = input_names(manifest);
    let found: Vec<(String, OutletId)> = model.inputs.iter().map(|o| (model.node(o.node).name.clone(), *o)).collect();
    let list = || found.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if let Some((extra, _)) = found.iter().find(|(name, _)| !wanted.contains(&name.as_str())) {
        return Err(format!("graph input `{extra}` is not named in model.toml: a state that is not carried, or a forgotten input"));
    }
    let ordered = wanted.iter().map(|name| {
        found
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, outlet)| *outlet)
            .ok_or_else(|| format!("the graph has no input `{name}`; it has {}", list()))
    });
    model.inputs = ordered.collect::<std::result::Result<_, _>>()?;
    Ok(wanted.into_iter().map(str::to_owned).collect())
}

/// Picks the graph outputs that the manifest names, in its order.
fn order_outputs(model: &mut InferenceModel, manifest: &Manifest) -> std::result::Result<(), String> {
    pick_outputs(model, &output_names(manifest))
}

fn pick_outputs(model: &mut InferenceModel, wanted: &[&str]) -> std::result::Result<(), String> {
    let name_of = |outlet: &OutletId| model.outlet_label(*outlet).map_or_else(|| model.node(outlet.node).name.clone(), str::to_owned);
    let found: Vec<(String, OutletId)> = model.outputs.iter().map(|outlet| (name_of(outlet), *outlet)).collect();
    let list = found.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let ordered = wanted.iter().map(|name| {
        found.iter().find(|(n, _)| n == name).map(|(_, o)| *o).ok_or_else(|| format!("the graph has no output `{name}`; it has {list}"))
    });
    model.outputs = ordered.collect::<std::result::Result<_, _>>()?;
    Ok(())
}

fn check_shapes(model: &TypedModel, manifest: &Manifest, inputs: &[String]) -> std::result::Result<Signature, String> {
    let mut shapes = Vec::new();
    for (outlet, name) in model.inputs.iter().zip(inputs) {
        let fact = model.outlet_fact(*outlet).map_err(|e| e.to_string())?;
        shapes.push(shape_of(fact, &format!("input `{name}`"))?);
    }
    let mut outputs = Vec::new();
    for (outlet, name) in model.outputs.iter().zip(output_names(manifest)) {
        let fact = model.outlet_fact(*outlet).map_err(|e| e.to_string())?;
        outputs.push((name, shape_of(fact, &format!("output `{name}`"))?));
    }
    let mut shapes = shapes.into_iter();
    let features = match shapes.next().as_deref() {
        Some([width]) => *width,
        other => return Err(format!("input `{}` must be [B, F], found [B, {:?}]", manifest.input.features, other.unwrap_or_default())),
    };
    if let Some(gap) = &manifest.input.gap {
        let shape = shapes.next().unwrap_or_default();
        if shape != [1] {
            return Err(format!("input `{gap}` takes the gap and must be [B, 1], found [B, {shape:?}]"));
        }
    }
    let heads = manifest.head.outputs().len();
    let next_states = outputs.iter().skip(heads);
    for ((state, input), (_, output)) in manifest.states.iter().zip(shapes).zip(next_states) {
        if input != state.shape || *output != state.shape {
            let text = format!("state `{}`: model.toml says shape {:?}, the graph takes {input:?}", state.input, state.shape);
            return Err(format!("{text} and gives {output:?} as `{}`", state.output));
        }
    }
    let mut widths = Vec::new();
    for (name, shape) in outputs.iter().take(heads) {
        match shape[..] {
            [width] => widths.push(width),
            _ => return Err(format!("output `{name}` must be [B, n], found [B, {shape:?}]")),
        }
    }
    let expected = manifest.head.width();
    if widths.iter().sum::<usize>() != expected {
        return Err(format!("the head needs {expected} parameters, its outputs {:?} have {widths:?}", manifest.head.outputs()));
    }
    let state_floats = manifest.states.iter().map(super::manifest::StateSpec::floats).sum();
    Ok(Signature { features, outputs: widths, state_floats, operators: 0 })
}

/// Whether an axis has as many places as the batch has rows. Each input may have its own symbol for it.
pub(super) fn is_batch(dim: &TDim) -> bool {
    [2, 5].into_iter().all(|rows| {
        let values = dim.symbols().iter().fold(SymbolValues::default(), |values, symbol| values.with(symbol, rows));
        dim.eval(&values).to_i64().ok() == Some(rows)
    })
}

/// Shape without the batch axis. Refuses anything but f32 with a symbolic first axis and fixed others.
fn shape_of(fact: &TypedFact, what: &str) -> std::result::Result<Vec<usize>, String> {
    if fact.datum_type != f32::datum_type() {
        return Err(format!("{what} must be f32, found {:?}", fact.datum_type));
    }
    let mut dims = fact.shape.iter();
    match dims.next() {
        None => return Err(format!("{what} is a scalar; its first axis must be the batch")),
        Some(batch) => {
            if let Ok(fixed) = batch.to_i64() {
                let shape = fact.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                if fact.shape.iter().skip(1).any(is_batch) {
                    return Err(format!(
                        "{what}: axis 0 must be the batch, found [{shape}]. Modules of several layers have states [layers, B, H]: take [B, layers, H] and turn \
                         the axes inside the exported module (transpose(0, 1)), or take a state [B, H] for each layer"
                    ));
                }
                return Err(format!(
                    "{what}: the batch axis is frozen to {fixed}. Export with a symbolic batch axis \
                     (torch.onnx.export: dynamic_axes or dynamic_shapes); a fixed one cannot be batched and would change bits"
                ));
            }
            if !is_batch(batch) {
                return Err(format!(
                    "{what}: axis 0 must be the batch, one row for each of `x`; it has {batch} rows. A view or reshape over the batch makes another number of them"
                ));
            }
        }
    }
    dims.map(|dim| {
        dim.to_i64()
            .ok()
            .and_then(|d| usize::try_from(d).ok())
            .ok_or_else(|| format!("{what}: axis {dim} is not fixed; only the batch may be symbolic"))
    })
    .collect()
}
