//! Events and records of a batch that are set apart: late ones, and rejects that were emitted before.

use super::Lane;
use crate::base::offset::{Offset, Partition};
use crate::base::time::{EventTime, Gap};
use crate::data::events::Events;
use crate::data::input::Input;
use crate::data::rejected::Reason;

impl Lane {
    /// Late events under `late = "dead_letter"`: out of `ready`, into `rejected`.
    pub(super) fn drop_late(&mut self, dropped: &[usize], input: &Input) {
        let mut kept = Events::new(&self.plan.schema);
        let mut emit = Vec::new();
        // Where events may be held back, whether the record is still at hand depends on the batches, and the dead letter must not.
        let gone = Input::default();
        let input = if self.plan.order.lateness == Gap::ZERO { input } else { &gone };
        for row in 0..self.ready.len() {
            if dropped.binary_search(&row).is_err() {
                kept.push_from(&self.ready, row);
                emit.push(self.emit.get(row).copied().unwrap_or(true));
                continue;
            }
            let at = self.ready.partitions.get(row).zip(self.ready.offsets.get(row));
            let (Some((partition, offset)), Some(time)) = (at, self.ready.times.get(row)) else { continue };
            if self.emit.get(row) == Some(&true) {
                let bytes = original(input, &self.ready, row);
                let detail = format!("event time {time} is before the key's last event");
                self.rejected.push((*partition, *offset), Reason::Late, detail, self.ready.keys.get(row), Some(&bytes));
            }
        }
        self.ready = kept;
        self.emit = emit;
        let left = |row: usize| row - dropped.partition_point(|dropped| *dropped < row);
        self.moments.iter_mut().for_each(|moment| moment.released = left(moment.released));
        self.seen.forgotten.iter_mut().for_each(|forgotten| forgotten.row = left(forgotten.row));
    }

    /// Rejects below `live_from` were emitted by an earlier run.
    pub(super) fn drop_silent_rejects(&mut self) {
        let live = |partition: Partition, offset: Offset| {
            self.home(partition).and_then(|home| self.partitions.get(home)).is_none_or(|state| state.is_live(offset))
        };
        let positions: Vec<bool> = self.rejected.partitions.iter().zip(&self.rejected.offsets).map(|(p, o)| live(*p, *o)).collect();
        if positions.iter().all(|live| *live) {
            return;
        }
        let all = std::mem::take(&mut self.rejected);
        for (row, live) in positions.into_iter().enumerate() {
            if live
                && let (Some(p), Some(o), Some(reason), Some(detail)) =
                    (all.partitions.get(row), all.offsets.get(row), all.reasons.get(row), all.details.get(row))
            {
                self.rejected.push((*p, *o), *reason, detail.clone(), all.keys.get(row), all.payloads.get(row));
            }
        }
    }
}

/// The bytes of an event's record, where the record is still at hand; of one that was held back, what was decoded of it.
pub(super) fn original(input: &Input, events: &Events, row: usize) -> Vec<u8> {
    let at = events.partitions.get(row).zip(events.offsets.get(row));
    let positions = input.records.partitions.iter().zip(&input.records.offsets);
    let record =
        at.and_then(|at| positions.clone().position(|position| position == at)).and_then(|record| input.records.payloads.get(record));
    if let Some(bytes) = record {
        return bytes.to_vec();
    }
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let time = events.times.get(row).map(EventTime::to_string);
    let object = serde_json::json!({ "key": text(events.keys.get(row)), "id": text(events.ids.get(row)), "event_time": time });
    object.to_string().into_bytes()
}
