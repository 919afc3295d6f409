//! The operators that cells are written in, once: run by candle they train, written as nodes they are the step graph.
//!
//! All values are matrices `[B, n]` or constants that stretch to one. That is a choice of speed: tract runs products, element-wise operators of equal
//! shapes, sigmoid and tanh with vectors, and is slow at einsum, reductions over inner axes and uneven stretching. So a sum over groups is a product with a
//! constant matrix of zeros and ones, and what has to be repeated is repeated in the weights, where it is folded away.

use std::collections::HashMap;

use candle_core::{D, Device, Result, Tensor};

use crate::base::number::i64_of_count;
use crate::model::onnx::Graph;

/// An element-wise function, except `Softmax`, which goes over the last axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// 1 / (1 + e^-x).
    Sigmoid,
    /// tanh x.
    Tanh,
    /// e^x.
    Exp,
    /// max(x, 0).
    Relu,
    /// ln(1 + e^x).
    Softplus,
    /// e^x over its sum.
    Softmax,
}

/// What a cell can compute. Two-operand operators stretch a constant `[n]` or `[1]` over the rows.
pub trait Ops {
    /// A value.
    type T: Clone;

    /// A weight by its name.
    ///
    /// # Errors
    /// As candle's.
    fn weight(&mut self, name: &str) -> Result<Self::T>;

    /// A constant that is not trained.
    ///
    /// # Errors
    /// As candle's.
    fn constant(&mut self, shape: &[usize], values: &[f32]) -> Result<Self::T>;

    /// Product of matrices.
    ///
    /// # Errors
    /// As candle's.
    fn matmul(&mut self, a: &Self::T, b: &Self::T) -> Result<Self::T>;

    /// Sum.
    ///
    /// # Errors
    /// As candle's.
    fn add(&mut self, a: &Self::T, b: &Self::T) -> Result<Self::T>;

    /// Difference.
    ///
    /// # Errors
    /// As candle's.
    fn sub(&mut self, a: &Self::T, b: &Self::T) -> Result<Self::T>;

    /// Product of elements.
    ///
    /// # Errors
    /// As candle's.
    fn mul(&mut self, a: &Self::T, b: &Self::T) -> Result<Self::T>;

    /// Quotient.
    ///
    /// # Errors
    /// As candle's.
    fn div(&mut self, a: &Self::T, b: &Self::T) -> Result<Self::T>;

    /// A function of every element.
    ///
    /// # Errors
    /// As candle's.
    fn apply(&mut self, function: Function, a: &Self::T) -> Result<Self::T>;

    /// Columns in groups of these widths.
    ///
    /// # Errors
    /// As candle's.
    fn split(&mut self, a: &Self::T, widths: &[usize]) -> Result<Vec<Self::T>>;

    /// Columns side by side.
    ///
    /// # Errors
    /// As candle's.
    fn concat(&mut self, parts: &[&Self::T]) -> Result<Self::T>;

    /// Makes a value `[B, width]` visible under a name, where somebody may look at it: in the graph it is an output that serving leaves out.
    fn show(&mut self, _name: &str, _value: &Self::T, _width: usize) {}

    /// x W + b.
    ///
    /// # Errors
    /// As candle's.
    fn linear(&mut self, x: &Self::T, weight: &str, bias: &str) -> Result<Self::T> {
        let (weight, bias) = (self.weight(weight)?, self.weight(bias)?);
        let product = self.matmul(x, &weight)?;
        self.add(&product, &bias)
    }

    /// x times a weight matrix.
    ///
    /// # Errors
    /// As candle's.
    fn project(&mut self, x: &Self::T, weight: &str) -> Result<Self::T> {
        let weight = self.weight(weight)?;
        self.matmul(x, &weight)
    }

    /// x times a number.
    ///
    /// # Errors
    /// As candle's.
    fn scale(&mut self, x: &Self::T, by: f32) -> Result<Self::T> {
        let by = self.constant(&[1], &[by])?;
        self.mul(x, &by)
    }

    /// x plus a number.
    ///
    /// # Errors
    /// As candle's.
    fn shift(&mut self, x: &Self::T, by: f32) -> Result<Self::T> {
        let by = self.constant(&[1], &[by])?;
        self.add(x, &by)
    }

    /// The two halves that `split` gives for two widths.
    ///
    /// # Errors
    /// As candle's.
    fn split2(&mut self, a: &Self::T, first: usize, second: usize) -> Result<(Self::T, Self::T)> {
        match <[Self::T; 2]>::try_from(self.split(a, &[first, second])?) {
            Ok([first, second]) => Ok((first, second)),
            Err(_) => Err(candle_core::Error::Msg("a split into two gave another number".to_owned())),
        }
    }
}

/// Runs on tensors, with gradients.
pub struct Tensors<'a> {
    /// The weights by name.
    pub weights: &'a HashMap<&'static str, Tensor>,
}

impl Ops for Tensors<'_> {
    type T = Tensor;

    fn weight(&mut self, name: &str) -> Result<Tensor> {
        self.weights.get(name).cloned().ok_or_else(|| candle_core::Error::Msg(format!("no weight `{name}`")))
    }

    fn constant(&mut self, shape: &[usize], values: &[f32]) -> Result<Tensor> {
        Tensor::from_slice(values, shape, &Device::Cpu)
    }

    fn matmul(&mut self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        a.matmul(b)
    }

    fn add(&mut self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        a.broadcast_add(b)
    }

    fn sub(&mut self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        a.broadcast_sub(b)
    }

    fn mul(&mut self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        a.broadcast_mul(b)
    }

    fn div(&mut self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        a.broadcast_div(b)
    }

    fn apply(&mut self, function: Function, a: &Tensor) -> Result<Tensor> {
        match function {
            // (1 + tanh(x / 2)) / 2: no overflow, and a gradient candle has.
            Function::Sigmoid => a.affine(0.5, 0.0)?.tanh()?.affine(0.5, 0.5),
            Function::Tanh => a.tanh(),
            Function::Exp => a.exp(),
            Function::Relu => a.relu(),
            Function::Softplus => a.relu()? + a.abs()?.neg()?.exp()?.affine(1.0, 1.0)?.log()?,
            Function::Softmax => candle_nn::ops::softmax(a, D::Minus1),
        }
    }

    fn split(&mut self, a: &Tensor, widths: &[usize]) -> Result<Vec<Tensor>> {
        let parts = widths.iter().scan(0, |from, width| {
            *from += width;
            Some(a.narrow(1, *from - width, *width).and_then(|part| part.contiguous()))
        });
        parts.collect()
    }

    fn concat(&mut self, parts: &[&Tensor]) -> Result<Tensor> {
        Tensor::cat(parts, 1)
    }
}

/// Writes nodes. Values are their names.
pub struct Nodes {
    /// The graph so far.
    pub graph: Graph,
    next: usize,
}

impl Nodes {
    /// A graph that has its inputs and weights.
    #[must_use]
    pub fn new(graph: Graph) -> Self {
        Nodes { graph, next: 0 }
    }

    fn fresh(&mut self) -> String {
        self.next += 1;
        format!("v{}", self.next)
    }

    fn node(&mut self, operator: &str, inputs: &[&str], attributes: &[(&str, i64)]) -> String {
        let output = self.fresh();
        self.graph.node(operator, inputs, &[&output], attributes);
        output
    }

    /// Makes `value` an output of the graph under this name.
    pub fn output(&mut self, value: &str, name: &str, width: usize) {
        self.graph.node("Identity", &[value], &[name], &[]);
        self.graph.output(name, &[width]);
    }
}

impl Ops for Nodes {
    type T = String;

    fn weight(&mut self, name: &str) -> Result<String> {
        Ok(name.to_owned())
    }

    fn constant(&mut self, shape: &[usize], values: &[f32]) -> Result<String> {
        let name = self.fresh();
        self.graph.constant(&name, shape, values);
        Ok(name)
    }

    fn matmul(&mut self, a: &String, b: &String) -> Result<String> {
        Ok(self.node("MatMul", &[a, b], &[]))
    }

    fn add(&mut self, a: &String, b: &String) -> Result<String> {
        Ok(self.node("Add", &[a, b], &[]))
    }

    fn sub(&mut self, a: &String, b: &String) -> Result<String> {
        Ok(self.node("Sub", &[a, b], &[]))
    }

    fn mul(&mut self, a: &String, b: &String) -> Result<String> {
        Ok(self.node("Mul", &[a, b], &[]))
    }

    fn div(&mut self, a: &String, b: &String) -> Result<String> {
        Ok(self.node("Div", &[a, b], &[]))
    }

    fn apply(&mut self, function: Function, a: &String) -> Result<String> {
        let (operator, attributes): (_, &[(&str, i64)]) = match function {
            Function::Sigmoid => ("Sigmoid", &[]),
            Function::Tanh => ("Tanh", &[]),
            Function::Exp => ("Exp", &[]),
            Function::Relu => ("Relu", &[]),
            Function::Softplus => ("Softplus", &[]),
            Function::Softmax => ("Softmax", &[("axis", 1)]),
        };
        Ok(self.node(operator, &[a], attributes))
    }

    fn split(&mut self, a: &String, widths: &[usize]) -> Result<Vec<String>> {
        let sizes = self.fresh();
        self.graph.positions(&sizes, &widths.iter().map(|width| i64_of_count(*width)).collect::<Vec<_>>());
        let parts: Vec<String> = widths.iter().map(|_| self.fresh()).collect();
        let names: Vec<&str> = parts.iter().map(String::as_str).collect();
        self.graph.node("Split", &[a, &sizes], &names, &[("axis", 1)]);
        Ok(parts)
    }

    fn show(&mut self, name: &str, value: &String, width: usize) {
        self.output(value, name, width);
    }

    fn concat(&mut self, parts: &[&String]) -> Result<String> {
        let names: Vec<&str> = parts.iter().map(|part| part.as_str()).collect();
        Ok(self.node("Concat", &names, &[("axis", 1)]))
    }
}
