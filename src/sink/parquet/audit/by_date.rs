//! Files by date: the commits must tile the records, and each file that they name must be there; no other may be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{AT_ONCE, Audit, Fault, LOG, Look, Tiles};
use crate::base::error::{Error, Kind, Result};
use crate::base::offset::Partition;
use crate::link::objects::{Folder, Objects};
use crate::sink::parquet::day::Day;
use crate::sink::parquet::ledger::{self, COMMITS, Entry, Lying, Piece};
use crate::sink::parquet::name::{self, Name, Slice};
use crate::sink::parquet::target::Temporary;

/// What lies where.
#[derive(Default)]
struct Found {
    commits: BTreeMap<Partition, BTreeSet<Name>>,
    /// Files that are not where readers look, by their names in the partition's folder, and other hidden ones.
    staged: BTreeMap<Partition, BTreeSet<String>>,
    unfinished: BTreeMap<Partition, u64>,
    /// Files of rows with their bytes.
    files: BTreeMap<(Day, Slice), u64>,
    foreign: Vec<(String, &'static str)>,
}

impl Found {
    fn list(objects: &dyn Objects) -> Result<Found> {
        let mut found = Found::default();
        for entry in objects.list("")? {
            let Some((first, rest)) = entry.name.split_once('/') else {
                if !entry.name.starts_with('.') {
                    found.foreign.push((entry.name, "it is no folder of a date"));
                }
                continue;
            };
            if first == LOG || first.starts_with('.') {
                continue;
            }
            let within = entry.name.strip_prefix(COMMITS).and_then(|rest| rest.split_once('/'));
            if let Some((partition, text)) = within.and_then(|(folder, text)| Some((name::read_folder(folder)?, text))) {
                match ledger::lying(text) {
                    Some(Lying::Commit(name)) => drop(found.commits.entry(partition).or_default().insert(name)),
                    Some(Lying::Staged(_)) => drop(found.staged.entry(partition).or_default().insert(text.to_owned())),
                    None if Temporary::read(text).is_some() => *found.unfinished.entry(partition).or_default() += 1,
                    None if text.starts_with('.') => {}
                    None => found.foreign.push((entry.name, "its name is none that meantime gives")),
                }
                continue;
            }
            match Day::read_folder(first).map(|day| (day, Slice::read(rest))) {
                Some((day, Some(slice))) => drop(found.files.insert((day, slice), entry.bytes)),
                _ if rest.rsplit('/').next().is_some_and(|name| name.starts_with('.')) => {}
                Some((_, None)) => found.foreign.push((entry.name, "its name is none that meantime gives")),
                None => found.foreign.push((entry.name, "it is in no folder of a date")),
            }
        }
        Ok(found)
    }
}

/// Times that it is looked again before what does not fit is a fault: a run beside it may have committed files between two folders of a listing.
const LOOKS: usize = 3;

/// Looks at commits and files.
pub fn audit(look: &Look<'_>) -> Result<Audit> {
    let mut found = once(look)?;
    for _ in 1..LOOKS {
        if found.faults.is_empty() {
            break;
        }
        found = once(look)?;
    }
    Ok(found)
}

fn once(look: &Look<'_>) -> Result<Audit> {
    let mut audit = Audit::default();
    let objects: Arc<dyn Objects> = match look {
        Look::Folder(path) => Arc::new(Folder::as_it_is(path)),
        Look::Store(objects) => Arc::clone(objects),
    };
    let mut found = Found::list(&*objects)?;
    audit.faults.extend(found.foreign.drain(..).map(|(path, why)| Fault::Foreign { path: look.shown(&path), why: why.to_owned() }));
    let oldest = found.files.keys().map(|(day, _)| *day).min();
    let mut named = BTreeSet::new();
    let partitions: BTreeSet<Partition> = found.commits.keys().chain(found.staged.keys()).chain(found.unfinished.keys()).copied().collect();
    for partition in partitions {
        let mut tiles = Tiles { unfinished: found.unfinished.get(&partition).copied().unwrap_or(0), ..Tiles::default() };
        let mut staged = found.staged.remove(&partition).unwrap_or_default();
        let names: Vec<Name> = found.commits.remove(&partition).unwrap_or_default().into_iter().collect();
        let mut next = None;
        for (name, entry) in names.iter().zip(entries(&*objects, partition, &names)?) {
            let shown = |name| look.shown(&ledger::path(partition, name));
            let entry = match entry {
                Ok(entry) => entry,
                Err(why) => {
                    audit.faults.push(Fault::Foreign { path: shown(*name), why });
                    continue;
                }
            };
            audit.lay(partition, &mut next, *name, &entry.footer, &shown);
            tiles.add(&entry.footer);
            let without_rows = entry.pieces.is_empty();
            tiles.files += if without_rows { 1 } else { u64::try_from(entry.pieces.len()).unwrap_or(0) };
            tiles.without_rows += u64::from(without_rows);
            for piece in entry.pieces {
                tiles.bytes += piece.bytes;
                let is_here = found.files.get(&(piece.day, piece.slice)).copied();
                // Committed, and where readers look as soon as the run has moved it, or the next one.
                let is_staged = staged.remove(&piece.staged());
                match is_here {
                    Some(bytes) if bytes == piece.bytes => {}
                    Some(bytes) => gone(&mut audit, look, &piece, format!("it has {bytes} bytes, its commit says {}", piece.bytes)),
                    None if is_staged => tiles.unfinished += 1,
                    None if oldest.is_some_and(|oldest| piece.day < oldest) => tiles.retired += 1,
                    None => gone(&mut audit, look, &piece, "it is not there, and its commit names it".to_owned()),
                }
                named.insert((piece.day, piece.slice));
            }
        }
        tiles.unfinished += u64::try_from(staged.len()).unwrap_or(0);
        audit.partitions.insert(partition, tiles);
    }
    for (day, slice) in found.files.into_keys().filter(|file| !named.contains(file)) {
        let path = look.shown(&format!("{}/{slice}", day.folder()));
        audit.faults.push(Fault::Foreign { path, why: "no commit names it".to_owned() });
    }
    Ok(audit)
}

fn gone(audit: &mut Audit, look: &Look<'_>, piece: &Piece, why: String) {
    audit.faults.push(Fault::Gone { partition: piece.slice.partition, file: look.shown(&piece.path()), why });
}

/// The commits of these names, in their order; several at once, as a bucket takes a while to answer.
fn entries(objects: &dyn Objects, partition: Partition, names: &[Name]) -> Result<Vec<std::result::Result<Entry, String>>> {
    let one = |name: &Name| {
        let path = ledger::path(partition, *name);
        let bytes = objects.get(&path)?.ok_or_else(|| {
            Error::new(Kind::Retry, "verify", "the commit has vanished since it was listed").at(format!("{objects}/{path}"))
        })?;
        Ok(Entry::read(partition, *name, &bytes))
    };
    let share = names.len().div_ceil(AT_ONCE).max(1);
    std::thread::scope(|scope| {
        let asked = names.chunks(share).map(|names| scope.spawn(|| names.iter().map(one).collect::<Result<Vec<_>>>()));
        let mut entries = Vec::new();
        for thread in asked.collect::<Vec<_>>() {
            entries.extend(thread.join().map_err(|_| Error::internal("verify", "a thread that reads commits panicked"))??);
        }
        Ok(entries)
    })
}
