//! Files by name in a folder or an object store: what snapshots and Parquet files are kept in.
//!
//! Names are relative, with `/` between their parts. An object is whole or absent: whoever reads it while it is written, or after
//! a crash, sees the old one or the new one, never a part. Once a `put` has returned, the object survives a crash of the machine.

#[cfg(feature = "cloud")]
pub(crate) mod cloud;
mod folder;
mod memory;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use folder::Folder;
pub use memory::MemoryDisk;

use crate::base::error::{Error, Result};

/// What a create-if-absent did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object is there now, and it is this one.
    Created,
    /// There was one of this name already; it was left as it is.
    Exists,
}

/// An object in a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its name, from the root of the store.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// What the store calls its content: another one after each change. `None` where the store keeps none, as a folder.
    pub version: Option<String>,
}

/// A place for objects. `Display` names it for people. Every method may block on a disk or a network; an error is about the place
/// (unreachable, full, forbidden), never about an object that is absent.
pub trait Objects: fmt::Debug + fmt::Display + Send + Sync {
    /// Creates an object only if there is none of this name: of any number of callers exactly one gets `Created`.
    ///
    /// # Errors
    /// The place cannot be written to.
    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<Put>;

    /// As `put_new`, with the content of an open file from its beginning on, wherever it stands and whether it has a name or not.
    ///
    /// # Errors
    /// The file cannot be read, or the place cannot be written to.
    fn put_new_file(&self, file: &File, name: &str) -> Result<Put>;

    /// Creates an object or replaces the one of this name.
    ///
    /// # Errors
    /// The place cannot be written to.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<()>;

    /// The content of an object; `None` if there is none of this name.
    ///
    /// # Errors
    /// The place cannot be read.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// The last `most` bytes of an object, or all if it is shorter: where a Parquet file has its footer.
    ///
    /// # Errors
    /// The place cannot be read.
    fn tail(&self, name: &str, most: usize) -> Result<Option<Vec<u8>>>;

    /// `length` bytes of a listed object from `from` on, fewer where it ends; `None` if it is absent.
    ///
    /// # Errors
    /// The place cannot be read, or the object has been replaced since it was listed.
    fn range(&self, entry: &Entry, from: u64, length: usize) -> Result<Option<Vec<u8>>>;

    /// All objects whose name starts with `prefix` (which is empty or ends with `/`), by name.
    ///
    /// # Errors
    /// The place cannot be read.
    fn list(&self, prefix: &str) -> Result<Vec<Entry>>;

    /// Removes an object; one that is absent already is no error.
    ///
    /// # Errors
    /// The place cannot be written to.
    fn delete(&self, name: &str) -> Result<()>;

    /// Gives an object another name, and replaces what has that name. After a crash it may have both, never none. False if there is no `from`: then
    /// nothing was done.
    ///
    /// # Errors
    /// The place cannot be written to.
    fn rename(&self, from: &str, to: &str) -> Result<bool>;
}

/// Whose object store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// S3, and those that speak its language.
    Amazon,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

impl Cloud {
    fn of(scheme: &str) -> Option<Cloud> {
        [Cloud::Amazon, Cloud::Google, Cloud::Azure].into_iter().find(|cloud| cloud.scheme() == scheme)
    }

    /// How its URLs begin.
    #[must_use]
    pub fn scheme(self) -> &'static str {
        match self {
            Cloud::Amazon => "s3",
            Cloud::Google => "gs",
            Cloud::Azure => "az",
        }
    }
}

/// Where a store is: a pipeline's path or URL, read but not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A folder of this machine.
    Folder(PathBuf),
    /// Objects below a prefix of a bucket. Credentials and endpoint come from the variables of the cloud: `AWS_`, `GOOGLE_`, `AZURE_`.
    Bucket {
        /// Whose.
        cloud: Cloud,
        /// The bucket; Azure calls it a container.
        bucket: String,
        /// What every name starts with; empty, or without a `/` at its end.
        prefix: String,
    },
}

impl Place {
    /// Reads `file:///path`, `s3://bucket/prefix` (also `gs://` and `az://`) or a path, which is taken relative to `folder`.
    ///
    /// # Errors
    /// Another scheme, no bucket, or a store that this build cannot reach.
    pub fn parse(text: &str, folder: &Path) -> Result<Place> {
        let refused = |message: String, help: &str| Err(Error::config("objects", message).help(help));
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Place::Folder(folder.join(text)));
        };
        match scheme {
            "file" if rest.starts_with('/') => Ok(Place::Folder(PathBuf::from(rest))),
            "file" => refused("a file URL names a whole path".to_owned(), "write file:///path, with three slashes"),
            "abfs" | "abfss" | "wasb" | "wasbs" => refused(
                "a container of Azure's store is written az://".to_owned(),
                "write az://container/prefix, and name the account by AZURE_STORAGE_ACCOUNT_NAME",
            ),
            _ => match Cloud::of(scheme) {
                Some(_) if !cfg!(feature = "cloud") => {
                    refused("this build has no object stores".to_owned(), "build with `--features cloud`, or write a path on this machine")
                }
                Some(cloud) => {
                    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                    if bucket.is_empty() {
                        return refused("the URL names no bucket".to_owned(), "write s3://bucket/prefix");
                    }
                    Ok(Place::Bucket { cloud, bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
                }
                // Without its text: it may come from the environment.
                None => refused(
                    "the URL has another scheme".to_owned(),
                    "write a path, file:///path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix",
                ),
            },
        }
    }

    /// The place of this name within it.
    #[must_use]
    pub fn join(&self, name: &str) -> Place {
        match self {
            Place::Folder(path) => Place::Folder(path.join(name)),
            Place::Bucket { cloud, bucket, prefix } => {
                let prefix = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
                Place::Bucket { cloud: *cloud, bucket: bucket.clone(), prefix }
            }
        }
    }

    /// The place that it is within; `None` for a whole bucket, or a path of one part.
    #[must_use]
    pub fn parent(&self) -> Option<Place> {
        match self {
            Place::Folder(path) => path.parent().filter(|path| !path.as_os_str().is_empty()).map(|path| Place::Folder(path.to_path_buf())),
            Place::Bucket { prefix, .. } if prefix.is_empty() => None,
            Place::Bucket { cloud, bucket, prefix } => {
                let prefix = prefix.rsplit_once('/').map_or("", |(prefix, _)| prefix).to_owned();
                Some(Place::Bucket { cloud: *cloud, bucket: bucket.clone(), prefix })
            }
        }
    }

    /// The folder, if it is one of this machine.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Place::Folder(path) => Some(path),
            Place::Bucket { .. } => None,
        }
    }

    /// Opens the store; a folder is made if it is absent.
    ///
    /// # Errors
    /// The folder cannot be made or written to; the bucket's settings are not complete.
    pub fn open(&self) -> Result<Arc<dyn Objects>> {
        match self {
            Place::Folder(path) => Ok(Arc::new(Folder::open(path)?)),
            #[cfg(feature = "cloud")]
            Place::Bucket { cloud, bucket, prefix } => Ok(Arc::new(cloud::Bucket::open(*cloud, bucket, prefix)?)),
            #[cfg(not(feature = "cloud"))]
            Place::Bucket { .. } => Err(Error::config("objects", "this build has no object stores").at(self.to_string())),
        }
    }

    /// Opens the store for reading alone: a folder that is absent is not made, and holds nothing.
    ///
    /// # Errors
    /// The bucket's settings are not complete.
    pub fn open_as_it_is(&self) -> Result<Arc<dyn Objects>> {
        match self {
            Place::Folder(path) => Ok(Arc::new(Folder::as_it_is(path))),
            Place::Bucket { .. } => self.open(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Folder(path) => path.display().fmt(f),
            Place::Bucket { cloud, bucket, prefix } => {
                let separator = if prefix.is_empty() { "" } else { "/" };
                write!(f, "{}://{bucket}{separator}{prefix}", cloud.scheme())
            }
        }
    }
}

/// Whether a name stays below the root of its store.
fn is_relative(name: &str) -> bool {
    !name.is_empty() && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

fn check_name(name: &str) -> Result<()> {
    if is_relative(name) { Ok(()) } else { Err(Error::internal("objects", format!("`{name}` is not the name of an object"))) }
}

/// The whole content of an open file.
fn content(file: &File) -> Result<Vec<u8>> {
    use std::io::{Read, Seek};
    let mut file = file;
    let mut read = || -> std::io::Result<Vec<u8>> {
        file.rewind()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|e| Error::io("objects", Path::new("a temporary file"), e))
}

#[cfg(all(test, feature = "cloud"))]
pub mod double;
#[cfg(test)]
mod tests;
