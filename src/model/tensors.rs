//! The constants of an ONNX file: what another program's graph holds, taken out and put back.

use prost::Message;
use tract_onnx::pb::{GraphProto, ModelProto, TensorProto, tensor_proto::DataType};

use crate::base::error::{Error, Result};

/// An ONNX file as it was read.
#[derive(Clone, Debug)]
pub struct Onnx {
    pub(super) model: ModelProto,
}

impl Onnx {
    /// The file of these bytes.
    ///
    /// # Errors
    /// They are not those of an ONNX file with a graph.
    pub fn of(bytes: &[u8]) -> Result<Self> {
        let model = ModelProto::decode(bytes).map_err(|e| Error::config("model", format!("not an ONNX file: {e}")).caused_by(e))?;
        if model.graph.is_none() {
            return Err(Error::config("model", "the ONNX file holds no graph"));
        }
        Ok(Onnx { model })
    }

    /// The bytes of the file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.model.encode_to_vec()
    }

    /// The graph's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.model.graph.as_ref().map_or("", |graph| &graph.name)
    }

    /// Version of the standard operators.
    #[must_use]
    pub fn opset(&self) -> i64 {
        let own = self.model.opset_import.iter().filter(|import| import.domain.is_empty() || import.domain == "ai.onnx");
        own.map(|import| import.version).max().unwrap_or(0)
    }

    /// Shape and values of a constant of single floats.
    #[must_use]
    pub fn constant(&self, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        let tensor = self.model.graph.as_ref()?.initializer.iter().find(|tensor| tensor.name == name)?;
        Some((shape(tensor)?, floats(tensor)?))
    }

    /// Whether a constant has whole numbers, as those have that `quantize` made.
    #[must_use]
    pub fn has_bytes(&self) -> bool {
        let graph = self.model.graph.as_ref();
        graph.is_some_and(|graph| graph.initializer.iter().any(|tensor| tensor.data_type == i32::from(DataType::Int8)))
    }

    /// The number by which the graph multiplies an input, if it does so.
    #[must_use]
    pub fn factor(&self, input: &str) -> Option<f32> {
        let nodes = &self.model.graph.as_ref()?.node;
        let node = nodes.iter().find(|node| node.op_type == "Mul" && node.input.first().is_some_and(|first| first == input))?;
        match self.constant(node.input.get(1)?)?.1[..] {
            [factor] => Some(factor),
            _ => None,
        }
    }

    /// Whether both have the same nodes, constants, inputs and outputs.
    #[must_use]
    pub fn same_graph(&self, other: &Onnx) -> bool {
        let bare = |graph: &Option<GraphProto>| graph.as_ref().map(Message::encode_to_vec);
        bare(&self.model.graph) == bare(&other.model.graph)
    }
}

/// The shape of a constant.
pub(super) fn shape(tensor: &TensorProto) -> Option<Vec<usize>> {
    tensor.dims.iter().map(|n| usize::try_from(*n).ok()).collect()
}

/// Its values, if they are single floats that lie in the file itself.
pub(super) fn floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    let count: usize = shape(tensor)?.iter().product();
    if tensor.data_type != i32::from(DataType::Float) {
        return None;
    }
    let values: Vec<f32> = if tensor.raw_data.is_empty() {
        tensor.float_data.clone()
    } else {
        tensor.raw_data.chunks_exact(4).filter_map(|bytes| bytes.try_into().ok()).map(f32::from_le_bytes).collect()
    };
    (values.len() == count).then_some(values)
}
