//! History to model package: reads what happened, derives the recipe, trains, and writes the step graph with its card. Autograd (candle)
//! lives only here.

pub mod batch;
pub mod cell;
pub mod history;
pub mod loss;
pub mod normal;
pub mod train;
pub mod window;

use candle_core::{CpuStorage, Layout};

use crate::base::error::Error;

/// A fault of the autograd library: shapes that do not fit, which only a defect can cause.
pub(crate) fn autograd(error: candle_core::Error) -> Error {
    Error::internal("fit", format!("training stopped: {error}")).caused_by(error)
}

/// The f32 values of a tensor that lies in one piece.
pub(crate) fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    let values = storage.as_slice::<f32>()?;
    layout
        .contiguous_offsets()
        .and_then(|(from, to)| values.get(from..to))
        .ok_or_else(|| candle_core::Error::Msg("the tensor does not lie in one piece".to_owned()))
}
