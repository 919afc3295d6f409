//! What a finished file says of itself, in its footer.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use parquet::file::reader::ChunkReader;

use super::{FORMAT, Name};
use crate::base::error::{Error, Result};
use crate::base::offset::Offset;
use crate::data::commit::{Commit, Note};

/// Which records a file is about, and the commit that it makes visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// First record that it is about.
    pub from: Offset,
    /// All records below `commit.next` are done once the file has its name.
    pub commit: Commit,
    /// First record that was there to be read, if retention had deleted some from `from` on: those were lost before they were read.
    pub begin: Option<Offset>,
    /// Rows in the file.
    pub rows: u64,
    /// Name of the pipeline that wrote it; `None` in files of earlier versions, and in dead letters.
    pub pipeline: Option<String>,
}

impl Footer {
    /// The notes that a file of these bounds gets.
    pub fn notes(from: Offset, begin: Offset, commit: &Commit, pipeline: Option<&str>) -> Vec<KeyValue> {
        let note = |key: &str, value: String| KeyValue::new(format!("meantime.{key}"), value);
        let mut notes = vec![
            note("format", FORMAT.to_string()),
            note("from", from.to_string()),
            note("to", commit.next.to_string()),
            note("note", commit.note.to_string()),
        ];
        if begin > from {
            notes.push(note("begin", begin.to_string()));
        }
        notes.extend(pipeline.map(|pipeline| note("pipeline", pipeline.to_owned())));
        notes
    }

    /// Reads the footer of the file called `name`; the error says why it is none of ours, in half a sentence.
    pub fn read(name: Name, metadata: &ParquetMetaData) -> std::result::Result<Footer, String> {
        let file = metadata.file_metadata();
        let noted = |key: &str| {
            let notes = file.key_value_metadata().map(Vec::as_slice).unwrap_or_default();
            notes.iter().find(|note| note.key.strip_prefix("meantime.") == Some(key)).and_then(|note| note.value.as_deref())
        };
        match noted("format") {
            None => return Err("it has no meantime.format in its footer: another program wrote it".to_owned()),
            Some("1") => {
                return Err("it has format 1 of an earlier meantime, which does not note how far its run had come".to_owned());
            }
            Some(format) if format != FORMAT.to_string() => {
                return Err(format!("it has format {format}, this meantime reads and writes format {FORMAT}: a newer one wrote it"));
            }
            Some(_) => {}
        }
        let offset = |key: &str| noted(key).and_then(|text| text.parse().ok()).filter(|offset| *offset >= 0).map(Offset);
        let missing = |key: &str| format!("its footer has no usable meantime.{key}");
        let from = offset("from").ok_or_else(|| missing("from"))?;
        let next = offset("to").filter(|to| *to >= from).ok_or_else(|| missing("to"))?;
        let note = noted("note").and_then(Note::read).ok_or_else(|| missing("note"))?;
        if from != name.from {
            return Err(format!("its name says from={}, its footer {from}: it was renamed", name.from));
        }
        let rows = u64::try_from(file.num_rows()).map_err(|_| "its footer has a negative number of rows".to_owned())?;
        Ok(Footer { from, commit: Commit { next, note }, begin: offset("begin"), rows, pipeline: noted("pipeline").map(str::to_owned) })
    }
}

/// The column `offset` of a file of dead letters.
pub fn offsets(file: impl ChunkReader + 'static, place: &str) -> Result<Vec<Offset>> {
    let unreadable = |e: &dyn std::error::Error| foreign(place.to_owned(), &format!("it cannot be read: {e}"));
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| unreadable(&e))?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["offset"]);
    let mut offsets = Vec::new();
    for batch in builder.with_projection(mask).build().map_err(|e| unreadable(&e))? {
        let batch = batch.map_err(|e| unreadable(&e))?;
        let column = batch.column_by_name("offset").and_then(|column| column.as_primitive_opt::<Int64Type>());
        offsets.extend(column.into_iter().flat_map(|column| column.values().iter().map(|offset| Offset(*offset))));
    }
    Ok(offsets)
}

/// The error for a file of another pipeline: to go on from it would leave out this one's records up to where that one has come.
pub fn of_another(place: String, its: &str, own: &str) -> Error {
    Error::config("sink", format!("the pipeline `{its}` wrote these files, and this one is called `{own}`"))
        .at(place)
        .help("name an empty folder as the sink's path; a pipeline that was renamed goes on under its old name")
}

/// The error for a file that a run cannot go on from.
pub fn foreign(place: String, why: &str) -> Error {
    Error::config("sink", format!("the run cannot go on from this file: {why}"))
        .at(place)
        .help("to start over name an empty folder as the sink's path (what is there stays), or move the old files away")
}
