//! Whether the files of a folder or bucket tell the whole story: from their names and footers (where they are by date, from their commits) alone, no
//! row is read.

mod by_date;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use parquet::file::metadata::ParquetMetaData;

use super::delta::LOG;
use super::footer::Footer;
use super::ledger::COMMITS;
use super::local;
use super::name::{self, Name};
use super::target::Temporary;
use crate::base::error::{Error, Kind, Result};
use crate::base::offset::{Offset, Partition};
use crate::data::commit::Commit;
use crate::link::file;
use crate::link::objects::{Objects, Place};

/// Footers that are fetched from a bucket at once.
const AT_ONCE: usize = 16;

/// What was found in a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Each partition that has a folder.
    pub partitions: BTreeMap<Partition, Tiles>,
    /// Everything that must not be, in the order in which it was found.
    pub faults: Vec<Fault>,
    /// Name of the pipeline that wrote the first file that says one.
    pub pipeline: Option<String>,
}

/// The files of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tiles {
    /// Finished files.
    pub files: u64,
    /// Of these, files without rows: their records brought about none.
    pub without_rows: u64,
    /// Rows of all files.
    pub rows: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// First record, and the one after the last, that the files are about; `None` without a file.
    pub range: Option<(Offset, Offset)>,
    /// What the newest file commits.
    pub newest: Option<Commit>,
    /// Fingerprints of model and pipeline that the files were written with.
    pub fingerprints: BTreeSet<String>,
    /// Hidden files of runs that are under way or were stopped hard; the next run removes the latter.
    pub unfinished: u64,
    /// Files by date whose folders are gone, and so are those of all dates before: taken for removed on purpose.
    pub retired: u64,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No file is about records in [from, to).
    Hole {
        /// The partition.
        partition: Partition,
        /// First record of the hole.
        from: Offset,
        /// First record after it.
        to: Offset,
        /// The file after the hole.
        before: String,
        /// Retention had deleted the records before they were read; otherwise a file is missing.
        deleted: bool,
    },
    /// A file that holds rows between two others (held events, ticks) is missing.
    Missing {
        /// The partition.
        partition: Partition,
        /// Name of the missing file.
        file: String,
    },
    /// A file of a date that a commit names is missing, or is another one.
    Gone {
        /// The partition.
        partition: Partition,
        /// The file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// Two files are about the same records.
    Overlap {
        /// The partition.
        partition: Partition,
        /// First record that both are about.
        from: Offset,
        /// First record that only one of them is about.
        to: Offset,
        /// The later of the two.
        file: String,
    },
    /// A file or folder that meantime did not write, or that cannot be read.
    Foreign {
        /// The file or folder.
        path: String,
        /// Why it does not belong there.
        why: String,
    },
}

impl Fault {
    /// One word for machines.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Fault::Hole { deleted: true, .. } => "deleted",
            Fault::Hole { .. } => "hole",
            Fault::Missing { .. } | Fault::Gone { .. } => "missing",
            Fault::Overlap { .. } => "overlap",
            Fault::Foreign { .. } => "foreign",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Hole { partition, from, to, before, deleted } => {
                let why = if *deleted { "retention had deleted them before they were read" } else { "a file is missing" };
                write!(f, "hole: partition {partition}, records {from} to {to} are in no file: {why}, before {before}")
            }
            Fault::Missing { partition, file } => write!(f, "hole: partition {partition}, the file {file} is missing"),
            Fault::Gone { partition, file, why } => write!(f, "missing: partition {partition}, the file {file}: {why}"),
            Fault::Overlap { partition, from, to, file } => {
                write!(f, "overlap: partition {partition}, records {from} to {to} are in two files, the later one {file}")
            }
            Fault::Foreign { path, why } => write!(f, "foreign: {path}: {why}"),
        }
    }
}

/// Looks at every file below a sink's folder or prefix.
///
/// # Errors
/// The folder is not there, or it or a file in it cannot be read. What is found in them is no error but a fault.
pub fn audit(place: &Place) -> Result<Audit> {
    all(&Look::open(place)?)
}

/// As `audit`, of an open store.
#[cfg(test)]
pub fn audit_objects(objects: Arc<dyn Objects>) -> Result<Audit> {
    all(&Look::Store(objects))
}

fn all(look: &Look<'_>) -> Result<Audit> {
    // One look decides: a stage that starts meanwhile may make the folder of commits between two.
    let tree = look.tree()?;
    if tree.contains_key(COMMITS.trim_end_matches('/')) {
        return by_date::audit(look);
    }
    let mut audit = Audit::default();
    for (text, within) in tree {
        match (name::read_folder(&text), within) {
            (Some(partition), Some(files)) => audit.partition(partition, look, &text, files)?,
            // `check --connect` makes and removes one, and some systems keep their own notes so.
            _ if text.starts_with('.') || text == LOG => {}
            _ => audit.faults.push(Fault::Foreign { path: look.shown(&text), why: "it is no folder called partition-P".to_owned() }),
        }
    }
    Ok(audit)
}

/// Names and bytes of what is in a folder; `None` for what is no folder.
type Tree = BTreeMap<String, Option<BTreeMap<String, u64>>>;

/// How a place is looked at: a folder is left as it is, not even made.
enum Look<'a> {
    Folder(&'a Path),
    Store(Arc<dyn Objects>),
}

impl<'a> Look<'a> {
    fn open(place: &'a Place) -> Result<Self> {
        Ok(match place.folder() {
            Some(folder) => Look::Folder(folder),
            None => Look::Store(place.open()?),
        })
    }

    fn tree(&self) -> Result<Tree> {
        let mut tree = Tree::new();
        match self {
            Look::Folder(path) => {
                for (text, is_folder, _) in entries(path)? {
                    let within = if name::read_folder(&text).is_some() && is_folder {
                        Some(entries(&path.join(&text))?.into_iter().map(|(name, _, bytes)| (name, bytes)).collect())
                    } else {
                        None
                    };
                    tree.insert(text, within);
                }
            }
            Look::Store(objects) => {
                for entry in objects.list("")? {
                    match entry.name.split_once('/') {
                        None => drop(tree.entry(entry.name).or_insert(None)),
                        Some((folder, name)) => {
                            let within = tree.entry(folder.to_owned()).or_insert_with(|| Some(BTreeMap::new()));
                            within.get_or_insert_default().insert(name.to_owned(), entry.bytes);
                        }
                    }
                }
            }
        }
        Ok(tree)
    }

    fn footer(&self, name: &str) -> Result<std::result::Result<ParquetMetaData, String>> {
        match self {
            Look::Folder(path) => local::footer(&path.join(name)),
            Look::Store(objects) => file::footer(&**objects, name)?
                .ok_or_else(|| Error::new(Kind::Retry, "verify", "the file has vanished since it was listed").at(self.shown(name))),
        }
    }

    /// The footers of some files, in their order. A bucket is asked for several at once: each takes a while to answer.
    fn footers(&self, names: &[String]) -> Result<Vec<std::result::Result<ParquetMetaData, String>>> {
        if matches!(self, Look::Folder(_)) {
            return names.iter().map(|name| self.footer(name)).collect();
        }
        std::thread::scope(|scope| {
            let share = names.len().div_ceil(AT_ONCE).max(1);
            let asked = names.chunks(share).map(|names| scope.spawn(|| names.iter().map(|name| self.footer(name)).collect::<Vec<_>>()));
            let mut footers = Vec::new();
            for thread in asked.collect::<Vec<_>>() {
                let some = thread.join().map_err(|_| Error::internal("verify", "a thread that reads footers panicked"))?;
                footers.extend(some.into_iter().collect::<Result<Vec<_>>>()?);
            }
            Ok(footers)
        })
    }

    /// A name as people see it.
    fn shown(&self, name: &str) -> String {
        match self {
            Look::Folder(path) => path.join(name).display().to_string(),
            Look::Store(objects) => format!("{objects}/{name}"),
        }
    }
}

/// What a folder holds: name, whether it is a folder, bytes.
fn entries(path: &Path) -> Result<Vec<(String, bool, u64)>> {
    let io = |e: std::io::Error| Error::io("verify", path, e);
    let entries = std::fs::read_dir(path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => {
            Error::config("verify", "there is no such folder").at(path.display().to_string()).help("has it been run yet?")
        }
        _ => io(e),
    })?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io)?;
        // One that has been renamed since is not there any more under this name.
        if let Ok(metadata) = std::fs::metadata(entry.path()) {
            found.push((entry.file_name().to_string_lossy().into_owned(), metadata.is_dir(), metadata.len()));
        }
    }
    Ok(found)
}

impl Audit {
    fn partition(&mut self, partition: Partition, look: &Look<'_>, folder: &str, files: BTreeMap<String, u64>) -> Result<()> {
        let mut tiles = Tiles::default();
        let mut names = Vec::new();
        for (text, bytes) in files {
            let path = format!("{folder}/{text}");
            match Name::read(&text) {
                Some(name) => names.push((name, bytes)),
                None if Temporary::read(&text).is_some() => tiles.unfinished += 1,
                None if text.starts_with('.') => {}
                None => {
                    self.faults.push(Fault::Foreign { path: look.shown(&path), why: "its name is none that meantime gives".to_owned() })
                }
            }
        }
        names.sort_unstable();
        let paths: Vec<String> = names.iter().map(|(name, _)| format!("{folder}/{name}")).collect();
        let footers = look.footers(&paths)?;
        // Name of the file that must come next.
        let mut next: Option<Name> = None;
        for (((name, bytes), path), footer) in names.into_iter().zip(&paths).zip(footers) {
            let footer = match footer.and_then(|metadata| Footer::read(name, &metadata)) {
                Ok(footer) => footer,
                Err(why) => {
                    // What it is about is not known, so that it also leaves a hole.
                    self.faults.push(Fault::Foreign { path: look.shown(path), why });
                    continue;
                }
            };
            self.lay(partition, &mut next, name, &footer, &|name| look.shown(&format!("{folder}/{name}")));
            tiles.files += 1;
            tiles.without_rows += u64::from(footer.rows == 0);
            tiles.bytes += bytes;
            tiles.add(&footer);
        }
        self.partitions.insert(partition, tiles);
        Ok(())
    }

    /// Lays a tile where the `next` one must come, and notes what is wrong with its place.
    fn lay(&mut self, partition: Partition, next: &mut Option<Name>, name: Name, footer: &Footer, shown: &dyn Fn(Name) -> String) {
        if let Some(next) = *next {
            self.compare(partition, next, name, footer, shown);
        }
        if let Some(begin) = footer.begin.filter(|begin| *begin > footer.from) {
            self.faults.push(Fault::Hole { partition, from: footer.from, to: begin, before: shown(name), deleted: true });
        }
        if let Some(own) = &footer.pipeline {
            let first = self.pipeline.get_or_insert_with(|| own.clone());
            if first != own {
                let why = format!("the pipeline `{own}` wrote it, others here are of `{first}`");
                self.faults.push(Fault::Foreign { path: shown(name), why });
            }
        }
        *next = (*next).max(Some(name.after(footer.commit.next)));
    }

    /// Notes what is wrong if `name` is not the `next` one.
    fn compare(&mut self, partition: Partition, next: Name, name: Name, footer: &Footer, shown: &dyn Fn(Name) -> String) {
        let file = shown(name);
        if name.from > next.from {
            self.faults.push(Fault::Hole { partition, from: next.from, to: name.from, before: file, deleted: false });
        } else if name.from < next.from {
            self.faults.push(Fault::Overlap { partition, from: name.from, to: next.from.min(footer.commit.next), file });
        } else if name > next {
            self.faults.push(Fault::Missing { partition, file: shown(next) });
        }
    }
}

impl Tiles {
    fn add(&mut self, footer: &Footer) {
        self.rows += footer.rows;
        let (first, last) = self.range.unwrap_or((footer.from, footer.commit.next));
        self.range = Some((first, last.max(footer.commit.next)));
        self.newest = Some(footer.commit.clone());
        if !footer.commit.note.fingerprint.is_empty() {
            self.fingerprints.insert(footer.commit.note.fingerprint.clone());
        }
    }
}
