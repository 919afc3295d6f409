//! Lines of a file with bounded memory.

use std::io::{BufRead, BufReader, Read};

use crate::base::error::Result;
use crate::base::limits::MAX_RECORD_BYTES;
use crate::link::file::Location;

const BUFFER: usize = 1 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Lines that are still to be read.
pub struct Lines {
    path: Location,
    reader: BufReader<Box<dyn Read + Send>>,
    first: bool,
    limit: usize,
}

impl Lines {
    /// Starts at the first line.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Location) -> Result<Self> {
        path.bytes()?;
        let file = path.read()?;
        let ending = path.name().extension().map(|ending| ending.to_string_lossy().to_lowercase());
        let bytes: Box<dyn Read + Send> = match ending.as_deref() {
            // Several parts one after the other, as parallel compressors write them, are one text.
            Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(file)),
            Some("zst") => Box::new(zstd::Decoder::new(file).map_err(|e| path.fault(e))?),
            _ => file,
        };
        Ok(Lines { path: path.clone(), reader: BufReader::with_capacity(BUFFER, bytes), first: true, limit: MAX_RECORD_BYTES })
    }

    /// Replaces `line` by the next line without its end (`\n` or `\r\n`). Of a line longer than a record may be only as much is kept as shows
    /// that it is too long: one byte more than allowed. False at the end of the file.
    ///
    /// # Errors
    /// The file cannot be read, or is not compressed as its name says.
    pub fn next(&mut self, line: &mut Vec<u8>) -> Result<bool> {
        let broken = |e: std::io::Error| self.path.fault(e);
        line.clear();
        // Room for a line of the limit and its `\r\n`.
        let most = u64::try_from(self.limit.saturating_add(2)).unwrap_or(u64::MAX);
        if self.reader.by_ref().take(most).read_until(b'\n', line).map_err(broken)? == 0 {
            return Ok(false);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        } else if line.len() > self.limit {
            self.reader.skip_until(b'\n').map_err(broken)?;
        }
        line.truncate(self.limit.saturating_add(1));
        if std::mem::take(&mut self.first) && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], limit: usize) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ndjson");
        std::fs::write(&path, bytes).unwrap();
        let mut lines = Lines { limit, ..Lines::open(&path.into()).unwrap() };
        let (mut line, mut found) = (Vec::new(), Vec::new());
        while lines.next(&mut line).unwrap() {
            found.push(String::from_utf8(line.clone()).unwrap());
        }
        found
    }

    #[test]
    fn lines_end_with_a_newline_of_either_kind_or_with_the_file() {
        assert_eq!(read(b"a\nb\r\n\nc", 100), ["a", "b", "", "c"]);
        assert_eq!(read(b"", 100), Vec::<String>::new());
        assert_eq!(read(b"\xef\xbb\xbfa\n", 100), ["a"]);
    }

    #[test]
    fn a_line_that_is_too_long_keeps_one_byte_more_than_allowed_and_the_next_line_is_whole() {
        assert_eq!(read(b"12345\n123456\n1234567\n12345678901234\nx\n", 5), ["12345", "123456", "123456", "123456", "x"]);
        assert_eq!(read(b"12345\r\n123456\r\n1234567", 5), ["12345", "123456", "123456"]);
    }
}
