//! The program as a user calls it, and the pipeline that most of these tests give it.

use std::process::{Command, Output};

pub fn meantime(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_meantime")).args(arguments).output().unwrap()
}

/// What it prints where it succeeds.
pub fn done(arguments: &[&str]) -> String {
    let output = meantime(arguments);
    assert!(output.status.success(), "{arguments:?} {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What it says where it refuses.
pub fn refused(arguments: &[&str]) -> String {
    let output = meantime(arguments);
    assert!(!output.status.success(), "{arguments:?} {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

/// A pipeline from `events.ndjson` (`key`, `ts` in milliseconds) to stdout; with more lines of `[event]`, and more tables.
pub fn pipeline(event: &str, tables: &str) -> String {
    format!(
        r#"
name = "tested"
[source]
kind = "file"
paths = ["events.ndjson"]
[event]
format = "json"
key = "key"
time = {{ field = "ts", unit = "ms" }}
{event}
[model]
package = "model"
[sink]
kind = "ndjson"
path = "-"
[dead_letter]
kind = "ndjson"
path = "dead.ndjson"
{tables}
"#
    )
}
