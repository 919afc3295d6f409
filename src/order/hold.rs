//! The hold buffer of one partition: events wait until the watermark has passed them by `lateness`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Settings, Watermark};
use crate::base::error::{Error, Kind, Result};
use crate::base::limits::MAX_HELD;
use crate::base::number::u32_of;
use crate::base::offset::Offset;
use crate::base::time::{EventTime, Gap};
use crate::data::events::Events;
use crate::data::held::Held;
use crate::data::rejected::Reason;

/// Event-time order of one partition.
#[derive(Debug)]
pub struct Order {
    settings: Settings,
    watermark: Watermark,
    /// Held events, in arrival order; `queue` says in which order they leave.
    held: Events,
    queue: BinaryHeap<Reverse<(EventTime, Offset, u32)>>,
    /// Rows of `held` that have left already.
    gone: usize,
}

impl Order {
    /// An order stage that has seen nothing. `empty` gives the columns.
    #[must_use]
    pub fn new(settings: Settings, empty: Events) -> Self {
        Order { settings, watermark: Watermark::new(settings.max_future_skew), held: empty, queue: BinaryHeap::new(), gone: 0 }
    }

    /// Whether an event's clock is to be believed: not more than `max_future_skew` after its record was taken in.
    /// Where the log noted no such time there is nothing to compare with.
    ///
    /// # Errors
    /// The reason and one sentence, if it is not.
    pub fn check_clock(&self, time: EventTime, recorded: Option<EventTime>) -> std::result::Result<(), (Reason, String)> {
        match recorded {
            Some(recorded) if time > recorded.after(self.settings.max_future_skew) => {
                let detail = format!("event time {time} is more than max_future_skew after {recorded}, when the record was taken in");
                Err((Reason::FutureTime, detail))
            }
            _ => Ok(()),
        }
    }

    /// Takes row `row` of `events` and appends to `released` whatever may leave now, in (event time, offset) order.
    /// With `lateness = 0` that is the row itself, at once.
    ///
    /// # Errors
    /// More than `MAX_HELD` events would be held.
    pub fn take(&mut self, events: &Events, row: usize, released: &mut Events) -> Result<()> {
        let (Some(time), Some(offset)) = (events.times.get(row), events.offsets.get(row)) else { return Ok(()) };
        if self.settings.lateness == Gap::ZERO {
            if self.settings.timed {
                self.watermark.observe(*time);
            }
            released.push_from(events, row);
            return Ok(());
        }
        if self.queue.len() >= MAX_HELD {
            let text = format!("{MAX_HELD} events of one partition are held back by `lateness`");
            return Err(Error::new(Kind::Config, "order", text).help("lower [order] lateness"));
        }
        self.queue.push(Reverse((*time, *offset, u32_of(self.held.len()))));
        self.held.push_from(events, row);
        let watermark = self.watermark.observe(*time);
        self.release(Some(watermark), released);
        Ok(())
    }

    /// Processing time has moved the watermark of an idle partition to `time`: releases what that lets go. `EventTime::MAX` is the end
    /// of the input, which releases everything and leaves the watermark to the records that may follow after all.
    pub fn tick(&mut self, time: EventTime, released: &mut Events) {
        if time == EventTime::MAX {
            self.finish(released);
            return;
        }
        let watermark = self.watermark.raise(time);
        self.release(Some(watermark), released);
    }

    /// Event time up to which all events are taken to have come and have been released. Without lateness it is only known where `timed` is set.
    #[must_use]
    pub fn clock(&self) -> EventTime {
        self.watermark.at().now.map_or(EventTime::MIN, |now| EventTime(now.0.saturating_sub(self.settings.lateness.0)))
    }

    /// What `clock` would be after a tick to `time`.
    #[must_use]
    pub fn clock_at(&self, time: EventTime) -> EventTime {
        EventTime(time.0.saturating_sub(self.settings.lateness.0)).max(self.clock())
    }

    /// Whether a tick to `time` would release something.
    #[must_use]
    pub fn waits_for(&self, time: EventTime) -> bool {
        self.queue.peek().is_some_and(|Reverse((first, _, _))| first.after(self.settings.lateness) <= time)
    }

    /// Releases everything that is held: the input has ended.
    pub fn finish(&mut self, released: &mut Events) {
        self.release(None, released);
    }

    /// Events held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.queue.len()
    }

    /// All that it remembers, for a snapshot: what is held, in offset order, and where the watermark stands.
    #[must_use]
    pub fn export(&self) -> Held {
        let watermark = self.watermark.at();
        // Without rows that have left, the columns are copied as they are.
        if self.gone == 0 {
            return Held { events: self.held.clone(), watermark };
        }
        let mut rows: Vec<u32> = self.queue.iter().map(|Reverse((_, _, row))| *row).collect();
        rows.sort_unstable();
        let mut events = self.held.clone_empty();
        for row in rows {
            events.push_from(&self.held, crate::base::number::index(row));
        }
        Held { events, watermark }
    }

    /// Goes on from what another one exported; what was held here before is forgotten.
    pub fn restore(&mut self, held: Held) {
        self.watermark.restore(held.watermark);
        let entries = held.events.times.iter().zip(&held.events.offsets).enumerate();
        self.queue = entries.map(|(row, (time, offset))| Reverse((*time, *offset, u32_of(row)))).collect();
        self.held = held.events;
        self.gone = 0;
    }

    fn release(&mut self, watermark: Option<EventTime>, released: &mut Events) {
        while let Some(Reverse((time, _, row))) = self.queue.peek() {
            if watermark.is_some_and(|watermark| time.after(self.settings.lateness) > watermark) {
                break;
            }
            released.push_from(&self.held, crate::base::number::index(*row));
            self.queue.pop();
            self.gone += 1;
        }
        if self.queue.is_empty() {
            self.held.clear();
            self.gone = 0;
        } else if self.gone > 1024 && self.gone > self.queue.len() {
            self.compact();
        }
    }

    /// Drops the rows that have left, so that memory follows what is held and not what has passed.
    fn compact(&mut self) {
        let mut rows: Vec<_> = self.queue.drain().map(|Reverse(entry)| entry).collect();
        rows.sort_unstable_by_key(|(_, _, row)| *row);
        let mut kept = self.held.clone_empty();
        for (new, (time, offset, old)) in rows.into_iter().enumerate() {
            kept.push_from(&self.held, crate::base::number::index(old));
            self.queue.push(Reverse((time, offset, u32_of(new))));
        }
        self.held = kept;
        self.gone = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::offset::Partition;
    use crate::order::Late;
    use proptest::prelude::*;

    fn events(times: &[i64]) -> Events {
        let mut events = Events::default();
        for (i, time) in times.iter().enumerate() {
            events.partitions.push(Partition(0));
            events.offsets.push(Offset(i as i64));
            events.times.push(EventTime(*time));
            events.recorded.push(None);
            events.keys.push(b"k");
            events.ids.push_missing();
            events.flags.push(Default::default());
        }
        events
    }

    fn order(lateness: i64, skew: i64) -> Order {
        let settings = Settings { lateness: Gap(lateness), max_future_skew: Gap(skew), late: Late::Clamp, timed: false };
        Order::new(settings, Events::default())
    }

    fn run(order: &mut Order, times: &[i64], finish: bool) -> Vec<i64> {
        let (input, mut released) = (events(times), Events::default());
        for row in 0..input.len() {
            order.take(&input, row, &mut released).unwrap();
        }
        if finish {
            order.finish(&mut released);
        }
        released.times.iter().map(|t| t.0).collect()
    }

    #[test]
    fn without_lateness_events_pass_in_offset_order() {
        assert_eq!(run(&mut order(0, 10), &[5, 3, 900, 4], false), [5, 3, 900, 4]);
    }

    #[test]
    fn events_wait_for_earlier_ones_and_leave_in_time_order() {
        assert_eq!(run(&mut order(10, 1000), &[0, 1, 20, 15, 12, 31, 33], false), [0, 1, 12, 15, 20]);
    }

    #[test]
    fn one_future_timestamp_does_not_release_the_others() {
        let mut order = order(10, 100);
        assert_eq!(run(&mut order, &[0, 5, 1_000_000, 7, 3], false), Vec::<i64>::new());
        assert_eq!(order.held(), 5);
    }

    #[test]
    fn a_time_far_after_its_record_is_not_believed() {
        let order = order(0, 100);
        assert!(order.check_clock(EventTime(1100), Some(EventTime(1000))).is_ok());
        assert_eq!(order.check_clock(EventTime(1101), Some(EventTime(1000))).unwrap_err().0, Reason::FutureTime);
        assert!(order.check_clock(EventTime(9999), None).is_ok());
    }

    proptest! {
        #[test]
        fn everything_leaves_once_and_poll_boundaries_change_nothing(
            times in prop::collection::vec(0i64..5_000, 0..3_000), lateness in 1i64..500, cut in 0usize..3_000
        ) {
            let whole = run(&mut order(lateness, 100), &times, true);
            let mut sorted = times.clone();
            sorted.sort_unstable();
            let mut left = whole.clone();
            left.sort_unstable();
            prop_assert_eq!(left, sorted);
            let cut = cut.min(times.len());
            let mut stage = order(lateness, 100);
            let mut parts = run(&mut stage, &times[..cut], false);
            let held = stage.export();
            prop_assert_eq!(held.events.len(), stage.held());
            prop_assert!(held.events.offsets.is_sorted());
            let mut restored = order(lateness, 100);
            restored.restore(held);
            let mut again = parts.clone();
            again.extend(run(&mut restored, &times[cut..], true));
            // Offsets restart in the second part; they only break ties, so shift the comparison to times.
            parts.extend(run(&mut stage, &times[cut..], true));
            prop_assert_eq!(&parts, &whole);
            prop_assert_eq!(again, whole, "a restored stage goes on as the one that was exported");
        }
    }
}
