//! `meantime verify`: audits what a pipeline has written. The kind of sink decides how: topics against the input, files from their footers.

#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "kafka")]
mod ledger;
mod parquet;

use std::path::PathBuf;

use super::PipelineArgs;
use crate::base::error::{Error, Kind, Result};
use crate::pipeline::plan::Plan;
use crate::pipeline::{self, Purpose};
use crate::sink;

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Folder of a backfill by --positions that handed over to this pipeline: its forecasts and dead letters count beside those of the topics.
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
    /// Audit the folder that [shadow] writes to instead.
    #[arg(long, conflicts_with = "files")]
    shadow: bool,
    /// Print the findings to stdout as one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Audits the outputs of a pipeline. The findings go to stdout.
///
/// # Errors
/// Outputs are missing, come twice or stand out of order (exit code 1); something cannot be read.
pub fn run(args: &Args) -> Result<()> {
    let (path, sets) = (&args.pipeline.pipeline, &args.pipeline.sets);
    if args.shadow {
        return shadow(&pipeline::load(path, sets, Purpose::Run)?, args.json);
    }
    // To look at files neither the model nor the source's files are needed.
    let plan = pipeline::load(path, sets, Purpose::Generate)?;
    match &plan.sink {
        sink::Settings::Parquet { .. } if args.files.is_some() => {
            Err(Error::new(Kind::Usage, "verify", "--files is for outputs that go on in a topic")
                .help("the sink's own folder is verified without it"))
        }
        sink::Settings::Parquet { place, .. } => {
            let dead_letters = match &plan.dead_letter {
                sink::Settings::Parquet { place, .. } => Some(place),
                _ => None,
            };
            parquet::verify(place, dead_letters, args.json)
        }
        #[cfg(feature = "kafka")]
        sink::Settings::Kafka { client, topic } => {
            kafka::verify(&pipeline::load(path, sets, Purpose::Run)?, client, topic, args.files.as_deref(), args.json)
        }
        other => Err(Error::config("verify", format!("a sink of kind {} cannot be verified", kind(other)))
            .help(match other {
                sink::Settings::Ndjson { .. } => {
                    "lines of JSON say nothing of how far their run has come: hold them against the files of events with `meantime parity PIPELINE --live FILE --files ...`, \
                     or write Parquet or to a topic"
                }
                _ => "verify needs outputs in a Kafka topic that were made of a Kafka topic, or a folder of Parquet files",
            })),
    }
}

/// Audits the shadow's folder. Its dead letters are none: those are the first model's.
fn shadow(plan: &Plan, json: bool) -> Result<()> {
    let Some(shadow) = &plan.shadow else {
        return Err(
            Error::config("verify", "the pipeline has no [shadow]").help("leave --shadow out, or name the pipeline file that has one")
        );
    };
    match &shadow.plan.sink {
        sink::Settings::Parquet { place, .. } => parquet::verify(place, None, json),
        other => Err(Error::config(
            "verify",
            format!("a shadow's sink of kind {} cannot be verified: it begins in the midst of its input", kind(other)),
        )
        .help(
            "hold it against the first model with `meantime replay PIPELINE --diff --live PLACE`; folders of Parquet files can be verified",
        )),
    }
}

fn kind(settings: &sink::Settings) -> &'static str {
    match settings {
        sink::Settings::Kafka { .. } => "kafka",
        sink::Settings::Parquet { .. } => "parquet",
        sink::Settings::Ndjson { .. } => "ndjson",
    }
}
