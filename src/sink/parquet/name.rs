//! Names of folders and files: what a name says is the fence, so it is read as strictly as it is written.

use std::fmt;

use crate::base::offset::{Offset, Partition};

/// Name of a finished file: `from=<20 digits>.parquet`.
///
/// A partition may bring about rows without a record (held events at the end of the input, a tick on an idle partition). Then a file begins
/// where the one before began to be finished, and a step tells them apart: `from=<20 digits>.<5 digits>.parquet`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// First record that the file is about.
    pub from: Offset,
    /// Number of files before it that begin at the same record.
    pub step: u32,
}

impl Name {
    /// The name of the first file that begins at `from`.
    pub fn first(from: Offset) -> Self {
        Name { from, step: 0 }
    }

    /// The name of the file after this one, which ends at `to`: there is exactly one, so two writers that go on from the same file meet at it.
    pub fn after(self, to: Offset) -> Self {
        if to > self.from { Name::first(to) } else { Name { from: self.from, step: self.step.saturating_add(1) } }
    }

    /// Reads a name; `None` unless it is spelled exactly as `Display` does.
    pub fn read(text: &str) -> Option<Name> {
        let middle = text.strip_prefix("from=")?.strip_suffix(".parquet")?;
        let (from, step) = middle.split_once('.').map_or((middle, "0"), |(from, step)| (from, step));
        let name = Name { from: Offset(from.parse().ok()?), step: step.parse().ok()? };
        (name.to_string() == text).then_some(name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            0 => write!(f, "from={:020}.parquet", self.from.0),
            step => write!(f, "from={:020}.{step:05}.parquet", self.from.0),
        }
    }
}

/// Name of a partition's folder. It is not `partition=P`: readers that take `name=value` folders for columns would find `partition` twice.
pub fn folder(partition: Partition) -> String {
    format!("partition-{partition}")
}

/// Reads a folder's name.
pub fn read_folder(text: &str) -> Option<Partition> {
    let partition = Partition(text.strip_prefix("partition-")?.parse().ok()?);
    (partition.0 >= 0 && folder(partition) == text).then_some(partition)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_is_read_only_as_it_is_written() {
        assert_eq!(Name::read("from=00000000000000000007.parquet"), Some(Name::first(Offset(7))));
        assert_eq!(Name::read("from=00000000000000000007.00002.parquet"), Some(Name { from: Offset(7), step: 2 }));
        for other in
            ["from=7.parquet", "from=00000000000000000007.00000.parquet", "from=00000000000000000007.parquet.tmp", "part-0.parquet"]
        {
            assert_eq!(Name::read(other), None, "{other}");
        }
        assert_eq!((read_folder("partition-3"), read_folder("partition-03"), read_folder("partition=3")), (Some(Partition(3)), None, None));
    }

    proptest! {
        #[test]
        fn names_sort_as_their_texts_and_every_file_has_one_successor(from in 0i64..1 << 60, width in 0i64..5, step in 0u32..99_999) {
            let name = Name { from: Offset(from), step };
            let next = name.after(Offset(from + width));
            prop_assert!(next > name);
            prop_assert_eq!(Name::read(&next.to_string()), Some(next));
            prop_assert_eq!(next.from, Offset(from + width));
        }
    }
}
