//! The open files of a sink: rows in, files out that appear whole, once, and one after the other.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use super::day::Day;
use super::delta::{Added, Delta, Noted};
use super::footer::{Footer, foreign, of_another};
use super::ledger::{COMMITS, Entry, Ledger};
use super::name::{self, Name};
use super::open::{Form, Open};
use super::spread::{Bench, Spread};
use super::target::{Target, Temporary, writer};
use crate::base::clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::fail_point::fail_point;
use crate::base::offset::{Offset, Partition};
use crate::data::commit::{Commit, Commits};

/// Bytes of rows, as they were before they were encoded, that all files of a sink together may have in open row groups.
const MEMORY: usize = 512 << 20;

/// When files are rolled, and who writes them.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Files are rolled when one has about this many bytes.
    pub roll_bytes: u64,
    /// Files are rolled when one is due for this long.
    pub roll_every: Duration,
    /// Lane that writes.
    pub lane: usize,
}

/// Which files a partition gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tiling {
    /// Also one without rows, where records have been done that brought about none: the newest file is the committed offset.
    Whole,
    /// Only files with rows; each begins where the one before ended.
    WithRows,
}

/// The open files of a sink.
pub struct Rolling {
    target: Box<dyn Target>,
    /// Where files are by date: their commits.
    ledger: Option<Ledger>,
    /// Where files are noted, too.
    delta: Option<Delta>,
    pace: Pace,
    /// Number of this sink in the process, for names of temporary files.
    writer: usize,
    tiling: Tiling,
    /// Name of the pipeline, for the files and against those of another one.
    pipeline: Option<String>,
    form: Form,
    parts: BTreeMap<Partition, Part>,
    written: u64,
    durable: u64,
    /// Whether the next epoch closes the files. Found out after each change and not when asked, so that it cannot become true between the moment
    /// when others act on it (dead letters come first) and the end of the epoch.
    due: bool,
    closed: bool,
    /// Something went wrong: what is open is not whole, and nothing of it may get a name.
    failed: bool,
}

/// A partition that the lane owns.
struct Part {
    /// Name that the next file will get, and first record that it is about.
    next: Name,
    /// First record whose rows come; above `next.from` if retention had deleted the ones between.
    begin: Offset,
    /// Since when there is something to be closed.
    since: Option<Instant>,
    open: Option<Writing>,
    /// Whether what attempts that lost have staged may still lie about.
    unswept: bool,
    /// Rows that finished files have, though their records come again.
    already: HashSet<Offset>,
}

/// What is open for a partition.
enum Writing {
    /// One file.
    One(Box<Open>),
    /// Files by date.
    Dates(Spread),
}

impl Writing {
    fn bytes(&self) -> u64 {
        match self {
            Writing::One(open) => u64::try_from(open.bytes()).unwrap_or(u64::MAX),
            Writing::Dates(spread) => spread.bytes(),
        }
    }

    fn memory(&self) -> usize {
        match self {
            Writing::One(open) => open.memory(),
            Writing::Dates(spread) => spread.memory(),
        }
    }
}

impl Rolling {
    /// A sink without partitions.
    pub fn new(target: Box<dyn Target>, pace: Pace, tiling: Tiling, schema: SchemaRef) -> Self {
        Rolling {
            target,
            ledger: None,
            delta: None,
            pace,
            writer: writer(),
            tiling,
            pipeline: None,
            form: Form::new(schema),
            parts: BTreeMap::new(),
            written: 0,
            durable: 0,
            due: false,
            closed: false,
            failed: false,
        }
    }

    /// The same, whose files are by date; the target's partitions are within the folder of commits.
    pub fn by_date(self, ledger: Ledger) -> Self {
        Rolling { ledger: Some(ledger), ..self }
    }

    /// The same, whose files are noted in a table.
    pub fn with_delta(self, delta: Option<Delta>) -> Self {
        Rolling { delta, ..self }
    }

    /// The same of a pipeline, whose name is noted in the files; files of another one are refused. An empty name is none.
    pub fn of(self, pipeline: &str) -> Self {
        Rolling { pipeline: Some(pipeline.to_owned()).filter(|name| !name.is_empty()), ..self }
    }

    /// The name under which a file is written.
    #[cfg(test)]
    pub fn temporary(&self, name: Name) -> String {
        Temporary::of(name, self.pace.lane, self.writer).to_string()
    }

    /// How far the partition's files have come: what the newest one's footer says. `None` if there is no file yet.
    pub fn recover(&mut self, partition: Partition) -> Result<Option<Commit>> {
        self.usable()?;
        self.target.sweep(partition)?;
        self.refuse_other_layout(partition)?;
        Ok(self.newest(partition)?.map(|(_, footer)| footer.commit))
    }

    /// Files of the other layout are no part of this one: a run that did not see them would write their rows again.
    fn refuse_other_layout(&self, partition: Partition) -> Result<()> {
        let folder = name::folder(partition);
        let (other, its, ours) = match &self.ledger {
            Some(_) => (folder, "partition", "date"),
            None => (format!("{COMMITS}{folder}"), "date", "partition"),
        };
        if !self.target.holds(&other)? {
            return Ok(());
        }
        let text = format!("files of partition {partition} are here by {its}, and this run would write them by {ours}");
        let place = self.target.place(partition, None);
        Err(Error::config("sink", text).at(place).help("go on with the layout that is there, or name an empty folder"))
    }

    fn newest(&self, partition: Partition) -> Result<Option<(Name, Footer)>> {
        let newest = if let Some(ledger) = &self.ledger {
            ledger.settle(partition)?.map(|(name, entry)| (name, entry.footer))
        } else if let Some(name) = self.target.list(partition)?.pop() {
            Some((name, self.footer(partition, name)?))
        } else {
            None
        };
        if let Some((name, footer)) = &newest
            && let (Some(own), Some(its)) = (&self.pipeline, &footer.pipeline)
            && own != its
        {
            return Err(of_another(self.target.place(partition, Some(*name)), its, own));
        }
        Ok(newest)
    }

    fn footer(&self, partition: Partition, name: Name) -> Result<Footer> {
        let read = self.target.footer(partition, name)?.and_then(|metadata| Footer::read(name, &metadata));
        read.map_err(|why| foreign(self.target.place(partition, Some(name)), &why))
    }

    /// The partition's rows come from now on, for records from `from` on. The next file goes on where the newest one ended, whoever wrote it: so two
    /// writers that started from the same file want the same name for their next one, and only one of them gets it.
    pub fn begin(&mut self, partition: Partition, from: Offset) -> Result<()> {
        self.usable()?;
        let newest = self.newest(partition)?;
        self.follow(partition, newest.as_ref().map(|(name, footer)| name.after(footer.commit.next)))?;
        let (next, end) = newest.map_or((Name::first(from), from), |(name, footer)| (name.after(footer.commit.next), footer.commit.next));
        let mut already = HashSet::new();
        if self.tiling == Tiling::WithRows {
            already = self.already(partition, from)?;
        } else if from < end {
            let text = format!("partition {partition} begins at {from}, but its files have come to {end}: rows would come twice");
            return Err(Error::internal("sink", text).at(self.target.place(partition, None)));
        }
        // What retention deleted is lost for forecasts; between two files of dead letters there were none.
        let begin = if self.tiling == Tiling::Whole { from.max(next.from) } else { next.from };
        self.parts.insert(partition, Part { next, begin, since: None, open: None, unswept: true, already });
        Ok(())
    }

    /// Notes the finished files of a partition that are not noted yet; `next` is the name that comes after them.
    fn follow(&mut self, partition: Partition, next: Option<Name>) -> Result<()> {
        let Some(delta) = &self.delta else { return Ok(()) };
        let noted = delta.next(partition);
        if let Some(noted) = noted.filter(|noted| next.is_none_or(|next| next < *noted)) {
            let end = next.map_or_else(|| "there is none".to_owned(), |next| format!("they end at {}", next.from));
            let text = format!(
                "the table has files up to record {} of partition {partition}, but of these files {end}: the newest are gone",
                noted.from
            );
            let help = match self.ledger {
                Some(_) => "a run goes on from its newest commit: restore it, or begin in an empty folder",
                None => "a run goes on from its newest file: restore it, or begin in an empty folder; do not let VACUUM remove these files",
            };
            return Err(Error::config("sink", text).at(self.target.place(partition, None)).help(help));
        }
        let fresh = |names: Vec<Name>| names.into_iter().filter(|name| noted.is_none_or(|noted| *name >= noted)).collect::<Vec<_>>();
        let mut behind = Vec::new();
        if let Some(ledger) = &self.ledger {
            for name in fresh(ledger.names(partition)?) {
                let entry = ledger.entry(partition, name)?;
                behind.push(Noted { partition, name, to: entry.footer.commit.next, files: Added::of_dates(&entry) });
            }
        } else {
            let names = fresh(self.target.list(partition)?);
            let sizes = if names.is_empty() { BTreeMap::new() } else { delta.sizes(partition)? };
            for name in names {
                let footer = self.footer(partition, name)?;
                let files = Added::of_partition(partition, name, footer.rows, sizes.get(&name).copied().unwrap_or(0));
                behind.push(Noted { partition, name, to: footer.commit.next, files });
            }
        }
        self.delta.as_mut().map_or(Ok(()), |delta| delta.append(&behind))
    }

    /// Offsets of the rows in files that end at or above `from`. An attempt that died between the closing of these files and the commit of `from` has
    /// written them; the same rows come again, byte for byte, and are dropped then. Files that end below `from` hold none of them: their rows
    /// came of records that are committed.
    fn already(&self, partition: Partition, from: Offset) -> Result<HashSet<Offset>> {
        let mut already = HashSet::new();
        for name in self.target.list(partition)?.into_iter().rev() {
            if self.footer(partition, name)?.commit.next < from {
                break;
            }
            already.extend(self.target.offsets(partition, name)?);
        }
        Ok(already)
    }

    /// The rows that are not in a finished file already; those that are count as written.
    pub fn fresh(&mut self, partition: Partition, rows: &[usize], offsets: &[Offset]) -> Vec<usize> {
        let Some(part) = self.parts.get_mut(&partition).filter(|part| !part.already.is_empty()) else { return rows.to_vec() };
        let fresh: Vec<usize> =
            rows.iter().filter(|row| offsets.get(**row).is_none_or(|offset| !part.already.remove(offset))).copied().collect();
        self.count(rows.len() - fresh.len());
        fresh
    }

    /// Adds rows of a partition; where files are by date, all of one.
    pub fn write(&mut self, partition: Partition, day: Option<Day>, batch: RecordBatch) -> Result<()> {
        self.usable()?;
        let rows = batch.num_rows();
        let result = self.append(partition, day, batch);
        self.failed |= result.is_err();
        result?;
        self.count(rows);
        self.due |= self.is_due();
        Ok(())
    }

    fn count(&mut self, rows: usize) {
        self.written += u64::try_from(rows).unwrap_or(0);
        if self.parts.values().all(|part| part.open.is_none()) {
            self.durable = self.written;
        }
    }

    fn append(&mut self, partition: Partition, day: Option<Day>, batch: RecordBatch) -> Result<()> {
        let Some(part) = self.parts.get_mut(&partition) else {
            return Err(Error::internal("sink", format!("a row of partition {partition} came before `begin`")));
        };
        let bench = Bench { target: &*self.target, form: &self.form, partition, name: part.next, lane: self.pace.lane };
        part.since.get_or_insert_with(clock::tick);
        let writing = match &mut part.open {
            Some(writing) => writing,
            empty if self.ledger.is_some() => empty.insert(Writing::Dates(Spread::default())),
            empty => {
                let temporary = Temporary::of(part.next, self.pace.lane, self.writer);
                empty.insert(Writing::One(Box::new(Open::create(self.target.draft(partition, temporary)?, &self.form)?)))
            }
        };
        match (writing, day) {
            (Writing::One(open), _) => open.write(batch),
            (Writing::Dates(spread), Some(day)) => spread.write(&bench, day, batch),
            (Writing::Dates(_), None) => Err(Error::internal("sink", "rows by date without a date")),
        }
    }

    /// Writes row groups out where the files together hold too much in memory.
    pub fn bound_memory(&mut self) -> Result<()> {
        let held: usize = self.parts.values().filter_map(|part| part.open.as_ref()).map(Writing::memory).sum();
        if held <= MEMORY {
            return Ok(());
        }
        for (partition, part) in &mut self.parts {
            let bench = Bench { target: &*self.target, form: &self.form, partition: *partition, name: part.next, lane: self.pace.lane };
            let flushed = match &mut part.open {
                Some(Writing::One(open)) => open.flush(),
                Some(Writing::Dates(spread)) => spread.flush(&bench),
                None => Ok(()),
            };
            self.failed |= flushed.is_err();
            flushed?;
        }
        Ok(())
    }

    /// Whether a file is large or old enough: then the next epoch closes all of them.
    pub fn due(&self) -> bool {
        self.due
    }

    fn is_due(&self) -> bool {
        self.parts.values().any(|part| {
            part.since.is_some_and(|since| since.elapsed() >= self.pace.roll_every)
                || part.open.as_ref().map_or(0, Writing::bytes) >= self.pace.roll_bytes
        })
    }

    /// All rows so far belong to records below `commits`. Closes all files if one is due, or if forced: then everything is in finished files, and
    /// true is returned.
    pub fn end_epoch(&mut self, commits: &Commits, force: bool) -> Result<bool> {
        self.usable()?;
        if self.tiling == Tiling::Whole {
            for (partition, commit) in commits.iter() {
                if let Some(part) = self.parts.get_mut(&partition).filter(|part| commit.next > part.next.from) {
                    part.since.get_or_insert_with(clock::tick);
                }
            }
        }
        if force || self.due {
            let result = self.close_files(commits);
            self.failed |= result.is_err();
            result?;
        }
        let whole = self.parts.values().all(|part| part.open.is_none());
        if whole {
            self.durable = self.written;
        }
        self.due = self.is_due();
        Ok(whole)
    }

    fn close_files(&mut self, commits: &Commits) -> Result<()> {
        let mut noted = Vec::new();
        for (partition, part) in &mut self.parts {
            let Some(commit) = commits.get(*partition) else {
                if part.open.is_some() {
                    return Err(Error::internal("sink", format!("rows of partition {partition} without a commit")));
                }
                continue;
            };
            let temporary = || Temporary::of(part.next, self.pace.lane, self.writer);
            let writing = match part.open.take() {
                Some(writing) => writing,
                // Without it the records below the commit would be done again at every start, and the files would not say how far the run has come.
                None if self.tiling == Tiling::Whole && commit.next > part.next.from => match self.ledger {
                    Some(_) => Writing::Dates(Spread::default()),
                    None => Writing::One(Box::new(Open::create(self.target.draft(*partition, temporary())?, &self.form)?)),
                },
                None => continue,
            };
            let mut commit = commit.clone();
            if self.tiling == Tiling::WithRows {
                // Where the pipeline was changed after a crash there may be new dead letters among records that a file is about already.
                commit.next = commit.next.max(part.next.from);
            } else if commit.next < part.begin {
                let text = format!("partition {partition} was begun at {} and is committed at {}", part.begin, commit.next);
                return Err(Error::internal("sink", text));
            }
            let (partition, name, target) = (*partition, part.next, &*self.target);
            let files = match (writing, &self.ledger) {
                (Writing::Dates(spread), Some(ledger)) => {
                    let bench = Bench { target, form: &self.form, partition, name, lane: self.pace.lane };
                    let entry = commit_dates(&bench, ledger, spread, part.begin, (&commit, self.pipeline.as_deref()))?;
                    if std::mem::take(&mut part.unswept) {
                        ledger.sweep(partition, name)?;
                    }
                    Added::of_dates(&entry)
                }
                (Writing::One(open), _) => commit_one(target, partition, *open, name, part.begin, (&commit, self.pipeline.as_deref()))?,
                (Writing::Dates(_), None) => return Err(Error::internal("sink", "rows by date without a ledger")),
            };
            noted.push(Noted { partition, name, to: commit.next, files });
            part.next = part.next.after(commit.next);
            part.begin = part.next.from;
            part.since = None;
        }
        // They are committed by their names. If this fails, who takes the partition over notes them.
        self.delta.as_mut().map_or(Ok(()), |delta| delta.append(&noted))
    }

    /// The lane does not own the partition any more: rows after its last epoch are thrown away.
    pub fn release(&mut self, partition: Partition) {
        self.parts.remove(&partition);
    }

    /// Throws away what came after the last epoch: nothing says to which records it belongs, and it comes again.
    pub fn close(&mut self) {
        self.parts.clear();
        self.closed = true;
    }

    fn usable(&self) -> Result<()> {
        match (self.closed, self.failed) {
            (true, _) => Err(Error::internal("sink", "used after close")),
            (_, true) => Err(Error::internal("sink", "used after an error; see the one before")),
            _ => Ok(()),
        }
    }

    /// Rows handed in.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Rows that were in finished files when there last was nothing else.
    pub fn durable(&self) -> u64 {
        self.durable
    }
}

/// Writes the footer, and gives the file its name.
fn commit_one(
    target: &dyn Target,
    partition: Partition,
    open: Open,
    name: Name,
    begin: Offset,
    (commit, pipeline): (&Commit, Option<&str>),
) -> Result<Vec<Added>> {
    let written = open.end(Footer::notes(name.from, begin, commit, pipeline))?;
    if target.put_new(written.file, &written.draft, partition, &name.to_string())? {
        return Ok(Added::of_partition(partition, name, written.rows, written.bytes));
    }
    Err(taken(partition, target.place(partition, Some(name))))
}

/// Stages the files of the dates, commits them, and moves them to where readers look.
fn commit_dates(
    bench: &Bench<'_>,
    ledger: &Ledger,
    spread: Spread,
    begin: Offset,
    (commit, pipeline): (&Commit, Option<&str>),
) -> Result<Entry> {
    let entry = Entry::new(bench.name.from, begin, commit, spread.end(bench)?).of(pipeline);
    fail_point("files.staged");
    if bench.commit(&entry)? {
        fail_point("files.committed");
        ledger.publish(bench.partition, &entry)?;
        fail_point("files.moved");
        return Ok(entry);
    }
    let error = taken(bench.partition, ledger.place(bench.partition, bench.name));
    // What this attempt has staged is removed, or moved if it is what the other one has committed.
    Err(ledger.settle(bench.partition).err().map_or(error, |e| e))
}

fn taken(partition: Partition, place: String) -> Error {
    let text = format!("another instance writes partition {partition} too and has come first: this file is there already");
    Error::new(Kind::Retry, "sink", text)
        .at(place)
        .help("this one stops; nothing is lost: started again it goes on where the files have come to. Let one instance at a time write")
}
