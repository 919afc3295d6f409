//! Weights as whole numbers of eight bits: rewrites the constants of a graph, whoever wrote it. Pure.
//!
//! A weight w of a matrix becomes w = s q with q in -127..127 and one scale s for each column or each row, whichever loses less (symmetric quantisation
//! per channel: B. Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", 2018; R. Krishnamoorthi,
//! "Quantizing deep convolutional networks for efficient inference", 2018). The graph says so with `DequantizeLinear`, which every ONNX runtime knows. Only
//! weights are touched: states, gaps, features and outputs stay single floats, and so does the arithmetic.

use tract_onnx::pb::{AttributeProto, NodeProto, TensorProto, attribute_proto::AttributeType, tensor_proto::DataType};

use super::tensors::{Onnx, floats, shape};
use crate::base::error::{Error, Result};
use crate::base::number::{f32_of, i64_of, i64_of_count};

/// Fewest elements of a matrix that is worth it: biases and small matrices stay as they are.
const FEWEST: usize = 256;
/// Largest whole number; -128 is left out, so that zero stays zero and the range is even.
const LARGEST: f64 = 127.0;
/// First version of the operators in which `DequantizeLinear` has an axis.
const OPSET: i64 = 13;

/// A graph with weights of eight bits.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// The file.
    pub bytes: Vec<u8>,
    /// Matrices that were rewritten.
    pub matrices: usize,
    /// Weights in them.
    pub weights: usize,
    /// Numbers that stay single floats.
    pub kept: usize,
    /// Root of the mean square of what the weights lost, as a share of the root of their mean square.
    pub lost: f64,
}

/// Rewrites the matrices of a graph.
///
/// # Errors
/// The bytes are no ONNX file, its operators are older than version 13, or no matrix is large enough.
pub fn quantize(bytes: &[u8]) -> Result<Quantized> {
    let mut onnx = Onnx::of(bytes)?;
    if onnx.has_bytes() {
        return Err(Error::config("model", "the graph has weights of eight bits already").help("quantise the package it was made from"));
    }
    if onnx.opset() < OPSET {
        let text = format!("the graph is of opset {}; scales of rows and columns need {OPSET} or later", onnx.opset());
        return Err(Error::config("model", text).help("export it again with opset_version=17"));
    }
    let mut done = Quantized { bytes: Vec::new(), matrices: 0, weights: 0, kept: 0, lost: 0.0 };
    let (mut error, mut size) = (0.0, 0.0);
    if let Some(graph) = &mut onnx.model.graph {
        let mut nodes = Vec::new();
        let mut constants = Vec::new();
        for tensor in std::mem::take(&mut graph.initializer) {
            let Some(whole) = whole(&tensor) else {
                done.kept += floats(&tensor).map_or(0, |values| values.len());
                constants.push(tensor);
                continue;
            };
            done.matrices += 1;
            done.weights += whole.bytes.len();
            (error, size) = (error + whole.error, size + whole.size);
            // Files of older versions name their constants among the inputs as well.
            graph.input.retain(|input| input.name != tensor.name);
            let (name, shown) = (&tensor.name, |what: &str| format!("{}_{what}", tensor.name));
            nodes.push(dequantize([&shown("int8"), &shown("scale")], name, whole.axis));
            let scales = whole.scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
            constants.push(constant(shown("int8"), tensor.dims.clone(), DataType::Int8, whole.bytes));
            constants.push(constant(shown("scale"), vec![i64_of_count(whole.scales.len())], DataType::Float, scales));
        }
        nodes.append(&mut graph.node);
        (graph.node, graph.initializer) = (nodes, constants);
    }
    if done.matrices == 0 {
        return Err(Error::config(
            "model",
            format!("no constant of the graph is a matrix of single floats with {FEWEST} or more elements"),
        )
        .help("there is nothing to gain: the graph is small already, or its weights lie in `Constant` nodes"));
    }
    done.bytes = onnx.to_bytes();
    done.lost = (error / f64::max(size, f64::MIN_POSITIVE)).sqrt();
    Ok(done)
}

/// A matrix in whole numbers.
struct Whole {
    bytes: Vec<u8>,
    scales: Vec<f32>,
    axis: usize,
    /// Sum of the squares of what was lost.
    error: f64,
    /// Sum of the squares of the weights.
    size: f64,
}

/// The constant in whole numbers, if it is a matrix (or has more axes), large enough and finite.
fn whole(tensor: &TensorProto) -> Option<Whole> {
    let (shape, values) = (shape(tensor)?, floats(tensor)?);
    if shape.len() < 2 || values.len() < FEWEST || values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    // Of equals the last axis: the columns of a product `x W`.
    let along = (0..shape.len()).rev().map(|axis| by_axis(&shape, &values, axis));
    along.reduce(|best, other| if other.error < best.error { other } else { best })
}

/// Whole numbers with one scale for each place along an axis.
fn by_axis(shape: &[usize], values: &[f32], axis: usize) -> Whole {
    let inner: usize = shape.iter().skip(axis + 1).product();
    let places = shape.get(axis).copied().unwrap_or(1).max(1);
    let place = |i: usize| i / inner.max(1) % places;
    let mut largest = vec![0f32; places];
    for (i, value) in values.iter().enumerate() {
        if let Some(largest) = largest.get_mut(place(i)) {
            *largest = largest.max(value.abs());
        }
    }
    // What is zero throughout has any scale.
    let scales: Vec<f32> = largest.iter().map(|largest| if *largest > 0.0 { f32_of(f64::from(*largest) / LARGEST) } else { 1.0 }).collect();
    let (mut error, mut size) = (0.0, 0.0);
    let mut bytes = Vec::with_capacity(values.len());
    for (i, value) in values.iter().enumerate() {
        let (value, scale) = (f64::from(*value), f64::from(scales.get(place(i)).copied().unwrap_or(1.0)));
        let nearest = (value / scale).round().clamp(-LARGEST, LARGEST);
        error += (nearest * scale - value) * (nearest * scale - value);
        size += value * value;
        bytes.extend(i8::try_from(i64_of(nearest)).unwrap_or(0).to_le_bytes());
    }
    Whole { bytes, scales, axis, error, size }
}

fn constant(name: String, dims: Vec<i64>, kind: DataType, raw_data: Vec<u8>) -> TensorProto {
    TensorProto { name, dims, data_type: kind.into(), raw_data, ..TensorProto::default() }
}

fn dequantize(inputs: [&str; 2], output: &str, axis: usize) -> NodeProto {
    NodeProto {
        name: format!("dequantize_{output}"),
        op_type: "DequantizeLinear".to_owned(),
        input: inputs.map(str::to_owned).to_vec(),
        output: vec![output.to_owned()],
        attribute: vec![AttributeProto {
            name: "axis".to_owned(),
            r#type: AttributeType::Int.into(),
            i: i64_of_count(axis),
            ..AttributeProto::default()
        }],
        ..NodeProto::default()
    }
}

#[cfg(test)]
mod tests {
    use tract_onnx::prelude::*;

    use super::*;
    use crate::model::onnx::Graph;

    /// Columns of very different sizes.
    fn weights() -> Vec<f32> {
        (0..32 * 24).map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0) * 10f32.powi((i % 24) / 6 - 2)).collect()
    }

    fn affine(opset: Option<i64>) -> Vec<u8> {
        let mut graph = Graph::new("affine");
        graph.input("x", &[32]);
        graph.constant("w", &[32, 24], &weights());
        graph.constant("b", &[24], &[0.25; 24]);
        graph.node("MatMul", &["x", "w"], &["xw"], &[]);
        graph.node("Add", &["xw", "b"], &["y"], &[]);
        graph.output("y", &[24]);
        let mut onnx = Onnx::of(&graph.to_bytes()).unwrap();
        if let Some(opset) = opset {
            onnx.model.opset_import[0].version = opset;
        }
        onnx.to_bytes()
    }

    fn run(bytes: &[u8]) -> Vec<f32> {
        let model = tract_onnx::onnx().model_for_read(&mut &bytes[..]).unwrap().into_optimized().unwrap();
        let cast = |op: &str| model.nodes().iter().any(|node| node.op.name().contains(op));
        assert!(!cast("Cast") && !cast("Dequantize"), "what the weights are is settled when the graph is loaded: {model}");
        let x: Vec<f32> = (0..32).map(|i| (i as f32 * 0.7).sin()).collect();
        let x = Tensor::from_shape(&[1, 32], &x).unwrap();
        let y = model.into_runnable().unwrap().run(tvec![x.into()]).unwrap();
        y[0].to_plain_array_view::<f32>().unwrap().as_slice().unwrap().to_vec()
    }

    #[test]
    fn weights_keep_their_size_within_a_half_of_the_columns_scale() {
        let done = quantize(&affine(None)).unwrap();
        assert_eq!((done.matrices, done.weights, done.kept), (1, 32 * 24, 24));
        assert!(done.lost > 1e-4 && done.lost < 0.01, "{}", done.lost);
        let (before, after) = (run(&affine(None)), run(&done.bytes));
        for (column, (a, b)) in before.iter().zip(&after).enumerate() {
            let largest = weights().iter().skip(column).step_by(24).fold(0f32, |most, w| most.max(w.abs()));
            assert!((a - b).abs() < 32.0 * 0.5 * largest / 127.0, "column {column}: {a} {b}");
        }
        assert_ne!(before, after);
    }

    #[test]
    fn zeros_and_ones_stay_what_they_are_and_rows_are_scaled_where_they_differ() {
        let ones: Vec<f32> = (0..400).map(|i| f32::from(u8::from(i % 7 == 0))).collect();
        let whole = by_axis(&[20, 20], &ones, 1);
        assert!(whole.error < 1e-9);
        let rows: Vec<f32> = (0..400).map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0) * 10f32.powi(i / 100)).collect();
        let tensor = constant("w".into(), vec![20, 20], DataType::Float, rows.iter().flat_map(|v| v.to_le_bytes()).collect());
        assert_eq!(super::whole(&tensor).unwrap().axis, 0);
    }

    #[test]
    fn what_cannot_be_quantised_is_refused_with_the_reason() {
        let refusal = |bytes: &[u8]| quantize(bytes).unwrap_err().to_string();
        assert!(refusal(b"\xff\xff").contains("not an ONNX file"));
        assert!(refusal(&affine(Some(11))).contains("opset 11"));
        assert!(refusal(&quantize(&affine(None)).unwrap().bytes).contains("already"));
        let mut small = Graph::new("small");
        small.constant("w", &[4, 4], &[1.0; 16]);
        assert!(refusal(&small.to_bytes()).contains("256"));
    }
}
