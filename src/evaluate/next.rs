//! The next events of keys: continuations that were drawn from the law at points in the past, against what then came.
//!
//! Times are counted in mean gaps from the point on, so that figures of different streams can be compared.

use std::collections::BTreeMap;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use serde::Serialize;

use super::precision::Guesses;
use super::transport::{self, PRICES};
use crate::base::number::{f64_of_count, u32_of};
use crate::base::time::{EventTime, Gap};
use crate::data::paths::{Path, Place};

/// Marks of which the average precision is taken.
const MARKS: usize = 64;
/// Times as many true events as are drawn are looked at within the horizon.
pub const MOST: usize = 8;
/// No mark, or none that the model knows: nothing drawn has it.
const UNKNOWN: u32 = u32::MAX;

/// What is drawn and how it is judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asked {
    /// Events of a continuation.
    pub events: usize,
    /// Continuations of a point.
    pub paths: usize,
    /// Points at most.
    pub points: usize,
    /// Seed of the points and of the continuations.
    pub seed: u64,
    /// How far ahead events are matched; by default the time of half as many mean gaps as events are drawn.
    pub horizon: Option<Gap>,
    /// How far a drawn event may be from the one it is matched with; by default half a mean gap.
    pub tolerance: Option<Gap>,
}

/// How well next events are foretold, several at once.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NextEvents {
    /// Events of a continuation.
    pub events: usize,
    /// Continuations of a point.
    pub paths: usize,
    /// Seed of the points and of the continuations.
    pub seed: u64,
    /// Points that were drawn from the events that count.
    pub points: usize,
    /// The mean gap in seconds, which is the unit of times here.
    pub mean_gap_s: f64,
    /// Fields that a drawn event does not have: columns of the recipe take the value that they have where a field is missing.
    pub missing: Vec<String>,
    /// Share of the continuations that ended before all events were drawn, because none comes any more.
    pub ended: f64,
    /// Optimal transport distance, if the data go on far enough behind some point.
    pub transport: Option<Transport>,
    /// Temporal mean average precision, likewise.
    pub precision: Option<Precision>,
}

/// Optimal transport distance of a continuation to what came, as many events of both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Transport {
    /// Points with as many events behind them.
    pub points: usize,
    /// Mean over points, continuations and prices.
    pub distance: f64,
    /// (price of an insertion or deletion in mean gaps, mean distance).
    pub by_price: Vec<(f64, f64)>,
}

/// Temporal mean average precision within a horizon.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Precision {
    /// Points whose horizon lies within the data.
    pub points: usize,
    /// Horizon in seconds.
    pub horizon_s: f64,
    /// How far a drawn event may be from the one it is matched with, in seconds.
    pub tolerance_s: f64,
    /// Points of which so many events came within the horizon (eight times as many as are drawn) that further ones were not looked at: they count neither as found nor
    /// as missed, which flatters.
    pub cut: usize,
    /// Share of the continuations whose last event lies beyond the horizon, or that ended: they say all there is to say about it.
    pub covered: f64,
    /// Mean over the marks that came.
    pub mean: f64,
    /// Each of these marks, up to 64; one without a name if the law has none.
    pub by_mark: Vec<MarkPrecision>,
}

/// One mark.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MarkPrecision {
    /// Its name.
    pub mark: String,
    /// Events with it within the horizons, each point counted once.
    pub events: usize,
    /// Average precision.
    pub average_precision: f64,
}

/// A point and what came after it.
#[derive(Clone, Debug)]
struct Truth {
    key: Box<[u8]>,
    time: EventTime,
    came: Vec<(EventTime, u32)>,
}

/// Points with a rank by which they are drawn: those with the smallest ones, so that neither batches nor the order of partitions decide.
#[derive(Debug)]
pub struct Points {
    asked: Asked,
    truths: BTreeMap<(u64, Place), Truth>,
    by_key: HashMap<Box<[u8]>, Vec<(u64, Place)>, FixedState>,
}

impl Points {
    /// None yet.
    #[must_use]
    pub fn new(asked: Asked) -> Self {
        Points { asked, truths: BTreeMap::new(), by_key: HashMap::default() }
    }

    /// An event came. To be said of every event, in the order of its key, before it is itself added.
    pub fn came(&mut self, key: &[u8], time: EventTime, mark: Option<u32>) {
        for place in self.by_key.get(key).into_iter().flatten() {
            if let Some(truth) = self.truths.get_mut(place).filter(|truth| truth.came.len() < MOST * self.asked.events) {
                truth.came.push((time, mark.unwrap_or(UNKNOWN)));
            }
        }
    }

    /// Adds a point; the one with the largest rank goes, if there are too many. Gives the place that went.
    pub fn add(&mut self, rank: u64, place: Place, key: &[u8], time: EventTime) -> Option<Place> {
        self.truths.insert((rank, place), Truth { key: key.into(), time, came: Vec::new() });
        self.by_key.entry_ref(key).or_default().push((rank, place));
        if self.truths.len() <= self.asked.points {
            return None;
        }
        let (last, truth) = self.truths.pop_last()?;
        if let Some(own) = self.by_key.get_mut(&truth.key) {
            own.retain(|place| *place != last);
        }
        Some(last.1)
    }

    /// The figures. `paths` has those of every point, by its place; `end` is the latest time of the data, `marks` the law's.
    #[must_use]
    pub fn close(
        self,
        paths: &BTreeMap<Place, Vec<Path>>,
        mean_gap_s: f64,
        end: EventTime,
        marks: &[String],
        missing: Vec<String>,
    ) -> NextEvents {
        let asked = self.asked;
        let mean_gap_s = if mean_gap_s > 0.0 { mean_gap_s } else { 1.0 };
        let seconds = |gap: Option<Gap>, gaps: f64| gap.map_or(gaps * mean_gap_s, Gap::seconds);
        let (horizon_s, tolerance_s) = (seconds(asked.horizon, 0.5 * f64_of_count(asked.events)), seconds(asked.tolerance, 0.5));
        let mut distances = Distances::default();
        let mut guessing = Guessing::new(marks, horizon_s / mean_gap_s, tolerance_s / mean_gap_s);
        let (mut ended, mut all) = (0, 0);
        for ((_, place), truth) in &self.truths {
            let after = |time: EventTime| time.since(truth.time).seconds() / mean_gap_s;
            let came: Vec<(u32, f64)> = truth.came.iter().map(|(time, mark)| (*mark, after(*time))).collect();
            let own: Vec<Drawn<'_>> = paths.get(place).into_iter().flatten().map(|path| Drawn::of(path, &after)).collect();
            all += own.len();
            ended += own.iter().filter(|drawn| drawn.events.len() < asked.events).count();
            if let Some(came) = came.get(..asked.events) {
                distances.add(&own, came);
            }
            if end.since(truth.time).seconds() >= horizon_s {
                guessing.add(&own, &came, asked.events);
            }
        }
        NextEvents {
            events: asked.events,
            paths: asked.paths,
            seed: asked.seed,
            points: self.truths.len(),
            mean_gap_s,
            missing,
            ended: f64_of_count(ended) / f64_of_count(all.max(1)),
            transport: distances.close(),
            precision: guessing.close(marks, asked.paths, horizon_s, tolerance_s),
        }
    }
}

/// A continuation in mean gaps from its point.
struct Drawn<'a> {
    events: Vec<(u32, f64)>,
    path: &'a Path,
}

impl<'a> Drawn<'a> {
    fn of(path: &'a Path, after: &dyn Fn(EventTime) -> f64) -> Self {
        let events = path.times.iter().zip(&path.marks).map(|(time, mark)| (mark.unwrap_or(UNKNOWN), after(*time)));
        Drawn { events: events.collect(), path }
    }
}

/// Sums of distances by price.
#[derive(Debug, Default)]
struct Distances {
    points: usize,
    paths: usize,
    sums: [f64; PRICES.len()],
}

impl Distances {
    fn add(&mut self, drawn: &[Drawn<'_>], came: &[(u32, f64)]) {
        self.points += 1;
        for own in drawn {
            self.paths += 1;
            for (sum, price) in self.sums.iter_mut().zip(PRICES) {
                *sum += transport::distance(&own.events, came, price);
            }
        }
    }

    fn close(self) -> Option<Transport> {
        if self.paths == 0 {
            return None;
        }
        let by_price: Vec<(f64, f64)> =
            PRICES.into_iter().zip(self.sums).map(|(price, sum)| (price, sum / f64_of_count(self.paths))).collect();
        let distance = by_price.iter().map(|(_, distance)| distance).sum::<f64>() / f64_of_count(by_price.len());
        Some(Transport { points: self.points, distance, by_price })
    }
}

/// Guesses by mark.
#[derive(Debug)]
struct Guessing {
    horizon: f64,
    tolerance: f64,
    points: usize,
    paths: usize,
    cut: usize,
    covered: usize,
    /// Of a law without marks one, of all events.
    by_mark: Vec<Guesses>,
    marked: bool,
}

impl Guessing {
    fn new(marks: &[String], horizon: f64, tolerance: f64) -> Self {
        let by_mark = vec![Guesses::default(); marks.len().clamp(1, MARKS)];
        Guessing { horizon, tolerance, points: 0, paths: 0, cut: 0, covered: 0, by_mark, marked: !marks.is_empty() }
    }

    fn add(&mut self, drawn: &[Drawn<'_>], came: &[(u32, f64)], events: usize) {
        self.points += 1;
        self.cut += usize::from(came.len() >= MOST * events && came.last().is_some_and(|(_, time)| *time <= self.horizon));
        for own in drawn {
            self.paths += 1;
            self.covered += usize::from(own.events.len() < events || own.events.last().is_some_and(|(_, time)| *time > self.horizon));
            let stride = own.path.chances.len() / own.events.len().max(1);
            for (mark, guesses) in self.by_mark.iter_mut().enumerate() {
                let within = own.events.iter().enumerate().filter(|(_, (_, time))| *time <= self.horizon);
                let scored: Vec<(f64, f32)> = within
                    .map(|(i, (_, time))| {
                        let chance = if self.marked { own.path.chances.get(i * stride + mark).copied().unwrap_or(0.0) } else { 1.0 };
                        (*time, chance)
                    })
                    .collect();
                let own = came.iter().filter(|(other, time)| *time <= self.horizon && (!self.marked || *other == u32_of(mark)));
                guesses.add(&scored, &own.map(|(_, time)| *time).collect::<Vec<f64>>(), self.tolerance);
            }
        }
    }

    fn close(self, marks: &[String], paths: usize, horizon_s: f64, tolerance_s: f64) -> Option<Precision> {
        let named = |mark: usize| marks.get(mark).cloned().unwrap_or_default();
        let by_mark: Vec<MarkPrecision> = self
            .by_mark
            .into_iter()
            .enumerate()
            .filter(|(_, guesses)| guesses.came() > 0)
            .map(|(mark, guesses)| MarkPrecision {
                mark: named(mark),
                // Every continuation of a point is held against the same events.
                events: guesses.came() / paths.max(1),
                average_precision: guesses.average_precision(),
            })
            .collect();
        let mean = by_mark.iter().map(|mark| mark.average_precision).sum::<f64>() / f64_of_count(by_mark.len());
        let covered = f64_of_count(self.covered) / f64_of_count(self.paths.max(1));
        (!by_mark.is_empty()).then_some(Precision { points: self.points, cut: self.cut, horizon_s, tolerance_s, covered, mean, by_mark })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::offset::{Offset, Partition};

    const SECOND: i64 = 1_000_000;

    fn asked(points: usize) -> Asked {
        Asked { events: 2, paths: 1, points, seed: 1, horizon: Some(Gap(10 * SECOND)), tolerance: Some(Gap(SECOND)) }
    }

    fn place(offset: i64) -> Place {
        Place { partition: Partition(0), offset: Offset(offset) }
    }

    fn path(events: &[(i64, u32)]) -> Path {
        let chances = events.iter().flat_map(|(_, mark)| if *mark == 0 { [0.9, 0.1] } else { [0.2, 0.8] });
        Path {
            times: events.iter().map(|(time, _)| EventTime(time * SECOND)).collect(),
            marks: events.iter().map(|(_, mark)| Some(*mark)).collect(),
            chances: chances.collect(),
        }
    }

    #[test]
    fn what_was_drawn_is_held_against_what_came_after_its_point() {
        let mut points = Points::new(asked(5));
        for (offset, time, mark) in [(0, 0, 0), (1, 3, 1), (2, 8, 0), (3, 30, 1)] {
            points.came(b"k", EventTime(time * SECOND), Some(mark));
            points.came(b"other", EventTime(time * SECOND), Some(mark));
            if offset == 0 {
                assert_eq!(points.add(7, place(0), b"k", EventTime(0)), None);
            }
        }
        let marks = ["a".to_owned(), "b".to_owned()];
        let paths = BTreeMap::from([(place(0), vec![path(&[(3, 1), (9, 0)])])]);
        let next = points.close(&paths, 2.0, EventTime(30 * SECOND), &marks, Vec::new());
        let transport = next.transport.unwrap();
        // The second event has to move by half a mean gap, or to be replaced for two prices.
        assert_eq!((transport.points, next.ended), (1, 0.0));
        for (price, distance) in &transport.by_price {
            assert!((distance - (0.5_f64).min(2.0 * price)).abs() < 1e-12, "{price}: {distance}");
        }
        // Of each mark the event that came is found within a second, by the guess with the higher score.
        let precision = next.precision.unwrap();
        assert_eq!((precision.points, precision.mean, precision.covered), (1, 1.0, 0.0), "the last event drawn lies within the horizon");
        assert_eq!(precision.by_mark.iter().map(|mark| mark.events).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn a_point_whose_truth_was_cut_within_the_horizon_is_told() {
        for (every, cut) in [(SECOND / 2, 1), (SECOND, 0)] {
            let mut points = Points::new(asked(5));
            points.add(7, place(0), b"k", EventTime(0));
            (1..=20).for_each(|i| points.came(b"k", EventTime(i * every), Some(0)));
            let paths = BTreeMap::from([(place(0), vec![path(&[(3, 0), (9, 0)])])]);
            let precision =
                points.close(&paths, 1.0, EventTime(30 * SECOND), &["a".to_owned(), "b".to_owned()], Vec::new()).precision.unwrap();
            // Sixteen are kept: of those half a second apart the last comes after 8 s, and four more within the 10 s.
            assert_eq!((precision.points, precision.cut), (1, cut));
        }
    }

    #[test]
    fn points_are_those_with_the_smallest_ranks_and_need_the_data_to_go_on() {
        let mut points = Points::new(asked(2));
        assert_eq!(points.add(5, place(0), b"k", EventTime(0)), None);
        assert_eq!(points.add(3, place(1), b"k", EventTime(SECOND)), None);
        assert_eq!(points.add(4, place(2), b"k", EventTime(2 * SECOND)), Some(place(0)));
        points.came(b"k", EventTime(4 * SECOND), Some(0));
        let next = points.close(&BTreeMap::new(), 1.0, EventTime(5 * SECOND), &[], Vec::new());
        assert_eq!((next.points, next.transport, next.precision), (2, None, None));
    }
}
