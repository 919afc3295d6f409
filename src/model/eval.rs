//! Runs a plan of tract and leaves the processor as compiled code expects it.
//!
//! tract's kernels of x86-64 are written in assembly and end without `vzeroupper`: the upper halves of the vector registers stay in use. Code that is compiled
//! for every x86-64 processor uses the older SSE instructions, which must then preserve those halves: each of them waits for the last one to write the same register, and all
//! that a lane does between two steps (decoding, features, heads, rows) took two to three times as long on an AMD EPYC. Intel describes the same of its own (*64 and IA-32 Architectures
//! Optimization Reference Manual*, "Mixing AVX code with SSE code"). No bit of a result depends on it.

use tract_onnx::prelude::*;
use tract_onnx::tract_core::plan;

/// As `state.run(inputs)`. Registers are cleaned after each operator: those that have no kernel in assembly are compiled code too.
///
/// # Errors
/// The graph fails to run.
pub(super) fn run(state: &mut TypedSimpleState, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
    state.run_plan_with_eval(inputs, |context, state, node, inputs| {
        let outputs = plan::eval(context, state, node, inputs);
        clean_registers();
        outputs
    })
}

/// Zeroes the upper halves of the vector registers, if this processor has them.
fn clean_registers() {
    #[cfg(target_arch = "x86_64")]
    if let Some(vectors) = pulp::x86::V3::try_new() {
        vectors.avx._mm256_zeroupper();
    }
}
