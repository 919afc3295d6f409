//! The date of a row: the UTC day of its event's time, and the folder for it.

use std::fmt;

use crate::base::rfc3339;
use crate::base::time::EventTime;

/// Name of the column that engines make of the folders' names.
pub const COLUMN: &str = "event_date";
/// What engines call the folder of rows without a value.
const NONE: &str = "__HIVE_DEFAULT_PARTITION__";
const MICROS: i64 = 86_400_000_000;
/// Days of the years 1 to 9999, counted from 1970-01-01: the dates that every engine knows.
const KNOWN: std::ops::Range<i64> = -719_162..2_932_897;

/// A UTC day. Times outside of the years 1 to 9999 have none that engines know: they share one folder, where the column is null.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(Option<i64>);

impl Day {
    /// The day of a time.
    pub fn of(time: EventTime) -> Self {
        Day(Some(time.0.div_euclid(MICROS)).filter(|days| KNOWN.contains(days)))
    }

    /// `2026-11-25`; `None` where the column is null.
    pub fn date(self) -> Option<String> {
        let mut text = Vec::new();
        rfc3339::write_seconds(&mut text, EventTime(self.0?.checked_mul(MICROS)?)).then_some(())?;
        text.truncate(10);
        String::from_utf8(text).ok()
    }

    /// Name of the folder: `event_date=2026-11-25`.
    pub fn folder(self) -> String {
        format!("{COLUMN}={self}")
    }

    /// Reads a folder's name, as strictly as it is written.
    pub fn read_folder(text: &str) -> Option<Self> {
        let value = text.strip_prefix(COLUMN)?.strip_prefix('=')?;
        let day = match chrono::NaiveDate::parse_from_str(value, "%Y-%m-%d") {
            Ok(date) => Day::of(EventTime(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros())),
            Err(_) => Day(None),
        };
        (day.folder() == text).then_some(day)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.date().as_deref().unwrap_or(NONE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn folder(micros: i64) -> String {
        Day::of(EventTime(micros)).folder()
    }

    #[test]
    fn a_day_ends_at_midnight_utc_and_times_that_no_engine_knows_share_a_folder() {
        assert_eq!(folder(0), "event_date=1970-01-01");
        assert_eq!((folder(MICROS - 1), folder(MICROS)), ("event_date=1970-01-01".to_owned(), "event_date=1970-01-02".to_owned()));
        assert_eq!(folder(-1), "event_date=1969-12-31");
        assert_eq!(
            (folder(KNOWN.start * MICROS), folder(KNOWN.end * MICROS - 1)),
            ("event_date=0001-01-01".into(), "event_date=9999-12-31".into())
        );
        for unknown in [i64::MIN, KNOWN.start * MICROS - 1, KNOWN.end * MICROS, i64::MAX] {
            assert_eq!(folder(unknown), "event_date=__HIVE_DEFAULT_PARTITION__");
        }
        for other in
            ["event_date=2026-2-1", "event_date=2026-02-30", "event_date=", "event_date", "date=2026-02-01", "event_date=0000-01-01"]
        {
            assert_eq!(Day::read_folder(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_folder_is_read_as_it_is_written(micros: i64) {
            let day = Day::of(EventTime(micros));
            prop_assert_eq!(Day::read_folder(&day.folder()), Some(day));
        }
    }
}
