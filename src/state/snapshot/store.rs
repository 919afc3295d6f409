//! The snapshots of a pipeline in their store: which there are, which can be used.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::columns::Columns;
use super::decode::open;
use super::found::{Found, Part};
use super::manifest::{self, FORMAT, Header, Kind, Manifest, Migrated, Named};
use crate::base::error::Result;
use crate::base::offset::{Offset, Partition};
use crate::link::objects::{Objects, Place};

/// The snapshots of one pipeline.
#[derive(Debug)]
pub struct Snapshots {
    pub(super) objects: Arc<dyn Objects>,
    pub(super) columns: Arc<Columns>,
    pub(super) fingerprint: String,
    /// What full snapshots that are written here say of their origin.
    pub(super) migrated: Option<Migrated>,
}

/// A snapshot in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
    /// Full or delta.
    pub kind: Kind,
    /// Its manifest, if there is one that can be read.
    pub manifest: Option<Manifest>,
    /// Why it cannot be used, if it cannot: missing, damaged, of another fingerprint, or a base of it is.
    pub fault: Option<String>,
}

impl Snapshots {
    /// Opens the place that the plan names.
    ///
    /// # Errors
    /// It cannot be reached or written to.
    pub fn open(place: &Place, columns: Columns, fingerprint: &str) -> Result<Self> {
        Ok(Self::new(place.open()?, columns, fingerprint))
    }

    /// Snapshots in a store that is open already.
    #[must_use]
    pub fn new(objects: Arc<dyn Objects>, columns: Columns, fingerprint: &str) -> Self {
        Snapshots { objects, columns: Arc::new(columns), fingerprint: fingerprint.to_owned(), migrated: None }
    }

    /// The same place for states that come from another model: full snapshots that are written say so.
    #[must_use]
    pub fn migrating(self, migrated: Migrated) -> Self {
        Snapshots { migrated: Some(migrated), ..self }
    }

    /// What a key's state consists of.
    #[must_use]
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// The fingerprint whose snapshots are read and written.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The newest snapshot of a partition that is at or below `at_most`, of this pipeline's fingerprint, and whole: every file of its
    /// chain is there with its check sum. One that is not is logged with its reason, and the next older one is taken.
    ///
    /// # Errors
    /// The store cannot be read. That is not the same as having none: a replay from the origin is no answer to a network that is down.
    pub fn newest(&self, partition: Partition, at_most: Offset) -> Result<Option<Found>> {
        let catalogue = self.catalogue(partition)?;
        let (mut whole, mut broken): (HashMap<String, Part>, BTreeMap<String, String>) = (HashMap::new(), BTreeMap::new());
        for manifest in catalogue.iter().filter(|manifest| manifest.header.offset <= at_most.0) {
            let reason = match self.chain(&catalogue, manifest) {
                Err(reason) => reason,
                Ok(chain) => match self.check(&chain, &mut whole, &mut broken)? {
                    Some(reason) => reason,
                    None => {
                        let parts = chain.iter().filter_map(|manifest| whole.remove(&manifest.header.file())).collect();
                        return Found::new(Arc::clone(&self.columns), parts).map(Some);
                    }
                },
            };
            let (offset, kind) = (manifest.header.offset, manifest.header.kind.name());
            // Those of the other model are where they should be, with a shadow and after a change; what is damaged is a fault.
            if manifest.header.fingerprint == self.fingerprint {
                tracing::warn!(%partition, offset, kind, reason, "snapshot passed over");
            } else {
                tracing::debug!(%partition, offset, kind, reason, "snapshot passed over");
            }
        }
        Ok(None)
    }

    /// The usable snapshots of a partition above an offset, of this pipeline's fingerprint, newest first: those that a start at or above them takes
    /// before the one at that offset.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn above(&self, partition: Partition, offset: Offset) -> Result<Vec<Header>> {
        let catalogue = self.catalogue(partition)?;
        let (mut whole, mut broken) = (HashMap::new(), BTreeMap::new());
        let mut found = Vec::new();
        for manifest in catalogue.iter().filter(|manifest| manifest.header.offset > offset.0) {
            let Ok(chain) = self.chain(&catalogue, manifest) else { continue };
            if self.check(&chain, &mut whole, &mut broken)?.is_none() {
                found.push(manifest.header.clone());
            }
        }
        Ok(found)
    }

    /// Offset of the newest snapshot of a partition, of whatever fingerprint and whole or not; `None` if there is none.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn newest_of_any(&self, partition: Partition) -> Result<Option<Offset>> {
        Ok(self.catalogue(partition)?.first().map(|manifest| Offset(manifest.header.offset)))
    }

    /// The partitions that have anything stored.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn partitions(&self) -> Result<Vec<Partition>> {
        let names = self.objects.list("")?;
        let found: BTreeSet<_> = names.iter().filter_map(|entry| manifest::parse(&entry.name)).map(|named| named.partition).collect();
        Ok(found.into_iter().collect())
    }

    /// Every snapshot of every partition, by partition, newest first; all files are read and checked.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let mut names: BTreeSet<_> = BTreeSet::new();
        for entry in self.objects.list("")? {
            if let Some(named) = manifest::parse(&entry.name) {
                let order = (named.partition, std::cmp::Reverse((named.offset, named.kind)), named.tag.clone());
                names.insert((order, Named { extension: String::new(), ..named }));
            }
        }
        let mut listed = Vec::new();
        let mut catalogue: (Option<Partition>, Vec<Manifest>) = (None, Vec::new());
        let (mut whole, mut broken) = (HashMap::new(), BTreeMap::new());
        for (_, named) in names {
            let Named { partition, offset, kind, .. } = named;
            if catalogue.0 != Some(partition) {
                catalogue = (Some(partition), self.catalogue(partition)?);
                (whole, broken) = (HashMap::new(), BTreeMap::new());
            }
            let manifest = catalogue.1.iter().find(|manifest| named.is_of(&manifest.header));
            let fault = match manifest {
                None => Some("it has no manifest that can be read: its writing has not ended".to_owned()),
                Some(manifest) => match self.chain(&catalogue.1, manifest) {
                    Err(reason) => Some(reason),
                    Ok(chain) => self.check(&chain, &mut whole, &mut broken)?,
                },
            };
            // What is known to be whole need not be read again, nor kept.
            whole.values_mut().for_each(|part: &mut Part| part.bytes = Vec::new());
            listed.push(Listed { partition, offset, kind, manifest: manifest.cloned(), fault });
        }
        Ok(listed)
    }

    /// All manifests of a partition that can be read, newest first, of whatever fingerprint.
    pub(super) fn catalogue(&self, partition: Partition) -> Result<Vec<Manifest>> {
        let mut found = Vec::new();
        for entry in self.objects.list(&manifest::folder(partition))? {
            if manifest::parse(&entry.name).is_none_or(|named| named.extension != "json") {
                continue;
            }
            // One that was deleted since it was listed is not there.
            let Some(bytes) = self.objects.get(&entry.name)? else { continue };
            match serde_json::from_slice::<Manifest>(&bytes) {
                Ok(manifest) if manifest.header.manifest() == entry.name => found.push(manifest),
                Ok(_) => tracing::warn!(name = entry.name, "snapshot manifest is that of another snapshot"),
                Err(error) => tracing::warn!(name = entry.name, %error, "snapshot manifest cannot be read"),
            }
        }
        found.sort_by_key(Manifest::order);
        Ok(found)
    }

    /// The manifests of a snapshot's chain, from it down to a full one.
    ///
    /// # Errors
    /// One sentence: why it cannot be used.
    pub(super) fn chain<'a>(&self, catalogue: &'a [Manifest], of: &'a Manifest) -> std::result::Result<Vec<&'a Manifest>, String> {
        let mut chain: Vec<&Manifest> = Vec::new();
        let mut next = Some(of);
        while let Some(manifest) = next {
            let header = &manifest.header;
            if header.format != FORMAT {
                return Err(format!("its format is {}; this version reads format {FORMAT}", header.format));
            }
            if header.fingerprint != self.fingerprint {
                return Err(format!("its fingerprint is {}, the pipeline's is {}", header.fingerprint, self.fingerprint));
            }
            chain.push(manifest);
            next = match (header.kind, header.base) {
                (Kind::Full, None) => None,
                (Kind::Delta, Some(base)) if base.offset < header.offset => {
                    let found = catalogue.iter().find(|other| other.as_base() == base);
                    Some(found.ok_or_else(|| format!("its base, {} at {}, is missing or another one", base.kind, base.offset))?)
                }
                _ => return Err("its manifest contradicts itself".to_owned()),
            };
        }
        Ok(chain)
    }

    /// Reads and checks the files of a chain that are not in `whole` yet. The reason if one cannot be used.
    fn check(
        &self,
        chain: &[&Manifest],
        whole: &mut HashMap<String, Part>,
        broken: &mut BTreeMap<String, String>,
    ) -> Result<Option<String>> {
        for manifest in chain {
            let name = manifest.header.file();
            if !whole.contains_key(&name) && !broken.contains_key(&name) {
                match self.read(manifest)? {
                    Ok(bytes) => {
                        whole.insert(name.clone(), Part { manifest: (*manifest).clone(), bytes });
                    }
                    Err(reason) => {
                        broken.insert(name.clone(), reason);
                    }
                }
            }
            if let Some(reason) = broken.get(&name) {
                return Ok(Some(format!("{name}: {reason}")));
            }
        }
        Ok(None)
    }

    /// Reads the file of a manifest and holds it to what the manifest says.
    pub(super) fn read(&self, manifest: &Manifest) -> Result<std::result::Result<Vec<u8>, String>> {
        let Some(bytes) = self.objects.get(&manifest.header.file())? else { return Ok(Err("the file is missing".to_owned())) };
        if u64::try_from(bytes.len()).ok() != Some(manifest.bytes) {
            return Ok(Err(format!("it has {} bytes, not {}", bytes.len(), manifest.bytes)));
        }
        let found = crc32c::crc32c(&bytes);
        if found != manifest.crc32c {
            return Ok(Err(format!("its check sum is {found:08x}, not {:08x}", manifest.crc32c)));
        }
        Ok(open(&self.columns, &manifest.header, &bytes).map(|_| ()).map(|()| bytes))
    }
}
