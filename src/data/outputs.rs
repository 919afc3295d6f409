//! What the model gave for a batch of events, in their order.

/// Head parameters per event: `width` floats a row, row-major.
///
/// `before` is the law that was published with the key's previous event, against which the arrived event is
/// scored; a row of NaN where the key had none. It is empty for heads that do not score arrivals.
/// `after` is what the step with this event gave: the law of the next event, or this event's score.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outputs {
    /// Floats per row.
    pub width: usize,
    /// `[n, width]` or empty.
    pub before: Vec<f32>,
    /// `[n, width]`.
    pub after: Vec<f32>,
    /// Rows whose step would have led to a state that is not finite: it was left as it was.
    pub kept: Vec<u32>,
}
