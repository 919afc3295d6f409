//! One file per command; here only what they share: the arguments, logging and the way out.

/// A line to stderr. Where nobody reads it, it is lost; `eprintln!` would panic.
#[macro_export]
macro_rules! tell {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

pub mod backfill;
#[cfg(feature = "kafka")]
mod before;
#[cfg(feature = "fit")]
pub mod calibrate;
mod check;
pub mod demo;
mod draft;
pub mod evaluate;
pub mod files;
#[cfg(feature = "fit")]
pub mod fit;
pub mod generate;
pub mod health;
mod history;
pub mod http;
pub mod model;
pub mod parity;
pub mod progress;
pub mod query;
pub mod replay;
pub mod run;
pub mod state;
pub mod stop;
pub mod summary;
pub mod verify;
pub mod watch;

use std::fmt::Arguments;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand, ValueEnum};

use crate::base::error::{Error, Result};
use crate::pipeline::{self, Purpose};

/// Forecasts on irregular event streams: one recurrent or point-process state per key, from Kafka to Kafka or Parquet.
#[derive(Debug, Parser)]
#[command(name = "meantime", version, about, long_about = None, max_term_width = 110)]
#[command(after_help = "Start with `meantime demo`: no Kafka, no network, one minute.\n\
    Exit codes: 0 fine, 1 a check failed, 2 usage, 69 a dependency is unreachable, 75 try again, 78 configuration, 130 interrupted.")]
pub struct Cli {
    /// How log lines are written to stderr.
    #[arg(long, value_enum, default_value_t = Log::Text, global = true)]
    pub log: Log,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Log {
    /// One line of text each.
    Text,
    /// One JSON object each.
    Json,
}

/// The commands, in the order in which a newcomer meets them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the main job without Kafka: generated events -> features -> model -> forecasts in Parquet, and a summary.
    Demo(demo::Args),
    /// Fill a file or the pipeline's topic with a generated stream whose law is known.
    Generate {
        /// The pipeline.
        #[command(flatten)]
        pipeline: PipelineArgs,
        /// What to generate.
        #[command(flatten)]
        args: generate::Args,
    },
    /// Train a model package on your own history: Parquet or NDJSON files.
    #[cfg(feature = "fit")]
    Fit(fit::Args),
    /// Run a pipeline: read records, keep a state per key, write forecasts.
    Run(run::Args),
    /// Run history in files through the pipeline: in the order of event time, by key shard, resumable.
    Backfill(backfill::Args),
    /// Compare a pipeline's forecasts with what then happened: likelihood, calibration, errors, ranking.
    Evaluate(evaluate::Args),
    /// Correct a score by what then happened, and write the package with the correction.
    #[cfg(feature = "fit")]
    Calibrate(calibrate::Args),
    /// Compare what was sent with what comes out when the same events are taken from files, bit for bit.
    Parity(parity::Args),
    /// Take the past events of one key once more: each with its forecast, features and law, as JSON. Or compare two models on all past events: --diff.
    Replay(replay::ReplayArgs),
    /// Explain one past event: its features, what was expected, and what moved the outcome.
    Why(replay::WhyArgs),
    /// Report every fault of a pipeline file, its model and its schema at once.
    Check {
        /// The pipeline.
        #[command(flatten)]
        pipeline: PipelineArgs,
        /// Also look whether broker, topics, files and sinks can be reached.
        #[arg(long)]
        connect: bool,
    },
    /// Audit what a pipeline has written: every record exactly one output, nothing twice, each key in order.
    Verify(verify::Args),
    /// Look into, verify or time a model package.
    #[command(subcommand)]
    Model(model::Command),
    /// Look into the snapshots of a pipeline's key states, and make them another model's.
    #[command(subcommand)]
    State(state::Command),
}

/// A pipeline and changes to it, as most commands take them.
#[derive(Clone, Debug, clap::Args)]
pub struct PipelineArgs {
    /// The pipeline file, or the folder that holds a pipeline.toml.
    #[arg(value_name = "PIPELINE")]
    pub pipeline: PathBuf,
    /// Change a value of the file, such as `--set source.topic=other`. May be given several times.
    #[arg(long = "set", value_name = "A.B=VALUE")]
    pub sets: Vec<String>,
}

impl PipelineArgs {
    /// The same pipeline with another package: a folder as seen from here, or else as `[model] package` would name it, beside the pipeline file.
    ///
    /// # Errors
    /// There is no such folder.
    pub fn with_package(&self, package: &Path) -> Result<PipelineArgs> {
        let file = pipeline::file_of(&self.pipeline);
        let beside = file.parent().unwrap_or(Path::new("")).join(package);
        let Some(folder) = [package, &beside].into_iter().find(|folder| folder.is_dir()) else {
            return Err(Error::config("model", "there is no such model package folder")
                .at(package.display().to_string())
                .help("name a folder with model.onnx, model.toml and features.toml"));
        };
        let folder = std::path::absolute(folder).map_err(|e| Error::io("model", folder, e))?;
        let mut sets = self.sets.clone();
        sets.push(format!("model.package={}", serde_json::Value::from(folder.display().to_string())));
        Ok(PipelineArgs { pipeline: self.pipeline.clone(), sets })
    }
}

/// Writes to stdout, as `print!` does, and does not panic where its reader has gone.
fn print(command: &'static str, text: Arguments<'_>) -> Result<()> {
    std::io::stdout().lock().write_fmt(text).map_err(|e| Error::io(command, Path::new("stdout"), e))
}

/// Runs the command.
///
/// # Errors
/// Whatever the command reports; the exit code is `Error::exit_code`.
pub fn execute(cli: Cli) -> Result<()> {
    start_logging(cli.log);
    match cli.command {
        Command::Demo(args) => demo::run(&args),
        Command::Generate { pipeline, args } => {
            let plan = pipeline::load(&pipeline.pipeline, &pipeline.sets, Purpose::Generate)?;
            generate::run(&plan, &args)
        }
        #[cfg(feature = "fit")]
        Command::Fit(args) => fit::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Backfill(args) => backfill::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        #[cfg(feature = "fit")]
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Parity(args) => parity::run(&args),
        Command::Replay(args) => replay::replay(&args),
        Command::Why(args) => replay::why(&args),
        Command::Check { pipeline, connect } => check::run(&pipeline.pipeline, &pipeline.sets, connect),
        Command::Verify(args) => verify::run(&args),
        Command::Model(command) => model::run(&command),
        Command::State(command) => state::run(&command),
    }
}

fn start_logging(log: Log) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MEANTIME_LOG").unwrap_or_else(|_| "warn,meantime=info".into());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        // A line that cannot be written is lost; to say so where it cannot be written either would panic.
        .log_internal_errors(false);
    // A second start (in tests) finds a logger in place; that is fine.
    let _ = match log {
        Log::Text => builder.compact().try_init(),
        Log::Json => builder.json().try_init(),
    };
}
