//! Snapshots of the new model, made of those of the old one.

use std::sync::Arc;

use super::super::snapshots::newest_below;
use super::super::stage::Stage;
use super::comparison::Comparison;
use crate::base::error::{Error, Kind, Result};
use crate::base::offset::{Offset, Partition};
use crate::data::commit::{Commits, Note};
use crate::state::snapshot::{self, Boundary, Found, Migrated, Mode, Snapshots};

/// A snapshot that can be migrated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Its partition.
    pub partition: Partition,
    /// Its offset, which is that of the new one.
    pub offset: Offset,
    /// What the pipeline has committed, if that is known: the records between are replayed through the new model.
    pub committed: Option<Offset>,
    /// Keys of the state.
    pub keys: usize,
    /// Events that are held back.
    pub held: u64,
}

/// A snapshot that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// What was done.
    pub of: Move,
    /// Bytes of its file.
    pub bytes: u64,
}

/// Finds the newest usable snapshot of every partition, or of `only` these: the one that a start of the old package would take.
///
/// # Errors
/// The pipeline keeps no snapshots; a partition that has committed something has none that can be used, or holds back events without a field that the new recipe
/// reads. All such partitions are named, and nothing has been written.
pub fn survey(from: &Stage, comparison: &Comparison, committed: Option<&Commits>, only: Option<&[Partition]>) -> Result<Vec<Move>> {
    let snapshots = place(from)?;
    let mut partitions = snapshots.partitions()?;
    partitions.extend(
        committed.into_iter().flat_map(Commits::iter).filter(|(_, commit)| commit.next > Offset(0)).map(|(partition, _)| partition),
    );
    partitions.sort_unstable();
    partitions.dedup();
    partitions.retain(|partition| only.is_none_or(|only| only.contains(partition)));
    let (mut moves, mut without, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for partition in partitions {
        let Some(found) = find(&snapshots, partition, committed)? else {
            if committed.is_none_or(|committed| committed.get(partition).is_some()) {
                without.push(partition.to_string());
            }
            continue;
        };
        if found.held() > 0 && !comparison.fields.is_empty() {
            bare.push(format!("{partition} ({} events)", found.held()));
        }
        let committed = committed.and_then(|committed| committed.next(partition));
        moves.push(Move { partition, offset: found.offset, committed, keys: found.keys, held: found.held() });
    }
    let place = || format!("fingerprint {}", from.identity.fingerprint);
    if !without.is_empty() || (moves.is_empty() && only.is_none()) {
        let which = if without.is_empty() { "any partition".to_owned() } else { format!("partition {}", without.join(", ")) };
        return Err(Error::new(Kind::Check, "state", format!("there is no usable snapshot of {which}")).at(place()).help(
            "`meantime state ls` says why; the pipeline is to name the package that has run: --set model.package=OLD. Without a snapshot states can only be \
             rebuilt: --mode rebuild",
        ));
    }
    if !bare.is_empty() {
        let fields = comparison.fields.join(", ");
        let text = format!(
            "events are held back for their lateness that lack what the new recipe reads ({fields}): partition {}",
            bare.join(", ")
        );
        return Err(Error::new(Kind::Check, "state", text).at(place()).help("--mode rebuild reads them again"));
    }
    Ok(moves)
}

/// Of `own`, the partitions that a shadow with the new model's package has left states of.
///
/// # Errors
/// The place cannot be read.
pub fn shadowed(to: &Stage, committed: Option<&Commits>, own: &[Partition]) -> Result<Vec<Partition>> {
    let Some(snapshots) = to.shadow_snapshots()? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for partition in own {
        if find(&snapshots, *partition, committed)?.is_some() {
            found.push(*partition);
        }
    }
    Ok(found)
}

/// Stores one migrated snapshot. Whatever is stored under other fingerprints stays as it is.
///
/// # Errors
/// The snapshot is gone or damaged since it was found, or the place cannot be written to.
pub fn store(from: &Stage, to: &Stage, comparison: &Comparison, mode: Mode, of: Move) -> Result<Moved> {
    let found = place(from)?.newest(of.partition, of.offset)?.filter(|found| found.offset == of.offset);
    let found = found.ok_or_else(|| {
        Error::new(Kind::Retry, "state", format!("the snapshot of partition {} at {} is gone", of.partition, of.offset))
            .help("a running stage has replaced it; run the command again")
    })?;
    let target = place(to)?.migrating(provenance(from, mode));
    let note = Note { fingerprint: to.identity.fingerprint.clone(), ..Note::read(&found.note).unwrap_or_default() };
    let (mut keys, held) = found.changed(&comparison.change(mode), target.columns())?;
    let boundary = Boundary { offset: of.offset, note: note.to_string(), held };
    let written = snapshot::store(Arc::new(target), of.partition, boundary, &mut keys)?;
    Ok(Moved { of, bytes: written.bytes })
}

/// What migrated snapshots say of their origin.
pub(super) fn provenance(from: &Stage, mode: Mode) -> Migrated {
    let identity = &from.identity;
    Migrated { from: identity.fingerprint.clone(), mode, model: format!("{} {}", identity.model, identity.model_version) }
}

pub(super) fn place(stage: &Stage) -> Result<Snapshots> {
    stage.snapshots()?.ok_or_else(|| {
        Error::config("state", "the pipeline takes no snapshots")
            .help("add snapshots = \"PATH or URL\" to [state]; without them a new model rebuilds its states at its first start")
    })
}

fn find(snapshots: &Snapshots, partition: Partition, committed: Option<&Commits>) -> Result<Option<Found>> {
    match committed {
        None => snapshots.newest(partition, Offset(i64::MAX)),
        Some(committed) => match committed.get(partition) {
            Some(commit) => newest_below(snapshots, partition, commit),
            None => Ok(None),
        },
    }
}
