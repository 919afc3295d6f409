//! A file to read: on this machine, or an object of a store. Of an object only what is asked for is fetched, and nothing of it is kept on this machine.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::{FooterTail, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length};

use super::objects::{Entry, Objects};
use crate::base::error::{Error, Kind, Result};

/// Bytes of an object's end that are fetched at first: few footers are longer.
const TAIL: usize = 64 << 10;
/// Bytes of an object that is read from beginning to end which are fetched at once.
const WINDOW: usize = 8 << 20;

/// Where a file is.
#[derive(Clone)]
pub enum Location {
    /// On this machine.
    Path(PathBuf),
    /// In a store, as it was when it was listed: one that is replaced meanwhile is an error.
    Object(Arc<dyn Objects>, Entry),
}

impl Location {
    /// Its name with the folders that are known, for its ending.
    #[must_use]
    pub fn name(&self) -> &Path {
        match self {
            Location::Path(path) => path,
            Location::Object(_, entry) => Path::new(&entry.name),
        }
    }

    /// What the store calls its present content: it changes whenever that does.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        match self {
            Location::Path(_) => None,
            Location::Object(_, entry) => entry.version.as_deref(),
        }
    }

    /// Its length, if it can be opened and is no folder.
    ///
    /// # Errors
    /// It is not there, is a folder, or may not be read.
    pub fn bytes(&self) -> Result<u64> {
        match self {
            Location::Path(path) => {
                let metadata = File::open(path).and_then(|file| file.metadata()).map_err(|e| self.fault(e))?;
                if metadata.is_dir() {
                    return Err(Error::config("source", "is a folder, not a file").at(self.to_string()).help("name the files in it"));
                }
                Ok(metadata.len())
            }
            Location::Object(_, entry) => Ok(entry.bytes),
        }
    }

    /// Checksum of the footer, if it is a Parquet file on this machine; else 0.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn footer_checksum(&self) -> Result<u32> {
        let Location::Path(path) = self else { return Ok(0) };
        let read = || -> io::Result<u32> {
            let mut file = File::open(path)?;
            let bytes = file.metadata()?.len();
            let tail = bytes.min(FOOTER_SIZE as u64);
            file.seek(SeekFrom::End(-i64::try_from(tail).unwrap_or(0)))?;
            let mut end = Vec::new();
            file.read_to_end(&mut end)?;
            let Some(footer) = <[u8; FOOTER_SIZE]>::try_from(end.as_slice()).ok().and_then(|end| FooterTail::try_new(&end).ok()) else {
                return Ok(0);
            };
            let whole = (footer.metadata_length() as u64).saturating_add(tail).min(bytes);
            file.seek(SeekFrom::End(-i64::try_from(whole).unwrap_or(0)))?;
            let mut metadata = Vec::new();
            file.read_to_end(&mut metadata)?;
            Ok(crc32c::crc32c(&metadata))
        };
        read().map_err(|e| self.fault(e))
    }

    /// Opens it to be read from beginning to end.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn read(&self) -> Result<Box<dyn Read + Send>> {
        match self {
            Location::Path(path) => Ok(Box::new(File::open(path).map_err(|e| self.fault(e))?)),
            Location::Object(store, entry) => {
                Ok(Box::new(Stream { store: Arc::clone(store), entry: entry.clone(), next: 0, window: io::Cursor::new(Vec::new()) }))
            }
        }
    }

    /// Opens a Parquet file. Of an object the footer is read now, and later each chunk of a column when its first page is asked for.
    ///
    /// # Errors
    /// It cannot be opened or, if it is an object, is not Parquet.
    pub fn chunks(&self) -> Result<Chunks> {
        match self {
            Location::Path(path) => Ok(Chunks::File(Arc::new(File::open(path).map_err(|e| self.fault(e))?))),
            Location::Object(store, entry) => {
                let footer = footer(&**store, &entry.name)?.ok_or_else(|| vanished(&**store, entry))?;
                let metadata = footer.map_err(|why| {
                    Error::new(Kind::Data, "source", format!("not a readable Parquet file: {why}"))
                        .at(self.to_string())
                        .help("write the file anew, or take it out of the list")
                })?;
                let places = metadata.row_groups().iter().flat_map(|group| group.columns().iter().enumerate());
                let places = places.map(|(column, chunk)| {
                    let (start, length) = chunk.byte_range();
                    (start, (start.saturating_add(length), column))
                });
                Ok(Chunks::Object(Arc::new(Ranges {
                    store: Arc::clone(store),
                    entry: entry.clone(),
                    places: places.collect(),
                    metadata: Arc::new(metadata),
                    held: Mutex::default(),
                    fault: Mutex::default(),
                })))
            }
        }
    }

    /// Whether the error is one of what is in a compressed file: those of the system have other kinds.
    fn is_spoilt(&self, error: &io::Error) -> bool {
        use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
        self.name().extension().is_some_and(|end| end == "gz" || end == "zst")
            && matches!(error.kind(), InvalidData | InvalidInput | Other | UnexpectedEof)
    }

    /// A fault of the file system, or of a store that a `Read` has reported.
    #[must_use]
    pub fn fault(&self, error: io::Error) -> Error {
        match error.downcast::<Error>() {
            Ok(own) => own,
            Err(error) if self.is_spoilt(&error) => Error::new(Kind::Data, "source", format!("the file cannot be unpacked: {error}"))
                .at(self.to_string())
                .help("it is cut off, or compressed in another way than the end of its name says")
                .caused_by(error),
            Err(error) => Error::io("source", Path::new(&self.to_string()), error),
        }
    }
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        Location::Path(path)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Path(path) => path.display().fmt(f),
            Location::Object(store, entry) => write!(f, "{store}/{}", entry.name),
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl PartialEq for Location {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Location::Path(a), Location::Path(b)) => a == b,
            (Location::Object(a, one), Location::Object(b, two)) => one == two && a.to_string() == b.to_string(),
            _ => false,
        }
    }
}

fn vanished(store: &dyn Objects, entry: &Entry) -> Error {
    Error::new(Kind::Retry, "source", "the object has vanished since it was listed").at(format!("{store}/{}", entry.name))
}

/// The footer of an object, and nothing else of it. `None` if there is no such object, the inner error if it is no Parquet file.
///
/// # Errors
/// The store cannot be read.
pub fn footer(objects: &dyn Objects, name: &str) -> Result<Option<std::result::Result<ParquetMetaData, String>>> {
    let unreadable = |e: ParquetError| format!("its footer cannot be read: {e}");
    let mut wanted = TAIL;
    loop {
        let Some(bytes) = objects.tail(name, wanted)? else { return Ok(None) };
        let Some((before, end)) = bytes.split_last_chunk::<FOOTER_SIZE>() else {
            return Ok(Some(Err("its footer cannot be read: it is too short for a Parquet file".to_owned())));
        };
        let length = match FooterTail::try_new(end) {
            Ok(tail) => tail.metadata_length(),
            Err(e) => return Ok(Some(Err(unreadable(e)))),
        };
        if let Some(start) = before.len().checked_sub(length) {
            return Ok(Some(ParquetMetaDataReader::decode_metadata(before.get(start..).unwrap_or_default()).map_err(unreadable)));
        }
        if bytes.len() < wanted || wanted > TAIL {
            return Ok(Some(Err("its footer cannot be read: it says that it is longer than the file".to_owned())));
        }
        wanted = length.saturating_add(FOOTER_SIZE);
    }
}

/// An object from beginning to end, a window at a time.
struct Stream {
    store: Arc<dyn Objects>,
    entry: Entry,
    next: u64,
    window: io::Cursor<Vec<u8>>,
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.window.read(into)?;
        if read > 0 || into.is_empty() || self.next >= self.entry.bytes {
            return Ok(read);
        }
        let wanted = usize::try_from(self.entry.bytes - self.next).unwrap_or(WINDOW).min(WINDOW);
        let bytes = self.store.range(&self.entry, self.next, wanted).map_err(io::Error::other)?;
        let bytes = bytes.filter(|bytes| !bytes.is_empty()).ok_or_else(|| io::Error::other(vanished(&*self.store, &self.entry)))?;
        self.next = self.next.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.window = io::Cursor::new(bytes);
        self.window.read(into)
    }
}

/// A Parquet file that is read by columns.
#[derive(Clone)]
pub enum Chunks {
    /// Of this machine.
    File(Arc<File>),
    /// An object.
    Object(Arc<Ranges>),
}

impl Chunks {
    /// The footer, where it has been read already.
    #[must_use]
    pub fn metadata(&self) -> Option<Arc<ParquetMetaData>> {
        match self {
            Chunks::File(_) => None,
            Chunks::Object(ranges) => Some(Arc::clone(&ranges.metadata)),
        }
    }

    /// Why the store could not be read, if that was the cause of an error of the Parquet library.
    #[must_use]
    pub fn fault(&self) -> Option<Error> {
        match self {
            Chunks::File(_) => None,
            Chunks::Object(ranges) => ranges.fault.lock().unwrap_or_else(PoisonError::into_inner).take(),
        }
    }
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        match self {
            Chunks::File(file) => file.len(),
            Chunks::Object(ranges) => ranges.entry.bytes,
        }
    }
}

impl ChunkReader for Chunks {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        match self {
            Chunks::File(file) => Ok(Box::new(file.get_read(start)?)),
            Chunks::Object(ranges) => Ok(Box::new(io::Cursor::new(ranges.from(start)?))),
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        match self {
            Chunks::File(file) => file.get_bytes(start, length),
            Chunks::Object(ranges) => ranges.bytes(start, length),
        }
    }
}

/// An object by ranges: of each column the chunk that is being read is held.
pub struct Ranges {
    store: Arc<dyn Objects>,
    entry: Entry,
    metadata: Arc<ParquetMetaData>,
    /// Chunks of columns by their start: end and column.
    places: BTreeMap<u64, (u64, usize)>,
    /// Of each column the chunk that was fetched last, and its start.
    held: Mutex<BTreeMap<usize, (u64, Bytes)>>,
    fault: Mutex<Option<Error>>,
}

impl Ranges {
    /// From a place on to the end of the chunk that it is in.
    fn from(&self, start: u64) -> parquet::errors::Result<Bytes> {
        let chunk = self.places.range(..=start).next_back().filter(|(_, (end, _))| start < *end);
        let Some((from, (end, column))) = chunk else {
            let rest = usize::try_from(self.entry.bytes.saturating_sub(start)).unwrap_or(WINDOW);
            return self.fetch(start, rest.min(WINDOW));
        };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = match held.get(column).filter(|(own, _)| own == from) {
            Some((_, bytes)) => bytes.clone(),
            None => {
                // Before the next one comes: of a column never two are held.
                held.remove(column);
                let length = usize::try_from(end - from).map_err(|e| ParquetError::General(e.to_string()))?;
                let bytes = self.fetch(*from, length)?;
                held.insert(*column, (*from, bytes.clone()));
                bytes
            }
        };
        let skip = usize::try_from(start - from).unwrap_or(usize::MAX);
        Ok(bytes.slice(skip.min(bytes.len())..))
    }

    fn bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let bytes = self.from(start)?;
        if length <= bytes.len() { Ok(bytes.slice(..length)) } else { self.fetch(start, length) }
    }

    fn fetch(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let bytes = self.store.range(&self.entry, start, length).and_then(|bytes| bytes.ok_or_else(|| vanished(&*self.store, &self.entry)));
        match bytes {
            Ok(bytes) if bytes.len() == length => Ok(Bytes::from(bytes)),
            Ok(bytes) => Err(ParquetError::EOF(format!("{} bytes of {length} at {start}", bytes.len()))),
            Err(error) => {
                let text = error.message.clone();
                self.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                Err(ParquetError::General(text))
            }
        }
    }
}

#[cfg(test)]
mod tests;
