//! Files that appear whole or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use super::{FORMAT, Place};
use crate::base::clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::offset::{Offset, Partition};

/// Rows of one row group: what a reader must hold at once.
const GROUP_ROWS: usize = 131_072;
/// Bytes that all files of a sink together may hold in memory before their row groups are written out.
const MEMORY: usize = 256 << 20;

/// The open files of a sink.
pub struct Rolling {
    path: PathBuf,
    roll_bytes: u64,
    roll_every: Duration,
    lane: usize,
    schema: SchemaRef,
    properties: WriterProperties,
    fingerprint: String,
    open: BTreeMap<Partition, Open>,
    written: u64,
    durable: u64,
    closed: bool,
}

/// A file that is being written. When dropped before it is finished, it is removed.
struct Open {
    writer: Option<ArrowWriter<File>>,
    temporary: PathBuf,
    from: Offset,
    to: Offset,
    since: Instant,
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.writer.take().is_some() {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn unavailable(path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Kind::Unavailable, "sink", format!("cannot be written: {source}"))
        .at(path.display().to_string())
        .help("see that the folder is there and the disk has room; what was not committed will be written again")
        .caused_by(source)
}

fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_created_by(concat!("meantime ", env!("CARGO_PKG_VERSION")).to_owned())
        .build()
}

impl Rolling {
    /// Makes the folder.
    pub fn open(place: Place<'_>, schema: SchemaRef, fingerprint: &str) -> Result<Self> {
        fs::create_dir_all(place.path).map_err(|e| Error::io("sink", place.path, e))?;
        Ok(Rolling {
            path: place.path.to_owned(),
            roll_bytes: place.roll_bytes,
            roll_every: place.roll_every,
            lane: place.lane,
            schema,
            properties: properties(),
            fingerprint: fingerprint.to_owned(),
            open: BTreeMap::new(),
            written: 0,
            durable: 0,
            closed: false,
        })
    }

    /// Adds rows of a partition, whose smallest and largest offsets are given.
    pub fn write(&mut self, partition: Partition, offsets: (Offset, Offset), batch: &RecordBatch) -> Result<()> {
        if self.closed {
            return Err(Error::internal("sink", "used after close").at(self.path.display().to_string()));
        }
        if !self.open.contains_key(&partition) {
            let fresh = self.start(partition, offsets.0)?;
            self.open.insert(partition, fresh);
        }
        let Some(open) = self.open.get_mut(&partition) else { return Ok(()) };
        open.from = open.from.min(offsets.0);
        open.to = open.to.max(offsets.1.next());
        let result = open.writer.as_mut().map_or(Ok(()), |writer| writer.write(batch));
        result.map_err(|e| unavailable(&open.temporary, e))?;
        self.written += u64::try_from(batch.num_rows()).unwrap_or(0);
        Ok(())
    }

    fn folder(&self, partition: Partition) -> PathBuf {
        self.path.join(format!("partition-{partition}"))
    }

    fn start(&self, partition: Partition, first: Offset) -> Result<Open> {
        let folder = self.folder(partition);
        fs::create_dir_all(&folder).map_err(|e| unavailable(&folder, e))?;
        let temporary = folder.join(format!(".{}.tmp-{}-{}", name(first), std::process::id(), self.lane));
        let file = File::create(&temporary).map_err(|e| unavailable(&temporary, e))?;
        // From here on the file is removed again if something goes wrong.
        let mut open = Open { writer: None, temporary, from: first, to: first, since: clock::tick() };
        match ArrowWriter::try_new(file, self.schema.clone(), Some(self.properties.clone())) {
            Ok(writer) => open.writer = Some(writer),
            Err(e) => {
                let _ = fs::remove_file(&open.temporary);
                return Err(unavailable(&open.temporary, e));
            }
        }
        Ok(open)
    }

    /// Writes row groups out where the files together hold too much in memory.
    pub fn bound_memory(&mut self) -> Result<()> {
        let held: usize = self.open.values().filter_map(|open| open.writer.as_ref()).map(ArrowWriter::memory_size).sum();
        if held > MEMORY {
            for open in self.open.values_mut() {
                if let Some(writer) = &mut open.writer {
                    writer.flush().map_err(|e| unavailable(&open.temporary, e))?;
                }
            }
        }
        Ok(())
    }

    fn due(&self) -> bool {
        self.open.values().any(|open| {
            let bytes = open.writer.as_ref().map_or(0, |writer| writer.bytes_written() + writer.in_progress_size());
            open.since.elapsed() >= self.roll_every || u64::try_from(bytes).unwrap_or(u64::MAX) >= self.roll_bytes
        })
    }

    /// Finishes all files if one is due, or if forced. True if then everything is in finished files.
    pub fn flush(&mut self, force: bool) -> Result<bool> {
        if self.closed {
            return Err(Error::internal("sink", "used after close").at(self.path.display().to_string()));
        }
        if force || self.due() {
            while let Some((partition, open)) = self.open.pop_first() {
                let folder = self.folder(partition);
                open.finish(&folder, &self.fingerprint)?;
            }
        }
        if self.open.is_empty() {
            self.durable = self.written;
        }
        Ok(self.open.is_empty())
    }

    /// Finishes all files; nothing may be written after it.
    pub fn close(&mut self) -> Result<()> {
        if !self.closed {
            self.flush(true)?;
            self.closed = true;
        }
        Ok(())
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

fn name(from: Offset) -> String {
    format!("from={:020}.parquet", from.0)
}

impl Open {
    /// Writes the footer, syncs, and gives the file its name.
    fn finish(mut self, folder: &Path, fingerprint: &str) -> Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let result = self.finished(writer, folder, fingerprint);
        if result.is_err() {
            let _ = fs::remove_file(&self.temporary);
        }
        result
    }

    fn finished(&self, mut writer: ArrowWriter<File>, folder: &Path, fingerprint: &str) -> Result<()> {
        let mut note = |key: &str, value: String| writer.append_key_value_metadata(KeyValue::new(format!("meantime.{key}"), value));
        note("format", FORMAT.to_string());
        note("from", self.from.0.to_string());
        note("to", self.to.0.to_string());
        if !fingerprint.is_empty() {
            note("fingerprint", fingerprint.to_owned());
        }
        let file = writer.into_inner().map_err(|e: ParquetError| unavailable(&self.temporary, e))?;
        file.sync_all().map_err(|e| unavailable(&self.temporary, e))?;
        drop(file);
        let target = folder.join(name(self.from));
        fs::rename(&self.temporary, &target).map_err(|e| unavailable(&target, e))?;
        sync_folder(folder).map_err(|e| unavailable(folder, e))
    }
}

/// A new name is durable when its folder is; only Unix lets a program ask for that.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// The note `meantime.<key>` in a finished file.
#[cfg(test)]
pub fn noted(path: &Path, key: &str) -> Option<String> {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    let notes = reader.metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
    let key = format!("meantime.{key}");
    notes.into_iter().find(|note| note.key == key).and_then(|note| note.value)
}
