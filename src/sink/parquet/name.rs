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
        Name::read_stem(text.strip_suffix(".parquet")?)
    }

    /// The name without its ending.
    pub fn stem(self) -> String {
        match self.step {
            0 => format!("from={:020}", self.from.0),
            step => format!("from={:020}.{step:05}", self.from.0),
        }
    }

    /// Reads a name without its ending.
    pub fn read_stem(text: &str) -> Option<Name> {
        let middle = text.strip_prefix("from=")?;
        let (from, step) = middle.split_once('.').map_or((middle, "0"), |(from, step)| (from, step));
        let name = Name { from: Offset(from.parse().ok()?), step: step.parse().ok()? };
        (name.stem() == text).then_some(name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.parquet", self.stem())
    }
}

/// Name of a file of the rows of one date, which lies among those of other partitions: `partition-P-from-<20 digits>-<5 digits>-<5 digits>.parquet`.
/// There is no `=` in it, which some readers take for a column. Texts of a partition sort as their rows came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slice {
    /// Partition of the rows.
    pub partition: Partition,
    /// Name of the commit that it belongs to.
    pub name: Name,
    /// Number of files before it of the same date and commit.
    pub part: u32,
}

impl Slice {
    /// Reads a name, as strictly as it is written.
    pub fn read(text: &str) -> Option<Slice> {
        let (folder, rest) = text.strip_suffix(".parquet")?.split_once("-from-")?;
        let mut numbers = rest.split('-');
        let (from, step, part) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        let slice = Slice { partition: read_folder(folder)?, name: Name { from: Offset(from), step }, part };
        (slice.to_string() == text).then_some(slice)
    }
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Slice { partition, name: Name { from, step }, part } = self;
        write!(f, "{}-from-{:020}-{step:05}-{part:05}.parquet", folder(*partition), from.0)
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

    #[test]
    fn a_name_of_a_date_is_read_only_as_it_is_written() {
        let slice = Slice { partition: Partition(3), name: Name { from: Offset(7), step: 2 }, part: 1 };
        assert_eq!(slice.to_string(), "partition-3-from-00000000000000000007-00002-00001.parquet");
        assert_eq!(Slice::read(&slice.to_string()), Some(slice));
        for other in ["partition-3-from-7-0-0.parquet", "partition-03-from-00000000000000000007-00002-00001.parquet", "part-0.parquet"] {
            assert_eq!(Slice::read(other), None, "{other}");
        }
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
