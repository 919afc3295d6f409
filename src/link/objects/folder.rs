//! Objects as files of a folder: written beside their place under a temporary name, synced, then linked or renamed into place.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Entry, Objects, Put, check_name};
use crate::base::clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::time::{EventTime, Gap};

/// End of temporary names; no object has it.
const TEMPORARY: &str = ".tmp";
/// A temporary file that was not written to for so long was left by a writer that has crashed.
const ABANDONED: Gap = Gap(3_600_000_000);

/// Makes temporary names differ within the process, whichever `Folder` of it writes.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// A folder of a local or mounted file system.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Opens a folder, makes it if it is absent, and removes temporary files that crashed writers have left.
    ///
    /// # Errors
    /// It cannot be made or read.
    pub fn open(root: &Path) -> Result<Self> {
        make_folder(root).map_err(|e| fault(root, e))?;
        let folder = Folder { root: root.to_path_buf() };
        folder.sweep(root, clock::now()).map_err(|e| fault(root, e))?;
        Ok(folder)
    }

    /// A folder that is only read: it is neither made nor swept, and has no object if it is absent.
    #[must_use]
    pub fn as_it_is(root: &Path) -> Self {
        Folder { root: root.to_path_buf() }
    }

    /// Removes abandoned temporary files of a folder and those below it.
    fn sweep(&self, folder: &Path, now: EventTime) -> io::Result<()> {
        for (path, is_folder) in entries(folder)? {
            if is_folder {
                self.sweep(&path, now)?;
            } else if is_temporary(&path) && modified(&path).is_some_and(|time| now.since(time) > ABANDONED) {
                // Another process may have removed it meanwhile.
                let _ = fs::remove_file(&path);
            }
        }
        Ok(())
    }

    fn path(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        Ok(self.root.join(name))
    }

    /// A name beside `target` that nobody else uses: process and counter tell writers of one machine apart, the clock those of
    /// machines that mount the same folder.
    fn temporary(target: &Path) -> PathBuf {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let (process, count) = (std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        target.with_file_name(format!(".{name}.{process}-{count}-{}{TEMPORARY}", clock::now().0))
    }

    /// Writes a synced temporary file beside `target`, then lets `publish` move it into place.
    fn through_temporary<T>(
        &self,
        target: &Path,
        write: impl FnOnce(&mut File) -> io::Result<()>,
        publish: impl FnOnce(&Path) -> io::Result<T>,
    ) -> io::Result<T> {
        let parent = target.parent().unwrap_or(&self.root);
        make_folder(parent)?;
        let temporary = Self::temporary(target);
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
            write(&mut file)?;
            // Before the name: otherwise a crash could leave the name with half of the content.
            file.sync_all()?;
            drop(file);
            let outcome = publish(&temporary)?;
            sync_folder(parent)?;
            Ok(outcome)
        })();
        // After a rename there is none; after a link or an error it is only in the way.
        let _ = fs::remove_file(&temporary);
        written
    }
}

impl Objects for Folder {
    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<Put> {
        let target = self.path(name)?;
        if target.exists() {
            return Ok(Put::Exists);
        }
        self.through_temporary(&target, |file| file.write_all(bytes), |temporary| link_new(temporary, &target))
            .map_err(|e| fault(&target, e))
    }

    fn put_new_file(&self, file: &File, name: &str) -> Result<Put> {
        let target = self.path(name)?;
        if target.exists() {
            return Ok(Put::Exists);
        }
        let copy = |to: &mut File| {
            let mut from = file;
            from.rewind()?;
            io::copy(&mut from, to).map(|_| ())
        };
        self.through_temporary(&target, copy, |temporary| link_new(temporary, &target)).map_err(|e| fault(&target, e))
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let target = self.path(name)?;
        self.through_temporary(&target, |file| file.write_all(bytes), |temporary| fs::rename(temporary, &target))
            .map_err(|e| fault(&target, e))
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path(name)?;
        present(fs::read(&path)).map_err(|e| fault(&path, e))
    }

    fn tail(&self, name: &str, most: usize) -> Result<Option<Vec<u8>>> {
        let path = self.path(name)?;
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(&path)?;
            let most = u64::try_from(most).unwrap_or(u64::MAX);
            let start = file.metadata()?.len().saturating_sub(most);
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        present(read()).map_err(|e| fault(&path, e))
    }

    fn range(&self, entry: &Entry, from: u64, length: usize) -> Result<Option<Vec<u8>>> {
        let path = self.path(&entry.name)?;
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            file.take(u64::try_from(length).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        present(read()).map_err(|e| fault(&path, e))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        let start = self.root.join(prefix.trim_end_matches('/'));
        let mut found = Vec::new();
        walk(&self.root, &start, &mut found).map_err(|e| fault(&start, e))?;
        found.sort();
        Ok(found)
    }

    fn delete(&self, name: &str) -> Result<()> {
        let path = self.path(name)?;
        let removed = present(fs::remove_file(&path)).map_err(|e| fault(&path, e))?;
        match (removed, path.parent()) {
            (Some(()), Some(parent)) => sync_folder(parent).map_err(|e| fault(&path, e)),
            _ => Ok(()),
        }
    }

    fn rename(&self, from: &str, to: &str) -> Result<bool> {
        let (from, to) = (self.path(from)?, self.path(to)?);
        let move_it = || -> io::Result<bool> {
            let parent = to.parent().unwrap_or(&self.root);
            make_folder(parent)?;
            if present(fs::rename(&from, &to))?.is_none() {
                return Ok(false);
            }
            // That the old name is gone need not be durable.
            sync_folder(parent)?;
            Ok(true)
        };
        move_it().map_err(|e| fault(&to, e))
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root.display().fmt(f)
    }
}

/// Makes a folder and those above it, each of them durable.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() || folder.as_os_str().is_empty() {
        return Ok(());
    }
    let parent = folder.parent().unwrap_or(Path::new(""));
    make_folder(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => sync_folder(parent),
    }
}

/// Makes the names in a folder durable.
fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    // Windows cannot open folders; there the names are durable with the file.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// A second name for a file, only if it is free: the one operation of a file system that exactly one of several callers wins.
fn link_new(file: &Path, target: &Path) -> io::Result<Put> {
    match fs::hard_link(file, target) {
        Ok(()) => Ok(Put::Created),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Put::Exists),
        Err(error) => Err(error),
    }
}

/// A result whose "not found" is no error.
fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a folder holds, and whether each is a folder; nothing if it is absent.
fn entries(folder: &Path) -> io::Result<Vec<(PathBuf, bool)>> {
    let Some(found) = present(fs::read_dir(folder))? else { return Ok(Vec::new()) };
    found.map(|entry| entry.and_then(|entry| Ok((entry.path(), entry.file_type()?.is_dir())))).collect()
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<Entry>) -> io::Result<()> {
    for (path, is_folder) in entries(folder)? {
        if is_folder {
            walk(root, &path, found)?;
            continue;
        }
        let (Ok(relative), false) = (path.strip_prefix(root), is_temporary(&path)) else { continue };
        let parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy()).collect();
        // One that was deleted since is not there.
        if let Some(metadata) = present(fs::metadata(&path))? {
            found.push(Entry { name: parts.join("/"), bytes: metadata.len(), version: None });
        }
    }
    Ok(())
}

fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(TEMPORARY))
}

fn modified(path: &Path) -> Option<EventTime> {
    let since: Duration = fs::metadata(path).ok()?.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(EventTime(Gap::from(since).0))
}

/// An error of the file system with what to do about it.
fn fault(path: &Path, error: io::Error) -> Error {
    let (kind, help) = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            (Kind::Unavailable, "the disk is full: make room, nothing that was stored before is harmed")
        }
        ErrorKind::PermissionDenied => (Kind::Config, "give the user that runs meantime the right to read and write this folder"),
        ErrorKind::ReadOnlyFilesystem => (Kind::Config, "the file system is mounted read-only: name another folder"),
        ErrorKind::Unsupported => {
            (Kind::Config, "the file system has no hard links, which create-if-absent needs: name a folder on another one")
        }
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => (Kind::Config, "a file is where a folder should be: name another folder"),
        _ => (Kind::Unavailable, "look at the disk and its mount"),
    };
    Error::new(kind, "objects", error.to_string()).at(path.display().to_string()).help(help).caused_by(error)
}
