//! Files that are named on the command line: on this machine, or in a bucket.

use std::path::Path;
use std::sync::Arc;

use glob::{MatchOptions, Pattern};

use crate::base::error::{Error, Kind, Result};
use crate::link::file::Location;
use crate::link::objects::Place;
use crate::source::FileSettings;

/// The files that patterns name, those of a pattern in the order of their names.
///
/// # Errors
/// A pattern is none, nothing has such a name, or a bucket cannot be listed.
pub fn named(command: &'static str, patterns: &[String]) -> Result<FileSettings> {
    let mut paths = Vec::new();
    for pattern in patterns {
        let wrong = |e: glob::PatternError| {
            Error::new(Kind::Usage, command, format!("--from {pattern} is not a pattern: {e}"))
                .help("quote it; `*`, `?`, `[..]` and `**` are known")
        };
        let before = paths.len();
        let local = pattern.strip_prefix("file://").unwrap_or(pattern);
        if local.contains("://") {
            paths.extend(objects(command, pattern)?);
        } else {
            for path in glob::glob(local).map_err(wrong)? {
                paths.push(path.map_err(|e| Error::new(Kind::Config, command, e.to_string()).caused_by(e))?.into());
            }
        }
        if paths.len() == before {
            return Err(
                Error::config(command, format!("--from {pattern}: there is no such file")).help("paths are relative to the current folder")
            );
        }
    }
    Ok(FileSettings { paths })
}

/// The objects of a bucket that a pattern names.
fn objects(command: &'static str, pattern: &str) -> Result<Vec<Location>> {
    let place = Place::parse(pattern, Path::new("")).map_err(|e| Error { stage: command, ..e }.at(format!("--from {pattern}")))?;
    let Place::Bucket { cloud, bucket, prefix } = place else { return Err(Error::internal(command, "a URL that is no bucket")) };
    let store = Place::Bucket { cloud, bucket, prefix: String::new() }.open()?;
    let wanted = Pattern::new(&prefix).map_err(|e| {
        Error::new(Kind::Usage, command, format!("--from {pattern} is not a pattern: {e}"))
            .help("quote it; `*`, `?`, `[..]` and `**` are known")
    })?;
    // Only below the last folder whose name is no pattern.
    let plain = prefix.find(['*', '?', '[']).and_then(|end| prefix.get(..end)).unwrap_or(&prefix);
    let folder = plain.rfind('/').and_then(|end| plain.get(..=end)).unwrap_or_default();
    let options = MatchOptions { require_literal_separator: true, ..MatchOptions::new() };
    let found = store.list(folder)?.into_iter().filter(|entry| wanted.matches_with(&entry.name, options));
    Ok(found.map(|entry| Location::Object(Arc::clone(&store), entry)).collect())
}
