//! The intensity of each mark as a function that only the model knows: the head asks, the package's second graph answers.

use crate::base::error::Result;

/// Intensities of the marks at gaps after an event.
pub trait Intensities: std::fmt::Debug + Send {
    /// Marks; 1 for events without.
    fn marks(&self) -> usize;

    /// Replaces `into` by the intensities, per unit of the law: `[taus.len(), marks]`, row-major. `laws` are rows that steps have published, one after the
    /// other; `of` says for each gap which row it is a gap of. What is answered for one gap never depends on the others.
    ///
    /// # Errors
    /// The graph fails to run.
    fn at(&mut self, laws: &[f32], of: &[u32], taus: &[f32], into: &mut Vec<f32>) -> Result<()>;
}
