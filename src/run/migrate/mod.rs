//! A change of the model: what of the key states can be taken over, and the snapshots that are made of them.
//!
//! States belong to a fingerprint. Those of the model before are found by none that runs after it, so a new package begins with states that were rebuilt, by
//! replaying the log through it, or with a snapshot that was made of the old model's here. Such a snapshot stands at the offset of the one it was made of
//! and is stored like any other; the run with the new package finds it, replays from there to what is committed, and is live.
//!
//! Reading order: `comparison` (what two packages have in common), `committed` (how far the pipeline has come), `moves` (snapshots made of snapshots),
//! `rebuild` (snapshots made of history).

mod committed;
mod comparison;
mod moves;
mod rebuild;
#[cfg(test)]
mod tests;

pub use committed::committed;
pub use comparison::{Comparison, Law};
pub use moves::{Move, Moved, shadowed, store, survey};
pub use rebuild::{Goal, Until, sinks};
