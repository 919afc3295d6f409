//! SIGTERM and Ctrl-C: the first drains and commits within `[run] stop_timeout`, a second one leaves at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::base::error::{Error, Kind, Result};
use crate::run::Counts;

/// Partitions that the error of a stop names one by one.
const NAMED: usize = 8;

/// Signals that have come in. From `listen` on a first one no longer ends the process, and a second one ends it with 130.
pub struct Signals(Arc<AtomicUsize>);

impl Signals {
    /// Takes SIGTERM and SIGINT over.
    ///
    /// # Errors
    /// The operating system refuses the handlers.
    pub fn listen() -> Result<Self> {
        let (count, second) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let failed = |e: std::io::Error| Error::new(Kind::Internal, "run", format!("signals cannot be handled: {e}"));
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
            // In this order: the shutdown acts only on the signal after the one that armed it.
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&second)).map_err(failed)?;
            signal_hook::flag::register(signal, Arc::clone(&second)).map_err(failed)?;
            signal_hook::flag::register_usize(signal, Arc::clone(&count), 1).map_err(failed)?;
        }
        Ok(Signals(count))
    }

    /// Whether one has come in.
    #[must_use]
    pub fn any(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }
}

/// The error of a stop that took too long: which records were taken in and not committed.
#[must_use]
pub fn overdue(counts: &Counts, timeout: Duration) -> Error {
    let standings = counts.partitions.standings();
    let left: Vec<String> = standings
        .iter()
        .filter_map(|(partition, standing)| {
            let (from, to) = standing.uncommitted()?;
            Some(format!("partition {partition}: offsets {from} to {}", to.0.saturating_sub(1)))
        })
        .collect();
    let what = match left.len() {
        0 => "everything that was taken in is committed, but sinks or source did not close".to_owned(),
        n => {
            let named = left.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
            let more = if n > NAMED { format!("; and {} partitions more", n - NAMED) } else { String::new() };
            format!("not committed: {named}{more}")
        }
    };
    let timeout = humantime::format_duration(timeout);
    Error::new(Kind::Retry, "run", format!("the stop took longer than stop_timeout = {timeout}; {what}"))
        .help("what is not committed is read again at the next start; if the sink is only slow, raise [run] stop_timeout")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::offset::{Offset, Partition};

    #[test]
    fn a_stop_that_took_too_long_names_what_will_be_read_again() {
        let counts = Counts::default();
        for partition in 0..10 {
            counts.partitions.note_assigned(Partition(partition), Some(Offset(0)), Offset(0));
            counts.partitions.note_progress(Partition(partition), Offset(100), None);
        }
        counts.partitions.note_committed(Partition(0), Offset(40));
        counts.partitions.note_committed(Partition(1), Offset(100));
        let error = overdue(&counts, Duration::from_secs(30));
        assert_eq!(error.exit_code(), 75);
        let text = error.to_string();
        assert!(
            text.contains("stop_timeout = 30s; not committed: partition 0: offsets 40 to 99; partition 2: offsets 0 to 99; "),
            "{text}"
        );
        assert!(text.contains("; and 1 partitions more\n"), "{text}");
        assert!(!text.contains("partition 1:"), "{text}");
    }
}
