//! Where in the day, the week or the year a time lies, as sine and cosine.

use chrono::{DateTime, Datelike, Offset as _, TimeZone, Utc};
use chrono_tz::Tz;

use super::recipe::Cycle;
use crate::base::number::{f32_of, f64_of};
use crate::base::time::EventTime;

const DAY: i64 = 86_400_000_000;

/// An offset from UTC and the quarter hour (UTC) for which it was looked up: no zone changes its offset within one.
pub(super) type Cached = Option<(i64, i64)>;

/// (sin, cos) of 2 pi times the position in the cycle, in [0, 1). `cached` saves looking the zone up for each event.
pub(super) fn position(time: EventTime, cycle: Cycle, zone: Tz, cached: &mut Cached) -> (f32, f32) {
    let local = time.0.saturating_add(offset(time, zone, cached));
    let fraction = match cycle {
        Cycle::Hour => f64_of(local.rem_euclid(DAY)) / f64_of(DAY),
        // 1970-01-01 was a Thursday: three days after Monday.
        Cycle::Weekday => f64_of((local + 3 * DAY).rem_euclid(7 * DAY)) / f64_of(7 * DAY),
        Cycle::Month => month(local),
    };
    let (sin, cos) = libm::sincos(std::f64::consts::TAU * fraction);
    (f32_of(sin), f32_of(cos))
}

fn offset(time: EventTime, zone: Tz, cached: &mut Cached) -> i64 {
    if zone == Tz::UTC {
        return 0;
    }
    let quarter = time.0.div_euclid(900_000_000);
    match cached {
        Some((known, offset)) if *known == quarter => *offset,
        _ => {
            let offset = DateTime::<Utc>::from_timestamp_micros(time.0)
                .map_or(0, |utc| i64::from(zone.offset_from_utc_datetime(&utc.naive_utc()).fix().local_minus_utc()) * 1_000_000);
            *cached = Some((quarter, offset));
            offset
        }
    }
}

/// Position in the year: months passed plus the part of the current one, of twelve.
fn month(local: i64) -> f64 {
    let Some(at) = DateTime::<Utc>::from_timestamp_micros(local) else { return 0.0 };
    let date = at.date_naive();
    let first = date.with_day(1).unwrap_or(date);
    let next = first.checked_add_months(chrono::Months::new(1)).unwrap_or(first);
    let days = next.signed_duration_since(first).num_days().max(1);
    let passed = f64_of(i64::from(date.day0())) + f64_of(local.rem_euclid(DAY)) / f64_of(DAY);
    (f64::from(date.month0()) + passed / f64_of(days)) / 12.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> EventTime {
        EventTime(DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros())
    }

    fn angle(time: &str, cycle: Cycle, zone: Tz) -> f64 {
        let (sin, cos) = position(at(time), cycle, zone, &mut None);
        f64::from(sin).atan2(f64::from(cos)).rem_euclid(std::f64::consts::TAU) / std::f64::consts::TAU
    }

    #[test]
    fn positions_are_the_share_of_the_cycle_that_has_passed() {
        assert!((angle("2024-01-01T06:00:00Z", Cycle::Hour, Tz::UTC) - 0.25).abs() < 1e-6);
        assert!((angle("2024-01-03T12:00:00Z", Cycle::Weekday, Tz::UTC) - 2.5 / 7.0).abs() < 1e-6, "Wednesday noon");
        assert!((angle("2024-02-15T12:00:00Z", Cycle::Month, Tz::UTC) - (1.0 + 14.5 / 29.0) / 12.0).abs() < 1e-6);
        assert!((angle("1969-12-31T18:00:00Z", Cycle::Hour, Tz::UTC) - 0.75).abs() < 1e-6, "before 1970");
    }

    #[test]
    fn a_zone_follows_its_summer_time() {
        let berlin: Tz = "Europe/Berlin".parse().unwrap();
        assert!((angle("2024-01-01T05:00:00Z", Cycle::Hour, berlin) - 0.25).abs() < 1e-6);
        assert!((angle("2024-07-01T04:00:00Z", Cycle::Hour, berlin) - 0.25).abs() < 1e-6);
        let mut cached = None;
        let before = position(at("2024-03-31T00:59:59Z"), Cycle::Hour, berlin, &mut cached);
        let after = position(at("2024-03-31T01:00:00Z"), Cycle::Hour, berlin, &mut cached);
        assert_eq!(before, position(at("2024-03-31T00:59:59Z"), Cycle::Hour, berlin, &mut None));
        assert_eq!(after, position(at("2024-03-31T01:00:00Z"), Cycle::Hour, berlin, &mut None));
    }
}
