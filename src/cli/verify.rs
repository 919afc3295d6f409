//! `meantime verify`: audits what a pipeline has written against what it has read.

#[cfg(feature = "kafka")]
mod kafka;
mod ledger;

use super::PipelineArgs;
use crate::base::error::{Error, Result};
use crate::pipeline::{self, Purpose};
use crate::sink;

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Print the findings to stdout as one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Audits the outputs of a pipeline. The findings go to stdout.
///
/// # Errors
/// Outputs are missing, come twice or stand out of order (exit code 1); something cannot be read.
pub fn run(args: &Args) -> Result<()> {
    let plan = pipeline::load(&args.pipeline.pipeline, &args.pipeline.sets, Purpose::Run)?;
    match &plan.sink {
        #[cfg(feature = "kafka")]
        sink::Settings::Kafka { client, topic } => kafka::verify(&plan, client, topic, args.json),
        other => Err(Error::config("verify", format!("a sink of kind {} cannot be verified", kind(other)))
            .help("verify needs outputs in a Kafka topic that were made of a Kafka topic")),
    }
}

fn kind(settings: &sink::Settings) -> &'static str {
    match settings {
        sink::Settings::Kafka { .. } => "kafka",
        sink::Settings::Parquet { .. } => "parquet",
        sink::Settings::Ndjson { .. } => "ndjson",
    }
}
