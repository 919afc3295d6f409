//! Arguments -> command -> exit code.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use meantime::cli::{Cli, execute};

fn main() -> ExitCode {
    match execute(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let _ = std::io::stdout().flush();
            // After a stop that took too long lanes may still be running. The exit handlers of C libraries (OpenSSL's frees what other
            // threads use) must not run beside them, so none is run: all that matters is flushed.
            signal_hook::low_level::exit(i32::from(error.exit_code()))
        }
    }
}
