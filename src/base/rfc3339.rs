//! RFC 3339 in UTC, written into a byte buffer without going through a calendar library: several times per forecast row.
//!
//! Years 0000 to 9999 only, which is all that RFC 3339 has.

use super::time::EventTime;

const MICROS_PER_DAY: i64 = 86_400_000_000;
/// 0000-01-01 and 10000-01-01 in days since 1970.
const DAYS: std::ops::Range<i64> = -719_528..2_932_897;

/// Whether the time has an RFC 3339 form: its year is 0000 to 9999.
#[must_use]
pub fn has_form(time: EventTime) -> bool {
    DAYS.contains(&time.0.div_euclid(MICROS_PER_DAY))
}

/// Appends `2026-01-31T12:00:00.000000Z` (27 bytes). Returns false and appends nothing if the year is not 0000 to 9999.
pub fn write_micros(out: &mut Vec<u8>, time: EventTime) -> bool {
    let Some(([c, y, mo, d], [h, mi, s], micros)) = parts(time) else { return false };
    let [f, g, i] = [micros / 10_000, micros / 100 % 100, micros % 100].map(pair);
    // One array and one copy: byte by byte this is most of the time of a row.
    out.extend_from_slice(&[
        c[0], c[1], y[0], y[1], b'-', mo[0], mo[1], b'-', d[0], d[1], b'T', h[0], h[1], b':', mi[0], mi[1], b':', s[0], s[1], b'.', f[0],
        f[1], g[0], g[1], i[0], i[1], b'Z',
    ]);
    true
}

/// Appends `2026-01-31T12:00:00Z` (20 bytes), rounded down to the second. Returns false and appends nothing if the year is not 0000 to 9999.
pub fn write_seconds(out: &mut Vec<u8>, time: EventTime) -> bool {
    let Some(([c, y, mo, d], [h, mi, s], _)) = parts(time) else { return false };
    out.extend_from_slice(&[
        c[0], c[1], y[0], y[1], b'-', mo[0], mo[1], b'-', d[0], d[1], b'T', h[0], h[1], b':', mi[0], mi[1], b':', s[0], s[1], b'Z',
    ]);
    true
}

type Pair = [u8; 2];

/// Century, year of the century, month and day; hour, minute and second; microseconds.
fn parts(time: EventTime) -> Option<([Pair; 4], [Pair; 3], u32)> {
    if !has_form(time) {
        return None;
    }
    let micros = time.0.rem_euclid(MICROS_PER_DAY);
    let seconds = u32::try_from(micros / 1_000_000).ok()?;
    let fraction = u32::try_from(micros % 1_000_000).ok()?;
    let clock = [seconds / 3600, seconds / 60 % 60, seconds % 60].map(pair);
    Some((date(u32::try_from(time.0.div_euclid(MICROS_PER_DAY) - DAYS.start).ok()?), clock, fraction))
}

/// Century, year of the century, month and day of a day counted from 0000-01-01 (Hinnant, "chrono-compatible low-level date algorithms":
/// `civil_from_days`).
fn date(days: u32) -> [Pair; 4] {
    // Years are counted from March, so that the leap day is the last of its year; a cycle of 400 years is put before year 0.
    let shifted = days + 146_097 - 60;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = (year_of_era + era * 400 + carry).saturating_sub(400);
    [year / 100, year % 100, month, day].map(pair)
}

/// Two digits of a number from 0 to 99.
fn pair(value: u32) -> Pair {
    let value = u8::try_from(value).unwrap_or(0);
    [b'0' + value / 10, b'0' + value % 10]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(time: EventTime) -> Option<String> {
        let mut out = Vec::new();
        write_micros(&mut out, time).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_first_and_the_last_microsecond_have_a_form_and_their_neighbours_have_none() {
        let first = EventTime(DAYS.start * MICROS_PER_DAY);
        let last = EventTime(DAYS.end * MICROS_PER_DAY - 1);
        assert_eq!(written(first).unwrap(), "0000-01-01T00:00:00.000000Z");
        assert_eq!(written(last).unwrap(), "9999-12-31T23:59:59.999999Z");
        assert_eq!(written(EventTime(first.0 - 1)), None);
        assert_eq!(written(EventTime(last.0 + 1)), None);
        assert_eq!(written(EventTime(i64::MAX)), None);
    }

    #[test]
    fn seconds_are_rounded_down() {
        let mut out = Vec::new();
        assert!(write_seconds(&mut out, EventTime(-1)));
        assert_eq!(String::from_utf8(out).unwrap(), "1969-12-31T23:59:59Z");
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_calendar_library(micros in DAYS.start * MICROS_PER_DAY..DAYS.end * MICROS_PER_DAY) {
            prop_assert_eq!(written(EventTime(micros)).unwrap(), EventTime(micros).to_string());
        }

        #[test]
        fn every_day_of_a_leap_cycle_agrees(day in -146_097_i64..146_097) {
            let time = EventTime(day * MICROS_PER_DAY);
            prop_assert_eq!(written(time).unwrap(), time.to_string());
        }
    }
}
