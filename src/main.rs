//! Arguments -> command -> exit code.

use std::process::ExitCode;

use clap::Parser;
use meantime::cli::{Cli, execute};

fn main() -> ExitCode {
    match execute(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_reader_gone() => {
            if error.stage == "sink" {
                meantime::tell!("the reader of stdout has gone: the run has stopped; what was not committed comes again");
            }
            // As below.
            signal_hook::low_level::exit(0)
        }
        Err(error) => {
            meantime::tell!("error: {error}");
            // After a stop that took too long lanes may still be running. The exit handlers of C libraries (OpenSSL's frees what other
            // threads use) must not run beside them, and a flush of stdout would wait for the lane that hangs in it: so neither is done.
            // Whole lines have left already, stdout keeps no more than the piece of one.
            signal_hook::low_level::exit(i32::from(error.exit_code()))
        }
    }
}
