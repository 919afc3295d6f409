//! Reads the positions of dead letters back from files, for `meantime verify`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use arrow::array::{Array, Int32Array, Int64Array, RecordBatch, StringArray};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::reader::ChunkReader;
use serde::Deserialize;

use crate::base::error::{Error, Kind, Result};
use crate::base::limits::MAX_RECORD_BYTES;
use crate::base::offset::{Offset, Partition};
use crate::link::objects::Place;

const STAGE: &str = "verify";
/// Longest line that is read: a payload in base64 or escapes, with what stands around it.
const MAX_LINE: u64 = 8 * MAX_RECORD_BYTES as u64;

/// What a dead letter says of its record.
#[derive(Deserialize)]
struct Letter {
    topic: Option<String>,
    partition: i32,
    offset: i64,
}

/// Position of the record of a dead letter written as JSON; `Ok(None)` if it came from elsewhere than `topic`.
///
/// # Errors
/// The text is no dead letter.
pub fn position(text: &[u8], topic: &str) -> std::result::Result<Option<(Partition, Offset)>, serde_json::Error> {
    let letter: Letter = serde_json::from_slice(text)?;
    let ours = letter.topic.as_deref().is_none_or(|from| from == topic);
    Ok(ours.then_some((Partition(letter.partition), Offset(letter.offset))))
}

/// What stands in a file of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// Lines that are no dead letters, such as one that a crash has cut off.
    pub unreadable: u64,
    /// Dead letters of records from other topics.
    pub foreign: u64,
}

/// Hands the position of every dead letter in an NDJSON file to `each`. A file that is not there holds none.
///
/// # Errors
/// The file cannot be read.
pub fn ndjson(path: &Path, topic: &str, each: &mut dyn FnMut((Partition, Offset))) -> Result<Lines> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Lines::default()),
        Err(error) => return Err(Error::io(STAGE, path, error)),
    };
    let (mut reader, mut line, mut told) = (BufReader::with_capacity(1 << 20, file), Vec::new(), Lines::default());
    loop {
        line.clear();
        let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).map_err(|e| Error::io(STAGE, path, e))?;
        if read == 0 {
            return Ok(told);
        }
        match position(&line, topic) {
            Ok(Some(at)) => each(at),
            Ok(None) => told.foreign += 1,
            Err(_) if line.trim_ascii().is_empty() => {}
            Err(_) => told.unreadable += 1,
        }
    }
}

/// Hands the position of every dead letter in a folder or bucket of Parquet files to `each`; returns how many are of records from other topics. A
/// folder that is not there holds none. Hidden files are not finished and do not count.
///
/// # Errors
/// A file cannot be read, or has no columns `partition` and `offset`.
pub fn parquet(place: &Place, topic: &str, each: &mut dyn FnMut((Partition, Offset))) -> Result<u64> {
    let mut foreign = 0;
    let Some(folder) = place.folder() else {
        let objects = place.open()?;
        for entry in objects.list("")? {
            let mut parts = entry.name.split('/').rev();
            let finished = parts.next().is_some_and(|name| !name.starts_with('.') && name.ends_with(".parquet"));
            if finished && parts.all(|folder| folder.starts_with("partition-")) {
                let bytes = objects.get(&entry.name)?.unwrap_or_default();
                foreign += file(Bytes::from(bytes), &format!("{objects}/{}", entry.name), topic, each)?;
            }
        }
        return Ok(foreign);
    };
    for path in files(folder)? {
        let opened = File::open(&path).map_err(|e| Error::io(STAGE, &path, e))?;
        foreign += file(opened, &path.display().to_string(), topic, each)?;
    }
    Ok(foreign)
}

fn file(file: impl ChunkReader + 'static, place: &str, topic: &str, each: &mut dyn FnMut((Partition, Offset))) -> Result<u64> {
    let broken =
        |text: String| Error::new(Kind::Check, STAGE, text).at(place.to_owned()).help("it is no file of dead letters: move it elsewhere");
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| broken(e.to_string()))?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["topic", "partition", "offset"]);
    let mut foreign = 0;
    for batch in builder.with_projection(mask).build().map_err(|e| broken(e.to_string()))? {
        let batch = batch.map_err(|e| broken(e.to_string()))?;
        foreign += rows(&batch, topic, each).ok_or_else(|| broken("it has no columns `partition` and `offset`".to_owned()))?;
    }
    Ok(foreign)
}

fn rows(batch: &RecordBatch, topic: &str, each: &mut dyn FnMut((Partition, Offset))) -> Option<u64> {
    let partitions = batch.column_by_name("partition")?.as_any().downcast_ref::<Int32Array>()?;
    let offsets = batch.column_by_name("offset")?.as_any().downcast_ref::<Int64Array>()?;
    let topics = batch.column_by_name("topic").and_then(|column| column.as_any().downcast_ref::<StringArray>());
    let mut foreign = 0;
    for (row, (partition, offset)) in partitions.iter().zip(offsets.iter()).enumerate() {
        if topics.is_some_and(|topics| topics.is_valid(row) && topics.value(row) != topic) {
            foreign += 1;
        } else {
            each((Partition(partition?), Offset(offset?)));
        }
    }
    Some(foreign)
}

/// The finished Parquet files of a sink, in order.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(STAGE, folder, error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| Error::io(STAGE, folder, e))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() && name.starts_with("partition-") {
            found.extend(files(&path)?);
        } else if !name.starts_with('.') && name.ends_with(".parquet") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::commit::Commit;
    use crate::data::rejected::{Reason, Rejected};
    use crate::sink::{Settings, Sink, open_dead_letters};
    use std::time::Duration;

    fn rejected() -> Rejected {
        let mut rejected = Rejected::default();
        for (partition, offset) in [(0, 3), (2, 1), (2, 9)] {
            rejected.push((Partition(partition), Offset(offset)), Reason::Malformed, "not JSON", Some(b"k"), Some(b"{\n"));
        }
        rejected
    }

    fn written(settings: &Settings) {
        for origin in ["cards", "other"] {
            let mut sink = open_dead_letters(settings, origin, 0).unwrap();
            for partition in [Partition(0), Partition(2)] {
                sink.begin(partition, Offset(0)).unwrap();
            }
            sink.write(&rejected()).unwrap();
            let ends = [(0, 4), (2, 10)].map(|(partition, next)| (Partition(partition), Commit::at(Offset(next))));
            sink.end_epoch(&ends.into_iter().collect(), true).unwrap();
            Sink::close(&mut *sink).unwrap();
            if matches!(settings, Settings::Parquet { .. }) {
                return;
            }
        }
    }

    #[test]
    fn dead_letters_are_found_where_the_sinks_have_written_them() {
        let folder = tempfile::tempdir().unwrap();
        let (file, tables) = (folder.path().join("dead.ndjson"), folder.path().join("dead"));
        written(&Settings::Ndjson { path: file.clone() });
        written(&Settings::Parquet {
            place: Place::Folder(tables.clone()),
            roll_bytes: 1 << 20,
            roll_every: Duration::from_secs(60),
            delta: None,
            folders: Default::default(),
        });
        std::fs::write(tables.join("partition-0/.hidden.parquet"), "half a file").unwrap();
        let expected = [(0, 3), (2, 1), (2, 9)].map(|(partition, offset)| (Partition(partition), Offset(offset)));
        let mut found = Vec::new();
        assert_eq!(ndjson(&file, "cards", &mut |at| found.push(at)).unwrap(), Lines { unreadable: 0, foreign: 3 });
        assert_eq!(found, expected);
        found.clear();
        parquet(&Place::Folder(tables.clone()), "cards", &mut |at| found.push(at)).unwrap();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_line_that_a_crash_has_cut_off_is_counted_and_the_rest_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("dead.ndjson");
        std::fs::write(&file, "{\"partition\":0,\"offset\":1}\n{\"partition\":0,\"off{\"partition\":0}\n\n{\"partition\":0,\"offset\":2}")
            .unwrap();
        let mut found = Vec::new();
        assert_eq!(ndjson(&file, "t", &mut |at| found.push(at.1.0)).unwrap(), Lines { unreadable: 1, foreign: 0 });
        assert_eq!(found, [1, 2]);
    }

    #[test]
    fn places_that_are_not_there_hold_no_dead_letters() {
        let folder = tempfile::tempdir().unwrap();
        let count = std::cell::Cell::new(0);
        let mut each = |_| count.set(count.get() + 1);
        assert_eq!(ndjson(&folder.path().join("a"), "t", &mut each).unwrap(), Lines::default());
        assert_eq!(parquet(&Place::Folder(folder.path().join("b")), "t", &mut each).unwrap(), 0);
        assert_eq!(count.get(), 0);
    }
}
