//! Writes ONNX: a short list of nodes and constants to the bytes of `model.onnx`. Pure; `fit` is its user.

use prost::Message;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    attribute_proto::AttributeType,
    tensor_proto::DataType,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};

use crate::base::number::i64_of_count;

/// Operator set of the graphs written here.
pub const OPSET: i64 = 17;
/// ONNX IR version that belongs to `OPSET`.
const IR_VERSION: i64 = 8;
/// Name of the batch axis: symbolic, so that one graph serves every batch size with the same bits.
pub const BATCH: &str = "B";

/// A graph under construction. Nodes must be added in the order in which they can be computed.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    graph: GraphProto,
}

impl Graph {
    /// An empty graph.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Graph { graph: GraphProto { name: name.to_owned(), ..GraphProto::default() } }
    }

    /// An input f32 `[B, shape...]`.
    pub fn input(&mut self, name: &str, shape: &[usize]) {
        self.graph.input.push(batched(name, shape));
    }

    /// An output f32 `[B, shape...]`; some node must give it.
    pub fn output(&mut self, name: &str, shape: &[usize]) {
        self.graph.output.push(batched(name, shape));
    }

    /// A constant f32 of `shape`, row-major; `values` has as many elements as the shape.
    pub fn constant(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len(), "constant {name}");
        self.raw(name, shape, DataType::Float, values.iter().flat_map(|v| v.to_le_bytes()).collect());
    }

    /// A constant list of i64, for operators that take positions as inputs (`Slice`, `Split`).
    pub fn positions(&mut self, name: &str, values: &[i64]) {
        self.raw(name, &[values.len()], DataType::Int64, values.iter().flat_map(|v| v.to_le_bytes()).collect());
    }

    fn raw(&mut self, name: &str, shape: &[usize], kind: DataType, raw_data: Vec<u8>) {
        self.graph.initializer.push(TensorProto {
            name: name.to_owned(),
            dims: shape.iter().map(|n| i64_of_count(*n)).collect(),
            data_type: kind.into(),
            raw_data,
            ..TensorProto::default()
        });
    }

    /// A node of the standard domain, with integer attributes.
    pub fn node(&mut self, operator: &str, inputs: &[&str], outputs: &[&str], attributes: &[(&str, i64)]) {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        self.graph.node.push(NodeProto {
            name: format!("{}_{}", operator.to_lowercase(), outputs.first().copied().unwrap_or_default()),
            op_type: operator.to_owned(),
            input: names(inputs),
            output: names(outputs),
            attribute: attributes
                .iter()
                .map(|(name, value)| AttributeProto {
                    name: (*name).to_owned(),
                    r#type: AttributeType::Int.into(),
                    i: *value,
                    ..AttributeProto::default()
                })
                .collect(),
            ..NodeProto::default()
        });
    }

    /// The file's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        ModelProto {
            ir_version: IR_VERSION,
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
            producer_name: "meantime".to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            graph: Some(self.graph.clone()),
            ..ModelProto::default()
        }
        .encode_to_vec()
    }
}

fn batched(name: &str, shape: &[usize]) -> ValueInfoProto {
    let dimension = |value| Dimension { value: Some(value), ..Dimension::default() };
    let mut dim = vec![dimension(dimension::Value::DimParam(BATCH.to_owned()))];
    dim.extend(shape.iter().map(|n| dimension(dimension::Value::DimValue(i64_of_count(*n)))));
    let tensor = type_proto::Tensor { elem_type: DataType::Float.into(), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}

#[cfg(test)]
mod tests {
    use tract_onnx::prelude::*;

    use super::{BATCH, Graph};

    #[test]
    fn a_written_graph_runs_in_tract_with_a_symbolic_batch() {
        let mut graph = Graph::new("affine");
        graph.input("x", &[2]);
        graph.constant("w", &[2, 3], &[1.0, 2.0, 3.0, 10.0, 20.0, 30.0]);
        graph.constant("b", &[3], &[0.5, 0.5, 0.5]);
        graph.node("MatMul", &["x", "w"], &["xw"], &[]);
        graph.node("Add", &["xw", "b"], &["y"], &[]);
        graph.output("y", &[3]);
        let bytes = graph.to_bytes();
        let model = tract_onnx::onnx().model_for_read(&mut &bytes[..]).unwrap().into_optimized().unwrap();
        let fact = model.input_fact(0).unwrap();
        assert_eq!(fact.shape.dims()[0].to_string(), BATCH);
        let plan = model.into_runnable().unwrap();
        for batch in [1, 5] {
            let x = Tensor::from_shape(&[batch, 2], &[1.0f32, 2.0].repeat(batch)).unwrap();
            let y = plan.run(tvec![x.into()]).unwrap();
            assert_eq!(y[0].to_plain_array_view::<f32>().unwrap().as_slice().unwrap(), &[21.5f32, 42.5, 63.5].repeat(batch)[..]);
        }
    }
}
