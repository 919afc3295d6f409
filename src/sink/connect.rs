//! `check --connect`: whether a sink can be written to.

use std::path::Path;

use super::{Folders, Settings};
use crate::base::clock;
use crate::base::error::{Error, Result};
use crate::link::objects::{Objects, Place, Put};

/// Whether forecasts or dead letters can be written there, for `check --connect`; gives a line to print for each thing that was
/// found. Leaves nothing behind but the folders that `run` would make too.
///
/// # Errors
/// A folder cannot be made or written, a broker cannot be reached, a topic is missing or may not be written, or this build has no Kafka.
pub fn check_connect(settings: &Settings) -> Result<Vec<String>> {
    match settings {
        Settings::Parquet { place, folders, .. } => check_place(place, *folders == Folders::Date),
        Settings::Ndjson { path } if path == Path::new("-") => Ok(vec!["stdout".to_owned()]),
        Settings::Ndjson { path } => {
            if path.is_dir() {
                return Err(Error::config("sink", "it is a folder, a file is wanted")
                    .at(path.display().to_string())
                    .help("name a file in it"));
            }
            if path.exists() {
                std::fs::OpenOptions::new().append(true).open(path).map_err(|e| Error::io("sink", path, e))?;
            } else {
                // A relative path of one part has the empty parent, which means here.
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                check_folder(parent)?;
            }
            Ok(vec![format!("file {} is writable", path.display())])
        }
        #[cfg(feature = "kafka")]
        Settings::Kafka { client, topic } => super::kafka::check_connect(client, topic),
        #[cfg(not(feature = "kafka"))]
        Settings::Kafka { topic, .. } => Err(without_kafka(topic)),
    }
}

/// What a user should know who begins at the first record: a file that holds rows already is appended to, and nothing tells them from those that come.
#[must_use]
pub fn repeats(settings: &Settings) -> Option<String> {
    let Settings::Ndjson { path } = settings else { return None };
    // A pipe or a device holds nothing.
    let holds = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0);
    holds.then(|| {
        format!(
            "{} holds rows already and is appended to: files and generated streams are taken from their first record each time, so rows of an earlier run over \
             them come twice; remove the file, or write Parquet, which goes on where it has come to",
            path.display()
        )
    })
}

/// As `check_connect`, of a place for files. `moves`: they are given other names later.
///
/// # Errors
/// The folder cannot be made or written; the bucket cannot be reached or written, or replaces what it was told not to.
pub fn check_place(place: &Place, moves: bool) -> Result<Vec<String>> {
    match place.folder() {
        Some(path) => {
            check_folder(path)?;
            Ok(vec![format!("folder {} is writable", path.display())])
        }
        None => {
            check_store(&*place.open()?, moves)?;
            Ok(vec![format!("bucket {place} is writable, a name is taken once")])
        }
    }
}

/// Makes a folder and writes a file of no name in it, which is removed again.
fn check_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io("sink", folder, e))?;
    let probe = folder.join(format!(".meantime-check-{}", std::process::id()));
    std::fs::File::create_new(&probe).map_err(|e| Error::io("sink", folder, e))?;
    std::fs::remove_file(&probe).map_err(|e| Error::io("sink", &probe, e))
}

/// Creates an object of a hidden name, sees that the name is taken then, gives it another one if files are to be moved, and removes it.
fn check_store(objects: &dyn Objects, moves: bool) -> Result<()> {
    let probe = format!(".meantime-check-{}-{}", std::process::id(), clock::now().0);
    let outcome = match (objects.put_new(&probe, b"")?, objects.put_new(&probe, b"")?) {
        (Put::Created, Put::Exists) => Ok(()),
        _ => Err(Error::config("sink", "the store replaces an object that it was told not to replace").at(objects.to_string()).help(
            "exactly once rests on conditional puts (If-None-Match), as S3, MinIO, R2, Ceph, Google and Azure have them: name a bucket of such a store",
        )),
    };
    let moved = format!("{probe}-moved");
    if moves && outcome.is_ok() {
        objects.rename(&probe, &moved)?;
        objects.delete(&moved)?;
    }
    objects.delete(&probe)?;
    outcome
}

#[cfg(not(feature = "kafka"))]
pub fn without_kafka(topic: &str) -> Error {
    Error::config("sink", "this meantime was built without Kafka, but the sink is a topic")
        .at(format!("topic {topic}"))
        .help("build it with the default features, or write files with `kind = \"parquet\"`")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_sink_of_files_connects_where_its_folder_can_be_written_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er");
        let parquet = Settings::Parquet {
            place: Place::Folder(path.clone()),
            roll_bytes: 1,
            roll_every: Duration::from_secs(1),
            delta: None,
            folders: Default::default(),
        };
        assert!(check_connect(&parquet).is_ok());
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
        assert!(check_connect(&Settings::Ndjson { path: path.join("out.ndjson") }).is_ok());
        assert_eq!((repeats(&parquet), repeats(&Settings::Ndjson { path: path.join("out.ndjson") })), (None, None));
        assert!(check_connect(&Settings::Ndjson { path: path.clone() }).is_err(), "a folder is not a file");
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(check_connect(&Settings::Ndjson { path: folder.path().join("file/out.ndjson") }).is_err());
    }

    #[test]
    fn a_file_of_lines_that_is_not_empty_is_warned_of() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::Ndjson { path: folder.path().join("out.ndjson") };
        std::fs::write(folder.path().join("out.ndjson"), "").unwrap();
        assert_eq!(repeats(&settings), None, "an empty one is as none");
        std::fs::write(folder.path().join("out.ndjson"), "{}\n").unwrap();
        assert!(repeats(&settings).unwrap().contains("out.ndjson holds rows already"));
    }
}
