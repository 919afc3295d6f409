//! Continuations of keys: next events drawn from the law and fed back through features and model, as live events would be. Nothing here changes a state of
//! the lane.

use super::Lane;
use super::seen::Kept;
use crate::base::error::{Error, Result};
use crate::base::number::{i64_of_count, index};
use crate::base::offset::{Offset, Partition};
use crate::base::time::{EventTime, Gap};
use crate::data::events::{Column, Events};
use crate::data::flags::Flags;
use crate::data::outputs::Outputs;
use crate::data::paths::{Path, Place};
use crate::features::Context;
use crate::head::Drawn;
use crate::model::Memory;
use crate::source::generate::draw::Draws;

/// Paths that are stepped together.
const ROWS: usize = 4096;

/// Says of an event that is about to be stepped, by its row, whether the lane is to keep what its key's state is afterwards.
pub type Pick = Box<dyn FnMut(&Events, usize) -> bool + Send>;

/// A key after one of its events.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Where that event stands.
    pub place: Place,
    /// When it happened.
    pub time: EventTime,
    key: Vec<u8>,
    /// Recurrent tensors and published law.
    hidden: Vec<f32>,
    /// Numbers of the recipe.
    aggregates: Vec<f64>,
}

impl Lane {
    /// From now on keeps the keys' states after the events that `pick` names; `None`: of no event.
    pub fn keep(&mut self, pick: Option<Pick>) {
        self.pick = pick;
    }

    /// The points that the last `advance` has kept, in the order of its events.
    #[must_use]
    pub fn kept(&mut self) -> Vec<Point> {
        std::mem::take(&mut self.points)
    }

    /// Rows of the batch that are to be kept.
    pub(super) fn picked(&mut self) -> Vec<usize> {
        let ready = &self.ready;
        self.pick.as_mut().map_or_else(Vec::new, |pick| (0..ready.len()).filter(|row| pick(ready, *row)).collect())
    }

    /// Takes down the states that were kept, as long as the batch is there.
    pub(super) fn note_points(&mut self, kept: Vec<Kept>) {
        for own in kept {
            let (Some(time), Some(partition), Some(offset)) =
                (self.ready.times.get(own.row), self.ready.partitions.get(own.row), self.ready.offsets.get(own.row))
            else {
                continue;
            };
            self.points.push(Point {
                place: Place { partition: *partition, offset: *offset },
                time: *time,
                key: self.ready.keys.bytes_at(own.row).to_vec(),
                hidden: own.hidden,
                aggregates: own.aggregates,
            });
        }
    }

    /// Fields of the recipe that a drawn event does not have; their columns take the value that they have where a field is missing.
    ///
    /// # Errors
    /// The package cannot be continued: it has no law of time, or a law of marks whose field the pipeline does not name.
    pub fn undrawn(&self) -> Result<Vec<String>> {
        let Some((manifest, recipe)) = &self.plan.model else { return Err(Error::internal("run", "the plan was made without a model")) };
        if !manifest.head.is_timed() {
            return Err(Error::config("evaluate", "next events cannot be drawn: the model gives a score, and no law of the next event")
                .help("leave --next out, or evaluate a package with a law of time"));
        }
        if self.head.has_marks() && self.plan.schema.mark.is_none() {
            return Err(Error::config(
                "evaluate",
                "next events cannot be drawn: the model's law has marks, and [event] names no field that holds them",
            )
            .help("set [event] mark to the field that the package was fitted with"));
        }
        let mark = self.plan.schema.mark.filter(|_| self.head.has_marks()).and_then(|mark| self.plan.schema.fields.get(mark));
        let fields = recipe.fields().into_iter().map(|field| field.name);
        Ok(fields.filter(|name| mark.is_none_or(|mark| mark.name != *name)).collect())
    }

    /// Draws `count` continuations of each point, of at most `events` events each; all paths of a point, one point after the other. What is drawn depends on
    /// the point, the number of the path and the seed alone.
    ///
    /// # Errors
    /// As `undrawn`, or the graph fails to run.
    pub fn paths(&mut self, points: &[Point], count: usize, events: usize, seed: u64) -> Result<Vec<Path>> {
        self.undrawn()?;
        let mut all = Vec::with_capacity(points.len() * count);
        for points in points.chunks((ROWS / count.max(1)).max(1)) {
            let mut walkers: Vec<Walker> =
                points.iter().flat_map(|point| (0..count).map(move |number| Walker::new(point, number, seed))).collect();
            for _ in 0..events {
                if !self.walk(&mut walkers)? {
                    break;
                }
            }
            all.extend(walkers.into_iter().map(|walker| walker.path));
        }
        Ok(all)
    }

    /// One event further on every path that has not ended; `false` if all have.
    fn walk(&mut self, walkers: &mut [Walker]) -> Result<bool> {
        let width = self.head.width();
        let mut open: Vec<&mut Walker> = walkers.iter_mut().filter(|walker| !walker.ended).collect();
        let laws: Vec<f32> = open.iter().flat_map(|walker| walker.law(width).iter().copied()).collect();
        let mut drawn = Drawn::default();
        self.head.samples(&laws, &mut |row| open.get_mut(row).map_or(0.0, |walker| walker.draws.uniform()), &mut drawn);
        let marks = self.plan.model.as_ref().map_or(0, |(manifest, _)| manifest.head.marks().len());
        for (row, walker) in open.iter_mut().enumerate() {
            let chances = drawn.chances.get(row * marks..(row + 1) * marks).unwrap_or_default();
            walker.take(drawn.gaps.get(row).copied().flatten(), drawn.next_marks.get(row).copied().flatten(), chances);
        }
        open.retain(|walker| !walker.ended);
        if open.is_empty() {
            return Ok(false);
        }
        let events = self.drawn_events(&open);
        // As interning does: a key that was idle for too long begins anew.
        let expiry = self.plan.state.expiry;
        let mut gaps: Vec<Option<Gap>> = open.iter().map(|walker| Some(walker.gap)).collect();
        for (gap, walker) in gaps.iter_mut().zip(&mut open) {
            if gap.zip(expiry).is_some_and(|(gap, expiry)| gap > expiry) {
                *gap = None;
                walker.hidden.copy_from_slice(self.model.initial_hidden());
                walker.aggregates.fill(0.0);
            }
        }
        let mut rows = Vec::new();
        self.features.rows(&events, Context { gaps: &gaps }, &mut rows);
        for (row, ((walker, gap), cells)) in open.iter_mut().zip(&gaps).zip(rows.chunks_exact_mut(self.features.width().max(1))).enumerate()
        {
            self.features.decay(&events, row, *gap, &mut walker.aggregates, cells);
        }
        let mut outputs = Outputs::default();
        let occurrences = vec![0; open.len()];
        self.model.steps(&rows, &gaps, &occurrences, &mut Walked(&mut open), &mut outputs)?;
        Ok(true)
    }

    /// The last events of the paths as the decoder would give them.
    fn drawn_events(&self, open: &[&mut Walker]) -> Events {
        let schema = &self.plan.schema;
        let mut events = Events::new(schema);
        let names = self.plan.model.as_ref().map(|(manifest, _)| manifest.head.marks()).unwrap_or_default();
        for (row, walker) in open.iter().enumerate() {
            events.partitions.push(Partition(0));
            events.offsets.push(Offset(i64_of_count(row)));
            events.times.push(walker.time);
            events.recorded.push(None);
            events.keys.push(&walker.key);
            events.ids.push_missing();
            events.flags.push(Flags::NONE);
            let mark = walker.path.marks.last().copied().flatten().and_then(|mark| names.get(index(mark)));
            for (field, column) in events.columns.iter_mut().enumerate() {
                match column {
                    Column::Number(values) => values.push(f64::NAN),
                    Column::Text(values) if schema.mark == Some(field) => values.push_option(mark.map(String::as_bytes)),
                    Column::Text(values) => values.push_missing(),
                }
            }
        }
        events
    }
}

/// A path under way.
struct Walker {
    key: Vec<u8>,
    time: EventTime,
    gap: Gap,
    hidden: Vec<f32>,
    aggregates: Vec<f64>,
    draws: Draws,
    path: Path,
    ended: bool,
}

impl Walker {
    fn new(point: &Point, number: usize, seed: u64) -> Self {
        let Place { partition, offset } = point.place;
        let parts = [i64::from(partition.0), offset.0, i64_of_count(number)];
        Walker {
            key: point.key.clone(),
            time: point.time,
            gap: Gap::ZERO,
            hidden: point.hidden.clone(),
            aggregates: point.aggregates.clone(),
            draws: Draws::new(parts.iter().fold(seed, |mixed, part| mix(mixed ^ part.cast_unsigned()))),
            path: Path::default(),
            ended: false,
        }
    }

    /// The law that its last event has published.
    fn law(&self, width: usize) -> &[f32] {
        self.hidden.get(self.hidden.len().saturating_sub(width)..).unwrap_or_default()
    }

    fn take(&mut self, gap: Option<Gap>, mark: Option<u32>, chances: &[f32]) {
        let next = gap.and_then(|gap| Some((gap, self.time.after(gap).in_range()?)));
        let Some((gap, time)) = next else {
            self.ended = true;
            return;
        };
        (self.gap, self.time) = (gap, time);
        self.path.times.push(time);
        self.path.marks.push(mark);
        self.path.chances.extend_from_slice(chances);
    }
}

/// A number whose bits each depend on all bits of another: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
#[must_use]
pub fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// Hidden floats of paths.
struct Walked<'a, 'b>(&'a mut [&'b mut Walker]);

impl Memory for Walked<'_, '_> {
    fn hidden(&mut self, row: usize) -> &mut [f32] {
        self.0.get_mut(row).map(|walker| walker.hidden.as_mut_slice()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path as Folder;

    use super::*;
    use crate::data::input::Input;
    use crate::pipeline::{self, Purpose};
    use crate::run::Stage;

    fn stage(name: &str) -> Stage {
        let folder = Folder::new(env!("CARGO_MANIFEST_DIR")).join("pipelines").join(name);
        Stage::load(pipeline::load(&folder, &[], Purpose::Run).unwrap()).unwrap()
    }

    fn input(offset: i64, payloads: &[String]) -> Input {
        let mut input = Input::default();
        for (i, payload) in payloads.iter().enumerate() {
            let key: serde_json::Value = serde_json::from_str(payload).unwrap();
            let key = key["card"].as_str().unwrap().as_bytes().to_vec();
            input.records.push(Partition(0), Offset(offset + i as i64), None, Some(&key), Some(payload.as_bytes()));
        }
        input
    }

    fn payment(card: &str, ts: i64, channel: &str) -> String {
        format!(r#"{{"id":"e{ts}","card":"{card}","ts":{ts},"amount":10.5,"mcc":3,"channel":"{channel}"}}"#)
    }

    /// A lane that has seen payments of two cards in one batch, and the points after those at these offsets.
    fn points(stage: &Stage, offsets: &'static [i64]) -> (Lane, Vec<Point>) {
        let mut lane = stage.lane().unwrap();
        lane.assign(Partition(0), Offset(0));
        lane.keep(Some(Box::new(|events, row| offsets.contains(&events.offsets[row].0))));
        let payloads: Vec<String> =
            (0..8).map(|i| payment(["a", "b"][i % 2], 1_735_000_000_000 + 3_600_000 * i as i64, ["pos", "web", "atm"][i % 3])).collect();
        lane.advance(&input(0, &payloads)).unwrap();
        let points = lane.kept();
        (lane, points)
    }

    #[test]
    fn a_drawn_event_is_fed_back_as_a_live_one_without_its_other_fields() {
        let stage = stage("cards");
        let (mut lane, points) = points(&stage, &[6]);
        assert_eq!(points.len(), 1);
        assert_eq!(Some(points[0].hidden.as_slice()), lane.hidden_of(b"a"), "the last event of the card");
        assert!(lane.undrawn().unwrap().iter().all(|name| name != "channel") && lane.undrawn().unwrap().contains(&"amount".to_owned()));
        let mut walkers = vec![Walker::new(&points[0], 0, 1)];
        for _ in 0..5 {
            assert!(lane.walk(&mut walkers).unwrap());
        }
        let path = walkers[0].path.clone();
        // Times in microseconds are more than the field of the records can say: they are drawn first and read back from a field in this unit.
        let names = stage.package.manifest.head.marks();
        let payloads: Vec<String> = path
            .times
            .iter()
            .zip(&path.marks)
            .map(|(time, mark)| {
                let ms = format!("{}.{:03}", time.0 / 1000, time.0 % 1000);
                format!(r#"{{"card":"a","ts":{ms},"channel":"{}"}}"#, names[mark.unwrap() as usize])
            })
            .collect();
        lane.advance(&input(8, &payloads)).unwrap();
        assert_eq!(lane.forecasts.event_times, path.times);
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&walkers[0].hidden), bits(lane.hidden_of(b"a").unwrap()));
        assert_eq!(path.chances.len(), 5 * names.len());
        for chances in path.chances.chunks(names.len()) {
            assert!((chances.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{chances:?}");
        }
    }

    #[test]
    fn what_is_drawn_depends_on_point_number_and_seed_alone() {
        let stage = stage("cards");
        let (mut lane, kept) = points(&stage, &[1, 2, 5, 6]);
        assert_eq!(
            kept.iter().map(|point| point.place.offset.0).collect::<Vec<_>>(),
            [1, 2, 5, 6],
            "also events that others of their key follow in the batch"
        );
        let together = lane.paths(&kept, 3, 4, 9).unwrap();
        assert_eq!(together.len(), 12);
        for (point, own) in kept.iter().zip(together.chunks(3)) {
            assert_eq!(lane.paths(std::slice::from_ref(point), 3, 4, 9).unwrap(), own);
            assert!(own[0] != own[1] && own[1] != own[2], "paths of their own");
            assert!(own.iter().all(|path| path.times.len() == 4 && path.times.is_sorted() && path.times[0] >= point.time));
        }
        assert_ne!(lane.paths(&kept, 3, 4, 10).unwrap(), together);
        // One at a time, in batches of one event: the same points.
        let mut single = stage.lane().unwrap();
        single.assign(Partition(0), Offset(0));
        single.keep(Some(Box::new(|events, row| events.offsets[row].0 == 2)));
        let mut found = Vec::new();
        for i in 0..8_usize {
            let payload = payment(["a", "b"][i % 2], 1_735_000_000_000 + 3_600_000 * i as i64, ["pos", "web", "atm"][i % 3]);
            single.advance(&input(i as i64, &[payload])).unwrap();
            found.extend(single.kept());
        }
        assert_eq!(found, kept[1..2]);
    }

    #[test]
    fn first_gaps_that_are_drawn_pass_ks_against_the_survival_of_the_law() {
        let stage = stage("telemetry");
        let mut lane = stage.lane().unwrap();
        lane.assign(Partition(0), Offset(0));
        lane.keep(Some(Box::new(|events, row| events.offsets[row].0 == 9)));
        let mut input = Input::default();
        for i in 0..10_i64 {
            let payload = format!(r#"{{"id":"e{i}","device":"d","ts":{}}}"#, 1_735_000_000_000 + 60_000 * i);
            input.records.push(Partition(0), Offset(i), None, Some(b"d"), Some(payload.as_bytes()));
        }
        lane.advance(&input).unwrap();
        let points = lane.kept();
        let paths = lane.paths(&points, 5000, 1, 4).unwrap();
        let law = points[0].hidden[points[0].hidden.len() - lane.head.width()..].to_vec();
        let mut gaps: Vec<Gap> = paths.iter().map(|path| path.times[0].since(points[0].time)).collect();
        gaps.sort();
        let n = gaps.len() as f64;
        let off = lane.curve(&law, &gaps).iter().enumerate().fold(0.0_f64, |off, (i, (_, compensator))| {
            let f = 1.0 - (-compensator).exp();
            off.max((f - i as f64 / n).abs()).max((f - (i + 1) as f64 / n).abs())
        });
        // Passed by 1 in 1000 of a true law.
        assert!(off < 1.95 / n.sqrt(), "{off}");
    }
}
