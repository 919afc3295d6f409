//! One JSON object a line, to a file or to stdout (`-`).
//!
//! A file is created if it is not there and otherwise appended to. Several sinks may write to one file at once (the lanes of a run, forecasts and
//! dead letters): each block of whole lines is written under the file's lock, in append mode, so lines never mix. A block that could not be
//! written whole, because the disk is full, is cut off again, and one that a kill or a power cut has torn is ended when the file is opened.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::json::{RowEncoder, dead_letter};
use super::{DeadLetterSink, ForecastSink, Sink};
use crate::base::error::{Error, Kind, Result};
use crate::data::commit::Commits;
use crate::data::forecasts::{Forecasts, Identity};
use crate::data::layout::Layout;
use crate::data::rejected::Rejected;

/// Bytes of whole lines that are written at once.
const BLOCK: usize = 1 << 20;

enum Target {
    Stdout,
    File {
        path: PathBuf,
        file: File,
        /// A regular file: can be cut off and synced; a pipe or a device cannot.
        regular: bool,
    },
}

/// Lines on their way out.
struct Lines {
    target: Target,
    block: Vec<u8>,
    written: u64,
    /// Lines handed to the operating system.
    passed: u64,
    durable: u64,
    closed: bool,
}

fn unavailable(path: &Path, source: std::io::Error) -> Error {
    Error::new(Kind::Unavailable, "sink", format!("cannot be written: {source}"))
        .at(path.display().to_string())
        .help("see that the disk is there and has room; what was not committed will be written again")
        .caused_by(source)
}

impl Lines {
    fn open(path: &Path) -> Result<Self> {
        let target = if path.as_os_str() == "-" {
            Target::Stdout
        } else {
            if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                std::fs::create_dir_all(folder).map_err(|e| Error::io("sink", folder, e))?;
            }
            let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(|e| Error::io("sink", path, e))?;
            let regular = file.metadata().map_err(|e| Error::io("sink", path, e))?.is_file();
            if regular {
                end_torn_line(path, &mut file).map_err(|e| Error::io("sink", path, e))?;
            }
            Target::File { path: path.to_owned(), file, regular }
        };
        Ok(Lines { target, block: Vec::new(), written: 0, passed: 0, durable: 0, closed: false })
    }

    /// Adds lines: `line` appends one to the buffer, without its end.
    fn add(&mut self, rows: usize, mut line: impl FnMut(usize, &mut Vec<u8>)) -> Result<()> {
        if self.closed {
            return Err(Error::internal("sink", "used after close"));
        }
        for row in 0..rows {
            line(row, &mut self.block);
            self.block.push(b'\n');
            self.written += 1;
            if self.block.len() >= BLOCK {
                self.pass_on()?;
            }
        }
        Ok(())
    }

    fn pass_on(&mut self) -> Result<()> {
        if !self.block.is_empty() {
            match &mut self.target {
                Target::Stdout => {
                    let mut stdout = std::io::stdout().lock();
                    let result = stdout.write_all(&self.block).and_then(|()| stdout.flush());
                    result.map_err(|e| unavailable(Path::new("stdout"), e))?;
                }
                Target::File { path, file, regular } => append(file, *regular, &self.block).map_err(|e| unavailable(path, e))?,
            }
            self.block.clear();
        }
        self.passed = self.written;
        Ok(())
    }

    fn flush(&mut self) -> Result<bool> {
        if self.closed {
            return Err(Error::internal("sink", "used after close"));
        }
        self.pass_on()?;
        if self.durable < self.passed {
            if let Target::File { path, file, regular: true } = &self.target {
                file.sync_data().map_err(|e| unavailable(path, e))?;
            }
            self.durable = self.passed;
        }
        Ok(true)
    }

    fn close(&mut self) -> Result<()> {
        if !self.closed {
            self.flush()?;
            self.closed = true;
        }
        Ok(())
    }
}

/// Takes the file's lock, where there are locks. A file system without them still appends each block in one piece, as long as it is a local one.
fn lock(file: &File) -> std::io::Result<bool> {
    match file.lock() {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Ends the half of a line that a power cut or a kill may have left, so that the next one is not read as its rest. Its records were not committed: the
/// line comes again.
fn end_torn_line(path: &Path, file: &mut File) -> std::io::Result<()> {
    let locked = lock(file)?;
    let mut last = *b"\n";
    // A file that may be written but not read is as it was.
    if file.metadata()?.len() > 0
        && let Ok(mut reader) = File::open(path)
    {
        reader.seek(SeekFrom::End(-1)).and_then(|_| reader.read_exact(&mut last))?;
    }
    let result = if last == *b"\n" { Ok(()) } else { file.write_all(b"\n") };
    if locked {
        file.unlock()?;
    }
    result
}

/// Appends a block of whole lines under the file's lock.
fn append(file: &mut File, regular: bool, block: &[u8]) -> std::io::Result<()> {
    let locked = lock(file)?;
    let before = file.metadata()?.len();
    let result = file.write_all(block);
    if result.is_err() && regular && locked {
        // Half a line would spoil the next one. If even this fails the first error says why.
        let _ = file.set_len(before);
    }
    if locked {
        file.unlock()?;
    }
    result
}

/// Forecasts as lines.
pub struct NdjsonForecasts {
    lines: Lines,
    encoder: RowEncoder,
}

impl NdjsonForecasts {
    /// Opens the file (or stdout, `-`) and makes its folder.
    ///
    /// # Errors
    /// The file cannot be made or opened for writing.
    pub fn open(path: &Path, layout: &Layout, identity: &Identity) -> Result<Self> {
        Ok(NdjsonForecasts { lines: Lines::open(path)?, encoder: RowEncoder::new(layout, identity) })
    }
}

impl ForecastSink for NdjsonForecasts {
    fn write(&mut self, forecasts: &Forecasts) -> Result<()> {
        self.lines.add(forecasts.len(), |row, out| self.encoder.row(forecasts, row, out))
    }
}

impl Sink for NdjsonForecasts {
    fn written(&self) -> u64 {
        self.lines.written
    }

    fn durable(&mut self) -> Result<u64> {
        Ok(self.lines.durable)
    }

    fn end_epoch(&mut self, _commits: &Commits, _force: bool) -> Result<bool> {
        self.lines.flush()
    }

    fn close(&mut self) -> Result<()> {
        self.lines.close()
    }
}

/// Dead letters as lines.
pub struct NdjsonDeadLetters {
    lines: Lines,
    origin: String,
}

impl NdjsonDeadLetters {
    /// Opens the file (or stdout, `-`) and makes its folder.
    ///
    /// # Errors
    /// The file cannot be made or opened for writing.
    pub fn open(path: &Path, origin: &str) -> Result<Self> {
        Ok(NdjsonDeadLetters { lines: Lines::open(path)?, origin: origin.to_owned() })
    }
}

impl DeadLetterSink for NdjsonDeadLetters {
    fn write(&mut self, rejected: &Rejected) -> Result<()> {
        self.lines.add(rejected.len(), |row, out| dead_letter(rejected, row, &self.origin, out))
    }
}

impl Sink for NdjsonDeadLetters {
    fn written(&self) -> u64 {
        self.lines.written
    }

    fn durable(&mut self) -> Result<u64> {
        Ok(self.lines.durable)
    }

    fn end_epoch(&mut self, _commits: &Commits, _force: bool) -> Result<bool> {
        self.lines.flush()
    }

    fn close(&mut self) -> Result<()> {
        self.lines.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::offset::{Offset, Partition};
    use crate::data::rejected::Reason;

    fn letters(lane: usize, rows: i64) -> Rejected {
        let mut rejected = Rejected::default();
        let payload = format!("{lane}").repeat(300);
        for offset in 0..rows {
            rejected.push((Partition(0), Offset(offset)), Reason::Malformed, "x", None, Some(payload.as_bytes()));
        }
        rejected
    }

    #[test]
    fn lanes_that_share_a_file_never_mix_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/dead.ndjson");
        std::thread::scope(|scope| {
            for lane in 0..3 {
                let path = &path;
                scope.spawn(move || {
                    let mut sink = NdjsonDeadLetters::open(path, "t").unwrap();
                    for _ in 0..30 {
                        sink.write(&letters(lane, 200)).unwrap();
                        sink.end_epoch(&Commits::new(), false).unwrap();
                    }
                    sink.close().unwrap();
                });
            }
        });
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3 * 30 * 200);
        for line in text.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
    }

    #[test]
    fn an_existing_file_is_appended_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dead.ndjson");
        for _ in 0..2 {
            let mut sink = NdjsonDeadLetters::open(&path, "t").unwrap();
            sink.write(&letters(1, 1)).unwrap();
            sink.close().unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    }

    #[test]
    fn a_line_that_a_kill_has_cut_off_does_not_spoil_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dead.ndjson");
        std::fs::write(&path, "{\"topic\":\"t\"}\n{\"topic\":\"t\",\"par").unwrap();
        for _ in 0..2 {
            let mut sink = NdjsonDeadLetters::open(&path, "t").unwrap();
            sink.write(&letters(1, 1)).unwrap();
            sink.close().unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let whole: Vec<bool> = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).collect();
        assert_eq!(whole, [true, false, true, true], "{text}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error_with_the_path() {
        let mut sink = NdjsonDeadLetters::open(Path::new("/dev/full"), "t").unwrap();
        sink.write(&letters(1, 1)).unwrap();
        let error = sink.end_epoch(&Commits::new(), true).unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable);
        assert!(error.to_string().contains("/dev/full"), "{error}");
        assert_eq!(sink.durable().unwrap(), 0);
    }
}
