//! Signs of life: each lane's loop beats, and a watcher sees which has not for long.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::base::clock;

/// The loops of this process that are running.
#[derive(Clone, Debug)]
pub struct Pulses(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    began: Instant,
    /// Milliseconds from `began` to each loop's last beat.
    beats: Mutex<BTreeMap<usize, Arc<AtomicU64>>>,
}

impl Default for Pulses {
    fn default() -> Self {
        Pulses(Arc::new(Inner { began: clock::tick(), beats: Mutex::default() }))
    }
}

impl Inner {
    fn now(&self) -> u64 {
        u64::try_from(clock::tick().duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    fn beats(&self) -> MutexGuard<'_, BTreeMap<usize, Arc<AtomicU64>>> {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pulses {
    /// A loop starts. It is running until its pulse is dropped.
    #[must_use]
    pub fn start(&self) -> Pulse {
        let last = Arc::new(AtomicU64::new(self.0.now()));
        let mut beats = self.0.beats();
        let id = beats.last_key_value().map_or(0, |(id, _)| id + 1);
        beats.insert(id, Arc::clone(&last));
        drop(beats);
        Pulse { id, last, all: self.clone() }
    }

    /// Of the loops that are running, the longest time since a beat; `None` if none is running.
    #[must_use]
    pub fn longest_silence(&self) -> Option<Duration> {
        let now = self.0.now();
        self.0.beats().values().map(|last| Duration::from_millis(now.saturating_sub(last.load(Ordering::Relaxed)))).max()
    }
}

/// The pulse of one loop.
#[derive(Debug)]
pub struct Pulse {
    id: usize,
    last: Arc<AtomicU64>,
    all: Pulses,
}

impl Pulse {
    /// The loop has moved. One read of the clock and one store: for every turn of a loop, not for every event.
    pub fn beat(&self) {
        self.last.store(self.all.0.now(), Ordering::Relaxed);
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.all.0.beats().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quietest_running_loop_counts_and_one_that_has_ended_does_not() {
        let pulses = Pulses(Arc::new(Inner { began: clock::tick() - Duration::from_secs(100), beats: Mutex::default() }));
        assert_eq!(pulses.longest_silence(), None);
        let (quiet, busy) = (pulses.start(), pulses.start());
        quiet.last.store(0, Ordering::Relaxed);
        busy.beat();
        assert!(pulses.longest_silence().unwrap() >= Duration::from_secs(100));
        drop(quiet);
        assert!(pulses.longest_silence().unwrap() < Duration::from_secs(60));
        drop(busy);
        assert_eq!(pulses.longest_silence(), None);
    }
}
