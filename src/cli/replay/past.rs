//! Past events: files in the order of event time, or the pipeline's own source from its first record to its present end.

use std::time::Duration;

use super::From;
use crate::backfill::Settings;
use crate::backfill::chunk::input_of;
use crate::backfill::feed::runs;
use crate::backfill::merge::Merge;
use crate::backfill::survey::survey;
use crate::base::error::{Error, Kind, Result};
use crate::base::number::i64_of_count;
use crate::base::offset::Offset;
use crate::base::time::EventTime;
use crate::cli::files;
use crate::data::commit::{Commit, Commits};
use crate::data::input::Input;
use crate::pipeline::plan::Plan;
use crate::source::{self, Opening, Polled};

const WAIT: Duration = Duration::from_millis(50);

/// Where past events are read from.
pub struct Past {
    source: source::Settings,
    fields: Vec<String>,
    max_batch: usize,
    files: Option<Settings>,
    _scratch: tempfile::TempDir,
}

impl Past {
    /// For a plan: files that are named, or without any its own source. A topic is read without joining the pipeline's own group. `fields` are read
    /// of tables.
    ///
    /// # Errors
    /// A pattern names no file, or what is asked of the rows cannot be read.
    pub fn new(plan: &Plan, fields: Vec<String>, from: &From) -> Result<Self> {
        let scratch = tempfile::tempdir().map_err(|e| Error::io("replay", &std::env::temp_dir(), e))?;
        let query = from.query.query("replay", &fields)?;
        let files = if from.from.is_empty() {
            if query.is_some() {
                return Err(Error::new(Kind::Usage, "replay", "--where and --select are asked of files").help("name files with --from"));
            }
            None
        } else {
            let paths = files::named("replay", &from.from)?.paths;
            Some(Settings { query, ..Settings::whole(paths, plan.schema.clone(), fields.clone(), scratch.path().to_owned()) })
        };
        let mut source = plan.source.clone();
        if let source::Settings::Kafka(kafka) = &mut source {
            kafka.group = format!("{}-replay-{}", kafka.group, std::process::id());
            kafka.instance = None;
            kafka.idle_after = None;
        }
        Ok(Past { source, fields, max_batch: plan.max_batch, files, _scratch: scratch })
    }

    /// Hands on all input, until it has ended or `each` has seen enough. Of files, which are in the order of time, no more than up to `until`.
    ///
    /// # Errors
    /// Files or topic cannot be read, or `each` fails.
    pub fn read(&self, until: Option<EventTime>, each: &mut dyn FnMut(Input) -> Result<bool>) -> Result<()> {
        if let Some(settings) = &self.files {
            let survey = survey(settings, &mut |_| {})?;
            let mut merge = Merge::new(survey.reading.clone(), runs(settings, &survey)?);
            let mut next = 0;
            while let Some(block) = merge.block()? {
                if until.zip(block.turns.first()).is_some_and(|(until, first)| first.at > until.0) {
                    return Ok(());
                }
                let first = Offset(next);
                next += i64_of_count(block.len());
                if !each(input_of(&[(0, first, block.rows)], survey.reading.lines))? {
                    return Ok(());
                }
            }
            return Ok(());
        }
        let opening = Opening { lanes: 1, until_caught_up: true, fields: self.fields.clone(), ..Opening::default() };
        let mut feed =
            source::open(&self.source, &opening)?.into_iter().next().ok_or_else(|| Error::internal("replay", "the source gave no feed"))?;
        let mut commits = Commits::new();
        loop {
            let mut input = Input::default();
            // A topic has ended when its group, which is nobody else's, has committed its end.
            feed.commit(&commits)?;
            match feed.poll(self.max_batch, WAIT, &mut input)? {
                Polled::Records => {
                    for (partition, offset) in input.records.partitions.iter().zip(&input.records.offsets) {
                        commits.insert(*partition, Commit::at(offset.next()));
                    }
                    if !each(input)? {
                        break;
                    }
                }
                Polled::Idle | Polled::Quiet(..) => {}
                Polled::Assigned(assignment) => {
                    let start = assignment.all();
                    feed.start(assignment.partition, start.read_from, start.live_from)?;
                }
                Polled::Revoked(partition) => {
                    return Err(Error::new(Kind::Unavailable, "replay", format!("partition {partition} was taken away by the group"))
                        .help("run it again"));
                }
                Polled::Ended => break,
            }
        }
        feed.close()
    }
}
