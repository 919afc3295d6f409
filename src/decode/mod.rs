//! Records to events: bytes to columns, or a rejected value.

/// How payloads are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a record.
    Json,
    /// Columns of a Parquet file.
    Parquet,
}
