//! Generated events as typed Parquet columns, with the names of the JSON fields.

use std::fs::File;
use std::io;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Builder, Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::base::number::f64_of;
use crate::base::time::EventTime;
use crate::source::Stream;
use crate::source::generate::Generated;
use crate::source::generate::telemetry::degrees;

/// Rows of a batch, and of a row group.
const BATCH: usize = 65_536;

enum Column {
    Text(StringBuilder),
    /// Milliseconds since 1970: the number that the JSON field has.
    Milliseconds(Int64Builder),
    /// A timestamp, where the JSON field is RFC 3339 text.
    Instant(TimestampMicrosecondBuilder),
    Integer(Int32Builder),
    Number(Float64Builder),
}

impl Column {
    fn text(&mut self, value: &[u8]) {
        if let Column::Text(builder) = self {
            builder.append_value(String::from_utf8_lossy(value));
        }
    }

    fn time(&mut self, value: EventTime) {
        match self {
            Column::Milliseconds(builder) => builder.append_value(value.0.div_euclid(1000)),
            Column::Instant(builder) => builder.append_value(value.0),
            _ => {}
        }
    }

    fn integer(&mut self, value: i64) {
        if let Column::Integer(builder) = self {
            builder.append_value(i32::try_from(value).unwrap_or(i32::MAX));
        }
    }

    fn number(&mut self, value: f64) {
        if let Column::Number(builder) = self {
            builder.append_value(value);
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Column::Text(builder) => Arc::new(builder.finish()),
            Column::Milliseconds(builder) => Arc::new(builder.finish()),
            Column::Instant(builder) => Arc::new(builder.finish().with_timezone("UTC")),
            Column::Integer(builder) => Arc::new(builder.finish()),
            Column::Number(builder) => Arc::new(builder.finish()),
        }
    }
}

/// A Parquet file of one stream.
pub struct Typed {
    names: &'static [&'static str],
    columns: Vec<Column>,
    rows: usize,
    file: Option<File>,
    writer: Option<ArrowWriter<File>>,
    text: Vec<u8>,
}

impl Typed {
    /// Starts a file.
    pub fn new(stream: Stream, file: File) -> io::Result<Self> {
        let text = || Column::Text(StringBuilder::new());
        let integer = || Column::Integer(Int32Builder::new());
        let milliseconds = || Column::Milliseconds(Int64Builder::new());
        let number = || Column::Number(Float64Builder::new());
        let (names, columns): (&'static [&'static str], _) = match stream {
            Stream::Cards => (
                &["id", "card", "ts", "amount", "mcc", "channel", "fraud"],
                vec![text(), text(), milliseconds(), number(), integer(), text(), integer()],
            ),
            Stream::Visits => (
                &["visit", "patient", "admitted", "diagnosis", "age", "los_days"],
                vec![text(), text(), Column::Instant(TimestampMicrosecondBuilder::new()), text(), integer(), integer()],
            ),
            Stream::Telemetry => (
                &["id", "device", "ts", "temperature", "battery", "status"],
                vec![text(), text(), milliseconds(), number(), integer(), text()],
            ),
        };
        let mut typed = Typed { names, columns, rows: 0, file: Some(file), writer: None, text: Vec::new() };
        // An empty batch gives the file its columns even if no event follows.
        typed.write()?;
        Ok(typed)
    }

    /// Adds an event.
    pub fn push(&mut self, event: &Generated) -> io::Result<()> {
        let text = &mut self.text;
        let mut fill = |column: &mut Column, write: &dyn Fn(&mut Vec<u8>)| {
            text.clear();
            write(text);
            column.text(text);
        };
        match (event, self.columns.as_mut_slice()) {
            (Generated::Payment(payment), [id, card, ts, amount, mcc, channel, fraud]) => {
                fill(id, &|out| payment.write_id(out));
                fill(card, &|out| payment.write_key(out));
                ts.time(payment.time);
                amount.number(f64_of(payment.cents) / 100.0);
                mcc.integer(i64::from(payment.merchant));
                channel.text(payment.channel_name().as_bytes());
                fraud.integer(i64::from(payment.fraud));
            }
            (Generated::Visit(visit), [id, patient, admitted, diagnosis, age, los_days]) => {
                fill(id, &|out| visit.write_id(out));
                fill(patient, &|out| visit.write_key(out));
                admitted.time(visit.time);
                diagnosis.text(visit.diagnosis_name().as_bytes());
                age.integer(i64::from(visit.age));
                los_days.integer(i64::from(visit.los_days));
            }
            (Generated::Beat(beat), [id, device, ts, temperature, battery, status]) => {
                fill(id, &|out| beat.write_id(out));
                fill(device, &|out| beat.write_key(out));
                ts.time(beat.time);
                temperature.number(degrees(beat.temperature));
                battery.integer(beat.battery);
                status.text(beat.status.name().as_bytes());
            }
            _ => {}
        }
        self.rows += 1;
        if self.rows == BATCH { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> io::Result<()> {
        let arrays = self.names.iter().copied().zip(self.columns.iter_mut().map(Column::finish)).map(|(name, array)| (name, array, false));
        let batch = RecordBatch::try_from_iter_with_nullable(arrays).map_err(io::Error::other)?;
        self.rows = 0;
        if let Some(file) = self.file.take() {
            let properties = WriterProperties::builder()
                .set_compression(Compression::ZSTD(ZstdLevel::default()))
                .set_max_row_group_row_count(Some(BATCH))
                .build();
            self.writer = Some(ArrowWriter::try_new(file, batch.schema(), Some(properties))?);
        }
        match &mut self.writer {
            Some(writer) => Ok(writer.write(&batch)?),
            None => Ok(()),
        }
    }

    /// Writes the rest and the footer.
    pub fn finish(mut self) -> io::Result<File> {
        self.write()?;
        let writer = self.writer.ok_or_else(|| io::Error::other("the file was never started"))?;
        Ok(writer.into_inner()?)
    }
}
