//! The names, units and help of all metrics in one place, and the histogram they use.
//!
//! Counts and times live in `run::Counts`; `run::exposition` writes them under these names. Labels are bounded (partition, reason, kind,
//! state): there is never one per key.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::number::{count_of, f64_of};

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Only rises; starts at 0 with the process.
    Counter,
    /// A value as of now.
    Gauge,
    /// A distribution: `_bucket`, `_sum`, `_count`.
    Histogram,
}

impl Type {
    /// Its name in docs and in the exposition.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        }
    }
}

/// One metric. `name` is complete, as a query names it (`_total`, `_seconds` and `_bytes` included).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Complete name.
    pub name: &'static str,
    /// What it is.
    pub kind: Type,
    /// Unit of the value: `seconds`, `bytes`, or what is counted.
    pub unit: &'static str,
    /// Label names, in order.
    pub labels: &'static [&'static str],
    /// One line that says what it is, without a full stop.
    pub help: &'static str,
}

const fn metric(name: &'static str, kind: Type, unit: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind, unit, labels, help }
}

/// Records taken in.
pub const EVENTS: Metric = metric(
    "meantime_events_total",
    Type::Counter,
    "records",
    &[],
    "Records taken in, silent replay and those that became dead letters included",
);
/// Rows handed to the sink.
pub const FORECASTS: Metric =
    metric("meantime_forecasts_total", Type::Counter, "rows", &["kind"], "Rows handed to the sink, by kind: forecast or overdue");
/// Dead letters.
pub const DEAD_LETTERS: Metric =
    metric("meantime_dead_letters_total", Type::Counter, "records", &["reason"], "Records that could not be used, by reason");
/// Forecasts by flag.
pub const FLAGGED: Metric = metric(
    "meantime_flagged_forecasts_total",
    Type::Counter,
    "rows",
    &["flag"],
    "Forecasts with a flag: late_clamped, cold_start, unknown_mark, not_finite (the model gave no number) or state_kept (its next state was not finite)",
);
/// Events replayed silently.
pub const REPLAYED: Metric = metric(
    "meantime_replayed_events_total",
    Type::Counter,
    "events",
    &[],
    "Events replayed silently to rebuild states: nothing was emitted for them",
);
/// Events left out.
pub const BEFORE_SINCE: Metric = metric(
    "meantime_before_since_total",
    Type::Counter,
    "events",
    &[],
    "Events left out because they were before since of [source]: a backfill is stated to have taken them",
);
/// Records waiting.
pub const LAG_RECORDS: Metric = metric(
    "meantime_lag_records",
    Type::Gauge,
    "offsets",
    &["partition"],
    "Offsets between the end of the partition and the next one to take in; absent where the source does not know its end",
);
/// Event time behind the clock.
pub const LAG_SECONDS: Metric = metric(
    "meantime_lag_seconds",
    Type::Gauge,
    "seconds",
    &["partition"],
    "How far the latest event time taken in lies behind the clock; rises while a partition has no events",
);
/// Replaying or live.
pub const PARTITION_STATE: Metric = metric(
    "meantime_partition_state",
    Type::Gauge,
    "0 or 1",
    &["partition", "state"],
    "1 for the state that the partition is in: replaying or live",
);
/// Time of a batch.
pub const STEP_SECONDS: Metric = metric(
    "meantime_step_seconds",
    Type::Histogram,
    "seconds",
    &[],
    "Time a lane takes to bring one batch of records to forecasts: decode, order, features, model, head",
);
/// Rounds.
pub const ROUNDS: Metric =
    metric("meantime_rounds_total", Type::Counter, "rounds", &[], "Runs of the model's graph, each stepping every key at most once");
/// Size of rounds.
pub const ROUND_SIZE: Metric = metric("meantime_round_size", Type::Histogram, "keys", &[], "Keys stepped by one run of the model's graph");
/// Time of a commit.
pub const COMMIT_SECONDS: Metric = metric(
    "meantime_commit_seconds",
    Type::Histogram,
    "seconds",
    &[],
    "Time from the end of an epoch until its rows are durable and its positions are committed",
);
/// Time of a snapshot.
pub const SNAPSHOT_SECONDS: Metric =
    metric("meantime_snapshot_seconds", Type::Histogram, "seconds", &[], "Time to write one snapshot of a partition, in the background");
/// Size of a snapshot.
pub const SNAPSHOT_BYTES: Metric =
    metric("meantime_snapshot_bytes", Type::Histogram, "bytes", &[], "Size of one written snapshot of a partition, full or delta");
/// Snapshots that failed.
pub const SNAPSHOT_FAILURES: Metric = metric(
    "meantime_snapshot_failures_total",
    Type::Counter,
    "snapshots",
    &[],
    "Snapshots of a partition that could not be stored; the next one is a full one",
);
/// Starts without history.
pub const INCOMPLETE_STARTS: Metric = metric(
    "meantime_incomplete_starts_total",
    Type::Counter,
    "partitions",
    &[],
    "Partitions taken over without a snapshot whose first records are gone: their states lack what these did",
);
/// Time until live.
pub const RESTORE_SECONDS: Metric = metric(
    "meantime_restore_seconds",
    Type::Histogram,
    "seconds",
    &[],
    "Time from the assignment of a partition until it is live: loading its snapshot and silent replay",
);
/// Keys.
pub const KEYS: Metric = metric("meantime_keys", Type::Gauge, "keys", &[], "Keys that have a state now, over all lanes");
/// Keys forgotten.
pub const KEYS_EVICTED: Metric = metric(
    "meantime_keys_evicted_total",
    Type::Counter,
    "keys",
    &[],
    "Keys forgotten because their partition held max_keys keys, silent replay included",
);
/// Bytes of state.
pub const STATE_BYTES: Metric =
    metric("meantime_state_bytes", Type::Gauge, "bytes", &[], "Bytes of key states held in memory, over all lanes");
/// Distance of residuals from their law.
pub const RESIDUAL_KS: Metric = metric(
    "meantime_residual_ks",
    Type::Gauge,
    "1",
    &[],
    "Largest distance between the residuals of the last full window of 10,000 events and Exp(1); absent before and for a score",
);
/// Mean of residuals.
pub const RESIDUAL_MEAN: Metric =
    metric("meantime_residual_mean", Type::Gauge, "1", &[], "Mean residual of that window: above 1, events come later than the law says");
/// Coverage of quantiles.
pub const COVERAGE: Metric = metric(
    "meantime_quantile_coverage",
    Type::Gauge,
    "share",
    &["quantile"],
    "Share of the next events of the last full window of 10,000 that came by the forecast quantile",
);
/// Drifted windows.
pub const DRIFTS: Metric = metric(
    "meantime_drift_total",
    Type::Counter,
    "windows",
    &[],
    "Windows of 10,000 events whose residuals differ from the first settled window after the start; by chance one in a thousand",
);
/// Model packages taken while running.
pub const MODEL_CHANGES: Metric = metric(
    "meantime_model_changes_total",
    Type::Counter,
    "packages",
    &["outcome"],
    "New model packages that the stage was told to take while running: taken or refused",
);
/// Rows of the shadow.
pub const SHADOW_FORECASTS: Metric = metric(
    "meantime_shadow_forecasts_total",
    Type::Counter,
    "rows",
    &["kind"],
    "Rows of the shadow handed to its sink, by kind: forecast or overdue",
);
/// What goes wrong with the shadow.
pub const SHADOW_ERRORS: Metric = metric(
    "meantime_shadow_errors_total",
    Type::Counter,
    "errors",
    &["reason"],
    "failed: lanes whose shadow has failed and stands still; without_law: its forecasts that say nothing; rejected: records that only it cannot use",
);
/// Time of a batch.
pub const SHADOW_STEP_SECONDS: Metric = metric(
    "meantime_shadow_step_seconds",
    Type::Histogram,
    "seconds",
    &[],
    "Time that the shadow adds to one batch: decode, order, features, model, head, and handing its rows to the sink",
);
/// Bytes of state.
pub const SHADOW_STATE_BYTES: Metric =
    metric("meantime_shadow_state_bytes", Type::Gauge, "bytes", &[], "Bytes of the shadow's key states held in memory, over all lanes");
/// Events compared.
pub const SHADOW_COMPARED: Metric =
    metric("meantime_shadow_compared_total", Type::Counter, "events", &[], "Events whose forecasts of both models have been compared");
/// Sizes of differences.
pub const SHADOW_DIFFERENCE: Metric = metric(
    "meantime_shadow_difference",
    Type::Histogram,
    "of the field",
    &["field"],
    "Absolute difference of a field between both models' forecasts of one event; times of the next event in seconds",
);
/// Mean of differences.
pub const SHADOW_DIFFERENCE_MEAN: Metric = metric(
    "meantime_shadow_difference_mean",
    Type::Gauge,
    "of the field",
    &["field"],
    "Mean difference of a field since the start, the shadow's less the first model's",
);
/// Likelihoods.
pub const SHADOW_NLL: Metric = metric(
    "meantime_shadow_nll",
    Type::Gauge,
    "nats",
    &["model", "part"],
    "Mean negative log-likelihood since the start of the events that both models have one of: less is better",
);
/// Change of the likelihood.
pub const SHADOW_GAIN: Metric = metric(
    "meantime_shadow_gain",
    Type::Gauge,
    "nats",
    &["part", "stat"],
    "How much less the shadow's is than the first model's, the mean and its standard error: the shadow is better if this is well above 0",
);
/// Agreement.
pub const SHADOW_ALERTS: Metric = metric(
    "meantime_shadow_alerts_total",
    Type::Counter,
    "events",
    &["field", "by"],
    "Events by whether their field is at or above its threshold: by both models, by the first alone, by the shadow alone, by none",
);
/// Build.
pub const BUILD_INFO: Metric =
    metric("meantime_build_info", Type::Gauge, "1", &["version", "features"], "Always 1; version and Cargo features of this build");

/// All metrics, in the order in which they are written.
pub const ALL: [Metric; 37] = [
    BUILD_INFO,
    EVENTS,
    FORECASTS,
    DEAD_LETTERS,
    FLAGGED,
    REPLAYED,
    BEFORE_SINCE,
    LAG_RECORDS,
    LAG_SECONDS,
    PARTITION_STATE,
    STEP_SECONDS,
    ROUNDS,
    ROUND_SIZE,
    COMMIT_SECONDS,
    SNAPSHOT_SECONDS,
    SNAPSHOT_BYTES,
    SNAPSHOT_FAILURES,
    INCOMPLETE_STARTS,
    RESTORE_SECONDS,
    KEYS,
    KEYS_EVICTED,
    STATE_BYTES,
    RESIDUAL_KS,
    RESIDUAL_MEAN,
    COVERAGE,
    DRIFTS,
    MODEL_CHANGES,
    SHADOW_FORECASTS,
    SHADOW_ERRORS,
    SHADOW_STEP_SECONDS,
    SHADOW_STATE_BYTES,
    SHADOW_COMPARED,
    SHADOW_DIFFERENCE,
    SHADOW_DIFFERENCE_MEAN,
    SHADOW_NLL,
    SHADOW_GAIN,
    SHADOW_ALERTS,
];

/// How the values of a histogram are counted: in whole `part`s of the unit, so that sums are exact.
#[derive(Debug, PartialEq, Eq)]
pub struct Scale {
    /// Upper bounds of the buckets in parts, ascending. A value on a bound belongs below it.
    pub bounds: &'static [u64],
    /// Parts of one unit.
    pub per_unit: u32,
}

/// 100 us to 10 s, counted in nanoseconds.
pub static SHORT_TIMES: Scale = Scale {
    bounds: &[
        100_000,
        250_000,
        500_000,
        1_000_000,
        2_500_000,
        5_000_000,
        10_000_000,
        25_000_000,
        50_000_000,
        100_000_000,
        250_000_000,
        500_000_000,
        1_000_000_000,
        2_500_000_000,
        10_000_000_000,
    ],
    per_unit: 1_000_000_000,
};
/// 10 ms to one hour, counted in microseconds.
pub static LONG_TIMES: Scale = Scale {
    bounds: &[
        10_000,
        50_000,
        100_000,
        500_000,
        1_000_000,
        2_000_000,
        5_000_000,
        10_000_000,
        30_000_000,
        60_000_000,
        300_000_000,
        1_800_000_000,
        3_600_000_000,
    ],
    per_unit: 1_000_000,
};
/// 1 KiB to 16 GiB.
pub static SIZES: Scale =
    Scale { bounds: &[1 << 10, 1 << 13, 1 << 16, 1 << 19, 1 << 22, 1 << 24, 1 << 26, 1 << 28, 1 << 30, 1 << 32, 1 << 34], per_unit: 1 };
/// Keys of one round: 1 to 512, the most that one run of the graph steps.
pub static ROUND_SIZES: Scale = Scale { bounds: &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512], per_unit: 1 };

/// 0.0001 to a million, counted in millionths: differences of probabilities, and of seconds.
pub static DIFFERENCES: Scale = Scale {
    bounds: &[
        100,
        1_000,
        10_000,
        30_000,
        100_000,
        300_000,
        1_000_000,
        10_000_000,
        100_000_000,
        1_000_000_000,
        10_000_000_000,
        100_000_000_000,
        1_000_000_000_000,
    ],
    per_unit: 1_000_000,
};

impl Scale {
    fn bucket(&self, value: u64) -> usize {
        self.bounds.partition_point(|bound| *bound < value)
    }

    fn time(&self, time: Duration) -> u64 {
        u64::try_from(time.as_nanos() * u128::from(self.per_unit) / 1_000_000_000).unwrap_or(u64::MAX)
    }
}

/// A histogram that several lanes add to and a scrape reads.
#[derive(Debug)]
pub struct Histogram {
    scale: &'static Scale,
    /// One more than bounds: the last takes what lies above all of them.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// A histogram's values at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Upper bound in units (the last is infinite) and number of values in that bucket alone.
    pub buckets: Vec<(f64, u64)>,
    /// Sum of all values, in units.
    pub sum: f64,
    /// Number of values.
    pub count: u64,
}

impl Histogram {
    /// An empty one.
    #[must_use]
    pub fn new(scale: &'static Scale) -> Self {
        let buckets = (0..=scale.bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { scale, buckets, sum: AtomicU64::new(0) }
    }

    /// Adds one value, in parts of the unit.
    pub fn observe(&self, value: u64) {
        if let Some(bucket) = self.buckets.get(self.scale.bucket(value)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Adds a length of time; only for a scale of times.
    pub fn observe_time(&self, time: Duration) {
        self.observe(self.scale.time(time));
    }

    /// Adds a value that is not below 0, in units; what is too large counts as the largest there is.
    pub fn observe_value(&self, value: f64) {
        let parts = count_of(value * f64::from(self.scale.per_unit) + 0.5);
        // So that a sum of them does not run over.
        self.observe(u64::try_from(parts).unwrap_or(u64::MAX).min(1 << 53));
    }

    /// Adds everything that a lane has tallied and empties its tally.
    pub fn absorb(&self, tally: &mut SizeTally) {
        for (bucket, count) in self.buckets.iter().zip(&mut tally.buckets) {
            if *count > 0 {
                bucket.fetch_add(std::mem::take(count), Ordering::Relaxed);
            }
        }
        self.sum.fetch_add(std::mem::take(&mut tally.sum), Ordering::Relaxed);
    }

    /// The values now.
    #[must_use]
    pub fn read(&self) -> Reading {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let per_unit = f64::from(self.scale.per_unit);
        let bounds = self.scale.bounds.iter().map(|bound| float(*bound) / per_unit).chain([f64::INFINITY]);
        let (sum, count) = (float(self.sum.load(Ordering::Relaxed)) / per_unit, counts.iter().sum());
        Reading { buckets: bounds.zip(counts).collect(), sum, count }
    }
}

/// Round sizes that one lane has seen since they were last absorbed: plain numbers, for what happens more often than once a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SizeTally {
    buckets: [u64; ROUND_SIZES.bounds.len() + 1],
    sum: u64,
}

impl SizeTally {
    /// Notes a round of `keys` keys.
    pub fn note(&mut self, keys: usize) {
        let keys = u64::try_from(keys).unwrap_or(u64::MAX);
        if let Some(count) = self.buckets.get_mut(ROUND_SIZES.bucket(keys)) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(keys);
    }
}

/// Exact up to 2^53, beyond it rounded.
fn float(value: u64) -> f64 {
    f64_of(i64::try_from(value).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_say_their_unit_and_follow_the_conventions() {
        let mut names: Vec<&str> = ALL.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        for Metric { name, kind, unit, help, .. } in ALL {
            assert!(name.starts_with("meantime_"), "{name}");
            assert_eq!(name.ends_with("_total"), kind == Type::Counter, "{name}");
            assert_eq!(name.ends_with("_seconds"), unit == "seconds", "{name}");
            assert_eq!(name.ends_with("_bytes"), unit == "bytes", "{name}");
            assert!(!help.is_empty() && !help.ends_with('.'), "{name}");
        }
    }

    #[test]
    fn a_value_on_a_bound_is_counted_below_it_and_one_above_all_in_the_last_bucket() {
        let histogram = Histogram::new(&SHORT_TIMES);
        histogram.observe_time(Duration::from_micros(100));
        histogram.observe_time(Duration::from_nanos(100_001));
        histogram.observe_time(Duration::from_secs(11));
        let reading = histogram.read();
        assert_eq!(reading.buckets[0], (1e-4, 1));
        assert_eq!(reading.buckets[1].1, 1);
        assert_eq!(reading.buckets.last().unwrap(), &(f64::INFINITY, 1));
        assert_eq!((reading.count, reading.sum), (3, 11.000_200_001));
    }

    #[test]
    fn bounds_rise() {
        for scale in [&SHORT_TIMES, &LONG_TIMES, &SIZES, &ROUND_SIZES, &DIFFERENCES] {
            assert!(scale.bounds.is_sorted_by(|a, b| a < b));
        }
    }

    #[test]
    fn what_a_lane_has_tallied_is_added_once() {
        let (histogram, mut tally) = (Histogram::new(&ROUND_SIZES), SizeTally::default());
        for keys in [1, 512, 3, 3] {
            tally.note(keys);
        }
        histogram.absorb(&mut tally);
        histogram.absorb(&mut tally);
        let reading = histogram.read();
        assert_eq!((reading.count, reading.sum), (4, 519.0));
        assert_eq!(reading.buckets[2], (4.0, 2));
    }
}
