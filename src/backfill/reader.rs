//! A file to chunks, all files with the same columns.

use arrow::datatypes::SchemaRef;
use std::sync::Arc;

use super::Positions;
use super::chunk::{Chunk, Sight, of_lines};
use super::columns::{Roles, conform};
use super::survey::FileFacts;
use crate::base::error::{Error, Kind as ErrorKind, Result};
use crate::base::limits::MAX_BATCH_BYTES;
use crate::data::schema::EventSchema;
use crate::link::file::Location;
use crate::link::query::Bound;
use crate::source::file::{Kind, Lines, Rows};

/// Rows of a chunk.
pub const ROWS: usize = 8192;

/// How files are read.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What must be found in a row.
    pub schema: EventSchema,
    /// Columns that are read of Parquet files.
    pub fields: Vec<String>,
    /// These as they are in every file; lines of NDJSON files have one.
    pub columns: SchemaRef,
    /// Which rows are taken, and what columns every chunk has, if not all and those.
    pub query: Option<Bound>,
    /// Whether the files hold lines.
    pub lines: bool,
    /// Columns that say where a row stood in its topic.
    pub positions: Option<Positions>,
    /// Column of numbers that orders rows of the same time.
    pub ties: Option<String>,
    /// Shards.
    pub shards: u32,
}

enum Source {
    Rows(Rows),
    Lines(Lines),
}

/// A file under way.
pub struct Reader {
    path: Location,
    source: Source,
    sight: Sight,
    columns: SchemaRef,
    roles: Roles,
    query: Option<Bound>,
    excluded: u64,
    rows: u64,
    /// Rows and checksum that it had when it was looked at.
    known: Option<(u64, u32)>,
}

impl Reader {
    /// Starts at the first row.
    ///
    /// # Errors
    /// The file cannot be opened or is not what its name says.
    pub fn open(path: &Location, reading: &Reading) -> Result<Self> {
        let source = match Kind::of(path)? {
            Kind::Parquet => Source::Rows(Rows::open(path, &reading.fields)?),
            Kind::Ndjson => Source::Lines(Lines::open(path)?),
        };
        let sight = Sight::new(&reading.schema, reading.positions.as_ref(), reading.ties.as_deref(), reading.shards, reading.lines);
        let (columns, query) = (Arc::clone(&reading.columns), reading.query.clone());
        let roles = Roles::of(&reading.schema, reading.ties.as_deref());
        Ok(Reader { path: path.clone(), source, sight, columns, roles, query, excluded: 0, rows: 0, known: None })
    }

    /// As `open`, of a file that was looked at: at its end it must have been the same.
    ///
    /// # Errors
    /// As `open`.
    pub fn again(file: &FileFacts, reading: &Reading) -> Result<Self> {
        Ok(Reader { known: Some((file.rows, file.seen)), ..Reader::open(&file.path, reading)? })
    }

    /// The error of a file that is not what it was when it was looked at.
    pub fn changed(&self, how: &str) -> Error {
        Error::new(ErrorKind::Data, "backfill", format!("the file has changed while it was read: {how}"))
            .at(self.path.to_string())
            .help("run it again over files that nobody writes to any more, into another folder")
    }

    /// Rows so far that were not taken.
    #[must_use]
    pub fn excluded(&self) -> u64 {
        self.excluded
    }

    /// Checksum of what has been read so far.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        self.sight.checksum()
    }

    /// The next rows that are taken; `None` at the end of the file.
    ///
    /// # Errors
    /// The file cannot be read, a column cannot be read as that of the other files, or an expression has no value for a row.
    pub fn chunk(&mut self) -> Result<Option<Chunk>> {
        let next = self.some()?;
        match (&next, self.known) {
            (Some(chunk), _) => self.rows += u64::try_from(chunk.len()).unwrap_or(0),
            (None, Some((rows, _))) if rows != self.rows => {
                return Err(self.changed(&format!("it has {} rows, and had {rows} when it was looked at", self.rows)));
            }
            (None, Some((_, seen))) if seen != self.checksum() => return Err(self.changed("keys or times are other ones")),
            (None, _) => {}
        }
        Ok(next)
    }

    fn some(&mut self) -> Result<Option<Chunk>> {
        match &mut self.source {
            Source::Rows(rows) => {
                let batch = loop {
                    let Some(batch) = rows.next(ROWS)? else { return Ok(None) };
                    let batch = conform(&batch, &self.columns, &self.roles, &self.path)?;
                    let Some(query) = &self.query else { break batch };
                    let taken = query.apply(&batch).map_err(|e| e.at(self.path.to_string()))?;
                    self.excluded += u64::try_from(batch.num_rows() - taken.num_rows()).unwrap_or(0);
                    if taken.num_rows() > 0 {
                        break taken;
                    }
                };
                self.sight.look(batch).map(Some).map_err(|e| e.at(self.path.to_string()))
            }
            Source::Lines(lines) => {
                let (mut found, mut bytes) = (Vec::new(), 0);
                while found.len() < ROWS && bytes < MAX_BATCH_BYTES {
                    let mut line = Vec::new();
                    if !lines.next(&mut line)? {
                        break;
                    }
                    bytes += line.len();
                    if !line.iter().all(u8::is_ascii_whitespace) {
                        found.push(line);
                    }
                }
                if found.is_empty() {
                    return Ok(None);
                }
                self.sight.look(of_lines(&found)?).map(Some).map_err(|e| e.at(self.path.to_string()))
            }
        }
    }
}
