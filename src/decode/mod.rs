//! Records to events: bytes or table rows to columns, or a rejected value. Nothing is dropped: every record
//! of the input ends up either in `events` or in `rejected`.

mod json;
mod table;

use crate::base::limits::{MAX_KEY_BYTES, MAX_RECORD_BYTES};
use crate::data::events::Events;
use crate::data::input::Input;
use crate::data::rejected::{Reason, Rejected};
use crate::data::schema::EventSchema;

/// How payloads are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a record.
    Json,
    /// Columns of a Parquet file.
    Parquet,
}

/// A reason with one sentence for people.
type Fault = (Reason, String);

/// Decodes one input after another; keeps its buffers.
pub struct Decoder {
    schema: EventSchema,
    json: json::RowDecoder,
}

impl Decoder {
    /// A decoder for a schema.
    #[must_use]
    pub fn new(schema: &EventSchema) -> Self {
        Decoder { schema: schema.clone(), json: json::RowDecoder::new(schema) }
    }

    /// Appends every usable record of `input` to `events` and every other one to `rejected`, each in input order.
    pub fn decode(&mut self, input: &Input, events: &mut Events, rejected: &mut Rejected) {
        let records = &input.records;
        let positions = records.partitions.iter().zip(&records.offsets).zip(&records.recorded);
        for (row, ((partition, offset), recorded)) in positions.enumerate() {
            let payload = records.payloads.get(row);
            let outcome = match payload {
                None => Err((Reason::Empty, "the record has no payload".to_owned())),
                Some(bytes) if bytes.len() > MAX_RECORD_BYTES => {
                    Err((Reason::TooLarge, format!("{} bytes; allowed are {MAX_RECORD_BYTES}", bytes.len())))
                }
                Some(bytes) => self.json.decode(&self.schema, bytes, events),
            };
            match outcome {
                Ok(()) => {
                    events.partitions.push(*partition);
                    events.offsets.push(*offset);
                    events.recorded.push(*recorded);
                    events.flags.push(Default::default());
                }
                Err((reason, detail)) => rejected.push((*partition, *offset), reason, detail, records.keys.get(row), payload),
            }
        }
        for rows in &input.tables {
            table::decode(&self.schema, rows, events, rejected);
        }
    }
}

fn check_key(key: &[u8], field: &str) -> Result<(), Fault> {
    match key.len() {
        0 => Err((Reason::MissingKey, format!("key field `{field}` is empty"))),
        n if n > MAX_KEY_BYTES => Err((Reason::KeyTooLong, format!("key field `{field}` has {n} bytes; allowed are {MAX_KEY_BYTES}"))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
