//! Sinks with each of the promises, that fail and are slow.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::mutation;
use super::world::{Disk, Flavour, Of, Process, fenced};
use crate::base::error::{Error, Result};
use crate::base::offset::{Offset, Partition};
use crate::data::commit::{Commit, Commits, Note};
use crate::data::forecasts::Forecasts;
use crate::data::rejected::Rejected;
use crate::link::objects::{Objects, Put};
use crate::run::stage::{Sinks, Stage};
use crate::sink::json::{RowEncoder, dead_letter};
use crate::sink::{DeadLetterSink, ForecastSink, Sink};

/// A row: 0 for a forecast, 1 for a dead letter or 2 for a forecast of the shadow; its position, its bytes.
type Row = (usize, Partition, Offset, String);

/// Where rows go.
trait Store: Send {
    fn recover(&mut self, _partition: Partition) -> Result<Option<Commit>> {
        Ok(None)
    }
    fn take(&mut self, rows: Vec<Row>);
    fn end(&mut self, commits: &Commits, force: bool) -> Result<()>;
    /// Rows that have become durable since the last call, and the offsets with them.
    fn progress(&mut self) -> Result<(usize, Option<Commits>)>;
    fn release(&mut self, _partition: Partition) {}
    fn due(&self) -> bool {
        false
    }
}

struct SimSink {
    process: Arc<Process>,
    store: Box<dyn Store>,
    kind: usize,
    encoder: Option<RowEncoder>,
    begun: BTreeSet<Partition>,
    written: u64,
    durable: u64,
    news: Option<Commits>,
    /// After an error nothing is known of what was handed in.
    failed: bool,
}

pub fn open(process: &Arc<Process>, stage: &Stage, shadow: bool) -> Sinks {
    let buffer = Arc::new(Mutex::new(Buffer::default()));
    let store = |kind: usize| -> Box<dyn Store> {
        let process = Arc::clone(process);
        match (process.world.flavour, kind) {
            (Flavour::Transactions, _) => Box::new(Transactions { process, buffer: Arc::clone(&buffer), kind }),
            (Flavour::Folder, 0 | 2) => {
                let disk = Disk { process, of: Of::Folder };
                Box::new(Folder { disk, kind, parts: BTreeMap::new(), due: false, done: (0, None) })
            }
            _ => Box::new(Loose { process, flying: VecDeque::new(), done: 0 }),
        }
    };
    let sink = |kind: usize, encoder| SimSink {
        process: Arc::clone(process),
        store: store(kind),
        kind,
        encoder,
        begun: BTreeSet::new(),
        written: 0,
        durable: 0,
        news: None,
        failed: false,
    };
    let encoder = |stage: &Stage| Some(RowEncoder::new(&stage.layout, &stage.identity));
    let beside = stage.beside.as_ref().filter(|_| shadow);
    let second = beside.map(|beside| Box::new(sink(2, encoder(&beside.stage))) as Box<dyn ForecastSink>);
    Sinks { forecasts: Box::new(sink(0, encoder(stage))), dead_letters: Box::new(sink(1, None)), shadow: second }
}

impl SimSink {
    fn guard<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.failed {
            return Err(Error::internal("sim", "the sink has failed before"));
        }
        let outcome = self.process.try_step("the sink").and_then(|()| run(self));
        self.failed = outcome.is_err();
        outcome
    }

    fn take(&mut self, rows: Vec<Row>) {
        for (_, partition, offset, _) in &rows {
            if !self.begun.contains(partition) {
                self.process.world.violation(format!("row {offset} of partition {partition}, which the lane does not have"));
            }
        }
        self.written += rows.len() as u64;
        self.store.take(rows);
    }

    fn progress(&mut self) -> Result<()> {
        let (rows, commits) = self.store.progress()?;
        self.durable += rows as u64;
        for (partition, commit) in commits.iter().flat_map(Commits::iter) {
            self.news.get_or_insert_default().insert(partition, commit.clone());
        }
        Ok(())
    }
}

impl Sink for SimSink {
    fn recover(&mut self, partition: Partition) -> Result<Option<Commit>> {
        self.guard(|sink| sink.store.recover(partition))
    }

    fn begin(&mut self, partition: Partition, _from: Offset) -> Result<()> {
        self.begun.insert(partition);
        self.process.step()
    }

    fn release(&mut self, partition: Partition) -> Result<()> {
        self.begun.remove(&partition);
        self.store.release(partition);
        self.process.step()
    }

    fn written(&self) -> u64 {
        self.written
    }

    fn durable(&mut self) -> Result<u64> {
        self.guard(|sink| sink.progress().map(|()| sink.durable))
    }

    fn keeps_offsets(&self) -> bool {
        self.process.world.flavour != Flavour::AtLeastOnce
    }

    fn committed(&mut self) -> Result<Option<Commits>> {
        self.guard(|sink| sink.progress().map(|()| sink.news.take()))
    }

    fn is_prompt(&self) -> bool {
        self.process.world.flavour != Flavour::Folder
    }

    fn due(&self) -> bool {
        self.store.due()
    }

    fn is_full(&self) -> bool {
        self.process.world.chance(0.3)
    }

    fn end_epoch(&mut self, commits: &Commits, force: bool) -> Result<bool> {
        self.guard(|sink| {
            sink.store.end(commits, force)?;
            sink.progress()?;
            Ok(sink.durable == sink.written)
        })
    }

    fn close(&mut self) -> Result<()> {
        self.process.step()
    }
}

impl ForecastSink for SimSink {
    fn write(&mut self, forecasts: &Forecasts) -> Result<()> {
        self.guard(|sink| {
            let encoder = sink.encoder.as_mut().expect("the sink of forecasts has one");
            let mut rows = Vec::new();
            for row in 0..forecasts.len() {
                let mut json = Vec::new();
                encoder.row(forecasts, row, &mut json);
                rows.push((sink.kind, forecasts.partitions[row], forecasts.offsets[row], String::from_utf8(json).unwrap()));
            }
            sink.take(rows);
            Ok(())
        })
    }
}

/// Dead letters as rows.
pub fn letters(rejected: &Rejected) -> Vec<Row> {
    let letter = |row: usize| {
        let mut json = Vec::new();
        dead_letter(rejected, row, "cards", &mut json);
        (1, rejected.partitions[row], rejected.offsets[row], String::from_utf8(json).unwrap())
    };
    (0..rejected.len()).map(letter).collect()
}

impl DeadLetterSink for SimSink {
    fn write(&mut self, rejected: &Rejected) -> Result<()> {
        self.guard(|sink| {
            sink.take(letters(rejected));
            Ok(())
        })
    }
}

fn show(process: &Process, rows: Vec<Row>) {
    let mut state = process.world.state();
    for (kind, partition, offset, json) in rows {
        state.outputs[kind].entry((partition, offset)).or_default().push(json);
    }
}

/// One transaction for both kinds of rows and the offsets, ended by the sink of forecasts.
#[derive(Default)]
struct Buffer {
    open: Vec<Row>,
    ended: VecDeque<Ended>,
    /// Rows of each kind, and offsets, that became visible since they were asked for.
    done: [usize; 3],
    news: Option<Commits>,
}

struct Ended {
    rows: Vec<Row>,
    commits: Commits,
    /// Which time it was that the process had each partition.
    terms: BTreeMap<Partition, u64>,
}

struct Transactions {
    process: Arc<Process>,
    buffer: Arc<Mutex<Buffer>>,
    kind: usize,
}

impl Transactions {
    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish_one(&self) -> Result<()> {
        self.process.step()?;
        let mut buffer = self.buffer();
        let Some(Ended { mut rows, mut commits, terms }) = buffer.ended.pop_front() else { return Ok(()) };
        let world = &self.process.world;
        // The broker knows better than a member that has been asleep, or the member knows already.
        if world.fencing && commits.iter().any(|(partition, _)| !self.process.owns(partition)) && world.chance(0.5) {
            return Err(fenced("transaction"));
        }
        // As the real one: what was begun before a partition was lost is not published after it has come back.
        let all: Vec<Partition> = commits.iter().map(|(partition, _)| partition).collect();
        for partition in all {
            let term = self.process.term(partition);
            let same = mutation() == Some("terms") || terms.get(&partition) == term.as_ref();
            if world.fencing && (term.is_none() || !same) {
                commits.remove(partition);
            }
        }
        rows.retain(|row| commits.get(row.1).is_some());
        rows.iter().for_each(|row| buffer.done[row.0] += 1);
        show(&self.process, rows);
        for (partition, commit) in commits.iter() {
            world.commit(partition, commit);
        }
        buffer.news = Some(commits);
        drop(buffer);
        self.process.step()
    }
}

impl Store for Transactions {
    fn take(&mut self, mut rows: Vec<Row>) {
        self.buffer().open.append(&mut rows);
    }

    fn end(&mut self, commits: &Commits, force: bool) -> Result<()> {
        // The one before is still being published: the epoch goes on.
        if self.kind != 0 || (!force && self.process.world.chance(0.4)) {
            return Ok(());
        }
        {
            let mut buffer = self.buffer();
            let rows = std::mem::take(&mut buffer.open);
            let term = |(partition, _)| Some((partition, self.process.term(partition)?));
            let terms = commits.iter().filter_map(term).collect();
            buffer.ended.push_back(Ended { rows, commits: commits.clone(), terms });
        }
        while force && !self.buffer().ended.is_empty() {
            self.publish_one()?;
        }
        Ok(())
    }

    fn progress(&mut self) -> Result<(usize, Option<Commits>)> {
        while self.kind == 0 && !self.buffer().ended.is_empty() && self.process.world.chance(0.4) {
            self.publish_one()?;
        }
        let mut buffer = self.buffer();
        let rows = std::mem::take(&mut buffer.done[self.kind]);
        Ok((rows, if self.kind == 0 { buffer.news.take() } else { None }))
    }

    fn release(&mut self, partition: Partition) {
        if mutation() != Some("release") {
            self.buffer().open.retain(|row| row.1 != partition);
        }
    }
}

/// Files that tile a partition's log: the name is the number of the file, and is taken once.
struct Folder {
    disk: Disk,
    /// Of its rows; those of the shadow are closed only when they are told to.
    kind: usize,
    parts: BTreeMap<Partition, Part>,
    /// Whether the next epoch's end closes the files: dead letters must be durable before.
    due: bool,
    done: (usize, Option<Commits>),
}

#[derive(Default)]
struct Part {
    files: usize,
    committed: Option<Commit>,
    rows: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
struct Content {
    to: i64,
    note: String,
    rows: Vec<(usize, i64, String)>,
}

/// The files of a partition, oldest first.
fn files(objects: &dyn Objects, kind: usize, partition: Partition) -> Result<Vec<(Commit, Vec<Row>)>> {
    let mut found = Vec::new();
    for entry in objects.list(&format!("{kind}-{partition}/"))? {
        let bytes = objects.get(&entry.name)?.unwrap_or_default();
        let content: Content = serde_json::from_slice(&bytes).map_err(|e| Error::internal("sim", format!("{}: {e}", entry.name)))?;
        let commit = Commit { next: Offset(content.to), note: Note::read(&content.note).unwrap() };
        found.push((commit, content.rows.into_iter().map(|(kind, offset, json)| (kind, partition, Offset(offset), json)).collect()));
    }
    Ok(found)
}

/// What the folder shows: rows of a partition and how far it is committed.
pub fn look(objects: &dyn Objects, kind: usize, partition: Partition) -> Result<(Vec<Row>, Option<Commit>)> {
    let files = files(objects, kind, partition)?;
    let last = files.last().map(|(commit, _)| commit.clone());
    Ok((files.into_iter().flat_map(|(_, rows)| rows).collect(), last))
}

impl Store for Folder {
    fn recover(&mut self, partition: Partition) -> Result<Option<Commit>> {
        let found = files(&self.disk, self.kind, partition)?;
        let committed = found.last().map(|(commit, _)| commit.clone());
        self.parts.insert(partition, Part { files: found.len(), committed: committed.clone(), rows: Vec::new() });
        Ok(committed)
    }

    fn take(&mut self, rows: Vec<Row>) {
        for row in rows {
            self.parts.entry(row.1).or_default().rows.push(row);
        }
    }

    fn end(&mut self, commits: &Commits, force: bool) -> Result<()> {
        let process = Arc::clone(&self.disk.process);
        let now = force || self.due;
        self.due = self.kind == 0 && process.world.chance(0.4);
        if !now {
            return Ok(());
        }
        for (partition, part) in &mut self.parts {
            let Some(commit) = commits.get(*partition).filter(|commit| Some(*commit) != part.committed.as_ref()) else { continue };
            let rows: Vec<_> = std::mem::take(&mut part.rows);
            let count = rows.len();
            let rows = rows.into_iter().map(|(kind, _, offset, json)| (kind, offset.0, json)).collect();
            let content = Content { to: commit.next.0, note: commit.note.to_string(), rows };
            let (name, bytes) = (format!("{}-{partition}/{:06}", self.kind, part.files), serde_json::to_vec(&content).unwrap());
            if !process.world.fencing {
                self.disk.put(&name, &bytes)?;
            } else if self.disk.put_new(&name, &bytes)? == Put::Exists {
                return Err(fenced("file"));
            }
            part.files += 1;
            part.committed = Some(commit.clone());
            self.done.0 += count;
            self.done.1.get_or_insert_default().insert(*partition, commit.clone());
        }
        Ok(())
    }

    fn progress(&mut self) -> Result<(usize, Option<Commits>)> {
        Ok(std::mem::take(&mut self.done))
    }

    fn due(&self) -> bool {
        self.due
    }

    fn release(&mut self, partition: Partition) {
        self.parts.remove(&partition);
    }
}

/// Rows fly one by one; one that has arrived may not be known to have.
struct Loose {
    process: Arc<Process>,
    flying: VecDeque<(Row, bool)>,
    done: usize,
}

impl Loose {
    fn land(&mut self) {
        if let Some((row, arrived)) = self.flying.pop_front() {
            if !arrived {
                show(&self.process, vec![row]);
            }
            self.done += 1;
        }
    }
}

impl Store for Loose {
    fn take(&mut self, rows: Vec<Row>) {
        for row in rows {
            let arrived = self.process.world.chance(0.3);
            if arrived {
                show(&self.process, vec![row.clone()]);
            }
            self.flying.push_back((row, arrived));
        }
    }

    fn end(&mut self, _commits: &Commits, force: bool) -> Result<()> {
        while force && !self.flying.is_empty() {
            self.land();
        }
        Ok(())
    }

    fn progress(&mut self) -> Result<(usize, Option<Commits>)> {
        let landing = self.process.world.below(self.flying.len() + 1);
        (0..landing).for_each(|_| self.land());
        Ok((std::mem::take(&mut self.done), None))
    }
}
