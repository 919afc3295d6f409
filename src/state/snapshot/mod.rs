//! Snapshots of a partition's state: Arrow IPC files, full ones and deltas on them, each made valid by a small manifest.
//!
//! A snapshot at offset S holds the state that the records below S have made. Since a state is a function of its log, a snapshot is only
//! ever a shortcut: one that is missing, damaged or of another fingerprint costs a longer replay and nothing else.
//!
//! How `run` uses it:
//!
//! 1. At start: [`Snapshots::open`] with the plan's place, columns and fingerprint; one [`Writer`] for all lanes.
//! 2. When a partition is assigned, with its committed offset C: [`Snapshots::newest`]`(partition, C)`. If there is one,
//!    [`Found::load`] fills empty `KeyStates` and gives what `Order::restore` takes; replay starts at `found.offset`, and the partition's
//!    [`Cutter`] is made with `Some(found.offset)`. If there is none, replay starts at the origin, and the cutter is made with `None`.
//! 3. Every `Settings::every`, between two batches at the end of an epoch: [`Cutter::begin`] with the offset below which every record of
//!    the partition has been taken in.
//! 4. After every batch while the cutter is not idle: [`Cutter::step`], which copies some thousands of rows, then hands the copy to the
//!    writer, then waits for it; it never blocks. Its `Done` or `Failed` is for log and metrics; after a failure the next snapshot is full.
//! 5. When a partition is revoked or the stage stops: `begin`, then [`Cutter::settle`], which blocks until the snapshot is durable or the
//!    time is up. Whatever it says, the partition may be let go.
//! 6. At the end: [`Writer::close`].
//!
//! A topic that was deleted and made anew can find snapshots of its predecessor here, at offsets that it has as well. Only the caller can
//! tell: the note should name the last record below the offset (its check sum), and `run` compare it with the record that is there.
//!
//! Between `begin` and the end of copying, whatever changes a slot must have gone through `KeyStates::intern` or `touch` before.
//!
//! Files, below the place that the plan names (`P` is the partition, offsets have 20 digits so that names sort by them):
//!
//! ```text
//! partition-P/00000000000000012345-full.arrow    rows of all keys
//! partition-P/00000000000000012345-full.json     its manifest, written last: without it the file does not count
//! partition-P/00000000000000023456-delta.arrow   rows of the keys that have changed since the base, of those
//!                                                that were forgotten (null, 0 events), and all held events
//! partition-P/00000000000000023456-delta.json
//! partition-P/00000000000000023456-full-FINGERPRINT.arrow   states that were another model's: `migrate`
//! ```
//!
//! The columns are in `columns.rs`, the manifest in `manifest.rs`. A chain is a full snapshot and its deltas; when the deltas are more
//! than 8, or outweigh the full one, the writer merges the chain into a new full file, from files alone.

mod columns;
mod cutter;
mod decode;
mod encode;
mod export;
mod found;
mod manifest;
mod merge;
mod migrate;
mod retention;
mod store;
mod writer;

use std::time::Duration;

pub use columns::Columns;
pub use cutter::{Boundary, Cutter, Progress};
pub use export::KeyState;
pub use found::Found;
pub use manifest::{Base, FORMAT, Header, Kind, Manifest, Migrated, Mode};
pub use migrate::{Change, Part};
pub use store::{Listed, Snapshots};
pub use writer::{Writer, Written, store};

use crate::link::objects::Place;

/// Where snapshots go and how often one is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The folder or bucket.
    pub place: Place,
    /// Time between two snapshots of a partition.
    pub every: Duration,
}

/// Chains of a partition that are kept.
const CHAINS: usize = 2;
/// Deltas of a chain above which it is merged.
const MAX_DELTAS: usize = 8;

#[cfg(test)]
mod tests;
