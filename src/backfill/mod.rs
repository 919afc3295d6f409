//! Backfill: history in files through the machine that runs live, in the order of event time, shard by shard as Kafka partitions keys.
//!
//! The files' rows have one total order: (event time, number in the column for ties if one is named, file, row), the files in the order in which they are named. A row's shard is the partition that
//! Kafka's default partitioner gives its key; its offset is the number of rows of its shard before it. So a shard is a partition like any other,
//! and the lanes, sinks and snapshots that run live know no difference.
//!
//! Files of output end where the total order has come to a multiple of a fixed number of rows, not by time or size. So a backfill that was killed and
//! goes on writes the same files, byte for byte, as one that never was.
//!
//! Where the rows say which partition and offset they had in a topic, those are taken instead, and the order is that of the offsets: the states that
//! come out are those that a live run would have, and it can go on from them.
//!
//! Reading order: `murmur2`, `chunk` (rows with their time and shard), `reader` (a file to chunks), `survey` (what is in the files, and whether they are in
//! order), `sort` (those that are not), `merge`, `feed` (to the lanes), `manifest` (what a backfill was begun with).

pub mod chunk;
mod columns;
pub mod feed;
pub mod manifest;
pub mod merge;
pub mod murmur2;
pub mod reader;
pub mod sort;
pub mod survey;

use std::path::PathBuf;

use crate::base::time::EventTime;
use crate::data::schema::EventSchema;
use crate::link::file::Location;
use crate::link::query::Query;
use crate::sink::Folders;

/// What is backfilled, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The files, in the order in which rows of the same time follow each other.
    pub paths: Vec<Location>,
    /// Everything that is read from them.
    pub schema: EventSchema,
    /// Names of these fields, each once.
    pub fields: Vec<String>,
    /// Which rows are taken, and columns that are computed before anything else is read of a row.
    pub query: Option<Query>,
    /// Columns that say where a row stood in its topic. Then the partition is the shard, and rows are taken in the order of their offsets, as live.
    pub positions: Option<Positions>,
    /// Column of numbers that orders rows of the same time, before their files and places do.
    pub ties: Option<String>,
    /// Only rows before this time are taken, where they are not taken by their positions: the others are a topic's.
    pub until: Option<EventTime>,
    /// Shards, of all machines together.
    pub shards: u32,
    /// This machine does the shards whose number leaves `mine.0` when divided by `mine.1`.
    pub mine: (u32, u32),
    /// A file of output ends after so many rows of all shards together.
    pub epoch_rows: u64,
    /// Which folders the files of forecasts are in.
    pub folders: Folders,
    /// Bytes that sorting may hold.
    pub memory: u64,
    /// Folder for sorted parts of files that are not in order.
    pub scratch: PathBuf,
}

/// Names of the columns with a row's place in its topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positions {
    /// Holds the partition.
    pub partition: String,
    /// Holds the offset.
    pub offset: String,
}

/// Memory for sorting, where nothing else is said.
const MEMORY: u64 = 1 << 30;

impl Settings {
    /// All rows of files in one shard, in the order of event time; parts of unsorted ones in `scratch`.
    #[must_use]
    pub fn whole(paths: Vec<Location>, schema: EventSchema, fields: Vec<String>, scratch: PathBuf) -> Self {
        Settings {
            paths,
            schema,
            fields,
            query: None,
            positions: None,
            ties: None,
            until: None,
            shards: 1,
            mine: (0, 1),
            epoch_rows: u64::MAX,
            folders: Folders::default(),
            memory: MEMORY,
            scratch,
        }
    }

    /// Whether this machine does a shard.
    #[must_use]
    pub fn is_mine(&self, shard: u32) -> bool {
        shard % self.mine.1.max(1) == self.mine.0
    }

    /// The shards of this machine.
    pub fn shards(&self) -> impl Iterator<Item = u32> {
        (0..self.shards).filter(|shard| self.is_mine(*shard))
    }
}

#[cfg(test)]
mod tests;
