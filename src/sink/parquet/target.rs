//! Where finished files go: a place that takes a name only once. Today a folder; an object store fits behind the same trait.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::name::{self, Name};
use crate::base::clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::offset::{Offset, Partition};

/// A temporary file that is older than this is removed even if a process of its number lives: numbers are given out again.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// A place for the files of many partitions. All calls may block; none is made by two lanes for the same partition at once.
pub trait Target: Send {
    /// The finished files of a partition, oldest first. What is no name of ours is left out.
    fn list(&self, partition: Partition) -> Result<Vec<Name>>;
    /// The footer of a finished file. The inner error is for a file that is there but cannot be read as Parquet.
    fn footer(&self, partition: Partition, name: Name) -> Result<std::result::Result<ParquetMetaData, String>>;
    /// The column `offset` of a finished file.
    fn offsets(&self, partition: Partition, name: Name) -> Result<Vec<Offset>>;
    /// Folder of this machine in which temporary files of the partition are made; it is there when this returns.
    fn scratch(&self, partition: Partition) -> Result<PathBuf>;
    /// Gives a finished, synced temporary file its name, durably, **only if there is none of that name**, in one step. False if the name is
    /// taken. The temporary is gone when this returns true.
    fn put_new(&self, temporary: &Path, partition: Partition, name: Name) -> Result<bool>;
    /// Removes what processes that died have left of the partition's temporary files.
    fn sweep(&self, partition: Partition) -> Result<()>;
    /// Where a partition, or a file in it, is, for errors.
    fn place(&self, partition: Partition, name: Option<Name>) -> String;
}

/// A folder of this machine.
pub struct Local {
    path: PathBuf,
}

impl Local {
    /// Makes the folder.
    pub fn open(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(|e| Error::io("sink", path, e))?;
        Ok(Local { path: path.to_owned() })
    }

    fn folder(&self, partition: Partition) -> PathBuf {
        self.path.join(name::folder(partition))
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
        let unreadable = |e: &dyn std::error::Error| super::footer::foreign(path.display().to_string(), &format!("it cannot be read: {e}"));
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| unreadable(&e))?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), ["offset"]);
        let mut offsets = Vec::new();
        for batch in builder.with_projection(mask).build().map_err(|e| unreadable(&e))? {
            let batch = batch.map_err(|e| unreadable(&e))?;
            let column = batch.column_by_name("offset").and_then(|column| column.as_primitive_opt::<Int64Type>());
            offsets.extend(column.into_iter().flat_map(|column| column.values().iter().map(|offset| Offset(*offset))));
        }
        Ok(offsets)
    }

    fn scratch(&self, partition: Partition) -> Result<PathBuf> {
        let folder = self.folder(partition);
        fs::create_dir_all(&folder).map_err(|e| unavailable(&folder, e))?;
        Ok(folder)
    }

    fn put_new(&self, temporary: &Path, partition: Partition, name: Name) -> Result<bool> {
        let target = self.file(partition, name);
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

/// The error for a path that cannot be written.
pub fn unavailable(path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Kind::Unavailable, "sink", format!("cannot be written: {source}"))
        .at(path.display().to_string())
        .help("see that the folder is there and the disk has room; what was not committed will be written again")
        .caused_by(source)
}

/// A new name is durable when its folder is; only Unix lets a program ask for that.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Name of a file that is being written: `.<name>.tmp-<process>-<start>-<lane>-<writer>`. The start of the process, in microseconds, tells it from
/// an earlier one of the same number; the writer tells sinks of one process apart, so that no two ever write to one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Temporary {
    name: Name,
    process: u32,
    start: i64,
    lane: usize,
    writer: usize,
}

/// A number that no other writer of this process has.
pub fn writer() -> usize {
    static WRITERS: AtomicUsize = AtomicUsize::new(0);
    WRITERS.fetch_add(1, Ordering::Relaxed)
}

impl Temporary {
    /// The name under which a writer of lane `lane` of this process writes a file.
    pub fn of(name: Name, lane: usize, writer: usize) -> Self {
        static START: OnceLock<i64> = OnceLock::new();
        Temporary { name, process: std::process::id(), start: *START.get_or_init(|| clock::now().0), lane, writer }
    }

    /// Reads such a name.
    pub fn read(text: &str) -> Option<Self> {
        let (name, numbers) = text.strip_prefix('.')?.split_once(".tmp-")?;
        let mut numbers = numbers.split('-');
        let (process, start) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        let (lane, writer) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        let temporary = Temporary { name: Name::read(name)?, process, start, lane, writer };
        (temporary.to_string() == text).then_some(temporary)
    }

    /// Whether nobody writes it any more. A writer that is taken for dead by mistake (another machine's) finds its file gone, and stops.
    fn is_left_over(self, path: &Path) -> bool {
        let own = Temporary::of(self.name, self.lane, self.writer);
        if self.process == own.process {
            return self.start != own.start;
        }
        let processes = Path::new("/proc/self");
        if processes.exists() && !Path::new("/proc").join(self.process.to_string()).exists() {
            return true;
        }
        let written = fs::metadata(path).and_then(|metadata| metadata.modified()).map(|time| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
        });
        let stale = i64::try_from(STALE.as_micros()).unwrap_or(i64::MAX);
        written.is_ok_and(|written| clock::now().0.saturating_sub(written) > stale)
    }
}

impl std::fmt::Display for Temporary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, ".{}.tmp-{}-{}-{}-{}", self.name, self.process, self.start, self.lane, self.writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dead_processes_left_is_swept_and_what_others_write_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let target = Local::open(folder.path()).unwrap();
        let scratch = target.scratch(Partition(0)).unwrap();
        let own = Temporary::of(Name::first(Offset(3)), 1, writer());
        assert_eq!(Temporary::read(&own.to_string()), Some(own));
        let dead = Temporary { process: u32::MAX, ..own };
        let earlier = Temporary { start: 1, ..own };
        let alive = Temporary { process: 1, ..own };
        let stale = Temporary { process: 1, lane: 7, ..own };
        for temporary in [own, dead, earlier, alive, stale] {
            fs::write(scratch.join(temporary.to_string()), "x").unwrap();
        }
        fs::write(scratch.join("notes.txt"), "x").unwrap();
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        File::options().write(true).open(scratch.join(stale.to_string())).unwrap().set_modified(old).unwrap();
        target.sweep(Partition(0)).unwrap();
        let mut left = target.entries(Partition(0)).unwrap();
        left.sort();
        let mut kept = vec![own.to_string(), alive.to_string(), "notes.txt".to_owned()];
        // Where processes cannot be looked up, only age tells.
        if !Path::new("/proc/self").exists() {
            kept.push(dead.to_string());
        }
        kept.sort();
        assert_eq!(left, kept);
    }

    #[test]
    fn a_name_is_given_once_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let target = Local::open(folder.path()).unwrap();
        let scratch = target.scratch(Partition(0)).unwrap();
        let name = Name::first(Offset(0));
        for (content, given) in [("first", true), ("second", false)] {
            let temporary = scratch.join(format!(".{content}"));
            fs::write(&temporary, content).unwrap();
            assert_eq!(target.put_new(&temporary, Partition(0), name).unwrap(), given);
            assert!(!temporary.exists(), "whatever comes of it the temporary is gone");
        }
        assert_eq!(fs::read_to_string(scratch.join(name.to_string())).unwrap(), "first");
        let error = target.put_new(&scratch.join(".gone"), Partition(0), Name::first(Offset(9))).unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable);
        assert!(!scratch.join(Name::first(Offset(9)).to_string()).exists());
    }
}
