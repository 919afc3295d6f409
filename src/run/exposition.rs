//! A run's counts in the OpenMetrics text format, as Prometheus reads it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit};

use super::counts::Counts;
use super::shadow::ShadowCounts;
use super::shadow::compare::PARTS;
use crate::base::clock;
use crate::base::metrics::{self, Histogram, Metric, Type};
use crate::base::number::f64_of_count;
use crate::base::offset::Partition;
use crate::data::flags::Flags;
use crate::data::rejected::Reason;

/// Media type of what `Exposition::render` gives.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes the counts of a run. Nothing is computed before it is asked for.
#[derive(Debug)]
pub struct Exposition(Registry);

impl Exposition {
    /// For the counts of one run.
    #[must_use]
    pub fn new(counts: Arc<Counts>) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Scrape(counts)));
        Exposition(registry)
    }

    /// All metrics as they are now.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.0).expect("writing to a String cannot fail");
        out
    }
}

/// Reads counts at each scrape, so that they are kept in one place only.
#[derive(Debug)]
struct Scrape(Arc<Counts>);

/// One series: its labels and its value.
type Series<V, const N: usize> = ([(&'static str, String); N], V);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let counts = &*self.0;
        let out = &mut encoder;
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let build = [("version", env!("CARGO_PKG_VERSION").to_owned()), ("features", features().join(","))];
        gauges(out, &metrics::BUILD_INFO, [(build, 1_u64)])?;
        counters(out, &metrics::EVENTS, [([], load(&counts.records))])?;
        let kinds = [("forecast", &counts.forecasts), ("overdue", &counts.overdue)];
        counters(out, &metrics::FORECASTS, kinds.map(|(kind, count)| ([("kind", kind.to_owned())], load(count))))?;
        let reasons = Reason::ALL.iter().zip(&counts.dead);
        counters(out, &metrics::DEAD_LETTERS, reasons.map(|(reason, count)| ([("reason", reason.code().to_owned())], load(count))))?;
        let flagged = Flags::NAMES.iter().zip(&counts.flagged);
        counters(out, &metrics::FLAGGED, flagged.map(|((_, name), count)| ([("flag", (*name).to_owned())], load(count))))?;
        counters(out, &metrics::REPLAYED, [([], load(&counts.replayed))])?;
        counters(out, &metrics::BEFORE_SINCE, [([], load(&counts.before_since))])?;
        self.partitions(out)?;
        histogram(out, &metrics::STEP_SECONDS, &counts.steps)?;
        counters(out, &metrics::ROUNDS, [([], counts.rounds.read().count)])?;
        histogram(out, &metrics::ROUND_SIZE, &counts.rounds)?;
        histogram(out, &metrics::COMMIT_SECONDS, &counts.commits)?;
        histogram(out, &metrics::SNAPSHOT_SECONDS, &counts.snapshots)?;
        histogram(out, &metrics::SNAPSHOT_BYTES, &counts.snapshot_bytes)?;
        counters(out, &metrics::SNAPSHOT_FAILURES, [([], load(&counts.snapshots_failed))])?;
        counters(out, &metrics::INCOMPLETE_STARTS, [([], load(&counts.incomplete_starts))])?;
        histogram(out, &metrics::RESTORE_SECONDS, &counts.partitions.restores)?;
        gauges(out, &metrics::KEYS, [([], load(&counts.keys))])?;
        counters(out, &metrics::KEYS_EVICTED, [([], load(&counts.evicted))])?;
        gauges(out, &metrics::STATE_BYTES, [([], load(&counts.bytes))])?;
        let trust = counts.trust.read();
        gauges(out, &metrics::RESIDUAL_KS, trust.ks.map(|ks| ([], ks)))?;
        gauges(out, &metrics::RESIDUAL_MEAN, trust.mean.map(|mean| ([], mean)))?;
        let coverage = trust.coverage.iter().map(|(quantile, share)| ([("quantile", quantile.to_string())], *share));
        gauges(out, &metrics::COVERAGE, coverage)?;
        counters(out, &metrics::DRIFTS, [([], trust.drifts)])?;
        let changes = [("taken", &counts.models_taken), ("refused", &counts.models_refused)];
        counters(out, &metrics::MODEL_CHANGES, changes.map(|(outcome, count)| ([("outcome", outcome.to_owned())], load(count))))?;
        if load(&counts.shadow.runs) > 0 { shadow(out, &counts.shadow) } else { Ok(()) }
    }
}

/// What a shadow does; absent without one.
fn shadow(out: &mut DescriptorEncoder, counts: &ShadowCounts) -> fmt::Result {
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let kinds = [("forecast", &counts.forecasts), ("overdue", &counts.overdue)];
    counters(out, &metrics::SHADOW_FORECASTS, kinds.map(|(kind, count)| ([("kind", kind.to_owned())], load(count))))?;
    let reasons = [("failed", &counts.failed), ("without_law", &counts.without_law), ("rejected", &counts.rejected)];
    counters(out, &metrics::SHADOW_ERRORS, reasons.map(|(reason, count)| ([("reason", reason.to_owned())], load(count))))?;
    histogram(out, &metrics::SHADOW_STEP_SECONDS, &counts.steps)?;
    gauges(out, &metrics::SHADOW_STATE_BYTES, [([], load(&counts.bytes))])?;
    let judged = counts.judged();
    counters(out, &metrics::SHADOW_COMPARED, [([], judged.events)])?;
    family(out, &metrics::SHADOW_DIFFERENCE, |mut encoder| {
        judged.differences.iter().try_for_each(|(field, differences)| {
            let reading = differences.sizes.read();
            let labels = [("field", field.as_str())];
            encoder.encode_family(&labels)?.encode_histogram::<NoLabelSet>(reading.sum, reading.count, &reading.buckets, None)
        })
    })?;
    let means = judged.differences.iter().map(|(field, differences)| {
        let (sum, count) = differences.sum;
        ([("field", field.clone())], sum / f64_of_count(count.max(1)))
    });
    gauges(out, &metrics::SHADOW_DIFFERENCE_MEAN, means)?;
    let losses = || PARTS.iter().zip(&judged.losses).filter(|(_, losses)| losses.events > 0);
    let mean = losses().flat_map(|(part, losses)| {
        let of = |model: &str, sum: f64| ([("model", model.to_owned()), ("part", (*part).to_owned())], sum / f64_of_count(losses.events));
        [of("first", losses.first), of("shadow", losses.shadow)]
    });
    gauges(out, &metrics::SHADOW_NLL, mean)?;
    let changes = losses().filter_map(|(part, losses)| Some((part, losses.change()?))).flat_map(|(part, (mean, error))| {
        [("mean", -mean), ("std_error", error)].map(|(stat, value)| ([("part", (*part).to_owned()), ("stat", stat.to_owned())], value))
    });
    gauges(out, &metrics::SHADOW_GAIN, changes)?;
    let alerts = judged.alerts.iter().flat_map(|(field, alerts)| {
        let by = [("both", alerts.both), ("first", alerts.first), ("shadow", alerts.shadow), ("none", alerts.none)];
        by.map(|(by, count)| ([("field", field.clone()), ("by", by.to_owned())], count))
    });
    counters(out, &metrics::SHADOW_ALERTS, alerts)
}

impl Scrape {
    fn partitions(&self, out: &mut DescriptorEncoder) -> fmt::Result {
        let (standings, now) = (self.0.partitions.standings(), clock::now());
        let label = |partition: &Partition| ("partition", partition.to_string());
        let lags = standings.iter().filter_map(|(partition, standing)| Some(([label(partition)], standing.lag()?)));
        gauges(out, &metrics::LAG_RECORDS, lags)?;
        let behind = standings.iter().filter_map(|(partition, standing)| {
            let time = standing.last_event_time?;
            Some(([label(partition)], now.since(time).seconds()))
        });
        gauges(out, &metrics::LAG_SECONDS, behind)?;
        let states = standings.iter().flat_map(|(partition, standing)| {
            let live = standing.is_live();
            [("replaying", !live), ("live", live)].map(|(state, is)| ([label(partition), ("state", state.to_owned())], u64::from(is)))
        });
        gauges(out, &metrics::PARTITION_STATE, states)
    }
}

/// Cargo features of this build that change what it can do.
fn features() -> Vec<&'static str> {
    let all = [("kafka", cfg!(feature = "kafka")), ("tls", cfg!(feature = "tls")), ("fit", cfg!(feature = "fit"))];
    all.into_iter().filter(|(_, is)| *is).map(|(name, _)| name).collect()
}

/// Writes HELP, TYPE and UNIT of a metric. The library appends `_total` and the unit by itself.
fn family<V>(out: &mut DescriptorEncoder, metric: &Metric, write: impl FnOnce(MetricEncoder<'_>) -> Result<V, fmt::Error>) -> fmt::Result {
    let kind = match metric.kind {
        Type::Counter => MetricType::Counter,
        Type::Gauge => MetricType::Gauge,
        Type::Histogram => MetricType::Histogram,
    };
    let name = metric.name.trim_end_matches("_total");
    let (name, unit) = match (name.strip_suffix("_seconds"), name.strip_suffix("_bytes")) {
        (Some(name), _) => (name, Some(Unit::Seconds)),
        (_, Some(name)) => (name, Some(Unit::Bytes)),
        _ => (name, None),
    };
    write(out.encode_descriptor(name, metric.help, unit.as_ref(), kind)?).map(|_| ())
}

fn counters<V: EncodeCounterValue, const N: usize>(
    out: &mut DescriptorEncoder,
    metric: &Metric,
    series: impl IntoIterator<Item = Series<V, N>>,
) -> fmt::Result {
    family(out, metric, |mut encoder| {
        series.into_iter().try_for_each(|(labels, value)| {
            let none: Option<&Exemplar<NoLabelSet, f64>> = None;
            if N == 0 { encoder.encode_counter(&value, none) } else { encoder.encode_family(&labels)?.encode_counter(&value, none) }
        })
    })
}

fn gauges<V: EncodeGaugeValue, const N: usize>(
    out: &mut DescriptorEncoder,
    metric: &Metric,
    series: impl IntoIterator<Item = Series<V, N>>,
) -> fmt::Result {
    family(out, metric, |mut encoder| {
        series.into_iter().try_for_each(|(labels, value)| {
            if N == 0 { encoder.encode_gauge(&value) } else { encoder.encode_family(&labels)?.encode_gauge(&value) }
        })
    })
}

fn histogram(out: &mut DescriptorEncoder, metric: &Metric, histogram: &Histogram) -> fmt::Result {
    let reading = histogram.read();
    family(out, metric, |mut encoder| encoder.encode_histogram::<NoLabelSet>(reading.sum, reading.count, &reading.buckets, None))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::offset::Offset;
    use crate::run::shadow::compare::{Alerts, Differences, Losses};

    fn value(text: &str, series: &str) -> Option<f64> {
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    #[test]
    fn every_metric_is_written_under_its_name_with_its_type_and_labels() {
        let counts = Arc::new(Counts::default());
        counts.partitions.note_assigned(Partition(0), None, Offset(5));
        counts.partitions.note_progress(Partition(0), Offset(5), Some(clock::now()));
        counts.partitions.note_end(Partition(0), Offset(7));
        counts.trust.add(&[1.0; 10_000], 0.1);
        counts.trust.cover(0, 0.5, 10_000, 5_000);
        let without = Exposition::new(Arc::clone(&counts)).render();
        assert!(!without.contains("meantime_shadow"), "{without}");
        counts.shadow.runs.store(1, Ordering::Relaxed);
        let mut judged = counts.shadow.judged();
        let sizes = Histogram::new(&metrics::DIFFERENCES);
        sizes.observe_value(0.25);
        judged.differences.insert("score".to_owned(), Differences { sum: (-0.25, 1), sizes });
        judged.losses[0] = Losses { first: 3.0, shadow: 2.0, square: 0.5, events: 2 };
        judged.alerts.insert("score".to_owned(), Alerts::default());
        drop(judged);
        let text = Exposition::new(counts).render();
        for Metric { name, kind, labels, help, .. } in metrics::ALL {
            let family = name.trim_end_matches("_total");
            assert!(text.contains(&format!("# TYPE {family} {}\n", kind.name())), "{name}\n{text}");
            assert!(text.contains(&format!("# HELP {family} {help}")), "{name}\n{text}");
            let series: Vec<&str> = text.lines().filter(|line| line.split(['{', ' ']).next().unwrap().starts_with(name)).collect();
            assert!(!series.is_empty(), "{name}\n{text}");
            for label in labels {
                assert!(series.iter().all(|line| line.contains(&format!("{label}=\""))), "{label} of {series:?}");
            }
        }
        assert_eq!(value(&text, "meantime_shadow_difference_mean{field=\"score\"}"), Some(-0.25));
        assert_eq!(value(&text, "meantime_shadow_difference_bucket{le=\"0.3\",field=\"score\"}"), Some(1.0));
        assert_eq!(value(&text, "meantime_shadow_nll{model=\"shadow\",part=\"time\"}"), Some(1.0));
        assert_eq!(value(&text, "meantime_shadow_gain{part=\"time\",stat=\"mean\"}"), Some(0.5));
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn values_are_those_of_the_counts() {
        let counts = Arc::new(Counts::default());
        counts.records.store(12, Ordering::Relaxed);
        counts.overdue.store(3, Ordering::Relaxed);
        counts.dead[0].store(2, Ordering::Relaxed);
        counts.commits.observe_time(Duration::from_millis(3));
        counts.commits.observe_time(Duration::from_secs(60));
        let board = &counts.partitions;
        board.note_assigned(Partition(4), Some(Offset(10)), Offset(50));
        board.note_progress(Partition(4), Offset(30), Some(crate::base::time::EventTime(clock::now().0 - 90_000_000)));
        board.note_end(Partition(4), Offset(100));
        let text = Exposition::new(Arc::clone(&counts)).render();
        assert_eq!(value(&text, "meantime_events_total"), Some(12.0));
        assert_eq!(value(&text, "meantime_forecasts_total{kind=\"overdue\"}"), Some(3.0));
        assert_eq!(value(&text, &format!("meantime_dead_letters_total{{reason=\"{}\"}}", Reason::ALL[0].code())), Some(2.0));
        assert_eq!(value(&text, "meantime_lag_records{partition=\"4\"}"), Some(70.0));
        let behind = value(&text, "meantime_lag_seconds{partition=\"4\"}").unwrap();
        assert!((90.0..95.0).contains(&behind), "{behind}");
        assert_eq!(value(&text, "meantime_partition_state{partition=\"4\",state=\"replaying\"}"), Some(1.0));
        assert_eq!(value(&text, "meantime_partition_state{partition=\"4\",state=\"live\"}"), Some(0.0));
        assert_eq!(value(&text, "meantime_commit_seconds_bucket{le=\"0.0025\"}"), Some(0.0));
        assert_eq!(value(&text, "meantime_commit_seconds_bucket{le=\"0.005\"}"), Some(1.0));
        assert_eq!(value(&text, "meantime_commit_seconds_bucket{le=\"+Inf\"}"), Some(2.0));
        assert_eq!(value(&text, "meantime_commit_seconds_count"), Some(2.0));
        assert_eq!(value(&text, "meantime_commit_seconds_sum"), Some(60.003));
    }
}
