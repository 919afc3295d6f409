//! The columns of a snapshot file, one row a key.
//!
//! | column | type | what |
//! |---|---|---|
//! | `key` | binary | the key |
//! | `last_event` | timestamp (us, UTC) | time of its last event; null: the key has only held events here |
//! | `events` | uint64 | events so far; null with `last_event` |
//! | one per state tensor, `law`, and `event_before` | fixed_size_list<float32> | the recurrent tensors, then the law published last, then the event before where `[reasons]` needs it; null with `last_event` |
//! | `aggregates` | fixed_size_list<float64> | of the recipe's decaying columns; null with `last_event`; absent without any |
//! | `overdue` | list<struct<quantile: uint8, due: timestamp, offset: int64>> | timers that are on: index into `[forecast] overdue`, when it is due, and the offset of the event that it watches; null: none |
//! | `held` | list<struct<time, offset, recorded, id, flags, one per field>> | events that wait for earlier ones; null: none |
//!
//! A row whose `last_event` is null says nothing of the key's state: in a delta, the base's holds. Held events are always all that are
//! held, in a delta too: those of a base do not count. Columns are read by position; a tensor or field whose name is taken already is
//! written as `state.NAME` or `field.NAME`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

use super::manifest::{Header, METADATA};
use crate::base::error::{Error, Result};
use crate::data::events::{Column, Events};
use crate::data::schema::{self, FieldKind};

/// What a key's state consists of, in the words of the package and the pipeline.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Columns {
    /// Name and floats of each part of `KeyStates::hidden`, in order.
    pub tensors: Vec<(String, usize)>,
    /// Numbers of `KeyStates::aggregates`.
    pub aggregates: usize,
    /// Fields of events, as in `EventSchema::fields`.
    pub fields: Vec<schema::Field>,
}

impl Columns {
    /// Floats of hidden state a key.
    #[must_use]
    pub fn hidden(&self) -> usize {
        self.tensors.iter().map(|(_, width)| width).sum()
    }

    /// The tensors that have a column: one without floats has none.
    pub(super) fn stored(&self) -> impl Iterator<Item = (&str, usize)> {
        self.tensors.iter().map(|(name, width)| (name.as_str(), *width)).filter(|(_, width)| *width > 0)
    }

    /// Events without a row, with these fields.
    pub(super) fn no_events(&self) -> Events {
        Events { columns: self.fields.iter().map(|field| Column::new(field.kind)).collect(), ..Events::default() }
    }

    /// The Arrow schema of a file.
    pub(super) fn schema(&self, header: &Header) -> Result<SchemaRef> {
        let text = serde_json::to_string(header).map_err(|e| Error::internal("state", e.to_string()))?;
        let metadata = HashMap::from([(METADATA.to_owned(), text)]);
        Ok(Arc::new(Schema::new_with_metadata(self.fields_of_file(), metadata)))
    }

    /// Whether a file has these columns.
    ///
    /// # Errors
    /// It has others; the text says which.
    pub(super) fn check(&self, schema: &Schema) -> std::result::Result<(), String> {
        let wanted = Fields::from(self.fields_of_file());
        if *schema.fields() == wanted {
            return Ok(());
        }
        let pairs = wanted.iter().zip(schema.fields());
        Err(match pairs.clone().find(|(wanted, found)| wanted != found) {
            Some((wanted, found)) => {
                format!(
                    "column `{}` of type {} is where `{}` of type {} should be",
                    found.name(),
                    found.data_type(),
                    wanted.name(),
                    wanted.data_type()
                )
            }
            None => format!("it has {} columns, not {}", schema.fields().len(), wanted.len()),
        })
    }

    fn fields_of_file(&self) -> Vec<Field> {
        let mut fields = vec![
            Field::new("key", DataType::Binary, false),
            Field::new("last_event", time(), true),
            Field::new("events", DataType::UInt64, true),
        ];
        let mut taken = vec!["key", "last_event", "events", "aggregates", "overdue", "held"];
        for (name, width) in self.stored() {
            let shown = if taken.contains(&name) { format!("state.{name}") } else { name.to_owned() };
            fields.push(Field::new(shown, list_of(DataType::Float32, width), true));
            taken.push(name);
        }
        if self.aggregates > 0 {
            fields.push(Field::new("aggregates", list_of(DataType::Float64, self.aggregates), true));
        }
        fields.push(Field::new("overdue", DataType::List(Arc::new(Field::new("item", DataType::Struct(timer_fields()), false))), true));
        fields.push(Field::new("held", DataType::List(Arc::new(self.held_item())), true));
        fields
    }

    /// One held event.
    pub(super) fn held_item(&self) -> Field {
        let mut fields = vec![
            Field::new("time", time(), false),
            Field::new("offset", DataType::Int64, false),
            Field::new("recorded", time(), true),
            Field::new("id", DataType::Binary, true),
            Field::new("flags", DataType::UInt8, false),
        ];
        for field in &self.fields {
            let taken = fields.iter().any(|other| *other.name() == field.name);
            let name = if taken { format!("field.{}", field.name) } else { field.name.clone() };
            fields.push(match field.kind {
                FieldKind::Number => Field::new(name, DataType::Float64, false),
                FieldKind::Text => Field::new(name, DataType::Binary, true),
            });
        }
        Field::new("item", DataType::Struct(fields.into()), false)
    }
}

pub(super) fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

pub(super) fn list_of(kind: DataType, width: usize) -> DataType {
    let width = i32::try_from(width).expect("a key's state is bounded by MAX_STATE_FLOATS");
    DataType::FixedSizeList(Arc::new(Field::new("item", kind, false)), width)
}

/// One timer: which quantile of the law, when it is due, and the offset of the event that it watches.
pub(super) fn timer_fields() -> Fields {
    Fields::from(vec![
        Field::new("quantile", DataType::UInt8, false),
        Field::new("due", time(), false),
        Field::new("offset", DataType::Int64, false),
    ])
}
