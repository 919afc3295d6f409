//! Files that are named on the command line: on this machine, or in a bucket.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use glob::{MatchOptions, Pattern};

use crate::base::error::{Error, Kind, Result};
use crate::link::file::Location;
use crate::link::objects::Place;
use crate::source::FileSettings;
use crate::source::file::Kind as FileKind;

/// The files that patterns name, those of a pattern in the order of their names. A folder that is named stands for the files below it whose names end as those of events do, but for
/// hidden ones and those that begin with `_`.
///
/// # Errors
/// A pattern is none, nothing has such a name, a folder has no such file, or a bucket cannot be listed.
pub fn named(command: &'static str, patterns: &[String]) -> Result<FileSettings> {
    named_by(command, "--from", patterns)
}

/// As `named`, for an option of another name, which errors say.
///
/// # Errors
/// As `named`.
pub fn named_by(command: &'static str, option: &str, patterns: &[String]) -> Result<FileSettings> {
    let mut paths = Vec::new();
    for pattern in patterns {
        let wrong = |e: glob::PatternError| {
            Error::new(Kind::Usage, command, format!("{option} {pattern} is not a pattern: {e}"))
                .help("quote it; `*`, `?`, `[..]` and `**` are known")
        };
        let before = paths.len();
        let local = pattern.strip_prefix("file://").unwrap_or(pattern);
        if local.contains("://") {
            paths.extend(objects(command, option, pattern)?);
        } else if Path::new(local).is_dir() {
            folder(command, Path::new(local), &mut paths)?;
            if paths.len() == before {
                return Err(Error::config(command, format!("{option} {pattern}: no file of this folder is one of events"))
                    .help("names end in .parquet, .pq, .ndjson, .jsonl or .json; the last three may be compressed, .gz or .zst"));
            }
        } else {
            for path in glob::glob(local).map_err(wrong)? {
                let path = path.map_err(|e| Error::new(Kind::Config, command, e.to_string()).caused_by(e))?;
                // What `*` finds beside files; `**` comes to what is in it.
                if !path.is_dir() {
                    paths.push(path.into());
                }
            }
        }
        if paths.len() == before {
            return Err(Error::config(command, format!("{option} {pattern}: there is no such file"))
                .help("paths are relative to the current folder"));
        }
    }
    // Patterns may overlap; an event twice would count twice.
    let mut seen = HashSet::new();
    let named = paths.len();
    paths.retain(|path| {
        seen.insert(match path {
            Location::Path(path) => path.canonicalize().unwrap_or_else(|_| path.clone()).display().to_string(),
            Location::Object(..) => path.to_string(),
        })
    });
    if paths.len() < named {
        tracing::warn!("{} of the files are named twice: each is taken once", named - paths.len());
    }
    Ok(FileSettings { paths })
}

/// Files of events below a folder, by name.
fn folder(command: &'static str, path: &Path, into: &mut Vec<Location>) -> Result<()> {
    let io = |e: std::io::Error| Error::io(command, path, e);
    let entries = std::fs::read_dir(path).map_err(io)?.map(|entry| entry.map(|entry| entry.path()));
    let mut entries = entries.collect::<std::io::Result<Vec<_>>>().map_err(io)?;
    entries.sort();
    for entry in entries {
        if entry.file_name().is_none_or(|name| name.to_string_lossy().starts_with(['.', '_'])) {
            continue;
        }
        if entry.is_dir() {
            folder(command, &entry, into)?;
            continue;
        }
        let location = Location::from(entry);
        if FileKind::of(&location).is_ok() {
            into.push(location);
        }
    }
    Ok(())
}

/// The objects of a bucket that a pattern names.
fn objects(command: &'static str, option: &str, pattern: &str) -> Result<Vec<Location>> {
    let place = Place::parse(pattern, Path::new("")).map_err(|e| Error { stage: command, ..e }.at(format!("{option} {pattern}")))?;
    let Place::Bucket { cloud, bucket, prefix } = place else { return Err(Error::internal(command, "a URL that is no bucket")) };
    let store = Place::Bucket { cloud, bucket, prefix: String::new() }.open()?;
    let wanted = Pattern::new(&prefix).map_err(|e| {
        Error::new(Kind::Usage, command, format!("{option} {pattern} is not a pattern: {e}"))
            .help("quote it; `*`, `?`, `[..]` and `**` are known")
    })?;
    // Only below the last folder whose name is no pattern.
    let plain = prefix.find(['*', '?', '[']).and_then(|end| prefix.get(..end)).unwrap_or(&prefix);
    let folder = plain.rfind('/').and_then(|end| plain.get(..=end)).unwrap_or_default();
    let options = MatchOptions { require_literal_separator: true, ..MatchOptions::new() };
    let found = store.list(folder)?.into_iter().filter(|entry| wanted.matches_with(&entry.name, options));
    Ok(found.map(|entry| Location::Object(Arc::clone(&store), entry)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stands_for_the_files_of_events_below_it_and_a_pattern_for_files_only() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        for folder in ["day=2/_tmp", "day=1", ".hidden", "empty"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        for name in [
            "day=2/b.parquet",
            "day=2/_tmp/c.parquet",
            "day=1/a.parquet",
            ".hidden/d.parquet",
            "z.NDJSON",
            "x.ndjson.gz",
            "_SUCCESS",
            "notes.txt",
        ] {
            std::fs::write(at(name), "").unwrap();
        }
        let named = |pattern: &Path| {
            let found = named("fit", &[pattern.display().to_string()])?.paths;
            Ok::<_, Error>(
                found.iter().map(|path| path.name().strip_prefix(home.path()).unwrap().display().to_string()).collect::<Vec<_>>(),
            )
        };
        assert_eq!(named(home.path()).unwrap(), ["day=1/a.parquet", "day=2/b.parquet", "x.ndjson.gz", "z.NDJSON"]);
        assert_eq!(named(&at("*/*.parquet")).unwrap().len(), 3, "a pattern finds hidden ones, too");
        assert_eq!(named(&at("day*/**/*.parquet")).unwrap(), ["day=1/a.parquet", "day=2/_tmp/c.parquet", "day=2/b.parquet"]);
        assert!(named(&at("empty")).unwrap_err().to_string().contains("no file of this folder is one of events"));
        assert!(named(&at("day*")).unwrap_err().to_string().contains("--from"));
        let of_another = named_by("parity", "--files", &[at("day*").display().to_string()]).unwrap_err().to_string();
        assert!(of_another.starts_with("parity: --files ") && of_another.contains("there is no such file"), "{of_another}");
    }
}
