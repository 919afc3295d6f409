//! `max_bad_ratio`: above it the schema is wrong, not the data, and the stage stops.

use crate::base::error::{Error, Kind, Result};
use crate::data::rejected::too_many;

/// Records after which the counts are halved, so that the ratio is that of the recent past.
const WINDOW: u64 = 100_000;
/// Records before the ratio means anything.
const MINIMUM: u64 = 1_000;

/// Share of bad records among the recent ones.
#[derive(Clone, Debug)]
pub struct BadRatio {
    max: f64,
    records: u64,
    bad: u64,
    last: String,
}

impl BadRatio {
    /// Nothing seen yet.
    pub fn new(max: f64) -> Self {
        BadRatio { max, records: 0, bad: 0, last: String::new() }
    }

    /// Takes a batch into account. `example` describes one bad record of it, if there is one.
    pub fn add(&mut self, records: u64, bad: u64, example: impl FnOnce() -> String) {
        if self.records > WINDOW {
            self.records /= 2;
            self.bad /= 2;
        }
        self.records += records;
        self.bad += bad;
        if bad > 0 {
            self.last = example();
        }
    }

    /// Whether to go on. `ended`: there will be no more records, so that even few are judged.
    ///
    /// # Errors
    /// The ratio is above the bound.
    pub fn check(&self, ended: bool) -> Result<()> {
        let enough = self.records >= MINIMUM || ended;
        if !enough || !too_many(self.bad, self.records, self.max) {
            return Ok(());
        }
        let text = format!("{} of the last {} records cannot be used, more than max_bad_ratio = {}", self.bad, self.records, self.max);
        Err(Error::new(Kind::Data, "decode", text)
            .at(self.last.clone())
            .help("nothing is lost: the bad records are dead letters. Correct [event], or raise [dead_letter] max_bad_ratio"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_bad_records_are_no_wrong_schema_however_short_the_input_is() {
        let at_the_end = |max: f64, records: u64, bad: u64| {
            let mut ratio = BadRatio::new(max);
            ratio.add(records, bad, || "x".into());
            ratio.check(true).is_ok()
        };
        assert!(at_the_end(0.001, 301, 1) && at_the_end(0.05, 7, 1) && at_the_end(0.001, 1_500, 9) && at_the_end(0.001, 5, 2));
        assert!(!at_the_end(0.001, 301, 10) && !at_the_end(0.001, 1, 1) && !at_the_end(0.001, 6, 3) && !at_the_end(0.001, 1_500, 10));
        assert!(at_the_end(0.05, 301, 15) && !at_the_end(0.05, 301, 16));
        assert!(at_the_end(0.0, 301, 0) && !at_the_end(0.0, 301, 1), "none is none");
    }

    #[test]
    fn the_stage_stops_above_the_ratio_but_not_on_the_first_bad_record() {
        let mut ratio = BadRatio::new(0.01);
        ratio.add(10, 5, || "x".into());
        assert!(ratio.check(false).is_ok());
        assert!(ratio.check(true).is_err());
        ratio.add(10_000, 0, String::new);
        assert!(ratio.check(true).is_ok());
        ratio.add(1_000, 1_000, || "topic/3/77: malformed".into());
        let error = ratio.check(false).unwrap_err();
        assert!(error.to_string().contains("topic/3/77") && error.exit_code() == 1, "{error}");
    }
}
