//! The merged stream to the lanes: one thread reads, sorts out the shards, and hands each lane its own.

use std::collections::{BTreeMap, VecDeque};
use std::thread;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::Settings;
use super::chunk::{Chunk, Turn, input_of};
use super::merge::{BLOCK, Merge, Place, Run};
use super::sort::sort;
use super::survey::Survey;
use crate::base::error::{Error, Result};
use crate::base::guard::guarded;
use crate::base::number::{i64_of_count, index, u32_of};
use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;
use crate::data::commit::Commits;
use crate::data::input::Input;
use crate::source::{Assignment, Feed, Handed, Polled};

/// Blocks that wait for a lane.
const WAITING: usize = 8;

/// What a lane is handed.
enum Item {
    /// Rows of its shards: (shard, offset of the first, rows); whether an epoch ends behind them.
    Rows(Vec<(u32, Offset, RecordBatch)>, bool),
    Failed(Error),
}

/// Starts the reading thread and gives one feed per lane.
///
/// # Errors
/// The thread cannot be started.
pub fn open(settings: &Settings, survey: &Survey, lanes: usize) -> Result<Vec<Box<dyn Feed>>> {
    let lanes = lanes.max(1);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..lanes).map(|_| bounded(WAITING)).unzip();
    let (own, facts) = (settings.clone(), survey.clone());
    let lane_of = lanes_of(settings, lanes);
    let shards = |lane: usize| lane_of.iter().filter(|(_, own)| **own == lane).map(|(shard, _)| *shard).collect::<VecDeque<u32>>();
    let feeds: Vec<Box<dyn Feed>> = receivers
        .into_iter()
        .enumerate()
        .map(|(lane, items)| {
            Box::new(LaneFeed {
                items: Some(items),
                lines: survey.reading.lines,
                goes_on: settings.positions.is_some(),
                to_assign: shards(lane),
                parts: VecDeque::new(),
                ends: false,
                boundary: false,
                next: BTreeMap::new(),
                place: format!("{} files", facts.files.len()),
            }) as Box<dyn Feed>
        })
        .collect();
    let spawned = thread::Builder::new().name("backfill".to_owned()).spawn(move || {
        // Lanes take the end of what they are sent for the end of the files.
        let ended =
            guarded("backfill", "the thread that reads the files", || read(&own, &facts, &lane_of, &senders)).and_then(|ended| ended);
        if let Err(error) = ended {
            let mut first = Some(error);
            for sender in &senders {
                // One lane tells why; the others stop with it.
                let error =
                    first.take().unwrap_or_else(|| Error::internal("backfill", "reading has failed; see the error of another lane"));
                let _ = sender.send(Item::Failed(error));
            }
        }
    });
    spawned.map_err(|e| Error::internal("backfill", format!("the reading thread cannot be started: {e}")))?;
    Ok(feeds)
}

/// The lane of each shard of this machine: in turn.
fn lanes_of(settings: &Settings, lanes: usize) -> BTreeMap<u32, usize> {
    settings.shards().enumerate().map(|(i, shard)| (shard, i % lanes)).collect()
}

/// Sorts what is not in order, merges everything and hands it out. Ends without an error when the lanes have gone.
fn read(settings: &Settings, survey: &Survey, lane_of: &BTreeMap<u32, usize>, senders: &[Sender<Item>]) -> Result<()> {
    let runs = runs(settings, survey)?;
    let mut merge = Merge::new(survey.reading.clone(), runs);
    let mut next: BTreeMap<u32, i64> = BTreeMap::new();
    let (mut rows, mut end) = (0_u64, settings.epoch_rows);
    while let Some(block) = merge.block()? {
        let Some(block) = before(block, settings.until) else { break };
        rows += u64::try_from(block.len()).unwrap_or(0);
        let ends = rows >= end;
        while rows >= end {
            end = end.saturating_add(settings.epoch_rows.max(1));
        }
        let mut items: Vec<Vec<(u32, Offset, RecordBatch)>> = senders.iter().map(|_| Vec::new()).collect();
        for (shard, turns, part) in block.by_shard(settings.shards)? {
            let first = next.entry(shard).or_insert(0);
            let item = lane_of.get(&shard).and_then(|lane| items.get_mut(*lane));
            if settings.positions.is_none() {
                let offset = Offset(*first);
                *first += i64_of_count(part.num_rows());
                item.into_iter().for_each(|item| item.push((shard, offset, part.clone())));
                continue;
            }
            let stretches = stretches(&turns, first);
            if let Some(item) = item {
                item.extend(stretches.into_iter().map(|(offset, from, len)| (shard, offset, part.slice(from, len))));
            }
        }
        for (sender, item) in senders.iter().zip(items) {
            if (ends || !item.is_empty()) && sender.send(Item::Rows(item, ends)).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The rows that come before an end; `None` where there are none any more. A row whose time cannot be read goes with the one before it.
fn before(block: Chunk, until: Option<EventTime>) -> Option<Chunk> {
    let Some(until) = until else { return Some(block) };
    match block.turns.partition_point(|turn| turn.at < until.0) {
        0 => None,
        all if all == block.len() => Some(block),
        some => Some(block.slice(0, some)),
    }
}

/// Rows whose offsets follow each other without a hole: (first offset, first row, rows). Offsets below `next` were there before: files may overlap.
fn stretches(turns: &[Turn], next: &mut i64) -> Vec<(Offset, usize, usize)> {
    let mut found: Vec<(Offset, usize, usize)> = Vec::new();
    for (row, offset) in turns.iter().map(|turn| &turn.at).enumerate() {
        if *offset < *next {
            continue;
        }
        match found.last_mut() {
            Some((_, from, len)) if *offset == *next && *from + *len == row => *len += 1,
            _ => found.push((Offset(*offset), row, 1)),
        }
        *next = *offset + 1;
    }
    found
}

/// The sorted runs of all files; those that are not in order are sorted first.
///
/// # Errors
/// A file cannot be read, or the scratch folder not be written.
pub fn runs(settings: &Settings, survey: &Survey) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for (i, file) in survey.files.iter().enumerate() {
        let Some((first, _)) = file.span else { continue };
        if file.sorted {
            runs.push(Run { order: (i, 0), first, place: Place::File(Box::new(file.clone())) });
            continue;
        }
        tracing::info!(file = %file.path, rows = file.rows, "sorting by event time");
        let parts = sort(file, &survey.reading, settings.memory, &settings.scratch, &format!("{i:06}"))?;
        runs.extend(parts.into_iter().enumerate().map(|(j, part)| Run { order: (i, j), first: part.first, place: Place::Part(part.path) }));
    }
    Ok(runs)
}

/// A lane's feed.
struct LaneFeed {
    items: Option<Receiver<Item>>,
    lines: bool,
    /// Rows have the positions of a topic, which goes on.
    goes_on: bool,
    to_assign: VecDeque<u32>,
    /// Of the current item, what has not been handed on.
    parts: VecDeque<(u32, Offset, RecordBatch)>,
    /// An epoch ends behind them.
    ends: bool,
    /// What was handed on last ended an epoch.
    boundary: bool,
    next: BTreeMap<u32, Offset>,
    place: String,
}

impl LaneFeed {
    /// Hands on at most `max` rows of the current item.
    fn hand(&mut self, max: usize, input: &mut Input) {
        let mut parts = Vec::new();
        let mut left = max;
        while left > 0
            && let Some((shard, first, rows)) = self.parts.pop_front()
        {
            let taken = rows.num_rows().min(left);
            left -= taken;
            let after = Offset(first.0 + i64_of_count(taken));
            self.next.insert(shard, after);
            if taken < rows.num_rows() {
                self.parts.push_front((shard, after, rows.slice(taken, rows.num_rows() - taken)));
            }
            parts.push((shard, first, rows.slice(0, taken)));
        }
        *input = input_of(&parts, self.lines);
        self.boundary = self.ends && self.parts.is_empty();
    }
}

impl Feed for LaneFeed {
    fn poll(&mut self, max: usize, wait: Duration, input: &mut Input) -> Result<Polled> {
        self.boundary = false;
        if let Some(shard) = self.to_assign.pop_front() {
            self.next.insert(shard, Offset(0));
            return Ok(Polled::Assigned(Box::new(Assignment::whole(Partition(shard.cast_signed()), &self.place))));
        }
        if self.parts.is_empty() {
            let Some(items) = &self.items else { return Ok(Polled::Ended) };
            match items.recv_timeout(wait) {
                Ok(Item::Rows(parts, ends)) => {
                    self.parts = parts.into();
                    self.ends = ends;
                }
                Ok(Item::Failed(error)) => return Err(error),
                Err(RecvTimeoutError::Timeout) => return Ok(Polled::Idle),
                Err(RecvTimeoutError::Disconnected) => {
                    // The last epoch ends with the files.
                    self.boundary = true;
                    return Ok(Polled::Ended);
                }
            }
        }
        self.hand(max.min(BLOCK), input);
        Ok(Polled::Records)
    }

    fn start(&mut self, _partition: Partition, _read_from: Offset, _live_from: Offset) -> Result<()> {
        Ok(())
    }

    fn goes_on(&self) -> bool {
        self.goes_on
    }

    fn boundary(&self) -> Option<bool> {
        Some(self.boundary)
    }

    /// Does nothing: files keep no positions; the sink's files do.
    fn commit(&mut self, _commits: &Commits) -> Result<()> {
        Ok(())
    }

    fn released(&mut self, _partition: Partition) {}

    fn backlog(&self) -> Option<u64> {
        None
    }

    fn handed(&self, note: &mut dyn FnMut(Handed)) {
        for (shard, next) in &self.next {
            note(Handed { partition: Partition(shard.cast_signed()), next: *next, end: None });
        }
    }

    fn close(&mut self) -> Result<()> {
        // The reading thread ends when it finds nobody there.
        self.items = None;
        Ok(())
    }
}

/// Lanes that have something to do.
#[must_use]
pub fn useful_lanes(settings: &Settings, lanes: usize) -> usize {
    lanes.clamp(1, settings.shards().count().max(1))
}

/// Shards of this machine as the sinks know them.
pub fn partitions(settings: &Settings) -> impl Iterator<Item = Partition> {
    settings.shards().map(|shard| Partition(u32_of(index(shard)).cast_signed()))
}
