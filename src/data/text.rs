//! A column of byte strings in one buffer: no allocation per row.

use crate::base::number::{index, u32_of};

/// Byte strings, one a row; a missing one is told apart from an empty one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextColumn {
    bytes: Vec<u8>,
    /// End of each row in `bytes`.
    ends: Vec<u32>,
    /// Rows that are missing, ascending. Almost always empty.
    missing: Vec<u32>,
}

impl TextColumn {
    /// Rows in the column.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all rows together.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Removes all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.missing.clear();
    }

    /// Adds a row.
    pub fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.ends.push(u32_of(self.bytes.len()));
    }

    /// Adds a row without a value.
    pub fn push_missing(&mut self) {
        self.missing.push(u32_of(self.ends.len()));
        self.ends.push(u32_of(self.bytes.len()));
    }

    /// Adds a row that may be missing.
    pub fn push_option(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.push(value),
            None => self.push_missing(),
        }
    }

    /// Removes the last row; used to undo a record that turned out to be unusable.
    pub fn pop(&mut self) {
        if self.ends.pop().is_some() {
            let rows = u32_of(self.ends.len());
            if self.missing.last() == Some(&rows) {
                self.missing.pop();
            }
            self.bytes.truncate(self.ends.last().map_or(0, |end| index(*end)));
        }
    }

    /// Row `row`; `None` if it is missing or out of range.
    #[must_use]
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        if !self.missing.is_empty() && self.missing.binary_search(&u32_of(row)).is_ok() {
            return None;
        }
        self.raw(row)
    }

    /// Row `row`, the empty string if it is missing or out of range.
    #[must_use]
    pub fn bytes_at(&self, row: usize) -> &[u8] {
        self.raw(row).unwrap_or_default()
    }

    fn raw(&self, row: usize) -> Option<&[u8]> {
        let end = index(*self.ends.get(row)?);
        let start = match row.checked_sub(1) {
            None => 0,
            Some(before) => index(*self.ends.get(before)?),
        };
        self.bytes.get(start..end)
    }

    /// All rows in order.
    pub fn iter(&self) -> impl Iterator<Item = Option<&[u8]>> {
        (0..self.len()).map(|row| self.get(row))
    }

    /// Appends row `row` of `other`.
    pub fn push_from(&mut self, other: &TextColumn, row: usize) {
        self.push_option(other.get(row));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_pushed_and_pop_undoes_the_last() {
        let mut column = TextColumn::default();
        column.push(b"a");
        column.push_missing();
        column.push(b"");
        column.push(b"bcd");
        assert_eq!(column.iter().collect::<Vec<_>>(), [Some(&b"a"[..]), None, Some(b""), Some(b"bcd")]);
        column.pop();
        column.pop();
        column.pop();
        column.push(b"x");
        assert_eq!(column.iter().collect::<Vec<_>>(), [Some(&b"a"[..]), Some(b"x")]);
        assert_eq!(column.get(7), None);
    }
}
