//! Files that are named on the command line.

use crate::base::error::{Error, Kind, Result};
use crate::source::FileSettings;

/// The files that patterns name, those of a pattern in the order of their names.
///
/// # Errors
/// A pattern is none, or nothing has such a name.
pub fn named(command: &'static str, patterns: &[String]) -> Result<FileSettings> {
    let mut paths = Vec::new();
    for pattern in patterns {
        let found = glob::glob(pattern).map_err(|e| {
            Error::new(Kind::Usage, command, format!("--from {pattern} is not a pattern: {e}"))
                .help("quote it; `*`, `?`, `[..]` and `**` are known")
        })?;
        let before = paths.len();
        for path in found {
            paths.push(path.map_err(|e| Error::new(Kind::Config, command, e.to_string()).caused_by(e))?);
        }
        if paths.len() == before {
            return Err(
                Error::config(command, format!("--from {pattern}: there is no such file")).help("paths are relative to the current folder")
            );
        }
    }
    Ok(FileSettings { paths })
}
