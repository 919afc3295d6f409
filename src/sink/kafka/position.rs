//! Where a row comes from, as the header of a Kafka record.

use crate::base::offset::{Offset, Partition};

/// Name of the header: `partition:offset` of the input record in decimal, and a third part with the quantile where the row says that no event
/// has come by it.
pub const POSITION: &str = "meantime-position";

/// Position of the input record that a row is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Position {
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
    /// The quantile that has passed, of a row of the kind `overdue`.
    pub overdue: Option<f64>,
}

impl Position {
    /// Of a row that is not of the kind `overdue`.
    #[must_use]
    pub fn of(partition: Partition, offset: Offset) -> Self {
        Position { partition, offset, overdue: None }
    }

    /// Appends the header's text.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        out.extend_from_slice(digits.format(self.partition.0).as_bytes());
        out.push(b':');
        out.extend_from_slice(digits.format(self.offset.0).as_bytes());
        if let Some(quantile) = self.overdue {
            out.push(b':');
            out.extend_from_slice(ryu::Buffer::new().format(quantile).as_bytes());
        }
    }

    /// Reads the header's text.
    #[must_use]
    pub fn read(text: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(text).ok()?.split(':');
        let partition = parts.next()?.parse().ok().filter(|partition| *partition >= 0)?;
        let offset = parts.next()?.parse().ok().filter(|offset| *offset >= 0)?;
        let overdue = match parts.next() {
            None => None,
            Some(quantile) => Some(quantile.parse().ok().filter(|quantile| *quantile > 0.0 && *quantile < 1.0)?),
        };
        parts.next().is_none().then_some(Position { partition: Partition(partition), offset: Offset(offset), overdue })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_a_position_or_nothing() {
        for (text, overdue) in [("3:17", None), ("3:17:0.95", Some(0.95))] {
            let position = Position { overdue, ..Position::of(Partition(3), Offset(17)) };
            assert_eq!(Position::read(text.as_bytes()), Some(position));
            let mut written = Vec::new();
            position.write(&mut written);
            assert_eq!(written, text.as_bytes());
        }
        for broken in ["", "3", "3:", ":1", "a:b", "-1:2", "1:-2", "1:2:3", "1:2:x", "1:2:0.5:1"] {
            assert_eq!(Position::read(broken.as_bytes()), None, "{broken}");
        }
        assert_eq!(Position::read(&[0xff]), None);
    }
}
