//! What librdkafka says goes to `tracing`, and a broker that is down says so once, not ten times a second.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientContext, Statistics};

use super::explain::{Verdict, verdict};
use crate::base::clock;

/// Time within which further complaints about the connection are only logged at `debug`.
const QUIET: Duration = Duration::from_secs(30);

/// Takes log lines and global errors of one client. Contexts of consumers and producers hand theirs on to it.
#[derive(Default)]
pub struct Bridge {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When a connection problem was last logged as a warning.
    warned: Option<Instant>,
    /// The last thing that went wrong with the connection, for the text of a time-out.
    reason: Option<String>,
    /// Whether the cluster refused who we are.
    refused: bool,
}

impl Bridge {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What last went wrong with the connection, and whether the cluster refused the credentials.
    #[must_use]
    pub fn trouble(&self) -> Option<(String, bool)> {
        let state = self.state();
        state.reason.clone().map(|reason| (reason, state.refused))
    }

    /// Logs a problem that librdkafka will get over by itself: the first within half a minute as a warning.
    pub fn passing(&self, text: &str) {
        let mut state = self.state();
        let now = clock::tick();
        state.reason = Some(text.to_owned());
        if state.warned.is_some_and(|last| now.duration_since(last) < QUIET) {
            tracing::debug!(target: "librdkafka", "{text}");
        } else {
            state.warned = Some(now);
            tracing::warn!(target: "librdkafka", reason = text, "a broker does not answer; trying again until it does");
        }
    }

    /// A log line of librdkafka.
    pub fn line(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        match level {
            // Connection problems come as log lines at error level and again as errors.
            _ if facility == "FAIL" || facility == "ERROR" => tracing::debug!(target: "librdkafka", facility, "{text}"),
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::error!(target: "librdkafka", facility, "{text}");
            }
            // Settings of a producer given to a consumer and the like: harmless, as `client` is shared.
            RDKafkaLogLevel::Warning if facility == "CONFWARN" => tracing::debug!(target: "librdkafka", facility, "{text}"),
            RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{text}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(target: "librdkafka", facility, "{text}"),
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{text}"),
        }
    }

    /// A global error of the client.
    pub fn failed(&self, error: &KafkaError, reason: &str) {
        if matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL)) {
            self.state().refused = true;
        }
        match verdict(error) {
            Verdict::Passing => self.passing(reason),
            Verdict::Config | Verdict::Topic | Verdict::Other => tracing::debug!(target: "librdkafka", "{error}: {reason}"),
        }
    }
}

impl ClientContext for Bridge {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.line(level, facility, text);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.failed(&error, reason);
    }
}
