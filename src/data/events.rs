//! Decoded events as columns: one thing that happened to one key, a row each.

use super::flags::Flags;
use super::schema::{EventSchema, FieldKind};
use super::text::TextColumn;
use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;

/// One field of all events.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// Numbers; NaN where the value is missing.
    Number(Vec<f64>),
    /// Texts; a row may be missing.
    Text(TextColumn),
}

impl Column {
    /// An empty column of a kind.
    #[must_use]
    pub fn new(kind: FieldKind) -> Self {
        match kind {
            FieldKind::Number => Column::Number(Vec::new()),
            FieldKind::Text => Column::Text(TextColumn::default()),
        }
    }

    /// The numbers, if this is a number column.
    #[must_use]
    pub fn numbers(&self) -> Option<&[f64]> {
        match self {
            Column::Number(values) => Some(values),
            Column::Text(_) => None,
        }
    }

    /// The texts, if this is a text column.
    #[must_use]
    pub fn texts(&self) -> Option<&TextColumn> {
        match self {
            Column::Number(_) => None,
            Column::Text(values) => Some(values),
        }
    }

    fn clear(&mut self) {
        match self {
            Column::Number(values) => values.clear(),
            Column::Text(values) => values.clear(),
        }
    }

    /// Appends row `row` of another column of the same kind.
    pub fn push_from(&mut self, other: &Column, row: usize) {
        match (self, other) {
            (Column::Number(to), Column::Number(from)) => to.push(from.get(row).copied().unwrap_or(f64::NAN)),
            (Column::Text(to), Column::Text(from)) => to.push_from(from, row),
            (Column::Number(to), Column::Text(_)) => to.push(f64::NAN),
            (Column::Text(to), Column::Number(_)) => to.push_missing(),
        }
    }
}

/// Events as columns. All columns have the same length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Events {
    /// Partition of each event.
    pub partitions: Vec<Partition>,
    /// Offset of each event's record.
    pub offsets: Vec<Offset>,
    /// When it happened.
    pub times: Vec<EventTime>,
    /// When the log took its record in, if known.
    pub recorded: Vec<Option<EventTime>>,
    /// Key of each event, never missing.
    pub keys: TextColumn,
    /// Id copied to the output; missing where the pipeline names none or the record has none.
    pub ids: TextColumn,
    /// The other fields, in the order of `EventSchema::fields`.
    pub columns: Vec<Column>,
    /// What was unusual.
    pub flags: Vec<Flags>,
}

impl Events {
    /// Empty columns for a schema.
    #[must_use]
    pub fn new(schema: &EventSchema) -> Self {
        Events { columns: schema.fields.iter().map(|field| Column::new(field.kind)).collect(), ..Events::default() }
    }

    /// Columns of the same kinds without a row.
    #[must_use]
    pub fn clone_empty(&self) -> Self {
        let columns = self.columns.iter().map(|column| match column {
            Column::Number(_) => Column::new(FieldKind::Number),
            Column::Text(_) => Column::new(FieldKind::Text),
        });
        Events { columns: columns.collect(), ..Events::default() }
    }

    /// Number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Removes all events and keeps the memory.
    pub fn clear(&mut self) {
        self.partitions.clear();
        self.offsets.clear();
        self.times.clear();
        self.recorded.clear();
        self.keys.clear();
        self.ids.clear();
        self.columns.iter_mut().for_each(Column::clear);
        self.flags.clear();
    }

    /// Appends row `row` of `other`, which has the same schema.
    pub fn push_from(&mut self, other: &Events, row: usize) {
        let (Some(partition), Some(offset), Some(time)) = (other.partitions.get(row), other.offsets.get(row), other.times.get(row)) else {
            return;
        };
        self.partitions.push(*partition);
        self.offsets.push(*offset);
        self.times.push(*time);
        self.recorded.push(other.recorded.get(row).copied().flatten());
        self.keys.push_from(&other.keys, row);
        self.ids.push_from(&other.ids, row);
        for (to, from) in self.columns.iter_mut().zip(&other.columns) {
            to.push_from(from, row);
        }
        self.flags.push(other.flags.get(row).copied().unwrap_or_default());
    }
}
