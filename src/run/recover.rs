//! Where a partition that a lane gets begins: the committed offset, a snapshot below it, and the records between the two.

use super::lane::Lane;
use super::partition::Recovered;
use crate::base::clock;
use crate::base::error::{Error, Result};
use crate::base::offset::Offset;
use crate::data::commit::{Commit, Note};
use crate::source::{Assignment, OnMissing, Start};
use crate::state::snapshot::Found;

/// Decides where the partition is read from, and loads the states it starts with. Returns also the first offset to read, which may be below
/// the first that is taken in (the last record below the commit and that below the snapshot are looked at again, so that a log that was made anew is noticed),
/// and the offset of the snapshot that was loaded.
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
    let change = committed.and_then(|committed| Change::since(committed, &lane.forecasts.identity.fingerprint));
    let start = assignment.start(committed.map(|committed| committed.next), found.as_ref().map(|found| found.offset));
    let start = match &change {
        Some(change) => change.judge(assignment, start, found.as_ref())?,
        None => start?,
    };
    if start.unread > 0 {
        tracing::warn!(%partition, records = start.unread, "retention deleted records before they were read");
    }
    let mut note = committed.map(|committed| committed.note.clone()).unwrap_or_default();
    // What retention has deleted cannot be looked at again.
    note.last = note.last.filter(|last| last.offset >= assignment.low && last.offset < start.live_from);
    let mut read_from = note.last.map_or(start.read_from, |last| last.offset.min(start.read_from));
    let mut recovered = Recovered {
        partition,
        from: start.read_from,
        live_from: start.live_from,
        note,
        included: Note::default(),
        states: None,
        live_ticks: 0,
    };
    let Some(found) = found.filter(|_| start.snapshot) else {
        let committed_at = committed.map(|committed| committed.next);
        if recovered.lacks_history(committed_at, false) {
            let (committed, first) = (committed_at.unwrap_or_default(), assignment.low);
            if assignment.on_missing == OnMissing::StartEmpty {
                tracing::warn!(%partition, %committed, "no snapshot can be used: every key starts cold, as state.on_missing = \"start_empty\" says");
            } else {
                tracing::warn!(%partition, %committed, %first, "no snapshot can be used, and retention has deleted records that the states rest on: they are rebuilt \
                    from what is left, and forecasts are other ones than they would have been (state.on_missing = \"fail\" refuses such a start)");
            }
        }
        if assignment.prior && committed.is_some() {
            tracing::warn!(%partition, "no snapshot can be used: the states of events before `source.since`, which the topic does not give, are gone");
        } else if assignment.prior {
            tracing::warn!(%partition, group = assignment.group, "nothing is committed: no backfill was handed over to this group, and states begin with what \
                the topic has since `source.since` (state.on_missing = \"fail\" refuses such a start)");
        }
        if let Some(dropped) = recovered.note.dropped.filter(|_| start.read_from < start.live_from) {
            tracing::warn!(%partition, %dropped, "no snapshot can be used, and moments at which the partition was idle are not known any more below this \
                offset: what was held back then may be rebuilt in another order");
        }
        return Ok((recovered, read_from, None));
    };
    let (began, offset, keys, bytes) = (clock::tick(), found.offset, found.keys, found.bytes);
    // One that was a shadow's says where that began.
    recovered.included = Note { shadow: None, ..Note::read(&found.note).unwrap_or_default() };
    recovered.included.last = recovered.included.last.filter(|last| last.offset >= assignment.low && last.offset < start.read_from);
    // A topic that was made anew finds the snapshots of the one before.
    read_from = recovered.included.last.map_or(read_from, |last| last.offset.min(read_from));
    let (mut order, mut states) = lane.empty_states();
    order.restore(found.load(&mut states)?);
    recovered.states = Some((order, states));
    tracing::info!(%partition, %offset, keys, bytes, took = ?began.elapsed(), "snapshot loaded");
    Ok((recovered, read_from, Some(offset)))
}

/// The states that were committed are another model's, or another pipeline's: from the committed offset on forecasts come of the one that runs now.
struct Change<'a> {
    before: &'a str,
    now: &'a str,
    committed: Offset,
}

impl<'a> Change<'a> {
    fn since(committed: &'a Commit, now: &'a str) -> Option<Self> {
        let before = committed.note.fingerprint.as_str();
        (!before.is_empty() && before != now).then_some(Change { before, now, committed: committed.next })
    }

    /// Says in the log where the model changes and what becomes of the states; refuses to begin with less than was there if nobody has asked for that.
    fn judge(&self, assignment: &Assignment, start: Result<Start>, found: Option<&Found>) -> Result<Start> {
        let (partition, low) = (assignment.partition, assignment.low);
        let gone = assignment.prior || low > Offset(0) && self.committed > Offset(0);
        let start = match start {
            // The other error of a start says that the log is another one.
            Err(_) if gone && assignment.on_missing == OnMissing::Fail && assignment.high.is_none_or(|high| self.committed <= high) => {
                return Err(self.refused(assignment));
            }
            start => start?,
        };
        let states = if start.snapshot {
            match found.and_then(Found::migrated) {
                Some(migrated) => format!("of a snapshot that was migrated ({})", migrated.mode),
                None => "of a snapshot of an earlier run of this model".to_owned(),
            }
        } else if gone && assignment.on_missing == OnMissing::Unsaid {
            return Err(self.refused(assignment));
        } else if assignment.on_missing == OnMissing::StartEmpty {
            "none: every key starts cold".to_owned()
        } else if gone {
            "rebuilt from what the log still has".to_owned()
        } else {
            "rebuilt by replaying the whole log silently".to_owned()
        };
        let (before, now, at) = (self.before, self.now, start.live_from);
        if start.snapshot {
            tracing::info!(%partition, %at, before, now, states, "the model has changed: forecasts are the new one's from here on");
        } else {
            tracing::warn!(%partition, %at, before, now, states, "the model or the pipeline has changed since the last commit");
        }
        Ok(start)
    }

    fn refused(&self, assignment: &Assignment) -> Error {
        let text = format!(
            "the model or the pipeline has changed (fingerprint {} is committed, {} runs now), no snapshot that the log still reaches has states of the new \
             one, and {}",
            self.before,
            self.now,
            match assignment.prior {
                true => "the topic does not give events before `source.since`, without which they cannot be rebuilt".to_owned(),
                false => format!("the records below offset {}, from which they could be rebuilt, are gone", assignment.low),
            }
        );
        Error::config("run", text).at(format!("{}, partition {}", assignment.place, assignment.partition)).help(
            "make states of the new model from those of the old one: with the old package in [model] run `meantime state migrate PIPELINE --to NEW` (--dry-run \
             says which modes are possible); or do without: state.on_missing = \"rebuild\" (from what is left) or \"start_empty\"; or go back to the old package, or to \
             the pipeline file as it was",
        )
    }
}
