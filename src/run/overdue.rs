//! Forecasts that come true by nothing happening: a walk through a batch after its laws are known.
//!
//! Event time goes on record by record. Before a released event is applied, and after the last one that its record released, every timer that
//! has run out by then is taken out; then the event sets its key's timers anew. So what is overdue is a function of the partition's records and
//! ticks, however they are cut into batches.

use super::partition::PartitionState;
use crate::base::offset::Offset;
use crate::base::time::EventTime;
use crate::data::forecasts::Overdue;
use crate::state::{Fired, Slot, Watched};

/// The moment at which a record, or a tick, has been taken in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Index of its partition in the lane.
    pub home: usize,
    /// Events of the batch that were released until then.
    pub released: usize,
    /// Event time up to which all events are taken to have come.
    pub clock: EventTime,
    /// Whether what it brings about is emitted.
    pub live: bool,
}

/// A key that was forgotten by an event of the batch.
#[derive(Debug)]
pub(super) struct Forgotten {
    /// The event's row.
    pub row: usize,
    pub home: usize,
    pub slot: Slot,
    pub key: Box<[u8]>,
}

/// Events of the batch, as columns of equal length.
pub(super) struct Applied<'a> {
    pub slots: &'a [Slot],
    pub times: &'a [EventTime],
    pub offsets: &'a [Offset],
    /// Events of the key so far.
    pub counts: &'a [u64],
    /// When each quantile of the law passes, by column.
    pub next_times: &'a [Vec<Option<EventTime>>],
}

/// What is asked for: columns of `next_times`, and their quantiles.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    pub columns: Vec<usize>,
    pub quantiles: Vec<f64>,
}

/// Walks through the batch and appends what has become overdue and is to be emitted.
pub(super) fn walk(
    asked: &Asked,
    moments: &[Moment],
    forgotten: &[Forgotten],
    events: &Applied<'_>,
    partitions: &mut [PartitionState],
    into: &mut Vec<Overdue>,
) {
    let mut row = 0;
    for moment in moments {
        let Some(state) = partitions.get_mut(moment.home) else { continue };
        let mut fire = |state: &mut PartitionState, now: EventTime, before: usize| {
            while let Some(fired) = state.keys.fire(now) {
                if moment.live {
                    into.push(overdue(asked, fired, state, moment.home, before, forgotten));
                }
            }
        };
        while row < moment.released {
            let (Some(slot), Some(time), Some(offset)) = (events.slots.get(row), events.times.get(row), events.offsets.get(row)) else {
                break;
            };
            fire(state, moment.clock.min(*time), row);
            let after = Watched { offset: *offset, time: *time, events: events.counts.get(row).copied().unwrap_or_default() };
            let due = asked.columns.iter().map(|column| events.next_times.get(*column).and_then(|times| times.get(row).copied().flatten()));
            state.keys.timers.set(*slot, after, due);
            row += 1;
        }
        fire(state, moment.clock, row);
    }
}

fn overdue(asked: &Asked, fired: Fired, state: &PartitionState, home: usize, before: usize, forgotten: &[Forgotten]) -> Overdue {
    // The table has the batch's last keys already.
    let old = forgotten.iter().find(|other| other.row >= before && other.home == home && other.slot == fired.slot);
    let key = old.map_or_else(|| state.keys.keys.key(fired.slot).unwrap_or_default(), |old| &old.key);
    Overdue {
        before,
        key: key.into(),
        time: fired.due,
        partition: state.partition,
        offset: fired.after.offset,
        n_events: fired.after.events,
        gap_s: fired.due.since(fired.after.time).seconds(),
        quantile: asked.quantiles.get(fired.timer).copied().unwrap_or(f64::NAN),
    }
}
