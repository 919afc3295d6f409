//! The one error type: which stage, what kind, where, and what to do.
//!
//! Bad data is not an error: it is a value (`data::rejected`). An `Error` stops a lane or a command.

use std::fmt;

/// What kind of fault it is; the kind decides the exit code and whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The pipeline file, a model package or an argument is wrong: exit 78 (or 2 for arguments).
    Config,
    /// The command line is wrong: exit 2.
    Usage,
    /// The data is wrong beyond what the pipeline tolerates: exit 1.
    Data,
    /// A check that was asked for failed: exit 1.
    Check,
    /// A broker, a disk or another dependency cannot be reached: exit 69.
    Unavailable,
    /// A dependency failed in a way that may pass: exit 75.
    Retry,
    /// The user interrupted: exit 130.
    Interrupted,
    /// A defect of meantime itself: exit 70.
    Internal,
}

/// An error with stage, kind, place, text and advice.
#[derive(Debug)]
pub struct Error {
    /// What kind of fault.
    pub kind: Kind,
    /// The stage or command that found it: `source`, `decode`, `model`, `fit`, ...
    pub stage: &'static str,
    /// What is wrong, in one sentence, with the value that was found.
    pub message: String,
    /// Where: a file, a topic and partition, a URL.
    pub place: Option<String>,
    /// One line that says what to do.
    pub help: Option<String>,
    /// The cause, where another library reported it.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// A finished, multi-line report (snippets and carets) that is printed instead of the parts above.
    pub report: Option<String>,
}

/// `Result` with the crate's error.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A new error without place, help or cause.
    pub fn new(kind: Kind, stage: &'static str, message: impl Into<String>) -> Self {
        Error { kind, stage, message: message.into(), place: None, help: None, source: None, report: None }
    }

    /// A fault of configuration.
    pub fn config(stage: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::Config, stage, message)
    }

    /// A defect of meantime itself.
    pub fn internal(stage: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, stage, message)
    }

    /// A file that cannot be read or written. Configuration if it is missing or forbidden, otherwise unavailable.
    pub fn io(stage: &'static str, path: &std::path::Path, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => Kind::Config,
            _ => Kind::Unavailable,
        };
        Self::new(kind, stage, source.to_string()).at(path.display().to_string()).caused_by(source)
    }

    /// Adds where it happened.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Replaces the printed text by a finished report.
    #[must_use]
    pub fn with_report(mut self, report: String) -> Self {
        self.report = Some(report);
        self
    }

    /// Whether all that happened is that nobody reads stdout any more, as with `| head`: whoever did has seen enough.
    #[must_use]
    pub fn is_reader_gone(&self) -> bool {
        let cause = self.source.as_ref().and_then(|source| source.downcast_ref::<std::io::Error>());
        self.place.as_deref() == Some("stdout") && cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
    }

    /// The process exit code for this kind (see `docs`: exit codes).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Config => 78,
            Kind::Usage => 2,
            Kind::Data | Kind::Check => 1,
            Kind::Unavailable => 69,
            Kind::Retry => 75,
            Kind::Interrupted => 130,
            Kind::Internal => 70,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(report) = &self.report {
            return f.write_str(report);
        }
        write!(f, "{}: {}", self.stage, self.message)?;
        if let Some(place) = &self.place {
            write!(f, "\n  at: {place}")?;
        }
        if let Some(source) = &self.source {
            let text = source.to_string();
            if !self.message.contains(&text) {
                write!(f, "\n  cause: {text}")?;
            }
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|s| &**s as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_prints_what_where_and_what_to_do() {
        let error = Error::config("model", "state `h` has no output").at("model/model.toml").help("name it in [[state]]");
        assert_eq!(error.to_string(), "model: state `h` has no output\n  at: model/model.toml\n  help: name it in [[state]]");
        assert_eq!(error.exit_code(), 78);
    }
}
