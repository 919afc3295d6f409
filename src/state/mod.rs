//! Key states: who the keys are and what is remembered of each.

use crate::base::time::Gap;

/// The `[state]` table, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Most keys one lane may hold; one more stops the stage with an error that says so.
    pub max_keys: usize,
    /// A key that was idle for longer starts anew, as if it had never been seen.
    pub expiry: Option<Gap>,
}
