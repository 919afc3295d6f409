//! Where finished files go: a place that takes a name only once.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use parquet::file::metadata::ParquetMetaData;

use super::local::Local;
use super::name::Name;
use super::store::Store;
use crate::base::clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::offset::{Offset, Partition};
use crate::link::objects::Place;

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
    /// An empty file of this machine to write to.
    fn draft(&self, partition: Partition, temporary: Temporary) -> Result<(File, Draft)>;
    /// Gives a written file its name, durably, **only if there is none of that name**, in one step. False if the name is taken. The draft is gone
    /// when this returns true.
    fn put_new(&self, file: File, draft: &Draft, partition: Partition, name: &str) -> Result<bool>;
    /// Gives a written file, durably, a name beside the finished ones that is none of theirs. Whatever has that name is replaced: the name tells the
    /// content. The draft is gone when this returns.
    fn stage(&self, file: File, draft: &Draft, partition: Partition, name: &str) -> Result<()>;
    /// Whether a folder of the place, named from its root, holds anything but hidden files.
    fn holds(&self, folder: &str) -> Result<bool>;
    /// Removes what processes that died have left of the partition's temporary files.
    fn sweep(&self, partition: Partition) -> Result<()>;
    /// Where a partition, or a file in it, is, for errors.
    fn place(&self, partition: Partition, name: Option<Name>) -> String;
}

/// Opens the place. The folders of the partitions are in its folder `within`, which ends with `/`, or is empty for the place itself.
pub fn open(place: &Place, within: &'static str) -> Result<Box<dyn Target>> {
    match place.folder() {
        // Files are written where they will stay.
        Some(folder) => Ok(Box::new(Local::open(folder)?.within(within))),
        None => Ok(Box::new(Store::over(place.open()?).within(within))),
    }
}

/// A file that is being written. It is removed when dropped, if it has a name of its own.
pub struct Draft {
    /// Where it is, for errors.
    pub path: PathBuf,
    named: bool,
}

impl Draft {
    /// A file under a temporary name.
    pub fn at(path: PathBuf) -> Self {
        Draft { path, named: true }
    }

    /// A file without a name in the folder for temporary files: whatever happens to the process, nothing is left of it.
    pub fn nameless() -> Result<(File, Self)> {
        let path = std::env::temp_dir();
        let file = tempfile::tempfile().map_err(|e| {
            Error::io("sink", &path, e).help("files are written there before they are sent: give it room, or name another folder by TMPDIR")
        })?;
        Ok((file, Draft { path, named: false }))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.named {
            // Gone already if it has its name.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The error for a path that cannot be written.
pub fn unavailable(path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Kind::Unavailable, "sink", format!("cannot be written: {source}"))
        .at(path.display().to_string())
        .help("see that the folder is there and the disk has room; what was not committed will be written again")
        .caused_by(source)
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
    pub fn is_left_over(self, path: &Path) -> bool {
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

    fn entries(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn what_dead_processes_left_is_swept_and_what_others_write_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let target = Local::open(folder.path()).unwrap();
        let scratch = folder.path().join("partition-0");
        fs::create_dir(&scratch).unwrap();
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
        let mut left = entries(&scratch);
        left.sort();
        let mut kept = vec![own.to_string(), alive.to_string(), "notes.txt".to_owned()];
        // Where processes cannot be looked up, only age tells.
        if !Path::new("/proc/self").exists() {
            kept.push(dead.to_string());
        }
        kept.sort();
        assert_eq!(left, kept);
    }
}
