//! Which snapshots are removed once newer ones are durable.
//!
//! Kept are the full snapshots of this fingerprint that were written last, `CHAINS` of them, with everything that builds on them; and as
//! many of all other fingerprints together: a pipeline that is taken back to its last version finds its states again, and the store
//! stays bounded. Of the others migrated ones that nothing builds on go first: they were made for a model that never ran. Written last, not of the highest offset: after a topic was made anew or read again from an earlier offset, the highest
//! are the ones that are of no use.

use std::collections::BTreeSet;

use super::CHAINS;
use super::manifest::{self, Kind, Manifest};
use super::store::Snapshots;
use crate::base::error::Result;
use crate::base::offset::Partition;

/// Removes what is not kept, from the store and from `catalogue`.
pub(super) fn apply(snapshots: &Snapshots, partition: Partition, catalogue: &mut Vec<Manifest>) -> Result<()> {
    let kept = kept(catalogue, &snapshots.fingerprint);
    let is_kept = |manifest: &&Manifest| kept.contains(&manifest.header.manifest());
    let Some(oldest) = catalogue.iter().filter(is_kept).map(|manifest| manifest.header.offset).min() else { return Ok(()) };
    let remove: Vec<Manifest> = catalogue.iter().filter(|manifest| !is_kept(manifest)).cloned().collect();
    // Newest first, and manifest before file: a chain that is removed in part has lost its end, never its beginning.
    for manifest in &remove {
        snapshots.objects.delete(&manifest.header.manifest())?;
        snapshots.objects.delete(&manifest.header.file())?;
        catalogue.retain(|other| other.header.manifest() != manifest.header.manifest());
    }
    if remove.is_empty() {
        return Ok(());
    }
    // Files that a crashed writer has left without a manifest. One above the oldest kept may be another writer's that is at work.
    for entry in snapshots.objects.list(&manifest::folder(partition))? {
        let orphan = manifest::parse(&entry.name)
            .is_some_and(|named| named.offset.0 < oldest && !catalogue.iter().any(|manifest| named.is_of(&manifest.header)));
        if orphan {
            snapshots.objects.delete(&entry.name)?;
        }
    }
    Ok(())
}

/// Manifests, by name, of the snapshots that are kept.
fn kept(catalogue: &[Manifest], fingerprint: &str) -> BTreeSet<String> {
    let mut kept = BTreeSet::new();
    for own in [true, false] {
        let mut group: Vec<&Manifest> = catalogue.iter().filter(|manifest| (manifest.header.fingerprint == fingerprint) == own).collect();
        let unused = |manifest: &Manifest| {
            let built_on = catalogue.iter().any(|other| other.header.base == Some(manifest.as_base()));
            !own && manifest.header.migrated.is_some() && !built_on
        };
        group.sort_by_key(|manifest| (unused(manifest), std::cmp::Reverse(manifest.header.written)));
        let fulls = group.iter().filter(|manifest| manifest.header.kind == Kind::Full).take(CHAINS);
        let fulls: Vec<&Manifest> = fulls.copied().collect();
        let mut bases: Vec<_> = fulls.iter().map(|manifest| manifest.as_base()).collect();
        kept.extend(fulls.iter().map(|manifest| manifest.header.manifest()));
        // What builds on a kept one is kept, from the oldest on.
        group.sort_by_key(|manifest| manifest.header.offset);
        for manifest in group {
            let based = manifest.header.base.is_some_and(|base| bases.contains(&base));
            if based {
                bases.push(manifest.as_base());
                kept.insert(manifest.header.manifest());
            }
        }
    }
    kept
}
