//! History that a command reads whole: files in the order of event time, as a backfill takes them, or a source as it is.

use tempfile::TempDir;

use super::progress::Progress;
use crate::backfill::survey::survey;
use crate::backfill::{Settings, feed};
use crate::base::error::{Error, Result};
use crate::pipeline::plan::Plan;
use crate::source::{self, Feed, Opening};

/// One feed with everything, and where it sorts.
pub struct History {
    /// The feed.
    pub feed: Box<dyn Feed>,
    _scratch: Option<TempDir>,
}

impl History {
    /// Opens a source for a plan.
    ///
    /// # Errors
    /// It cannot be reached or read, or the files do not fit together.
    pub fn open(command: &'static str, plan: &Plan, source: &source::Settings) -> Result<History> {
        let fields = plan.field_names();
        let none = || Error::internal(command, "the source gave no feed");
        let source::Settings::File(files) = source else {
            let opening = Opening { lanes: 1, until_caught_up: true, fields, ..Opening::default() };
            let feed = source::open(source, &opening)?.into_iter().next().ok_or_else(none)?;
            return Ok(History { feed, _scratch: None });
        };
        let scratch = tempfile::tempdir().map_err(|e| Error::io(command, &std::env::temp_dir(), e))?;
        let settings = Settings::whole(files.paths.clone(), plan.schema.clone(), fields, scratch.path().to_owned());
        let mut progress = Progress::start("files looked at", u64::try_from(files.paths.len()).ok());
        let mut looked = 0;
        let survey = survey(&settings, &mut |_| {
            looked += 1;
            progress.at(looked);
        });
        let _ = progress.stop();
        let survey = survey.map_err(|e| Error { stage: command, ..e })?;
        let feed = feed::open(&settings, &survey, 1)?.into_iter().next().ok_or_else(none)?;
        Ok(History { feed, _scratch: Some(scratch) })
    }
}
