//! A folder of this machine: files are written beside their place under a hidden name, synced, and renamed only if the name is free.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::footer;
use super::name::{self, Name};
use super::target::{Draft, Target, Temporary, unavailable};
use crate::base::error::{Error, Result};
use crate::base::offset::{Offset, Partition};

/// A folder of this machine.
pub struct Local {
    path: PathBuf,
    within: &'static str,
}

impl Local {
    /// Makes the folder.
    pub fn open(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(|e| Error::io("sink", path, e))?;
        Ok(Local { path: path.to_owned(), within: "" })
    }

    /// The same, whose partitions have their folders in another one.
    pub fn within(self, within: &'static str) -> Self {
        Local { within, ..self }
    }

    fn folder(&self, partition: Partition) -> PathBuf {
        self.path.join(self.within).join(name::folder(partition))
    }

    fn file(&self, partition: Partition, name: Name) -> PathBuf {
        self.folder(partition).join(name.to_string())
    }

    /// Every name in the partition's folder; none if there is no folder yet.
    fn entries(&self, partition: Partition) -> Result<Vec<String>> {
        let folder = self.folder(partition);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io("sink", &folder, e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry.map_err(|e| Error::io("sink", &folder, e))?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }
}

impl Target for Local {
    fn list(&self, partition: Partition) -> Result<Vec<Name>> {
        let mut names: Vec<Name> = self.entries(partition)?.iter().filter_map(|text| Name::read(text)).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn footer(&self, partition: Partition, name: Name) -> Result<std::result::Result<ParquetMetaData, String>> {
        footer(&self.file(partition, name))
    }

    fn offsets(&self, partition: Partition, name: Name) -> Result<Vec<Offset>> {
        let path = self.file(partition, name);
        let file = File::open(&path).map_err(|e| Error::io("sink", &path, e))?;
        footer::offsets(file, &path.display().to_string())
    }

    fn draft(&self, partition: Partition, temporary: Temporary) -> Result<(File, Draft)> {
        let folder = self.folder(partition);
        if !folder.is_dir() {
            fs::create_dir_all(&folder).map_err(|e| unavailable(&folder, e))?;
            // What will be in it is durable only if it is.
            for above in folder.ancestors().skip(1).take_while(|above| above.starts_with(&self.path)) {
                sync_folder(above).map_err(|e| unavailable(above, e))?;
            }
        }
        let path = folder.join(temporary.to_string());
        let file = File::create(&path).map_err(|e| unavailable(&path, e))?;
        Ok((file, Draft::at(path)))
    }

    fn put_new(&self, file: File, draft: &Draft, partition: Partition, name: &str) -> Result<bool> {
        let (temporary, target) = (&draft.path, self.folder(partition).join(name));
        file.sync_all().map_err(|e| unavailable(temporary, e))?;
        drop(file);
        // Renames without replacing (Linux, macOS, Windows), or links and then removes; never by looking first.
        let named = tempfile::TempPath::try_from_path(temporary).and_then(|path| path.persist_noclobber(&target).map_err(|e| e.error));
        match named {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(false),
            Err(e) if matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput | ErrorKind::PermissionDenied) => {
                return Err(unavailable(&target, e)
                    .help("the file system must be able to rename without replacing, or to make hard links: exactly once rests on it"));
            }
            Err(e) => return Err(unavailable(&target, e)),
        }
        let folder = self.folder(partition);
        sync_folder(&folder).map_err(|e| unavailable(&folder, e))?;
        Ok(true)
    }

    fn stage(&self, file: File, draft: &Draft, partition: Partition, name: &str) -> Result<()> {
        let folder = self.folder(partition);
        let staged = folder.join(name);
        file.sync_all().map_err(|e| unavailable(&draft.path, e))?;
        drop(file);
        fs::rename(&draft.path, &staged).and_then(|()| sync_folder(&folder)).map_err(|e| unavailable(&staged, e))
    }

    fn holds(&self, folder: &str) -> Result<bool> {
        let path = self.path.join(folder);
        let io = |e: std::io::Error| Error::io("sink", &path, e);
        match fs::read_dir(&path) {
            Ok(mut entries) => entries.try_fold(false, |held, entry| {
                let entry = entry.map_err(io)?;
                Ok(held || !entry.file_name().to_string_lossy().starts_with('.'))
            }),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(io(e)),
        }
    }

    fn sweep(&self, partition: Partition) -> Result<()> {
        let folder = self.folder(partition);
        for text in self.entries(partition)? {
            let path = folder.join(&text);
            if Temporary::read(&text).is_some_and(|temporary| temporary.is_left_over(&path)) {
                match fs::remove_file(&path) {
                    Ok(()) => tracing::info!(path = %path.display(), "removed what a process that died has left"),
                    Err(e) if e.kind() == ErrorKind::NotFound => {}
                    Err(e) => return Err(Error::io("sink", &path, e)),
                }
            }
        }
        Ok(())
    }

    fn place(&self, partition: Partition, name: Option<Name>) -> String {
        name.map_or_else(|| self.folder(partition), |name| self.file(partition, name)).display().to_string()
    }
}

/// The footer of a file of this machine, and nothing else of it.
pub fn footer(path: &Path) -> Result<std::result::Result<ParquetMetaData, String>> {
    let file = File::open(path).map_err(|e| Error::io("sink", path, e))?;
    Ok(ParquetMetaDataReader::new().parse_and_finish(&file).map_err(|e| format!("its footer cannot be read: {e}")))
}

/// A new name is durable when its folder is; only Unix lets a program ask for that.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::Kind;

    #[test]
    fn a_name_is_given_once_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let target = Local::open(folder.path()).unwrap();
        let scratch = folder.path().join("partition-0");
        fs::create_dir(&scratch).unwrap();
        let give = |temporary: PathBuf, name: Name| {
            let file = File::open(folder.path()).unwrap();
            target.put_new(file, &Draft::at(temporary), Partition(0), &name.to_string())
        };
        let name = Name::first(Offset(0));
        for (content, given) in [("first", true), ("second", false)] {
            let temporary = scratch.join(format!(".{content}"));
            fs::write(&temporary, content).unwrap();
            assert_eq!(give(temporary.clone(), name).unwrap(), given);
            assert!(!temporary.exists(), "whatever comes of it the temporary is gone");
        }
        assert_eq!(fs::read_to_string(scratch.join(name.to_string())).unwrap(), "first");
        let error = give(scratch.join(".gone"), Name::first(Offset(9))).unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable);
        assert!(!scratch.join(Name::first(Offset(9)).to_string()).exists());
    }
}
