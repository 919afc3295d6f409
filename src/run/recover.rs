//! Where a partition that a lane gets begins: the committed offset, a snapshot below it, and the records between the two.

use super::lane::Lane;
use super::partition::Recovered;
use crate::base::clock;
use crate::base::error::Result;
use crate::base::offset::Offset;
use crate::data::commit::{Commit, Note};
use crate::source::Assignment;
use crate::state::snapshot::Found;

/// Decides where the partition is read from, and loads the states it starts with. Returns also the first offset to read, which may be below
/// the first that is taken in (the last committed record is looked at again, so that a log that was made anew is noticed), and the offset of the snapshot
/// that was loaded.
///
/// # Errors
/// As `Assignment::start`, or the snapshot, whose check sums were right, holds something else than it says.
pub fn recover(
    assignment: &Assignment,
    committed: Option<&Commit>,
    found: Option<Found>,
    lane: &Lane,
) -> Result<(Recovered, Offset, Option<Offset>)> {
    let partition = assignment.partition;
    let start = assignment.start(committed.map(|committed| committed.next), found.as_ref().map(|found| found.offset))?;
    if start.unread > 0 {
        tracing::warn!(%partition, records = start.unread, "retention deleted records before they were read");
    }
    let mut note = committed.map(|committed| committed.note.clone()).unwrap_or_default();
    // What retention has deleted cannot be looked at again.
    note.last = note.last.filter(|last| last.offset >= assignment.low && last.offset < start.live_from);
    let read_from = note.last.map_or(start.read_from, |last| last.offset.min(start.read_from));
    let mut recovered =
        Recovered { partition, from: start.read_from, live_from: start.live_from, note, included: Note::default(), states: None };
    let Some(found) = found.filter(|_| start.snapshot) else {
        if let Some(dropped) = recovered.note.dropped.filter(|_| start.read_from < start.live_from) {
            tracing::warn!(%partition, %dropped, "no snapshot can be used, and moments at which the partition was idle are not known any more below this \
                offset: what was held back then may be rebuilt in another order");
        }
        return Ok((recovered, read_from, None));
    };
    let (began, offset, keys, bytes) = (clock::tick(), found.offset, found.keys, found.bytes);
    recovered.included = Note::read(&found.note).unwrap_or_default();
    let (mut order, mut states) = lane.empty_states();
    order.restore(found.load(&mut states)?);
    recovered.states = Some((order, states));
    tracing::info!(%partition, %offset, keys, bytes, took = ?began.elapsed(), "snapshot loaded");
    Ok((recovered, read_from, Some(offset)))
}
