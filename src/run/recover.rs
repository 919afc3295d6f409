//! Where a partition that a lane gets begins: the committed offset, a snapshot below it, and the records between the two.

use super::partition::Recovered;
use crate::base::error::Result;
use crate::base::offset::Offset;
use crate::data::commit::Commit;
use crate::source::Assignment;

/// Decides where the partition is read from and with which states it starts. Returns also the first offset to read, which may be below the
/// first that is taken in: the last committed record is looked at again, so that a log that was made anew is noticed.
///
/// # Errors
/// As `Assignment::start`.
pub fn recover(assignment: &Assignment, committed: Option<&Commit>) -> Result<(Recovered, Offset)> {
    let partition = assignment.partition;
    let start = assignment.start(committed.map(|committed| committed.next), None)?;
    if start.unread > 0 {
        tracing::warn!(%partition, records = start.unread, "retention deleted records before they were read");
    }
    let mut note = committed.map(|committed| committed.note.clone()).unwrap_or_default();
    // What retention has deleted cannot be looked at again.
    note.last = note.last.filter(|last| last.offset >= assignment.low && last.offset < start.live_from);
    let read_from = note.last.map_or(start.read_from, |last| last.offset.min(start.read_from));
    Ok((Recovered { partition, from: start.read_from, live_from: start.live_from, note, states: None }, read_from))
}
