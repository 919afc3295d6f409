//! Which snapshots are removed once newer ones are durable.
//!
//! Kept are the full snapshots of this fingerprint that were written last, `CHAINS` of them, with everything that builds on them; and as
//! many of all other fingerprints together: a pipeline that is taken back to its last version finds its states again, and the store
//! stays bounded. Written last, not of the highest offset: after a topic was made anew or read again from an earlier offset, the highest
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
    let Some(oldest) = kept.iter().map(|(offset, _)| *offset).min() else { return Ok(()) };
    let remove: Vec<Manifest> =
        catalogue.iter().filter(|manifest| !kept.contains(&(manifest.header.offset, manifest.header.kind))).cloned().collect();
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
        let orphan = manifest::parse(&entry.name).is_some_and(|(_, offset, kind, _)| {
            offset.0 < oldest && !catalogue.iter().any(|manifest| (manifest.header.offset, manifest.header.kind) == (offset.0, kind))
        });
        if orphan {
            snapshots.objects.delete(&entry.name)?;
        }
    }
    Ok(())
}

/// Offset and kind of the snapshots that are kept.
fn kept(catalogue: &[Manifest], fingerprint: &str) -> BTreeSet<(i64, Kind)> {
    let mut kept = BTreeSet::new();
    for own in [true, false] {
        let mut group: Vec<&Manifest> = catalogue.iter().filter(|manifest| (manifest.header.fingerprint == fingerprint) == own).collect();
        group.sort_by_key(|manifest| std::cmp::Reverse(manifest.header.written));
        let fulls = group.iter().filter(|manifest| manifest.header.kind == Kind::Full).take(CHAINS);
        let mut bases: Vec<_> = fulls.map(|manifest| manifest.as_base()).collect();
        // What builds on a kept one is kept, from the oldest on.
        group.sort_by_key(|manifest| manifest.header.offset);
        for manifest in group {
            let based = manifest.header.base.is_some_and(|base| bases.contains(&base));
            if based {
                bases.push(manifest.as_base());
            }
        }
        kept.extend(bases.into_iter().map(|base| (base.offset, base.kind)));
    }
    kept
}
