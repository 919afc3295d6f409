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
    /// What it was made of, if `meantime state migrate` or a change of the model while running made it of another model's states.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrated: Option<Migrated>,
}

/// Where the states of a migrated snapshot come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migrated {
    /// Fingerprint of the states before.
    pub from: String,
    /// How they were made the new model's.
    pub mode: Mode,
    /// Name and version of the model before, for people.
    pub model: String,
}

/// How the states of one model become those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Hidden tensors are taken over as they are.
    Carry,
    /// Hidden tensors begin anew; what does not depend on the model is kept.
    Reset,
    /// History was taken through the new model.
    Rebuild,
}

impl Mode {
    /// The name used in files and options.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mode::Carry => "carry",
            Mode::Reset => "reset",
            Mode::Rebuild => "rebuild",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
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
        self.name("arrow")
    }

    /// Name of the manifest.
    #[must_use]
    pub fn manifest(&self) -> String {
        self.name("json")
    }

    /// What its names have behind the kind. A migrated snapshot stands at the offset of the one that it was made of, which must stay what it is: whoever
    /// goes back to the model before finds it.
    pub(super) fn tag(&self) -> Option<&str> {
        self.migrated.as_ref().map(|_| self.fingerprint.as_str())
    }

    fn name(&self, extension: &str) -> String {
        name(Partition(self.partition), Offset(self.offset), self.kind, self.tag(), extension)
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

fn name(partition: Partition, offset: Offset, kind: Kind, tag: Option<&str>, extension: &str) -> String {
    let tag = tag.map(|tag| format!("-{tag}")).unwrap_or_default();
    format!("{}{:020}-{kind}{tag}.{extension}", folder(partition), offset.0)
}

/// What the name of a snapshot's object says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Named {
    pub partition: Partition,
    pub offset: Offset,
    pub kind: Kind,
    /// Fingerprint, of a migrated one.
    pub tag: Option<String>,
    pub extension: String,
}

impl Named {
    /// Whether it is the file or the manifest of a snapshot.
    pub fn is_of(&self, header: &Header) -> bool {
        let place = (self.partition.0, self.offset.0, self.kind);
        place == (header.partition, header.offset, header.kind) && self.tag.as_deref() == header.tag()
    }
}

/// Reads a name; `None` if it is not that of a snapshot.
pub(super) fn parse(name: &str) -> Option<Named> {
    let (partition, rest) = name.strip_prefix("partition-")?.split_once('/')?;
    let (stem, extension) = rest.split_once('.')?;
    let (offset, kind) = stem.split_once('-')?;
    let (kind, tag) = kind.split_once('-').map_or((kind, None), |(kind, tag)| (kind, Some(tag.to_owned())));
    let kind = [Kind::Full, Kind::Delta].into_iter().find(|known| known.name() == kind)?;
    let tagged = tag.as_ref().is_none_or(|tag| kind == Kind::Full && !tag.is_empty() && tag.chars().all(|c| c.is_ascii_hexdigit()));
    let fits = offset.len() == 20 && matches!(extension, "arrow" | "json") && tagged;
    let (partition, offset) = (Partition(partition.parse().ok()?), Offset(offset.parse().ok()?));
    fits.then(|| Named { partition, offset, kind, tag, extension: extension.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_offset_and_are_read_back() {
        for (kind, tag, made) in [
            (Kind::Delta, None, "partition-3/00000000000000012345-delta.json"),
            (Kind::Full, Some("00c0ffee00c0ffee"), "partition-3/00000000000000012345-full-00c0ffee00c0ffee.json"),
        ] {
            assert_eq!(name(Partition(3), Offset(12_345), kind, tag, "json"), made);
            let tag = tag.map(str::to_owned);
            let named = Named { partition: Partition(3), offset: Offset(12_345), kind, tag, extension: "json".to_owned() };
            assert_eq!(parse(made), Some(named));
        }
        for other in [
            "partition-x/00000000000000012345-delta.json",
            "partition-1/1-full.json",
            "partition-1/00000000000000012345-half.json",
            "partition-1/00000000000000012345-full-.json",
            "partition-1/00000000000000012345-full-x.json",
            "partition-1/00000000000000012345-delta-00c0ffee00c0ffee.json",
            "notes.txt",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
