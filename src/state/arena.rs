//! Rows of fixed width in chunks: growing never copies, and slack is at most one chunk.

use super::Slot;
use crate::base::number::index;

/// Rows a chunk holds.
const CHUNK_ROWS: usize = 1024;

/// A growing table of rows of `width` values each.
#[derive(Debug)]
pub struct Chunked<T> {
    width: usize,
    rows: usize,
    chunks: Vec<Vec<T>>,
}

impl<T: Copy + Default> Chunked<T> {
    /// An empty table.
    #[must_use]
    pub fn new(width: usize) -> Self {
        Chunked { width, rows: 0, chunks: Vec::new() }
    }

    /// Values per row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Adds a row; `values` has `width` entries.
    pub fn push(&mut self, values: &[T]) {
        debug_assert_eq!(values.len(), self.width);
        self.open_chunk().extend_from_slice(values);
        self.rows += 1;
    }

    /// Adds a row of default values.
    pub fn push_default(&mut self) {
        let width = self.width;
        let chunk = self.open_chunk();
        let len = chunk.len() + width;
        chunk.resize(len, T::default());
        self.rows += 1;
    }

    fn open_chunk(&mut self) -> &mut Vec<T> {
        if self.rows.is_multiple_of(CHUNK_ROWS) {
            self.chunks.push(Vec::with_capacity(CHUNK_ROWS * self.width));
        }
        self.chunks.last_mut().expect("a chunk is added before the first row of each thousand")
    }

    /// A row; empty for a slot that was never pushed.
    #[must_use]
    pub fn row(&self, slot: Slot) -> &[T] {
        let (chunk, start) = self.place(slot);
        self.chunks.get(chunk).and_then(|chunk| chunk.get(start..start + self.width)).unwrap_or_default()
    }

    /// A row to write to; empty for a slot that was never pushed.
    pub fn row_mut(&mut self, slot: Slot) -> &mut [T] {
        let (chunk, start) = self.place(slot);
        let width = self.width;
        self.chunks.get_mut(chunk).and_then(|chunk| chunk.get_mut(start..start + width)).unwrap_or_default()
    }

    fn place(&self, slot: Slot) -> (usize, usize) {
        let row = index(slot.0);
        (row / CHUNK_ROWS, row % CHUNK_ROWS * self.width)
    }

    /// Bytes allocated.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.capacity() * size_of::<T>()).sum()
    }
}

/// How wide the parts of a key's state are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Widths {
    /// Floats of recurrent tensors, the published law and the event before.
    pub hidden: usize,
    /// Numbers of the recipe's decaying columns.
    pub aggregates: usize,
}
