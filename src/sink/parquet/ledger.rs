//! The commits of files by date: `_commits/partition-P/from=<20 digits>.json`, one for all files of an epoch.
//!
//! An epoch's rows may fall on several dates, and no file system or store makes several files visible at once. So the commit is a file of its own, and
//! the files with rows become visible after it:
//!
//! 1. each file with rows is written, and gets, durably, a name in the partition's folder of commits that no reader looks at (`....staged`). It ends in a
//!    hash of the content: an attempt that is made again writes the same file under the same name;
//! 2. the commit gets its name **only if the name is free**. It says how far the partition has come, and lists the files;
//! 3. each file is moved to `event_date=.../`, where readers look.
//!
//! Before step 2 nothing has happened. After it the rows are committed, and whoever takes the partition over does the rest of step 3 first (`settle`). So
//! readers never see rows that are not committed, and none twice; those of an epoch appear file by file.
//!
//! What is staged below a name that is committed is either in that commit and moved by who settles it, or of an attempt that lost, and is removed
//! (`sweep`). What is staged for a name that is not committed yet is left alone: the process that does it may be alive, on another machine, and about to commit it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::day::Day;
use super::footer::{Footer, foreign};
use super::name::{self, Name, Slice};
use crate::base::error::{Error, Kind, Result};
use crate::base::fail_point::fail_point;
use crate::base::offset::{Offset, Partition};
use crate::data::commit::{Commit, Note};
use crate::link::objects::Objects;

/// Folder of the commits, with the `/` at its end.
pub const COMMITS: &str = "_commits/";
/// Version of the commits' form.
const FORMAT: u32 = 1;
/// Digits of the hash in the name of a staged file.
const HASH: usize = 16;

/// A file with the rows of one date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The date.
    pub day: Day,
    /// Its name in the date's folder.
    pub slice: Slice,
    /// Its rows.
    pub rows: u64,
    /// Its bytes.
    pub bytes: u64,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
}

impl Piece {
    /// Where readers find it.
    pub fn path(&self) -> String {
        format!("{}/{}", self.day.folder(), self.slice)
    }

    /// Its name in the partition's folder of commits, until it is moved.
    pub fn staged(&self) -> String {
        let hash: String = self.sha256.chars().take(HASH).collect();
        format!("{}.{}.{:05}.{hash}.staged", self.slice.name.stem(), self.day, self.slice.part)
    }
}

/// What a commit says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What the footer of a file says where a commit is one file; `rows` are those of all pieces.
    pub footer: Footer,
    /// The files.
    pub pieces: Vec<Piece>,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Written {
    format: u32,
    from: i64,
    to: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    begin: Option<i64>,
    note: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pipeline: Option<String>,
    files: Vec<WrittenPiece>,
}

#[derive(Serialize, Deserialize)]
struct WrittenPiece {
    path: String,
    rows: u64,
    bytes: u64,
    sha256: String,
}

impl Entry {
    /// The commit of some files.
    pub fn new(from: Offset, begin: Offset, commit: &Commit, pieces: Vec<Piece>) -> Self {
        let begin = Some(begin).filter(|begin| *begin > from);
        let rows = pieces.iter().map(|piece| piece.rows).sum();
        Entry { footer: Footer { from, commit: commit.clone(), begin, rows, pipeline: None }, pieces }
    }

    /// The same, of a pipeline.
    pub fn of(mut self, pipeline: Option<&str>) -> Self {
        self.footer.pipeline = pipeline.map(str::to_owned);
        self
    }

    /// The commit as it is stored.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let piece = |piece: &Piece| WrittenPiece { path: piece.path(), rows: piece.rows, bytes: piece.bytes, sha256: piece.sha256.clone() };
        let written = Written {
            format: FORMAT,
            from: self.footer.from.0,
            to: self.footer.commit.next.0,
            begin: self.footer.begin.map(|begin| begin.0),
            note: self.footer.commit.note.to_string(),
            pipeline: self.footer.pipeline.clone(),
            files: self.pieces.iter().map(piece).collect(),
        };
        let mut bytes = serde_json::to_vec_pretty(&written).map_err(|e| Error::internal("sink", e.to_string()))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads the commit of this name; the error says why it is none of ours, in half a sentence.
    pub fn read(partition: Partition, name: Name, bytes: &[u8]) -> std::result::Result<Entry, String> {
        let version = |bytes| serde_json::from_slice::<serde_json::Value>(bytes).ok()?.get("format")?.as_u64();
        let format = version(bytes).ok_or("it is no commit of meantime")?;
        if format != u64::from(FORMAT) {
            return Err(format!("it has format {format}, this meantime reads and writes format {FORMAT}: a newer one wrote it"));
        }
        let written: Written = serde_json::from_slice(bytes).map_err(|e| format!("it cannot be read: {e}"))?;
        if written.from != name.from.0 {
            return Err(format!("its name says from={}, its content {}: it was renamed", name.from, written.from));
        }
        if written.to < written.from {
            return Err("it ends before it begins".to_owned());
        }
        let note = Note::read(&written.note).ok_or("it has no usable note")?;
        let piece = |piece: WrittenPiece| -> std::result::Result<Piece, String> {
            let parts = piece.path.split_once('/').and_then(|(day, slice)| Some((Day::read_folder(day)?, Slice::read(slice)?)));
            let own = parts.filter(|(_, slice)| (slice.partition, slice.name) == (partition, name));
            let (day, slice) = own.ok_or_else(|| format!("its file `{}` has a name that meantime gives none of it", piece.path))?;
            Ok(Piece { day, slice, rows: piece.rows, bytes: piece.bytes, sha256: piece.sha256 })
        };
        let pieces = written.files.into_iter().map(piece).collect::<std::result::Result<Vec<_>, _>>()?;
        let commit = Commit { next: Offset(written.to), note };
        Ok(Entry::new(name.from, written.begin.map_or(name.from, Offset), &commit, pieces).of(written.pipeline.as_deref()))
    }
}

/// What lies in a partition's folder of commits.
#[derive(Debug, PartialEq, Eq)]
pub enum Lying {
    /// A commit.
    Commit(Name),
    /// A file that is not where readers look, of the commit of this name, which may or may not be there.
    Staged(Name),
}

/// Reads the name of a file in a partition's folder of commits.
pub fn lying(text: &str) -> Option<Lying> {
    if let Some(name) = text.strip_suffix(".json").and_then(Name::read_stem) {
        return Some(Lying::Commit(name));
    }
    let mut parts = text.strip_suffix(".staged")?.rsplitn(4, '.');
    let (hash, part, day, stem) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let ours = hash.len() == HASH && part.len() == 5 && Day::read_folder(&format!("{}={day}", super::day::COLUMN)).is_some();
    Name::read_stem(stem).filter(|_| ours).map(Lying::Staged)
}

/// Name of a commit, from the root of the place.
pub fn path(partition: Partition, name: Name) -> String {
    folder(partition) + &file(name)
}

/// Name of a commit in its partition's folder.
pub fn file(name: Name) -> String {
    name.stem() + ".json"
}

fn folder(partition: Partition) -> String {
    format!("{COMMITS}{}/", name::folder(partition))
}

/// A staged file: the name of its commit, and its own from the root of the place.
type Staged = (Name, String);

/// The commits of all partitions.
pub struct Ledger {
    objects: Arc<dyn Objects>,
}

impl Ledger {
    /// Of an open place.
    pub fn over(objects: Arc<dyn Objects>) -> Self {
        Ledger { objects }
    }

    /// Where a commit is, for errors.
    pub fn place(&self, partition: Partition, name: Name) -> String {
        format!("{}/{}", self.objects, path(partition, name))
    }

    /// Commits, oldest first, and staged files.
    fn listed(&self, partition: Partition) -> Result<(Vec<Name>, Vec<Staged>)> {
        let (mut commits, mut staged) = (Vec::new(), Vec::new());
        for entry in self.objects.list(&folder(partition))? {
            match lying(entry.name.rsplit('/').next().unwrap_or_default()) {
                Some(Lying::Commit(name)) => commits.push(name),
                Some(Lying::Staged(name)) => staged.push((name, entry.name)),
                None => {}
            }
        }
        commits.sort_unstable();
        Ok((commits, staged))
    }

    /// The commits of a partition, oldest first.
    pub fn names(&self, partition: Partition) -> Result<Vec<Name>> {
        Ok(self.listed(partition)?.0)
    }

    /// A commit that was listed.
    pub fn entry(&self, partition: Partition, name: Name) -> Result<Entry> {
        let place = || self.place(partition, name);
        let bytes = self.objects.get(&path(partition, name))?;
        let bytes = bytes.ok_or_else(|| Error::new(Kind::Retry, "sink", "the commit has vanished since it was listed").at(place()))?;
        Entry::read(partition, name, &bytes).map_err(|why| foreign(place(), &why))
    }

    /// The newest commit, after the files of it that are not where readers look have been moved there, and what lost has been removed.
    pub fn settle(&self, partition: Partition) -> Result<Option<(Name, Entry)>> {
        let (commits, staged) = self.listed(partition)?;
        let Some(newest) = commits.last().copied() else { return Ok(None) };
        let entry = self.entry(partition, newest)?;
        for piece in &entry.pieces {
            let path = folder(partition) + &piece.staged();
            if staged.iter().any(|(_, staged)| *staged == path) {
                self.objects.rename(&path, &piece.path())?;
                tracing::info!(file = %piece.path(), "moved a committed file to its date, which a process that died had not");
            }
        }
        self.remove(&staged, newest)?;
        Ok(Some((newest, entry)))
    }

    /// Removes what is staged for commits up to this one, whose files have been moved.
    pub fn sweep(&self, partition: Partition, newest: Name) -> Result<()> {
        let (_, staged) = self.listed(partition)?;
        self.remove(&staged, newest)
    }

    fn remove(&self, staged: &[Staged], newest: Name) -> Result<()> {
        staged.iter().filter(|(name, _)| *name <= newest).try_for_each(|(_, path)| self.objects.delete(path))
    }

    /// Moves the files of a commit to where readers look. Those that another one has moved are left.
    pub fn publish(&self, partition: Partition, entry: &Entry) -> Result<()> {
        for piece in &entry.pieces {
            self.objects.rename(&(folder(partition) + &piece.staged()), &piece.path())?;
            fail_point("files.moving");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
