//! The line that shows how far a run is, and how far its silent replay.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::progress::Progress;
use super::summary::per_second;
use crate::run::{Counts, Replay, ShadowCounts};

/// Shows a run's counts while its lanes run.
pub struct Watch(Progress);

impl Watch {
    /// Starts the clock. `total`: records to come, where that is known.
    #[must_use]
    pub fn start(total: Option<u64>) -> Self {
        Watch(Progress::start_with_message("records", total))
    }

    /// Shows the counts as they are now.
    pub fn show(&mut self, counts: &Counts) {
        let records = counts.records.load(Relaxed);
        let rate = per_second(records, self.0.elapsed());
        let (forecasts, replayed, dead) = (counts.forecasts.load(Relaxed), counts.replayed.load(Relaxed), counts.dead_letters());
        let (keys, backlog, total) = (counts.keys.load(Relaxed), counts.backlog.load(Relaxed), self.0.total());
        let replay = counts.partitions.replay();
        let message = || match &replay {
            Some(replay) => replaying(replay),
            None => format!("{records} records, {forecasts} forecasts, {dead} dead letters{}, {rate:.0}/s", shadow(&counts.shadow)),
        };
        self.0.show(records, Some(&message), || {
            let per_second = rate.round();
            if let Some(replay) = &replay {
                tracing::info!("{}", replaying(replay));
            }
            tracing::info!(records, forecasts, replayed, dead_letters = dead, keys, backlog, per_second, total, "progress");
            if counts.shadow.runs.load(Relaxed) > 0 {
                let (forecasts, failed) = (counts.shadow.forecasts.load(Relaxed), counts.shadow.failed.load(Relaxed));
                let judged = counts.shadow.judged();
                let change = judged.losses.first().and_then(|losses| losses.change()).map(|(mean, _)| format!("{mean:+.4}"));
                tracing::info!(forecasts, failed, compared = judged.events, nll_change = change, "progress of the shadow");
            }
        });
    }

    /// Ends the display and says how long it took.
    #[must_use]
    pub fn stop(self) -> Duration {
        self.0.stop()
    }
}

/// `, 950 of the shadow`; nothing without one.
fn shadow(counts: &ShadowCounts) -> String {
    match (counts.runs.load(Relaxed), counts.failed.load(Relaxed)) {
        (0, _) => String::new(),
        (_, 0) => format!(", {} of the shadow", counts.forecasts.load(Relaxed)),
        (_, _) => ", the shadow has failed".to_owned(),
    }
}

/// `replaying 1.2 M of 4.0 M records, 30 s left`.
fn replaying(replay: &Replay) -> String {
    let left = replay.left().map(|left| format!(", {} left", span(left))).unwrap_or_default();
    format!("replaying {} of {} records{left}", short(replay.done), short(replay.all))
}

/// 950, 1.2 k, 3.0 M, 4.1 G.
fn short(count: u64) -> String {
    let scales = [(1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")];
    match scales.into_iter().find(|(scale, _)| count >= *scale) {
        // Rounded down: a replay that is not done never shows as done.
        Some((scale, letter)) => format!("{}.{} {letter}", count / scale, count % scale * 10 / scale),
        None => count.to_string(),
    }
}

/// 30 s, 4 min, 2 h 5 min: what is left is an estimate, so two parts at most.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_says_how_much_is_done_and_how_long_it_will_take() {
        let replay = Replay { done: 1_299_999, all: 4_000_000, elapsed: Duration::from_secs(10) };
        assert_eq!(replaying(&replay), "replaying 1.2 M of 4.0 M records, 20 s left");
        assert_eq!(replaying(&Replay { done: 0, all: 950, ..replay }), "replaying 0 of 950 records");
    }

    #[test]
    fn counts_and_times_are_shortened() {
        assert_eq!([999, 1_000, 12_345, 3_000_000_000].map(short), ["999", "1.0 k", "12.3 k", "3.0 G"]);
        assert_eq!([119, 120, 7_500].map(|s| span(Duration::from_secs(s))), ["119 s", "2 min", "2 h 5 min"]);
    }
}
