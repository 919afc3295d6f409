//! `--next`: the points of a history from which next events are drawn, and what then came.

use std::collections::{BTreeMap, BinaryHeap};

use super::Filter;
use crate::base::error::Result;
use crate::base::time::EventTime;
use crate::data::events::Events;
use crate::data::paths::Place;
use crate::evaluate::next::{Asked, NextEvents, Points};
use crate::run::{Lane, Pick, Point, mix};

/// Points from which next events are drawn.
pub(super) struct Ahead {
    asked: Asked,
    points: Points,
    states: BTreeMap<Place, Point>,
    missing: Vec<String>,
}

/// The rank by which the points are drawn.
fn rank(seed: u64, place: Place) -> u64 {
    mix(mix(seed ^ i64::from(place.partition.0).cast_unsigned()) ^ place.offset.0.cast_unsigned())
}

impl Ahead {
    pub(super) fn new(lane: &mut Lane, filter: &Filter, asked: Asked) -> Result<Self> {
        let missing = lane.undrawn()?;
        // The lane keeps what is among the best so far; the points forget what falls out again.
        let (filter, mut best) = (filter.clone(), BinaryHeap::new());
        let pick: Pick = Box::new(move |events: &Events, row: usize| {
            let (Some(time), Some(partition), Some(offset)) = (events.times.get(row), events.partitions.get(row), events.offsets.get(row))
            else {
                return false;
            };
            if !filter.counts(row, *time, events.keys.bytes_at(row), &events.columns) {
                return false;
            }
            let place = Place { partition: *partition, offset: *offset };
            let own = (rank(asked.seed, place), place);
            if best.len() >= asked.points {
                if best.peek().is_none_or(|worst| own >= *worst) {
                    return false;
                }
                best.pop();
            }
            best.push(own);
            true
        });
        lane.keep(Some(pick));
        Ok(Ahead { asked, points: Points::new(asked), states: BTreeMap::new(), missing })
    }

    /// Takes the lane's last output into account.
    pub(super) fn take(&mut self, lane: &mut Lane) {
        let mut kept = lane.kept().into_iter().peekable();
        let (forecasts, marks) = (&lane.forecasts, lane.arrived().marks);
        let places = forecasts.partitions.iter().zip(&forecasts.offsets).zip(&forecasts.event_times);
        for (row, ((partition, offset), time)) in places.enumerate() {
            let (key, place) = (forecasts.keys.bytes_at(row), Place { partition: *partition, offset: *offset });
            self.points.came(key, *time, marks.get(row).copied().flatten());
            if let Some(point) = kept.next_if(|point| point.place == place) {
                let gone = self.points.add(rank(self.asked.seed, place), place, key, point.time);
                self.states.insert(place, point);
                gone.map(|gone| self.states.remove(&gone));
            }
        }
    }

    pub(super) fn close(self, lane: &mut Lane, mean_gap_s: f64, end: EventTime, marks: &[String]) -> Result<NextEvents> {
        let (places, points): (Vec<Place>, Vec<Point>) = self.states.into_iter().unzip();
        let mut drawn = lane.paths(&points, self.asked.paths, self.asked.events, self.asked.seed)?.into_iter();
        let paths = places.into_iter().map(|place| (place, drawn.by_ref().take(self.asked.paths).collect())).collect();
        Ok(self.points.close(&paths, mean_gap_s, end, marks, self.missing))
    }
}
