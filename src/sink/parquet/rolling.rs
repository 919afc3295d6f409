//! The open files of a sink: rows in, files out that appear whole, once, and one after the other.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::time::{Duration, Instant};

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use super::delta::{Delta, Noted};
use super::footer::{Footer, foreign};
use super::name::Name;
use super::scribe::{GROUP_ROWS, Scribe, Writing};
use super::target::{Draft, Target, Temporary, unavailable, writer};
use crate::base::clock;
use crate::base::error::{Error, Kind, Result};
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
    /// Where files are noted, too.
    delta: Option<Delta>,
    pace: Pace,
    /// Number of this sink in the process, for names of temporary files.
    writer: usize,
    tiling: Tiling,
    schema: SchemaRef,
    properties: WriterProperties,
    parts: BTreeMap<Partition, Part>,
    scribe: Scribe,
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
    open: Option<Open>,
    /// Rows that finished files have, though their records come again.
    already: HashSet<Offset>,
}

/// A file that is being written.
struct Open {
    writing: Writing,
    rows: u64,
    draft: Draft,
}

fn properties(schema: &SchemaRef) -> WriterProperties {
    let builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_created_by(concat!("meantime ", env!("CARGO_PKG_VERSION")).to_owned());
    // Numbers hardly repeat, and identifiers of events do not: a dictionary of them is built only to be given up.
    let single = schema.fields().iter().filter(|field| {
        let number = field.data_type().is_floating() || matches!(field.data_type(), DataType::Int64 | DataType::Timestamp(..));
        number || field.name() == "event_id"
    });
    single.fold(builder, |builder, field| builder.set_column_dictionary_enabled(ColumnPath::from(field.name().as_str()), false)).build()
}

impl Rolling {
    /// A sink without partitions.
    pub fn new(target: Box<dyn Target>, pace: Pace, tiling: Tiling, schema: SchemaRef) -> Self {
        Rolling {
            target,
            delta: None,
            pace,
            writer: writer(),
            tiling,
            properties: properties(&schema),
            schema,
            parts: BTreeMap::new(),
            scribe: Scribe::default(),
            written: 0,
            durable: 0,
            due: false,
            closed: false,
            failed: false,
        }
    }

    /// The same, whose files are noted in a table.
    pub fn with_delta(self, delta: Option<Delta>) -> Self {
        Rolling { delta, ..self }
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
        Ok(self.newest(partition)?.map(|(_, footer)| footer.commit))
    }

    fn newest(&self, partition: Partition) -> Result<Option<(Name, Footer)>> {
        let Some(name) = self.target.list(partition)?.pop() else { return Ok(None) };
        Ok(Some((name, self.footer(partition, name)?)))
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
        self.parts.insert(partition, Part { next, begin, since: None, open: None, already });
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
            return Err(Error::config("sink", text).at(self.target.place(partition, None)).help(
                "a run goes on from its newest file: restore it, or begin in an empty folder; do not let VACUUM remove these files",
            ));
        }
        let names: Vec<Name> = self.target.list(partition)?.into_iter().filter(|name| noted.is_none_or(|noted| *name >= noted)).collect();
        let sizes = if names.is_empty() { BTreeMap::new() } else { delta.sizes(partition)? };
        let mut behind = Vec::new();
        for name in names {
            let footer = self.footer(partition, name)?;
            let bytes = sizes.get(&name).copied().unwrap_or(0);
            behind.push(Noted { partition, name, to: footer.commit.next, rows: footer.rows, bytes });
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

    /// Adds rows of a partition.
    pub fn write(&mut self, partition: Partition, batch: RecordBatch) -> Result<()> {
        self.usable()?;
        let rows = batch.num_rows();
        let result = self.append(partition, batch);
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

    fn append(&mut self, partition: Partition, batch: RecordBatch) -> Result<()> {
        let Some(part) = self.parts.get_mut(&partition) else {
            return Err(Error::internal("sink", format!("a row of partition {partition} came before `begin`")));
        };
        let open = match &mut part.open {
            Some(open) => open,
            empty => {
                let temporary = Temporary::of(part.next, self.pace.lane, self.writer);
                part.since.get_or_insert_with(clock::tick);
                empty.insert(Open::create(&mut self.scribe, self.target.draft(partition, temporary)?, &self.schema, &self.properties)?)
            }
        };
        open.rows += u64::try_from(batch.num_rows()).unwrap_or(0);
        open.writing.write(batch).map_err(|e| unavailable(&open.draft.path, e))
    }

    /// Writes row groups out where the files together hold too much in memory.
    pub fn bound_memory(&mut self) -> Result<()> {
        let held: usize = self.parts.values().filter_map(|part| part.open.as_ref()).map(|open| open.writing.held()).sum();
        if held > MEMORY {
            for open in self.parts.values_mut().filter_map(|part| part.open.as_mut()) {
                if let Err(e) = open.writing.flush() {
                    self.failed = true;
                    return Err(unavailable(&open.draft.path, e));
                }
            }
        }
        Ok(())
    }

    /// Whether a file is large or old enough: then the next epoch closes all of them.
    pub fn due(&self) -> bool {
        self.due
    }

    fn is_due(&self) -> bool {
        self.parts.values().any(|part| {
            let bytes = part.open.as_ref().map_or(0, |open| open.writing.bytes());
            part.since.is_some_and(|since| since.elapsed() >= self.pace.roll_every)
                || u64::try_from(bytes).unwrap_or(u64::MAX) >= self.pace.roll_bytes
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
            let open = match part.open.take() {
                Some(open) => open,
                // Without it the records below the commit would be done again at every start, and the files would not say how far the run has come.
                None if self.tiling == Tiling::Whole && commit.next > part.next.from => {
                    let temporary = Temporary::of(part.next, self.pace.lane, self.writer);
                    Open::create(&mut self.scribe, self.target.draft(*partition, temporary)?, &self.schema, &self.properties)?
                }
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
            let rows = open.rows;
            let bytes = open.finish(&*self.target, *partition, part.next, part.begin, &commit)?;
            noted.push(Noted { partition: *partition, name: part.next, to: commit.next, rows, bytes });
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

impl Open {
    fn create(scribe: &mut Scribe, (file, draft): (File, Draft), schema: &SchemaRef, properties: &WriterProperties) -> Result<Open> {
        let writer = ArrowWriter::try_new(file, schema.clone(), Some(properties.clone()));
        let writing = writer.and_then(|writer| scribe.open(writer)).map_err(|e| unavailable(&draft.path, e))?;
        Ok(Open { writing, rows: 0, draft })
    }

    /// Writes the footer, and gives the file its name. Returns its bytes.
    fn finish(self, target: &dyn Target, partition: Partition, name: Name, begin: Offset, commit: &Commit) -> Result<u64> {
        let Open { writing, draft, .. } = self;
        let file = writing.finish(Footer::notes(name.from, begin, commit)).map_err(|e| unavailable(&draft.path, e))?;
        let bytes = file.metadata().map_err(|e| unavailable(&draft.path, e))?.len();
        if target.put_new(file, &draft, partition, name)? {
            return Ok(bytes);
        }
        let text = format!("another instance writes partition {partition} too and has come first: this file is there already");
        Err(Error::new(Kind::Retry, "sink", text).at(target.place(partition, Some(name))).help(
            "this one stops; nothing is lost: started again it goes on where the files have come to. Let one instance at a time write",
        ))
    }
}
