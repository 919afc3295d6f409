//! Whether a folder's files tell the whole story: from their names and footers alone, no row is read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::footer::Footer;
use super::name::{self, Name};
use super::target::{self, Temporary};
use crate::base::error::{Error, Result};
use crate::base::offset::{Offset, Partition};
use crate::data::commit::Commit;

/// What was found in a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Each partition that has a folder.
    pub partitions: BTreeMap<Partition, Tiles>,
    /// Everything that must not be, in the order in which it was found.
    pub faults: Vec<Fault>,
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
        before: PathBuf,
        /// Retention had deleted the records before they were read; otherwise a file is missing.
        deleted: bool,
    },
    /// A file that holds rows between two others (held events, ticks) is missing.
    Missing {
        /// The partition.
        partition: Partition,
        /// Name of the missing file.
        file: PathBuf,
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
        file: PathBuf,
    },
    /// A file or folder that meantime did not write, or that cannot be read.
    Foreign {
        /// The file or folder.
        path: PathBuf,
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
            Fault::Missing { .. } => "missing",
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
                write!(f, "hole: partition {partition}, records {from} to {to} are in no file: {why}, before {}", before.display())
            }
            Fault::Missing { partition, file } => write!(f, "hole: partition {partition}, the file {} is missing", file.display()),
            Fault::Overlap { partition, from, to, file } => {
                write!(f, "overlap: partition {partition}, records {from} to {to} are in two files, the later one {}", file.display())
            }
            Fault::Foreign { path, why } => write!(f, "foreign: {}: {why}", path.display()),
        }
    }
}

/// Looks at every file below a sink's folder.
///
/// # Errors
/// The folder is not there, or it or a file in it cannot be read. What is found in them is no error but a fault.
pub fn audit(path: &Path) -> Result<Audit> {
    let mut audit = Audit::default();
    for (text, entry) in entries(path)? {
        match name::read_folder(&text).filter(|_| entry.is_dir()) {
            Some(partition) => audit.partition(partition, &entry)?,
            // `check --connect` makes and removes one, and some systems keep their own notes so.
            None if text.starts_with('.') => {}
            None => audit.faults.push(Fault::Foreign { path: entry, why: "it is no folder called partition-P".to_owned() }),
        }
    }
    Ok(audit)
}

/// What a folder holds, by name.
fn entries(path: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let io = |e: std::io::Error| Error::io("verify", path, e);
    let entries = std::fs::read_dir(path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => {
            Error::config("verify", "there is no such folder").at(path.display().to_string()).help("has it been run yet?")
        }
        _ => io(e),
    })?;
    let mut found = BTreeMap::new();
    for entry in entries {
        let entry = entry.map_err(io)?;
        found.insert(entry.file_name().to_string_lossy().into_owned(), entry.path());
    }
    Ok(found)
}

impl Audit {
    fn partition(&mut self, partition: Partition, folder: &Path) -> Result<()> {
        let mut tiles = Tiles::default();
        let mut names = Vec::new();
        for (text, path) in entries(folder)? {
            match Name::read(&text) {
                Some(name) => names.push((name, path)),
                None if Temporary::read(&text).is_some() => tiles.unfinished += 1,
                None if text.starts_with('.') => {}
                None => self.faults.push(Fault::Foreign { path, why: "its name is none that meantime gives".to_owned() }),
            }
        }
        names.sort();
        // Name of the file that must come next.
        let mut next: Option<Name> = None;
        for (name, path) in names {
            let footer = match target::footer(&path)?.and_then(|metadata| Footer::read(name, &metadata)) {
                Ok(footer) => footer,
                Err(why) => {
                    // What it is about is not known, so that it also leaves a hole.
                    self.faults.push(Fault::Foreign { path, why });
                    continue;
                }
            };
            if let Some(next) = next {
                self.compare(partition, next, name, &footer, folder);
            }
            if let Some(begin) = footer.begin.filter(|begin| *begin > footer.from) {
                self.faults.push(Fault::Hole { partition, from: footer.from, to: begin, before: path.clone(), deleted: true });
            }
            next = next.max(Some(name.after(footer.commit.next)));
            tiles.add(&footer, std::fs::metadata(&path).map_err(|e| Error::io("verify", &path, e))?.len());
        }
        self.partitions.insert(partition, tiles);
        Ok(())
    }

    /// Notes what is wrong if `name` is not the `next` one.
    fn compare(&mut self, partition: Partition, next: Name, name: Name, footer: &Footer, folder: &Path) {
        let file = folder.join(name.to_string());
        if name.from > next.from {
            self.faults.push(Fault::Hole { partition, from: next.from, to: name.from, before: file, deleted: false });
        } else if name.from < next.from {
            self.faults.push(Fault::Overlap { partition, from: name.from, to: next.from.min(footer.commit.next), file });
        } else if name > next {
            self.faults.push(Fault::Missing { partition, file: folder.join(next.to_string()) });
        }
    }
}

impl Tiles {
    fn add(&mut self, footer: &Footer, bytes: u64) {
        self.files += 1;
        self.without_rows += u64::from(footer.rows == 0);
        self.rows += footer.rows;
        self.bytes += bytes;
        let (first, last) = self.range.unwrap_or((footer.from, footer.commit.next));
        self.range = Some((first, last.max(footer.commit.next)));
        self.newest = Some(footer.commit.clone());
        if !footer.commit.note.fingerprint.is_empty() {
            self.fingerprints.insert(footer.commit.note.fingerprint.clone());
        }
    }
}
