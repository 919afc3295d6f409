//! Points and spans of event time, in microseconds, so that no bare `i64` crosses a stage.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use super::number::{f64_of, i64_of};

const MICROS_PER_SECOND: f64 = 1e6;

/// When an event happened: microseconds since 1970-01-01T00:00:00Z. May be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventTime(pub i64);

impl EventTime {
    /// Earliest time a record may carry: 1900-01-01T00:00:00Z.
    pub const MIN: EventTime = EventTime(-2_208_988_800_000_000);
    /// Latest time a record may carry: 2200-01-01T00:00:00Z. A time beyond it is a broken clock or a wrong unit.
    pub const MAX: EventTime = EventTime(7_258_118_400_000_000);

    /// The unit in which this time, read as a number of `unit`, would be between 2000 and 2100, with that time: only of times before 1980.
    #[must_use]
    pub fn likelier(self, unit: TimeUnit) -> Option<(TimeUnit, EventTime)> {
        let number = f64_of(self.0) * 1e-6 / unit.seconds();
        unit.likelier(number).filter(|_| self < DOUBTED)
    }

    /// The time, if it lies in `MIN..=MAX`.
    #[must_use]
    pub fn in_range(self) -> Option<EventTime> {
        (Self::MIN..=Self::MAX).contains(&self).then_some(self)
    }

    /// The gap from `earlier` to this time; negative if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: EventTime) -> Gap {
        Gap(self.0.saturating_sub(earlier.0))
    }

    /// The time `gap` after this one; it saturates at the ends of the number line.
    #[must_use]
    pub fn after(self, gap: Gap) -> EventTime {
        EventTime(self.0.saturating_add(gap.0))
    }
}

impl fmt::Display for EventTime {
    /// RFC 3339 in UTC, to the microsecond.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::<Utc>::from_timestamp_micros(self.0) {
            Some(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::Micros, true)),
            None => write!(f, "{} us", self.0),
        }
    }
}

/// A span of event time, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Gap(pub i64);

impl Gap {
    /// No time at all.
    pub const ZERO: Gap = Gap(0);

    /// Seconds, exact to about 1e-16 relative.
    #[must_use]
    pub fn seconds(self) -> f64 {
        f64_of(self.0) / MICROS_PER_SECOND
    }

    /// The gap in `unit`s.
    #[must_use]
    pub fn in_unit(self, unit: TimeUnit) -> f64 {
        self.seconds() / unit.seconds()
    }
}

impl From<std::time::Duration> for Gap {
    fn from(duration: std::time::Duration) -> Self {
        Gap(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
    }
}

/// 2000 to 2100, in seconds since 1970.
const LIKELY: std::ops::Range<f64> = 946_684_800.0..4_102_444_800.0;
/// Times before it, 1980, are doubted: nothing was connected then.
const DOUBTED: EventTime = EventTime(315_532_800_000_000);

/// A unit of time as pipelines and model packages name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub enum TimeUnit {
    /// Nanoseconds.
    #[serde(rename = "ns")]
    Nanosecond,
    /// Microseconds.
    #[serde(rename = "us")]
    Microsecond,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Millisecond,
    /// Seconds.
    #[serde(rename = "s")]
    Second,
    /// Minutes.
    #[serde(rename = "m")]
    Minute,
    /// Hours.
    #[serde(rename = "h")]
    Hour,
    /// Days of 86,400 s.
    #[serde(rename = "d")]
    Day,
}

impl TimeUnit {
    /// Length of one unit in seconds.
    #[must_use]
    pub fn seconds(self) -> f64 {
        match self {
            TimeUnit::Nanosecond => 1e-9,
            TimeUnit::Microsecond => 1e-6,
            TimeUnit::Millisecond => 1e-3,
            TimeUnit::Second => 1.0,
            TimeUnit::Minute => 60.0,
            TimeUnit::Hour => 3600.0,
            TimeUnit::Day => 86_400.0,
        }
    }

    /// The unit, other than this one, in which a number would be a time between 2000 and 2100, with that time; only the units that clocks count in.
    #[must_use]
    pub fn likelier(self, number: f64) -> Option<(TimeUnit, EventTime)> {
        [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond]
            .into_iter()
            .filter(|unit| *unit != self)
            .find_map(|unit| {
                let seconds = number * unit.seconds();
                LIKELY.contains(&seconds).then(|| (unit, EventTime(i64_of((seconds * 1e6).round()))))
            })
    }

    /// The name used in files: `ns us ms s m h d`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            TimeUnit::Nanosecond => "ns",
            TimeUnit::Microsecond => "us",
            TimeUnit::Millisecond => "ms",
            TimeUnit::Second => "s",
            TimeUnit::Minute => "m",
            TimeUnit::Hour => "h",
            TimeUnit::Day => "d",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_prints_as_rfc_3339() {
        assert_eq!(EventTime(1_500_000).to_string(), "1970-01-01T00:00:01.500000Z");
    }

    #[test]
    fn a_time_that_is_none_in_its_unit_is_one_in_another() {
        let second = 1_700_000_000.0;
        assert_eq!(TimeUnit::Millisecond.likelier(second), Some((TimeUnit::Second, EventTime(1_700_000_000_000_000))));
        assert_eq!(TimeUnit::Second.likelier(second * 1e3), Some((TimeUnit::Millisecond, EventTime(1_700_000_000_000_000))));
        assert_eq!(TimeUnit::Second.likelier(second * 1e9).map(|(unit, _)| unit), Some(TimeUnit::Nanosecond));
        assert_eq!(
            (TimeUnit::Second.likelier(second), TimeUnit::Millisecond.likelier(-1.0), TimeUnit::Millisecond.likelier(f64::NAN)),
            (None, None, None)
        );
        // A day after 1970 in milliseconds is that in no other unit.
        assert_eq!(EventTime(86_400_000_000).likelier(TimeUnit::Millisecond), None);
        assert_eq!(EventTime(1_700_000_000_000).likelier(TimeUnit::Millisecond).map(|(unit, _)| unit), Some(TimeUnit::Second));
        assert_eq!(EventTime(1_700_000_000_000_000).likelier(TimeUnit::Microsecond), None);
    }

    #[test]
    fn the_range_ends_are_the_dates_they_claim() {
        assert_eq!(EventTime::MIN.to_string(), "1900-01-01T00:00:00.000000Z");
        assert_eq!(EventTime::MAX.to_string(), "2200-01-01T00:00:00.000000Z");
    }

    #[test]
    fn a_gap_is_the_difference_of_two_times() {
        let gap = EventTime(3_600_000_000).since(EventTime(0));
        assert_eq!(gap.in_unit(TimeUnit::Hour), 1.0);
        assert_eq!(EventTime(0).after(gap), EventTime(3_600_000_000));
    }
}
