//! Records to events: bytes or table rows to columns, or a rejected value. Nothing is dropped: every record
//! of the input ends up either in `events` or in `rejected`.

#[cfg(feature = "avro")]
mod avro;
mod cells;
mod json;
mod row;
mod table;
mod wanted;

pub use table::texts_of;

use crate::base::error::Result;
use crate::base::limits::{MAX_KEY_BYTES, MAX_RECORD_BYTES};
use crate::base::time::EventTime;
use crate::data::events::Events;
use crate::data::input::Input;
use crate::data::rejected::{Reason, Rejected};
use crate::data::schema::{EventSchema, FieldKind, RECORD_KEY, RECORD_TIMESTAMP};
use crate::link::registry::{Schemas, Written};
use cells::{Cell, Cells};
use wanted::Wanted;

/// How payloads are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a record.
    Json,
    /// One Avro datum a record.
    Avro,
    /// Columns of a Parquet file.
    Parquet,
}

/// A reason with one sentence for people.
type Fault = (Reason, String);

/// Records by which a topic may spread the events of one key over its partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnKeys {
    /// They have no key of their own.
    pub missing: u64,
    /// It is another one than the event's.
    pub different: u64,
}

/// Decodes one input after another; keeps its buffers.
pub struct Decoder {
    schema: EventSchema,
    wanted: Vec<Wanted>,
    /// Cells that take the record's own key, and those that take its timestamp.
    key: Vec<usize>,
    timestamp: Vec<usize>,
    cells: Cells,
    number: String,
    own_keys: OwnKeys,
    #[cfg(feature = "avro")]
    avro: Option<avro::Reader>,
}

impl Decoder {
    /// A decoder for a schema; records are JSON.
    #[must_use]
    pub fn new(schema: &EventSchema) -> Self {
        Decoder::of(schema, None)
    }

    /// A decoder for a schema; records are Avro if it is said where their schemas are, else JSON.
    #[must_use]
    pub fn of(schema: &EventSchema, schemas: Option<&Schemas>) -> Self {
        #[cfg(not(feature = "avro"))]
        let _ = schemas;
        let wanted = wanted::wanted(schema);
        let cells_of = |name: &str| wanted.iter().find(|field| field.name == name).map(|field| field.cells.clone()).unwrap_or_default();
        Decoder {
            key: cells_of(RECORD_KEY),
            timestamp: cells_of(RECORD_TIMESTAMP),
            cells: Cells::new(schema.fields.len()),
            number: String::new(),
            own_keys: OwnKeys::default(),
            #[cfg(feature = "avro")]
            avro: schemas.map(avro::Reader::new),
            schema: schema.clone(),
            wanted,
        }
    }

    /// Usable records so far whose own key is missing, or not that of their event.
    #[must_use]
    pub fn own_keys(&self) -> OwnKeys {
        self.own_keys
    }

    /// Appends every usable record of `input` to `events` and every other one to `rejected`, each in input order.
    ///
    /// # Errors
    /// The schema of a record cannot be asked for.
    pub fn decode(&mut self, input: &Input, events: &mut Events, rejected: &mut Rejected) -> Result<()> {
        let records = &input.records;
        let positions = records.partitions.iter().zip(&records.offsets).zip(&records.recorded);
        for (row, ((partition, offset), recorded)) in positions.enumerate() {
            let (key, payload) = (records.keys.get(row), records.payloads.get(row));
            match self.record(key, *recorded, payload, records.lines, events)? {
                Ok(()) => {
                    events.partitions.push(*partition);
                    events.offsets.push(*offset);
                    events.recorded.push(*recorded);
                    events.flags.push(Default::default());
                }
                Err((reason, detail)) => rejected.push((*partition, *offset), reason, detail, key, payload),
            }
        }
        for rows in &input.tables {
            table::decode(&self.schema, rows, events, rejected);
        }
        Ok(())
    }

    /// The inner error is one of the record.
    fn record(
        &mut self,
        key: Option<&[u8]>,
        recorded: Option<EventTime>,
        payload: Option<&[u8]>,
        lines: bool,
        events: &mut Events,
    ) -> Result<std::result::Result<(), Fault>> {
        let Some(payload) = payload else { return Ok(Err((Reason::Empty, "the record has no payload".to_owned()))) };
        if payload.len() > MAX_RECORD_BYTES {
            return Ok(Err((Reason::TooLarge, format!("{} bytes; allowed are {MAX_RECORD_BYTES}", payload.len()))));
        }
        self.cells.clear();
        let read = match self.read(payload, lines)? {
            Ok(()) => {
                self.keep_large_integers(payload);
                self.own(key, recorded)
            }
            fault => fault,
        };
        let appended = read.and_then(|()| row::append(&self.schema, &self.cells, &mut self.number, events));
        // Lines of files have no key of their own.
        if appended.is_ok() && !lines {
            match key {
                None => self.own_keys.missing += 1,
                Some(key) if events.keys.len().checked_sub(1).and_then(|last| events.keys.get(last)) == Some(key) => {}
                Some(_) => self.own_keys.different += 1,
            }
        }
        Ok(appended)
    }

    #[cfg(feature = "avro")]
    fn read(&mut self, payload: &[u8], lines: bool) -> Result<std::result::Result<(), Fault>> {
        match self.avro.as_mut().filter(|_| !lines) {
            Some(avro) => avro.read(payload, &self.wanted, &mut self.cells),
            None => Ok(json::read(payload, &self.wanted, &mut self.cells)),
        }
    }

    #[cfg(not(feature = "avro"))]
    fn read(&mut self, payload: &[u8], _lines: bool) -> Result<std::result::Result<(), Fault>> {
        Ok(json::read(payload, &self.wanted, &mut self.cells))
    }

    /// Texts that were integers beyond 64 bits, from their digits. Avro has none.
    fn keep_large_integers(&mut self, payload: &[u8]) {
        let fields = &self.schema.fields;
        let is_text = |at: usize| match at.checked_sub(cells::COLUMNS) {
            None => at != cells::TIME,
            Some(at) => fields.get(at).is_some_and(|field| field.kind == FieldKind::Text),
        };
        if (0..cells::COLUMNS + fields.len()).any(|at| self.cells.get(at).is_large() && is_text(at)) {
            json::exact(payload, &self.wanted, &mut self.cells, &is_text);
        }
    }

    /// Key and timestamp of the record itself, where they are wanted.
    fn own(&mut self, key: Option<&[u8]>, recorded: Option<EventTime>) -> std::result::Result<(), Fault> {
        if let (false, Some(key)) = (self.key.is_empty(), key) {
            let text = std::str::from_utf8(key).map_err(|_| (Reason::WrongType, "the record's key is no UTF-8 text".to_owned()))?;
            let cell = self.cells.keep(text.as_bytes());
            self.cells.set(&self.key, cell);
        }
        if let (false, Some(time)) = (self.timestamp.is_empty(), recorded) {
            self.cells.set(&self.timestamp, Cell::Int(time.0.div_euclid(1000)));
        }
        Ok(())
    }
}

/// Which of these fields, by their paths, a schema does not have; an error if it is none that can be used.
#[cfg(feature = "avro")]
pub fn missing<'a>(written: &Written, fields: &[&'a str]) -> std::result::Result<Vec<&'a str>, String> {
    avro::steps::missing(written, fields)
}

/// Which of these fields a schema does not have: this build reads none.
#[cfg(not(feature = "avro"))]
pub fn missing<'a>(_: &Written, _: &[&'a str]) -> std::result::Result<Vec<&'a str>, String> {
    Err("this build does not read Avro".to_owned())
}

fn check_key(key: &[u8], field: &str) -> std::result::Result<(), Fault> {
    match key.len() {
        0 => Err((Reason::MissingKey, format!("key field `{field}` is empty"))),
        n if n > MAX_KEY_BYTES => Err((Reason::KeyTooLong, format!("key field `{field}` has {n} bytes; allowed are {MAX_KEY_BYTES}"))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
