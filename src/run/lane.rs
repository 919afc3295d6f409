//! The path of an event, for a batch of records from all partitions of a lane.

mod absent;
mod follow;
mod look;
mod paths;
mod reasons;
mod rejects;
mod said;
mod seen;
mod strangers;
mod ticks;

pub use look::{Arrived, Effect};
pub use paths::{Pick, Point, mix};

use std::sync::Arc;

use super::overdue::{Applied, Asked, Forgotten, Moment, walk};
use super::partition::{PartitionState, Recovered, last_record};
use crate::base::error::{Error, Kind, Result};
use crate::base::metrics::SizeTally;
use crate::base::offset::{Offset, Partition};
use crate::base::time::{EventTime, Gap};
use crate::data::commit::{Commits, Tick};
use crate::data::events::Events;
use crate::data::flags::Flags;
use crate::data::forecasts::{Forecasts, Identity};
use crate::data::input::{Input, Table};
use crate::data::intensity::Intensities;
use crate::data::outputs::Outputs;
use crate::data::rejected::Rejected;
use crate::data::schema::FieldKind;
use crate::decode::Decoder;
use crate::features::{Context, Features};
use crate::head::{Arrivals, Head};
use crate::model::Model;
use crate::order::{Late, Order};
use crate::pipeline::plan::Plan;
use crate::source;
use crate::state::{EventBefore, KeyStates, WhenFull};
use absent::Absent;
use reasons::Remembering;
use rejects::original;
use seen::{Kept, LaneMemory, Seen};
use strangers::Strangers;

/// A lane: several partitions whose events are stepped together. All buffers are reused from batch to batch.
pub struct Lane {
    plan: Arc<Plan>,
    /// Events before it are left out, where the source is a topic.
    since: Option<EventTime>,
    decoder: Decoder,
    features: Features,
    model: Model,
    head: Head,
    /// Column of the field whose value the head has a law of.
    value: Option<usize>,
    partitions: Vec<PartitionState>,
    /// Batches so far; marks which keys were seen in the current one.
    batch: u32,
    decoded: Events,
    ready: Events,
    /// Of each ready event: whether its forecast is emitted (it is not during silent replay).
    emit: Vec<bool>,
    seen: Seen,
    /// What makes a key overdue; none of it without `forecast.overdue`, and then nothing is noted for it either.
    asked: Asked,
    /// When the records of the batch were taken in.
    moments: Vec<Moment>,
    rows: Vec<f32>,
    outputs: Outputs,
    /// Hidden floats of each row before its step, where reasons are found by trying steps.
    before: Vec<f32>,
    /// How the event before is kept of each key, where reasons need it.
    event_before: Option<EventBefore>,
    /// Which states are kept to be continued from; of no event, as a rule.
    pick: Option<Pick>,
    points: Vec<Point>,
    /// Forecasts of the last `advance`.
    pub forecasts: Forecasts,
    /// Rejected records of the last `advance`.
    pub rejected: Rejected,
    /// Events of the last `advance` that were replayed silently.
    pub replayed: usize,
    /// Keys that the last `advance` has forgotten to make room for others.
    pub evicted: usize,
    /// Records of the last `advance` that the states held already: read once more, and recognised.
    pub known: usize,
    /// Events of the last `advance` that were left out because they were before `since`; those that are replayed silently do not count.
    pub left_out: usize,
    /// Ticks that the last `tick` or `finish` has noted.
    pub ticks: Vec<(Partition, Tick)>,
    /// Share of the keys whose events are taken in, if not all.
    share: Option<f64>,
    /// Marks that the package does not know.
    strangers: Strangers,
    absent: Absent,
    /// It was said that the topic may not be partitioned by key.
    spread_said: bool,
    /// The first event's time was looked at.
    unit_seen: bool,
}

impl Lane {
    /// A lane without partitions.
    ///
    /// # Errors
    /// The recipe does not fit the schema, or the head its asks.
    pub fn new(plan: Arc<Plan>, model: Model, identity: Arc<Identity>) -> Result<Self> {
        let Some((manifest, recipe)) = &plan.model else {
            return Err(Error::internal("run", "the plan was made without a model"));
        };
        let features = Features::new(recipe, &plan.schema)?;
        if features.width() != model.signature().features {
            let text = format!("the recipe makes {} floats, the graph takes {}", features.width(), model.signature().features);
            return Err(Error::config("model", text).at(plan.package.display().to_string()));
        }
        let value = manifest.head.value().map(|value| value_column(&plan, &value.field)).transpose()?;
        let mut model = model;
        let intensity = model.intensity.take().map(|graph| Box::new(graph) as Box<dyn Intensities>);
        Ok(Lane {
            since: match &plan.source {
                source::Settings::Kafka(kafka) => kafka.since,
                _ => None,
            },
            decoder: Decoder::of(&plan.schema, plan.schemas.as_ref()),
            head: Head::with(&manifest.head, plan.asks.clone(), intensity)?,
            features,
            value,
            model,
            partitions: Vec::new(),
            batch: 0,
            decoded: Events::new(&plan.schema),
            ready: Events::new(&plan.schema),
            emit: Vec::new(),
            seen: Seen::default(),
            asked: Asked {
                quantiles: plan.asks.overdue.iter().filter_map(|i| plan.asks.quantiles.get(*i).copied()).collect(),
                columns: plan.asks.overdue.clone(),
            },
            moments: Vec::new(),
            rows: Vec::new(),
            outputs: Outputs::default(),
            before: Vec::new(),
            event_before: plan.event_before(),
            pick: None,
            points: Vec::new(),
            forecasts: Forecasts::new(identity),
            rejected: Rejected::default(),
            replayed: 0,
            evicted: 0,
            known: 0,
            left_out: 0,
            ticks: Vec::new(),
            share: None,
            strangers: Strangers::default(),
            absent: Absent::default(),
            spread_said: false,
            unit_seen: false,
            plan,
        })
    }

    /// Takes a partition over, with empty states; records below `live_from` only rebuild them.
    pub fn assign(&mut self, partition: Partition, live_from: Offset) {
        self.take_over(Recovered::empty(partition, live_from));
    }

    /// Takes a partition over with the states it was recovered with.
    pub fn take_over(&mut self, recovered: Recovered) {
        self.release(recovered.partition);
        let empty = self.empty_states();
        self.partitions.push(PartitionState::new(recovered, empty));
    }

    /// Order and key states that have seen nothing, of the widths of this lane's model and recipe.
    #[must_use]
    pub fn empty_states(&self) -> (Order, KeyStates) {
        let order = Order::new(self.plan.order, Events::new(&self.plan.schema));
        (order, KeyStates::new(&self.blank(), self.features.aggregates(), self.asked.columns.len()))
    }

    /// What is kept of a key that has not been seen: what the model begins with, and no event before.
    fn blank(&self) -> Vec<f32> {
        self.model.initial_hidden().iter().copied().chain(self.event_before.into_iter().flat_map(EventBefore::none)).collect()
    }

    /// How far each partition has come, but for those that still replay what was committed before.
    #[must_use]
    pub fn commits(&self) -> Commits {
        let fingerprint = &self.forecasts.identity.fingerprint;
        self.partitions.iter().filter_map(|state| Some((state.partition, state.commit(fingerprint)?))).collect()
    }

    /// The partitions.
    pub fn partitions(&self) -> &[PartitionState] {
        &self.partitions
    }

    /// The partitions, to be changed.
    pub fn partitions_mut(&mut self) -> &mut [PartitionState] {
        &mut self.partitions
    }

    /// Forgets a partition.
    pub fn release(&mut self, partition: Partition) {
        self.partitions.retain(|state| state.partition != partition);
    }

    /// Takes records in. `forecasts` and `rejected` hold what is to be emitted for them, until the next call.
    ///
    /// # Errors
    /// The model fails to run, or a bound of the plan is reached. The lane has come to its end then: its states may be anywhere.
    pub fn advance(&mut self, input: &Input) -> Result<()> {
        self.begin();
        let picked = if self.partitions.iter().any(PartitionState::is_picky) { self.pick(input)? } else { None };
        let input = picked.as_ref().unwrap_or(input);
        self.decoder.decode(input, &mut self.decoded, &mut self.rejected)?;
        self.say_spread();
        self.say_unit();
        // Of tables whoever opens them says which columns they lack.
        if input.tables.is_empty() {
            self.absent.note(self.decoded.len(), &self.decoded.columns);
            self.say_absent(false);
        }
        self.note_progress(input)?;
        self.order(input)?;
        self.drop_silent_rejects();
        self.finish_batch(input)
    }

    /// Keys of all partitions, and the bytes of their states.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        self.partitions.iter().fold((0, 0), |(keys, bytes), state| (keys + state.keys.len(), bytes + state.keys.bytes()))
    }

    /// Latest event time that was applied of each partition.
    pub fn latest(&self) -> impl Iterator<Item = (Partition, Option<EventTime>)> {
        self.partitions.iter().map(|state| (state.partition, state.latest))
    }

    /// Sizes of the rounds since they were last taken.
    pub fn round_sizes(&mut self) -> &mut SizeTally {
        &mut self.model.round_sizes
    }

    fn begin(&mut self) {
        self.batch = self.batch.wrapping_add(1);
        self.decoded.clear();
        self.ready.clear();
        self.emit.clear();
        self.moments.clear();
        self.rejected.clear();
        self.forecasts.clear();
        self.points.clear();
        self.ticks.clear();
        self.replayed = 0;
        self.evicted = 0;
        self.known = 0;
        self.left_out = 0;
    }

    /// Leaves out records that the states hold already, and recognises the last one that was committed. `None`: all are to be taken in.
    fn pick(&mut self, input: &Input) -> Result<Option<Input>> {
        let mut picked = Input::default();
        let records = &input.records;
        picked.records.lines = records.lines;
        let mut left_out = false;
        for (row, (partition, offset)) in records.partitions.iter().zip(&records.offsets).enumerate() {
            let Some(state) = self.partitions.iter_mut().find(|state| state.partition == *partition) else {
                return Err(unassigned(*partition));
            };
            let (key, payload) = (records.keys.get(row), records.payloads.get(row));
            state.recognise(*offset, key, payload)?;
            if *offset < state.from() {
                left_out = true;
                self.known += 1;
            } else {
                picked.records.push(*partition, *offset, records.recorded.get(row).copied().flatten(), key, payload);
            }
        }
        for table in &input.tables {
            let from = self.partitions.iter().find(|state| state.partition == table.partition).map_or(Offset(0), PartitionState::from);
            let rows = table.rows.num_rows();
            let skipped = usize::try_from(from.0.saturating_sub(table.first.0)).unwrap_or(0).min(rows);
            left_out |= skipped > 0;
            self.known += skipped;
            if skipped < rows {
                let rows = table.rows.slice(skipped, rows - skipped);
                picked.tables.push(Table { partition: table.partition, first: table.first.max(from), rows });
            }
        }
        Ok(left_out.then_some(picked))
    }

    fn note_progress(&mut self, input: &Input) -> Result<()> {
        let records = &input.records;
        for state in &mut self.partitions {
            if let Some(row) = records.partitions.iter().rposition(|partition| *partition == state.partition) {
                let last = last_record(records, row);
                if let Some(last) = last {
                    state.advance(last.offset.next(), Some(last));
                }
            }
        }
        for table in &input.tables {
            let rows = i64::try_from(table.rows.num_rows()).unwrap_or(i64::MAX);
            let Some(state) = self.partitions.iter_mut().find(|state| state.partition == table.partition) else {
                return Err(unassigned(table.partition));
            };
            state.advance(Offset(table.first.0.saturating_add(rows)), None);
        }
        Ok(())
    }

    fn home(&self, partition: Partition) -> Option<usize> {
        self.partitions.iter().position(|state| state.partition == partition)
    }

    /// Clock hygiene and event-time order: `decoded` to `ready`, in the order in which the events are applied.
    fn order(&mut self, input: &Input) -> Result<()> {
        let mut cached: Option<(Partition, usize)> = None;
        let believed = self.decoded.times.iter().zip(&self.decoded.recorded).zip(&self.decoded.partitions);
        let direct = self.plan.order.lateness == Gap::ZERO
            && !self.plan.order.timed
            && self.since.is_none_or(|since| self.decoded.times.iter().all(|time| *time >= since))
            && self
                .partitions
                .first()
                .is_some_and(|any| believed.clone().all(|((time, recorded), _)| any.order.check_clock(*time, *recorded).is_ok()));
        if direct {
            std::mem::swap(&mut self.decoded, &mut self.ready);
        }
        for row in 0..self.decoded.len() {
            let at = self.decoded.partitions.get(row).zip(self.decoded.offsets.get(row)).zip(self.decoded.times.get(row));
            let Some(((&partition, offset), time)) = at else { continue };
            let Some(home) = cached.filter(|(p, _)| *p == partition).map(|(_, home)| home).or_else(|| self.home(partition)) else {
                return Err(unassigned(partition));
            };
            cached = Some((partition, home));
            let (offset, time) = (*offset, *time);
            self.pass_ticks(home, offset);
            let Some(state) = self.partitions.get_mut(home) else { continue };
            if self.since.is_some_and(|since| time < since) {
                self.left_out += usize::from(state.is_live(offset));
                continue;
            }
            let recorded = self.decoded.recorded.get(row).copied().flatten();
            match state.order.check_clock(time, recorded) {
                Ok(()) => state.order.take(&self.decoded, row, &mut self.ready)?,
                Err((reason, detail)) => {
                    let bytes = original(input, &self.decoded, row);
                    self.rejected.push((partition, offset), reason, detail, self.decoded.keys.get(row), Some(&bytes));
                }
            }
            let live = state.is_live(offset);
            self.note_moment(home, live);
        }
        if direct {
            for (partition, offset) in self.ready.partitions.iter().zip(&self.ready.offsets) {
                let home = cached.filter(|(p, _)| p == partition).map(|(_, home)| home).or_else(|| self.home(*partition));
                let Some(state) = home.and_then(|home| self.partitions.get(home)) else { return Err(unassigned(*partition)) };
                cached = home.map(|home| (*partition, home));
                self.emit.push(state.is_live(*offset));
            }
        }
        Ok(())
    }

    /// A record or tick has been taken in: says of what it has released whether it is emitted.
    fn note_moment(&mut self, home: usize, live: bool) {
        let released = self.ready.len();
        self.emit.resize(released, live);
        if self.plan.order.timed
            && let Some(state) = self.partitions.get(home)
        {
            self.moments.push(Moment { home, released, clock: state.order.clock(), live });
        }
    }

    /// `ready` through interning, features, model and head to `forecasts`.
    fn finish_batch(&mut self, input: &Input) -> Result<()> {
        if let Some(share) = self.share {
            self.thin(share);
        }
        self.intern(input)?;
        let n = self.ready.len();
        self.replayed = self.emit.iter().filter(|emit| !**emit).count();
        if n == 0 {
            self.say_overdue(0);
            return Ok(());
        }
        self.features.rows(&self.ready, Context { gaps: &self.seen.gaps }, &mut self.rows);
        let kept = self.picked().into_iter().map(|row| Kept { row, hidden: Vec::new(), aggregates: Vec::new() });
        let mut kept: Vec<Kept> = kept.collect();
        self.add_decays(&mut kept);
        let (init, width) = (self.blank(), self.model.initial_hidden().len());
        let whole = init.len();
        let mut memory = LaneMemory { partitions: &mut self.partitions, seen: &self.seen, init, width, kept: &mut kept };
        let (gaps, occurrences) = (&self.seen.gaps, &self.seen.occurrences);
        let explained = self.plan.reasons.is_some() && self.replayed < n;
        if self.event_before.is_some() || explained && !self.head.scores_arrivals() {
            // In silent replay too: the first event that is emitted has one before it.
            self.before.resize(if explained { n * whole } else { 0 }, 0.0);
            let event = self.event_before.map(|event| (event, self.rows.as_slice()));
            let mut memory = Remembering { memory, width: whole, before: &mut self.before, event };
            self.model.steps(&self.rows, gaps, occurrences, &mut memory, &mut self.outputs)?;
        } else {
            self.model.steps(&self.rows, gaps, occurrences, &mut memory, &mut self.outputs)?;
        }
        self.note_points(kept);
        // Timers are set by laws also where nothing is emitted.
        if self.replayed < n || self.plan.order.timed {
            self.publish()?;
        }
        Ok(())
    }

    /// Keys to slots; gaps, counts and late events, in the order of application.
    fn intern(&mut self, input: &Input) -> Result<()> {
        self.seen.clear();
        self.seen.look_up(&self.partitions, &self.ready);
        let mut dropped: Vec<usize> = Vec::new();
        let mut cached: Option<(Partition, usize)> = None;
        let most = if self.plan.state.when_full == WhenFull::Evict { self.plan.state.max_keys } else { usize::MAX };
        let mark_column = self.plan.schema.mark.and_then(|mark| self.ready.columns.get(mark)).and_then(|column| column.texts());
        for row in 0..self.ready.len() {
            let (Some(partition), Some(key)) = (self.ready.partitions.get(row).copied(), self.ready.keys.get(row)) else { continue };
            let home = cached.filter(|(p, _)| *p == partition).map(|(_, home)| home);
            let Some(home) = home.or_else(|| self.partitions.iter().position(|state| state.partition == partition)) else {
                return Err(unassigned(partition));
            };
            cached = Some((partition, home));
            let Some(state) = self.partitions.get_mut(home) else { continue };
            let Some(time) = self.ready.times.get(row).copied() else { continue };
            let (slot, forgotten) = state.keys.intern_within(key, time, most, self.seen.expected.get(row).copied().flatten());
            let evicted = forgotten.is_some();
            if let Some(key) = forgotten.filter(|_| self.plan.order.timed) {
                self.seen.forgotten.push(Forgotten { row, home, slot, key });
            }
            let (Some(meta), Some(time), Some(flags)) =
                (state.keys.metas.row_mut(slot).first_mut(), self.ready.times.get_mut(row), self.ready.flags.get_mut(row))
            else {
                continue;
            };
            let mut gap = (meta.events > 0).then(|| time.since(meta.last));
            if gap.is_some_and(|gap| gap < Gap::ZERO) {
                match self.plan.order.late {
                    Late::Clamp => {
                        *time = meta.last;
                        *flags = flags.with(Flags::LATE_CLAMPED);
                        gap = Some(Gap::ZERO);
                    }
                    Late::DeadLetter => {
                        dropped.push(row);
                        continue;
                    }
                }
            }
            let expired = gap.zip(self.plan.state.expiry).is_some_and(|(gap, expiry)| gap > expiry);
            if expired {
                gap = None;
                meta.events = 0;
            }
            self.evicted += usize::from(evicted);
            if gap.is_none() {
                *flags = flags.with(Flags::COLD_START);
            }
            meta.last = *time;
            state.latest = state.latest.max(Some(*time));
            meta.events += 1;
            meta.round = if meta.batch == self.batch { meta.round + 1 } else { 0 };
            meta.batch = self.batch;
            let mark = mark_column.and_then(|marks| marks.get(row)).map(|mark| self.head.mark_index(mark));
            if let Some(marks) = mark_column.filter(|_| self.head.has_marks()) {
                let known = mark.flatten().is_some();
                if !known {
                    *flags = flags.with(Flags::UNKNOWN_MARK);
                }
                self.strangers.note(marks.get(row), known);
            }
            self.seen.homes.push(home);
            self.seen.slots.push(slot);
            self.seen.gaps.push(gap);
            self.seen.counts.push(meta.events);
            self.seen.occurrences.push(meta.round);
            self.seen.anew.push(expired || evicted);
            self.seen.marks.push(mark.flatten());
        }
        self.say_strangers(false);
        if !dropped.is_empty() {
            self.drop_late(&dropped, input);
        }
        let most = self.plan.state.max_keys;
        match self.partitions.iter().find(|state| state.keys.len() > most) {
            None => Ok(()),
            Some(state) => Err(Error::new(Kind::Config, "state", format!("more keys than max_keys = {most}"))
                .at(format!("partition {}", state.partition))
                .help("raise [state] max_keys, give the topic more partitions, or let the key that was idle longest be forgotten: when_full = \"evict\"")),
        }
    }

    /// The decaying columns, which read and write the keys' aggregates in the order of application.
    fn add_decays(&mut self, kept: &mut [Kept]) {
        if self.features.aggregates() == 0 {
            return;
        }
        let width = self.features.width();
        let places = self.seen.homes.iter().zip(&self.seen.slots).zip(self.seen.gaps.iter().zip(&self.seen.anew));
        let mut kept = kept.iter_mut().peekable();
        for (row, (((home, slot), (gap, anew)), out)) in places.zip(self.rows.chunks_exact_mut(width)).enumerate() {
            let Some(state) = self.partitions.get_mut(*home) else { continue };
            let aggregates = state.keys.aggregates.row_mut(*slot);
            if *anew {
                aggregates.fill(0.0);
            }
            self.features.decay(&self.ready, row, *gap, aggregates, out);
            if let Some(kept) = kept.next_if(|kept| kept.row == row) {
                kept.aggregates = aggregates.to_vec();
            }
        }
    }

    /// Outputs to forecast rows.
    fn publish(&mut self) -> Result<()> {
        let forecasts = &mut self.forecasts;
        std::mem::swap(&mut forecasts.flags, &mut self.ready.flags);
        let values = self.value.and_then(|at| self.ready.columns.get(at)).and_then(|column| column.numbers()).unwrap_or_default();
        let arrivals = Arrivals { times: &self.ready.times, gaps: &self.seen.gaps, marks: &self.seen.marks, values };
        self.head.forecasts(&arrivals, &self.outputs, forecasts);
        std::mem::swap(&mut forecasts.keys, &mut self.ready.keys);
        std::mem::swap(&mut forecasts.event_ids, &mut self.ready.ids);
        std::mem::swap(&mut forecasts.event_times, &mut self.ready.times);
        std::mem::swap(&mut forecasts.partitions, &mut self.ready.partitions);
        std::mem::swap(&mut forecasts.offsets, &mut self.ready.offsets);
        std::mem::swap(&mut forecasts.n_events, &mut self.seen.counts);
        forecasts.gap_s.extend(self.seen.gaps.iter().map(|gap| gap.map_or(f64::NAN, Gap::seconds)));
        let rows = forecasts.len();
        self.explain()?;
        let kept = self.say_overdue(rows);
        if self.replayed > 0 && !kept {
            self.forecasts.retain(&self.emit);
        }
        Ok(())
    }

    /// Adds to the forecasts of the batch, of which there are `rows`, that keys are overdue. Returns whether there were any: then only those rows are
    /// left that are emitted.
    fn say_overdue(&mut self, rows: usize) -> bool {
        if self.moments.is_empty() {
            return false;
        }
        let forecasts = &self.forecasts;
        let events = Applied {
            slots: &self.seen.slots,
            times: &forecasts.event_times,
            offsets: &forecasts.offsets,
            counts: &forecasts.n_events,
            next_times: &forecasts.next_times,
        };
        debug_assert_eq!(rows, events.slots.len());
        let mut overdue = Vec::new();
        walk(&self.asked, &self.moments, &self.seen.forgotten, &events, &mut self.partitions, &mut overdue);
        if !overdue.is_empty() {
            self.forecasts.insert_overdue(&overdue, &self.emit);
        }
        !overdue.is_empty()
    }
}

/// Column of the field whose value the package forecasts.
fn value_column(plan: &Plan, field: &str) -> Result<usize> {
    let at = plan.schema.field(field).filter(|at| plan.schema.fields.get(*at).is_some_and(|field| field.kind == FieldKind::Number));
    at.ok_or_else(|| {
        Error::config("model", format!("the package has a law of the value of `{field}`, which the pipeline does not read as a number"))
            .at(plan.package.display().to_string())
    })
}

fn unassigned(partition: Partition) -> Error {
    Error::internal("run", format!("a record of partition {partition} came to a lane that does not own it"))
}
