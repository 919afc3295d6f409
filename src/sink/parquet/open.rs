//! A Parquet file that is being written.

use std::fs::File;
use std::io::{self, Write};

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use sha2::{Digest, Sha256};

use super::scribe::{GROUP_ROWS, Scribe, Writing};
use super::target::{Draft, unavailable};
use crate::base::error::Result;

/// Columns of a file, and how they are stored.
pub struct Form {
    /// Names and types.
    pub schema: SchemaRef,
    properties: WriterProperties,
    scribe: Scribe,
}

impl Form {
    /// Files with these columns.
    pub fn new(schema: SchemaRef) -> Self {
        let builder = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_created_by(concat!("meantime ", env!("CARGO_PKG_VERSION")).to_owned());
        // Numbers hardly repeat, and identifiers of events do not: a dictionary of them is built only to be given up.
        let single = schema.fields().iter().filter(|field| {
            let number = field.data_type().is_floating() || matches!(field.data_type(), DataType::Int64 | DataType::Timestamp(..));
            number || field.name() == "event_id"
        });
        let plain = |builder: parquet::file::properties::WriterPropertiesBuilder, name: &str| {
            builder.set_column_dictionary_enabled(ColumnPath::from(name), false)
        };
        let properties = single.fold(builder, |builder, field| plain(builder, field.name())).build();
        Form { schema, properties, scribe: Scribe::default() }
    }
}

/// A file that is being written.
pub struct Open {
    writing: Writing<Hashing>,
    rows: u64,
    draft: Draft,
}

/// A file whose rows and footer are written; it has no name yet.
pub struct Written {
    /// The file.
    pub file: File,
    /// Its temporary name.
    pub draft: Draft,
    /// Its rows.
    pub rows: u64,
    /// Its bytes.
    pub bytes: u64,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
}

impl Open {
    /// A file without rows.
    pub fn create((file, draft): (File, Draft), form: &Form) -> Result<Open> {
        let file = Hashing { file, hash: Sha256::new(), bytes: 0 };
        let writer = ArrowWriter::try_new(file, form.schema.clone(), Some(form.properties.clone()));
        let writing = writer.and_then(|writer| form.scribe.open(writer)).map_err(|e| unavailable(&draft.path, e))?;
        Ok(Open { writing, rows: 0, draft })
    }

    /// Adds rows.
    pub fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.rows += u64::try_from(batch.num_rows()).unwrap_or(0);
        self.writing.write(batch).map_err(|e| unavailable(&self.draft.path, e))
    }

    /// Ends a row group, so that it is not in memory any more.
    pub fn flush(&mut self) -> Result<()> {
        self.writing.flush().map_err(|e| unavailable(&self.draft.path, e))
    }

    /// Bytes that it has and will have, about.
    pub fn bytes(&self) -> usize {
        self.writing.bytes()
    }

    /// Bytes of its open row group as they were handed in: more than it holds in memory.
    pub fn memory(&self) -> usize {
        self.writing.held()
    }

    /// Writes the footer with these notes.
    pub fn end(self, notes: Vec<KeyValue>) -> Result<Written> {
        let Open { writing, rows, draft } = self;
        let Hashing { file, hash, bytes } = writing.finish(notes).map_err(|e| unavailable(&draft.path, e))?;
        let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Written { file, draft, rows, bytes, sha256 })
    }
}

/// A file that knows the hash of what was written to it.
struct Hashing {
    file: File,
    hash: Sha256,
    bytes: u64,
}

impl Write for Hashing {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.file.write(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        self.bytes += u64::try_from(count).unwrap_or(0);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
