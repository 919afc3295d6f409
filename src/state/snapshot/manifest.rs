//! What a snapshot says of itself: in its Arrow schema (the header), and in the manifest beside it (header, length and check sum).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;
use crate::data::held::WatermarkAt;

/// Version of the format that this build writes; it reads this one only, as there has been no other.
pub const FORMAT: u32 = 1;
/// Entry of the Arrow schema's metadata that holds the header as JSON.
pub(super) const METADATA: &str = "meantime";

/// Whether a snapshot stands by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Only what has changed since its base.
    Delta,
    /// All keys.
    Full,
}

impl Kind {
    /// The name used in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Delta => "delta",
            Kind::Full => "full",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The snapshot that a delta builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Its offset.
    pub offset: i64,
    /// Its kind.
    pub kind: Kind,
    /// Check sum of its file: a file of the same name with other bytes is not the base.
    pub crc32c: u32,
}

/// What a snapshot says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the format.
    pub format: u32,
    /// Full or delta.
    pub kind: Kind,
    /// The partition.
    pub partition: i32,
    /// The state contains every record below it.
    pub offset: i64,
    /// Fingerprint of what the state depends on.
    pub fingerprint: String,
    /// What a delta builds on.
    pub base: Option<Base>,
    /// Keys of the whole state, not only of this file.
    pub keys: u64,
    /// Held events in this file, which are all that are held.
    pub held: u64,
    /// Where the watermark stands.
    pub watermark: WatermarkAt,
    /// What the caller wanted noted.
    pub note: String,
    /// When it was written, in microseconds since 1970.
    pub written: EventTime,
}

/// A snapshot's manifest: its presence makes the file beside it count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// What the snapshot says of itself.
    #[serde(flatten)]
    pub header: Header,
    /// Rows of the file.
    pub rows: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// CRC-32C (Castagnoli) of the file.
    pub crc32c: u32,
}

impl Header {
    /// Name of the Arrow file.
    #[must_use]
    pub fn file(&self) -> String {
        name(Partition(self.partition), Offset(self.offset), self.kind, "arrow")
    }

    /// Name of the manifest.
    #[must_use]
    pub fn manifest(&self) -> String {
        name(Partition(self.partition), Offset(self.offset), self.kind, "json")
    }
}

impl Manifest {
    /// How a delta names this one as its base.
    #[must_use]
    pub fn as_base(&self) -> Base {
        Base { offset: self.header.offset, kind: self.header.kind, crc32c: self.crc32c }
    }

    /// Newest first; of two at one offset the full one.
    pub(super) fn order(&self) -> std::cmp::Reverse<(i64, Kind)> {
        std::cmp::Reverse((self.header.offset, self.header.kind))
    }
}

/// What the names of a partition's objects start with.
pub(super) fn folder(partition: Partition) -> String {
    format!("partition-{partition}/")
}

pub(super) fn name(partition: Partition, offset: Offset, kind: Kind, extension: &str) -> String {
    format!("{}{:020}-{kind}.{extension}", folder(partition), offset.0)
}

/// Partition, offset, kind and extension of a name; `None` if it is not that of a snapshot.
pub(super) fn parse(name: &str) -> Option<(Partition, Offset, Kind, &str)> {
    let (partition, rest) = name.strip_prefix("partition-")?.split_once('/')?;
    let (stem, extension) = rest.split_once('.')?;
    let (offset, kind) = stem.split_once('-')?;
    let kind = [Kind::Full, Kind::Delta].into_iter().find(|known| known.name() == kind)?;
    let fits = offset.len() == 20 && matches!(extension, "arrow" | "json");
    if fits { Some((Partition(partition.parse().ok()?), Offset(offset.parse().ok()?), kind, extension)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_offset_and_are_read_back() {
        let made = name(Partition(3), Offset(12_345), Kind::Delta, "json");
        assert_eq!(made, "partition-3/00000000000000012345-delta.json");
        assert_eq!(parse(&made), Some((Partition(3), Offset(12_345), Kind::Delta, "json")));
        for other in [
            "partition-x/00000000000000012345-delta.json",
            "partition-1/1-full.json",
            "partition-1/00000000000000012345-half.json",
            "notes.txt",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
