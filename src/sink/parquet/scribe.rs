//! The thread that encodes, compresses and writes what a sink's lane hands it, so that the lane goes on meanwhile.
//!
//! What it is told is done in order. A fault of a file is told to the lane with the next thing it does to that file, at the latest when it is finished,
//! before anything of it has a name.

use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use arrow::record_batch::RecordBatch;
use crossbeam_channel::{Sender, bounded};
use parquet::arrow::ArrowWriter;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::KeyValue;

/// Batches that wait, after which the lane does.
const WAITING: usize = 8;

type Job = Box<dyn FnOnce() + Send>;

/// The thread of a sink. It is started with the first file, and ends when the sink and its files are gone.
#[derive(Debug, Default)]
pub struct Scribe(Option<Sender<Job>>);

impl Scribe {
    /// Another file to write.
    pub fn open(&mut self, writer: ArrowWriter<File>) -> Result<Writing> {
        let jobs = match &self.0 {
            Some(jobs) => jobs.clone(),
            None => {
                let (jobs, todo) = bounded::<Job>(WAITING);
                thread::Builder::new().name("parquet".to_owned()).spawn(move || todo.into_iter().for_each(|job| job()))?;
                self.0.insert(jobs).clone()
            }
        };
        Ok(Writing {
            jobs,
            own: Arc::new(Own {
                writer: Mutex::new(Ok(writer)),
                held: AtomicUsize::new(0),
                bytes: AtomicUsize::new(0),
                waiting: AtomicUsize::new(0),
            }),
        })
    }
}

/// A file that is being written.
#[derive(Debug)]
pub struct Writing {
    jobs: Sender<Job>,
    own: Arc<Own>,
}

#[derive(Debug)]
struct Own {
    /// The writer, or what went wrong.
    writer: Mutex<Result<ArrowWriter<File>>>,
    /// Bytes that the writer holds in memory, and bytes that the file would have if it ended now, as of the last batch.
    held: AtomicUsize,
    bytes: AtomicUsize,
    /// Bytes of the batches that it has not taken yet.
    waiting: AtomicUsize,
}

impl Own {
    /// Does something with the writer, unless something has gone wrong before.
    fn with(&self, act: impl FnOnce(&mut ArrowWriter<File>) -> Result<()>) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(open) = &mut *writer else { return };
        match act(open) {
            Ok(()) => {
                self.held.store(open.memory_size(), Ordering::Relaxed);
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

/// The same fault, to be told.
fn again(fault: &ParquetError) -> ParquetError {
    ParquetError::General(fault.to_string())
}

impl Writing {
    fn send(&self, act: impl FnOnce(&mut ArrowWriter<File>) -> Result<()> + Send + 'static) -> Result<()> {
        let own = Arc::clone(&self.own);
        self.jobs.send(Box::new(move || own.with(act))).map_err(|_| ParquetError::General("the thread that writes has ended".to_owned()))
    }

    /// Adds rows.
    pub fn write(&self, batch: RecordBatch) -> Result<()> {
        self.own.fault()?;
        let (bytes, own) = (batch.get_array_memory_size(), Arc::clone(&self.own));
        self.own.waiting.fetch_add(bytes, Ordering::Relaxed);
        self.send(move |writer| {
            own.waiting.fetch_sub(bytes, Ordering::Relaxed);
            writer.write(&batch)
        })
    }

    /// Ends the row group, so that it is not held in memory any more.
    pub fn flush(&self) -> Result<()> {
        self.own.fault()?;
        self.send(ArrowWriter::flush)
    }

    /// Bytes in memory, about.
    pub fn held(&self) -> usize {
        self.own.held.load(Ordering::Relaxed) + self.own.waiting.load(Ordering::Relaxed)
    }

    /// Bytes of the file if it ended now, about.
    pub fn bytes(&self) -> usize {
        self.own.bytes.load(Ordering::Relaxed) + self.own.waiting.load(Ordering::Relaxed)
    }

    /// Waits until everything is written, and the footer with these notes.
    pub fn finish(self, notes: Vec<KeyValue>) -> Result<File> {
        let (done, waiting) = bounded(1);
        let own = Arc::clone(&self.own);
        let job = move || {
            let mut writer = own.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = std::mem::replace(&mut *writer, Err(ParquetError::General("the file is finished".to_owned())));
            let file = taken.and_then(|mut writer| {
                notes.into_iter().for_each(|note| writer.append_key_value_metadata(note));
                writer.into_inner()
            });
            // Who does not wait any more does not want it.
            let _ = done.send(file);
        };
        let ended = || ParquetError::General("the thread that writes has ended".to_owned());
        self.jobs.send(Box::new(job)).map_err(|_| ended())?;
        waiting.recv().map_err(|_| ended())?
    }
}
