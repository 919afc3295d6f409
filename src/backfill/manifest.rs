//! What a backfill was begun with, beside its output: a run that goes on must be given the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Settings;
use super::survey::Survey;
use crate::base::error::{Error, Result};
use crate::link::objects::{Objects, Put};
use crate::link::query::{SELECT, WHERE};
use crate::sink::Folders;

/// Its name in the output folder.
pub const NAME: &str = "backfill.json";
const FORMAT: u32 = 1;

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this file.
    pub format: u32,
    /// What the states depend on.
    pub fingerprint: String,
    /// Shards, of all machines together.
    pub shards: u32,
    /// Rows of all shards together between two ends of output files.
    pub epoch_rows: u64,
    /// Columns with partition and offset of each row, if shards are partitions.
    #[serde(default)]
    pub positions: Option<(String, String)>,
    /// Column that orders rows of the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ties: Option<String>,
    /// Which folders the forecasts' files are in.
    #[serde(default, skip_serializing_if = "is_default")]
    pub layout: Folders,
    /// Condition on the rows.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Computed columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select: Option<String>,
    /// What decides, beside the states, what is written.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub output: BTreeMap<String, String>,
    /// Rows of them that are left to a topic, as they are not before the time of a hand-over. One that was begun by an earlier version does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub later: Option<u64>,
    /// Input files in their order.
    pub files: Vec<InputFile>,
}

fn is_default(layout: &Folders) -> bool {
    *layout == Folders::default()
}

/// An input file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    /// Its name, without folders: these may be elsewhere on another machine.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
    /// What tells its content from another: what its store calls it, or a checksum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl InputFile {
    /// Whether nothing speaks against it that this is the other.
    fn may_be(&self, other: &InputFile) -> bool {
        let versions = self.version.as_ref().zip(other.version.as_ref());
        (&self.name, self.bytes, self.rows) == (&other.name, other.bytes, other.rows) && versions.is_none_or(|(a, b)| a == b)
    }
}

impl Manifest {
    /// What is about to be done.
    #[must_use]
    pub fn of(settings: &Settings, survey: &Survey, fingerprint: &str, output: BTreeMap<String, String>) -> Self {
        let files = survey.files.iter().map(|file| InputFile {
            name: file.path.name().file_name().unwrap_or_default().to_string_lossy().into_owned(),
            bytes: file.bytes,
            rows: file.rows,
            version: Some(file.path.version().map_or_else(|| format!("crc32c {:08x}", file.checksum), str::to_owned)),
        });
        Manifest {
            format: FORMAT,
            fingerprint: fingerprint.to_owned(),
            shards: settings.shards,
            epoch_rows: settings.epoch_rows,
            positions: settings.positions.as_ref().map(|positions| (positions.partition.clone(), positions.offset.clone())),
            ties: settings.ties.clone(),
            layout: settings.folders,
            filter: settings.query.as_ref().and_then(|query| query.filter()).map(str::to_owned),
            select: settings.query.as_ref().and_then(|query| query.select()).map(str::to_owned),
            output,
            later: Some(survey.later()),
            files: files.collect(),
        }
    }

    /// What differs from what a backfill was begun with.
    #[must_use]
    pub fn difference(&self, begun: &Manifest) -> Option<String> {
        if begun.format != FORMAT {
            return Some(format!("it was begun by another meantime (format {})", begun.format));
        }
        if begun.shards != self.shards {
            return Some(format!("it was begun with {} shards, now there are {}", begun.shards, self.shards));
        }
        if begun.epoch_rows != self.epoch_rows {
            return Some(format!(
                "it was begun with {} rows between the ends of files, now there are {}",
                begun.epoch_rows, self.epoch_rows
            ));
        }
        if begun.positions != self.positions {
            return Some("it was begun with other --positions".to_owned());
        }
        if begun.ties != self.ties {
            return Some("it was begun with other --ties".to_owned());
        }
        if begun.layout != self.layout {
            let called = |layout: Folders| if layout == Folders::Date { "date" } else { "partition" };
            return Some(format!("it was begun with --layout {}, now it is {}", called(begun.layout), called(self.layout)));
        }
        for (option, then, now) in [(WHERE, &begun.filter, &self.filter), (SELECT, &begun.select, &self.select)] {
            if then != now {
                let said = |text: &Option<String>| text.as_ref().map_or_else(|| "none".to_owned(), |text| format!("`{text}`"));
                return Some(format!("it was begun with another {option}: {}, now it is {}", said(then), said(now)));
            }
        }
        if begun.fingerprint != self.fingerprint {
            return Some("the pipeline or the model has changed since it was begun".to_owned());
        }
        // One that was begun by an earlier version does not say.
        if let Some((what, then)) = begun.output.iter().find(|(what, then)| self.output.get(*what).is_some_and(|now| now != *then)) {
            let said = |text: &str| if text.is_empty() { "none".to_owned() } else { format!("`{text}`") };
            let now = self.output.get(what).map_or("", String::as_str);
            return Some(format!("{what} was {} when it was begun, now it is {}", said(then), said(now)));
        }
        if begun.files.len() != self.files.len() {
            return Some(format!("it was begun with {} input files, now there are {}", begun.files.len(), self.files.len()));
        }
        let other = begun.files.iter().zip(&self.files).find(|(before, now)| !before.may_be(now));
        other.map(|(before, now)| {
            if (&before.name, before.bytes, before.rows) == (&now.name, now.bytes, now.rows) {
                return format!("input file `{}` has been replaced by another of the same size", now.name);
            }
            format!(
                "input file `{}` of {} bytes and {} rows is now `{}` of {} bytes and {} rows",
                before.name, before.bytes, before.rows, now.name, now.bytes, now.rows
            )
        })
    }

    /// What the backfill in a folder or bucket was begun with; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(from: &dyn Objects) -> Result<Option<Manifest>> {
        let Some(bytes) = from.get(NAME)? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| Error::config("backfill", format!("{NAME} cannot be read: {e}")).at(from.to_string()).help("name another place"))
    }

    /// Begins a backfill in a folder or bucket, or goes on with the one that is there.
    ///
    /// # Errors
    /// There is one, and `resume` was not asked for, or it was begun with something else; the place holds what is none; it cannot be written.
    pub fn agree(&self, to: &dyn Objects, resume: bool) -> Result<()> {
        let place = to.to_string();
        let read = || Manifest::read(to);
        let begun = match read()? {
            Some(begun) => begun,
            None => {
                if to.list("")?.iter().any(|entry| !entry.name.starts_with('.')) {
                    return Err(Error::config("backfill", "the folder holds something that is no backfill")
                        .at(place)
                        .help("name a folder with --to that is empty or does not exist yet"));
                }
                let bytes = serde_json::to_vec_pretty(self).map_err(|e| Error::internal("backfill", e.to_string()))?;
                match to.put_new(NAME, &bytes)? {
                    Put::Created => return Ok(()),
                    // Another machine was faster.
                    Put::Exists => read()?.ok_or_else(|| Error::internal("backfill", "the manifest vanished").at(place.clone()))?,
                }
            }
        };
        if let Some(difference) = self.difference(&begun) {
            return Err(Error::config("backfill", difference)
                .at(place)
                .help("give the same files and options again, or another folder with --to"));
        }
        if !resume {
            return Err(Error::config("backfill", "a backfill was begun here already")
                .at(place)
                .help("go on with it: --resume; or name another folder with --to"));
        }
        Ok(())
    }
}
