//! The scratch row: what one record held in the wanted fields, kept until the whole record has proved to be usable.

use crate::base::time::EventTime;

/// What a wanted field held.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Cell {
    /// Nothing, or null.
    #[default]
    Missing,
    /// An integer.
    Int(i64),
    /// A number that is none, or too large for one.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A time that says itself what it is.
    #[cfg_attr(not(feature = "avro"), allow(dead_code))]
    Instant(EventTime),
    /// Range of the scratch text.
    Text(usize, usize),
    /// A list or a record.
    Nested,
}

impl Cell {
    /// Whether there is no value; NaN is how tools write a missing number.
    pub fn is_missing(self) -> bool {
        matches!(self, Cell::Missing) || matches!(self, Cell::Float(value) if value.is_nan())
    }

    /// Whether it may have been an integer of more digits than a float holds.
    pub fn is_large(self) -> bool {
        /// Below, an integer is an `Int`.
        const LARGE: f64 = 9.2e18;
        matches!(self, Cell::Float(value) if value.abs() >= LARGE)
    }

    /// For people.
    pub fn kind(self) -> &'static str {
        match self {
            Cell::Missing => "nothing",
            Cell::Int(_) | Cell::Float(_) => "a number",
            Cell::Bool(_) => "a boolean",
            Cell::Instant(_) => "a time",
            Cell::Text(..) => "a text",
            Cell::Nested => "an array or object",
        }
    }
}

/// Cells of one record: key, time, id, then the columns. Keeps its buffers.
pub struct Cells {
    cells: Vec<Cell>,
    text: Vec<u8>,
}

/// Cell of the key.
pub const KEY: usize = 0;
/// Cell of the event time.
pub const TIME: usize = 1;
/// Cell of the event's id.
pub const ID: usize = 2;
/// Cell of the first column.
pub const COLUMNS: usize = 3;

impl Cells {
    /// Room for a record with so many columns.
    pub fn new(columns: usize) -> Self {
        Cells { cells: vec![Cell::Missing; COLUMNS + columns], text: Vec::new() }
    }

    /// Makes room for the next record.
    pub fn clear(&mut self) {
        self.cells.fill(Cell::Missing);
        self.text.clear();
    }

    /// What a cell holds.
    #[inline]
    pub fn get(&self, at: usize) -> Cell {
        self.cells.get(at).copied().unwrap_or_default()
    }

    /// Writes a value to all cells that want it.
    #[inline]
    pub fn set(&mut self, cells: &[usize], value: Cell) {
        for at in cells {
            if let Some(cell) = self.cells.get_mut(*at) {
                *cell = value;
            }
        }
    }

    /// Keeps a text.
    #[inline]
    pub fn keep(&mut self, text: &[u8]) -> Cell {
        let start = self.text.len();
        self.text.extend_from_slice(text);
        Cell::Text(start, self.text.len())
    }

    /// The text between two places.
    #[inline]
    pub fn text(&self, start: usize, end: usize) -> &[u8] {
        self.text.get(start..end).unwrap_or_default()
    }
}
