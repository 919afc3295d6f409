//! An object store: files are written to a nameless file of this machine, and sent whole, in one request that succeeds only if the name is free.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use parquet::file::metadata::ParquetMetaData;

use super::footer;
use super::name::{self, Name};
use super::target::{Draft, Target, Temporary};
use crate::base::error::{Error, Kind, Result};
use crate::base::offset::{Offset, Partition};
use crate::link::file;
use crate::link::objects::{Objects, Put};

/// Objects whose names begin as the folders of `Local` are called.
pub struct Store {
    objects: Arc<dyn Objects>,
    within: &'static str,
}

impl Store {
    /// Files in an open store.
    pub fn over(objects: Arc<dyn Objects>) -> Self {
        Store { objects, within: "" }
    }

    /// The same, whose partitions have their folders in another one.
    pub fn within(self, within: &'static str) -> Self {
        Store { within, ..self }
    }

    fn folder(&self, partition: Partition) -> String {
        format!("{}{}", self.within, name::folder(partition))
    }

    fn object(&self, partition: Partition, name: Name) -> String {
        format!("{}/{name}", self.folder(partition))
    }

    fn vanished(&self, partition: Partition, name: Name) -> Error {
        Error::new(Kind::Retry, "sink", "the file has vanished since it was listed").at(self.place(partition, Some(name)))
    }
}

impl Target for Store {
    fn list(&self, partition: Partition) -> Result<Vec<Name>> {
        let folder = format!("{}/", self.folder(partition));
        let entries = self.objects.list(&folder)?;
        let mut names: Vec<Name> = entries.iter().filter_map(|entry| Name::read(entry.name.strip_prefix(&folder)?)).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn footer(&self, partition: Partition, name: Name) -> Result<std::result::Result<ParquetMetaData, String>> {
        file::footer(&*self.objects, &self.object(partition, name))?.ok_or_else(|| self.vanished(partition, name))
    }

    fn offsets(&self, partition: Partition, name: Name) -> Result<Vec<Offset>> {
        let bytes = self.objects.get(&self.object(partition, name))?.ok_or_else(|| self.vanished(partition, name))?;
        footer::offsets(Bytes::from(bytes), &self.place(partition, Some(name)))
    }

    fn draft(&self, _partition: Partition, _temporary: Temporary) -> Result<(File, Draft)> {
        Draft::nameless()
    }

    fn put_new(&self, file: File, _draft: &Draft, partition: Partition, name: &str) -> Result<bool> {
        Ok(self.objects.put_new_file(&file, &format!("{}/{name}", self.folder(partition)))? == Put::Created)
    }

    fn stage(&self, file: File, _draft: &Draft, partition: Partition, name: &str) -> Result<()> {
        // One that is there is the same.
        self.objects.put_new_file(&file, &format!("{}/{name}", self.folder(partition))).map(|_| ())
    }

    fn holds(&self, folder: &str) -> Result<bool> {
        let below = format!("{folder}/");
        let entries = self.objects.list(&below)?;
        Ok(entries.iter().any(|entry| entry.name.strip_prefix(&below).is_some_and(|name| !name.starts_with('.'))))
    }

    /// Does nothing: a draft has no name that could be left.
    fn sweep(&self, _partition: Partition) -> Result<()> {
        Ok(())
    }

    fn place(&self, partition: Partition, name: Option<Name>) -> String {
        let folder = self.folder(partition);
        name.map_or_else(|| format!("{}/{folder}", self.objects), |name| format!("{}/{folder}/{name}", self.objects))
    }
}

#[cfg(all(test, feature = "cloud"))]
mod tests;
