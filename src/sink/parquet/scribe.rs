//! The thread that encodes, compresses and writes what a sink's lane hands it, so that the lane goes on meanwhile.
//!
//! What it is told is done in order. A fault of a file is told to the lane with the next thing it does to that file, at the latest when it is finished,
//! before anything of it has a name.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use arrow::record_batch::RecordBatch;
use crossbeam_channel::{Sender, bounded};
use parquet::arrow::ArrowWriter;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::KeyValue;

use crate::base::guard::guarded;

/// Rows of one row group: what a reader must hold at once.
pub const GROUP_ROWS: usize = 131_072;
/// Batches that wait, after which the lane does.
const WAITING: usize = 8;

type Job = Box<dyn FnOnce() + Send>;

/// The thread of a sink. It is started with the first file, and ends when the sink and its files are gone.
#[derive(Debug, Default)]
pub struct Scribe(OnceLock<Sender<Job>>);

impl Scribe {
    /// Another file to write.
    pub fn open<W: Write + Send + 'static>(&self, writer: ArrowWriter<W>) -> Result<Writing<W>> {
        let jobs = match self.0.get() {
            Some(jobs) => jobs.clone(),
            None => {
                let (jobs, todo) = bounded::<Job>(WAITING);
                thread::Builder::new().name("parquet".to_owned()).spawn(move || todo.into_iter().for_each(|job| job()))?;
                self.0.get_or_init(|| jobs).clone()
            }
        };
        let own = Own { writer: Mutex::new(Ok(writer)), bytes: AtomicUsize::new(0), waiting: AtomicUsize::new(0) };
        Ok(Writing { jobs, group: (0, 0), own: Arc::new(own) })
    }
}

/// A file that is being written.
pub struct Writing<W: Write> {
    jobs: Sender<Job>,
    own: Arc<Own<W>>,
    /// Rows and bytes of the row group that is open, as they were handed in: where row groups end must not depend on how far the thread has come.
    group: (usize, usize),
}

struct Own<W: Write> {
    /// The writer, or what went wrong.
    writer: Mutex<Result<ArrowWriter<W>>>,
    /// Bytes that the file would have if it ended now, as of the last batch that was taken, and bytes of those that were not yet.
    bytes: AtomicUsize,
    waiting: AtomicUsize,
}

impl<W: Write + Send> Own<W> {
    /// Does something with the writer, unless something has gone wrong before.
    fn with(&self, act: impl FnOnce(&mut ArrowWriter<W>) -> Result<()>) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(open) = &mut *writer else { return };
        // What the lane waits for is told to it, also after a panic.
        match tried(|| act(open)) {
            Ok(()) => {
                self.bytes.store(open.bytes_written() + open.in_progress_size(), Ordering::Relaxed);
            }
            Err(e) => *writer = Err(e),
        }
    }

    fn fault(&self) -> Result<()> {
        // Where the thread is at work there is none yet.
        match self.writer.try_lock().as_deref() {
            Ok(Err(e)) => Err(again(e)),
            _ => Ok(()),
        }
    }
}

/// A panic as a fault of the file.
fn tried<T>(act: impl FnOnce() -> Result<T>) -> Result<T> {
    guarded("sink", "the thread that writes Parquet", act).map_err(|error| ParquetError::External(error.into())).and_then(|done| done)
}

/// The same fault, to be told.
fn again(fault: &ParquetError) -> ParquetError {
    ParquetError::General(fault.to_string())
}

impl<W: Write + Send + 'static> Writing<W> {
    fn send(&self, job: impl FnOnce(&Own<W>) + Send + 'static) -> Result<()> {
        let own = Arc::clone(&self.own);
        self.jobs.send(Box::new(move || job(&own))).map_err(|_| ParquetError::General("the thread that writes has ended".to_owned()))
    }

    /// Adds rows.
    pub fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.own.fault()?;
        let (rows, bytes) = (batch.num_rows(), batch.get_array_memory_size());
        self.group = (self.group.0 + rows, self.group.1 + bytes);
        if self.group.0 >= GROUP_ROWS {
            // The writer has ended a group by itself within this batch.
            let left = self.group.0 % GROUP_ROWS;
            self.group = (left, bytes / rows.max(1) * left);
        }
        self.own.waiting.fetch_add(bytes, Ordering::Relaxed);
        self.send(move |own| {
            own.with(|writer| writer.write(&batch));
            own.waiting.fetch_sub(bytes, Ordering::Relaxed);
        })
    }

    /// Ends the row group, so that it is not held in memory any more.
    pub fn flush(&mut self) -> Result<()> {
        self.own.fault()?;
        self.group = (0, 0);
        self.send(|own| own.with(ArrowWriter::flush))
    }

    /// Bytes of the row group that is open: more than it takes in memory once it is encoded.
    pub fn held(&self) -> usize {
        self.group.1
    }

    /// Bytes of the file if it ended now, about.
    pub fn bytes(&self) -> usize {
        self.own.bytes.load(Ordering::Relaxed) + self.own.waiting.load(Ordering::Relaxed)
    }

    /// Waits until everything is written, and the footer with these notes.
    pub fn finish(self, notes: Vec<KeyValue>) -> Result<W> {
        let (done, waiting) = bounded(1);
        self.send(move |own| {
            let mut writer = own.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = std::mem::replace(&mut *writer, Err(ParquetError::General("the file is finished".to_owned())));
            let file = taken.and_then(|mut writer| {
                notes.into_iter().for_each(|note| writer.append_key_value_metadata(note));
                tried(|| writer.into_inner())
            });
            // Who does not wait any more does not want it.
            let _ = done.send(file);
        })?;
        waiting.recv().map_err(|_| ParquetError::General("the thread that writes has ended".to_owned()))?
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use arrow::array::{ArrayRef, Int64Array};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    fn batch(name: &str, rows: std::ops::Range<i64>) -> RecordBatch {
        RecordBatch::try_from_iter([(name, Arc::new(Int64Array::from_iter_values(rows)) as ArrayRef)]).unwrap()
    }

    #[test]
    fn two_files_of_one_thread_have_all_their_rows_in_order_and_a_fault_stays_with_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let scribe = Scribe::default();
        let open = |name: &str, writable: bool| {
            let path = folder.path().join(name);
            File::create(&path).unwrap();
            let file = File::options().read(true).write(writable).open(path).unwrap();
            scribe.open(ArrowWriter::try_new(file, batch("a", 0..1).schema(), None).unwrap()).unwrap()
        };
        let (mut good, mut bad) = (open("good", true), open("bad", false));
        for i in 0..100 {
            good.write(batch("a", i * 10..(i + 1) * 10)).unwrap();
            // It is told when the thread has come there, at the latest at the end.
            let _ = bad.write(batch("a", 0..1));
        }
        assert!(good.bytes() > 0 && good.held() >= 1000 * size_of::<i64>());
        good.flush().unwrap();
        assert_eq!(good.held(), 0);
        let file = good.finish(vec![KeyValue::new("note".to_owned(), "kept".to_owned())]).unwrap();
        assert!(bad.finish(Vec::new()).is_err());
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let notes = reader.metadata().file_metadata().key_value_metadata().unwrap();
        assert!(notes.iter().any(|note| note.key == "note"));
        let read: Vec<RecordBatch> = reader.with_batch_size(1000).build().unwrap().map(Result::unwrap).collect();
        assert_eq!(read, [batch("a", 0..1000)]);
    }

    /// Takes `self.0` bytes and panics then.
    struct Panics(usize);

    impl Write for Panics {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).expect("no room");
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_of_the_thread_is_a_fault_of_its_file_and_the_thread_goes_on_with_the_others() {
        let scribe = Scribe::default();
        let open = |room: usize| {
            let mut writing = scribe.open(ArrowWriter::try_new(Panics(room), batch("a", 0..1).schema(), None).unwrap()).unwrap();
            writing.write(batch("a", 0..10)).unwrap();
            writing.flush().unwrap();
            writing
        };
        let (bad, good) = (open(8), open(10_000));
        let error = bad.finish(Vec::new()).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("the thread that writes Parquet panicked: no room"), "{error}");
        good.finish(Vec::new()).map(|_| ()).unwrap();
    }
}
