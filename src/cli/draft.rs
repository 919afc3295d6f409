//! A file that is written at the end of long work: its place is tried before, and it appears whole or not at all.

use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::base::error::{Error, Result};

/// The file under a temporary name, until it is finished.
#[derive(Debug)]
pub struct Draft {
    command: &'static str,
    path: PathBuf,
    /// `None` for what is no regular file, such as `/dev/stderr` or a pipe: it is written to as it is.
    temporary: Option<NamedTempFile>,
}

impl Draft {
    /// Makes the temporary file beside `path`.
    ///
    /// # Errors
    /// The folder is not there, or nothing can be written to it.
    pub fn new(command: &'static str, path: &Path) -> Result<Self> {
        let refused = |e: std::io::Error| Error::io(command, path, e).help("name a file in a folder that is there and may be written to");
        let there = path.metadata();
        if there.as_ref().is_ok_and(std::fs::Metadata::is_dir) {
            return Err(Error::config(command, "this is a folder").at(path.display().to_string()).help("name a file in it"));
        }
        if there.as_ref().is_ok_and(|there| !there.is_file()) {
            return Ok(Draft { command, path: path.to_owned(), temporary: None });
        }
        // What a link points to is replaced, not the link.
        let path = if there.is_ok() { path.canonicalize().map_err(refused)? } else { path.to_owned() };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let temporary = builder.prefix(".meantime-").tempfile_in(folder).map_err(refused)?;
        Ok(Draft { command, path, temporary: Some(temporary) })
    }

    /// Writes the content and gives the file its name.
    ///
    /// # Errors
    /// It cannot be written: then what was there before is there still.
    pub fn finish(self, content: &[u8]) -> Result<()> {
        let Draft { command, path, temporary } = self;
        let failed = |e: std::io::Error| Error::io(command, &path, e);
        let Some(mut temporary) = temporary else { return std::fs::write(&path, content).map_err(failed) };
        temporary.write_all(content).and_then(|()| temporary.as_file().sync_data()).map_err(failed)?;
        temporary.persist(&path).map(|_| ()).map_err(|e| failed(e.error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_tried_before_and_the_file_is_whole_or_what_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let names = || std::fs::read_dir(folder.path()).unwrap().count();
        for wrong in [at("none/x.json"), folder.path().to_owned()] {
            let error = Draft::new("evaluate", &wrong).unwrap_err();
            assert!(error.exit_code() == 78 && error.to_string().contains(wrong.to_str().unwrap()), "{error}");
        }
        std::fs::write(at("x.json"), "before").unwrap();
        let draft = Draft::new("evaluate", &at("x.json")).unwrap();
        drop(draft);
        assert_eq!((std::fs::read_to_string(at("x.json")).unwrap().as_str(), names()), ("before", 1));
        Draft::new("evaluate", &at("x.json")).unwrap().finish(b"after").unwrap();
        Draft::new("evaluate", &at("y.json")).unwrap().finish(b"new").unwrap();
        assert_eq!((std::fs::read_to_string(at("x.json")).unwrap().as_str(), names()), ("after", 2));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(at("x.json"), at("link")).unwrap();
            Draft::new("evaluate", &at("link")).unwrap().finish(b"linked").unwrap();
            assert!(at("link").is_symlink() && std::fs::read_to_string(at("x.json")).unwrap() == "linked");
            Draft::new("evaluate", Path::new("/dev/null")).unwrap().finish(b"nothing").unwrap();
            assert!(!Path::new("/dev/null").metadata().unwrap().is_file(), "a device stays one");
            assert_eq!(Draft::new("evaluate", Path::new("/dev/full")).unwrap().finish(b"x").unwrap_err().exit_code(), 69);
        }
    }
}
