//! How far event time has come in a partition.

use crate::base::time::{EventTime, Gap};
use crate::data::held::WatermarkAt;

/// The watermark of one partition.
///
/// Rule: an event time within `skew` after the watermark moves it. A later one is only remembered; when a second
/// record is also beyond, the watermark moves to the earlier of the two. So one broken clock never moves it far, and a
/// stream with long silences moves on with its next record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    skew: Gap,
    now: Option<EventTime>,
    ahead: Option<EventTime>,
}

impl Watermark {
    /// A watermark that has seen nothing.
    #[must_use]
    pub fn new(skew: Gap) -> Self {
        Watermark { skew, now: None, ahead: None }
    }

    /// Moves the watermark to `time` whatever the records say, and returns it. It never goes back.
    pub fn raise(&mut self, time: EventTime) -> EventTime {
        let now = self.now.map_or(time, |now| now.max(time));
        self.now = Some(now);
        now
    }

    /// Where it stands, for a snapshot.
    #[must_use]
    pub fn at(&self) -> WatermarkAt {
        WatermarkAt { now: self.now, ahead: self.ahead }
    }

    /// Goes on from where another one stood.
    pub fn restore(&mut self, at: WatermarkAt) {
        (self.now, self.ahead) = (at.now, at.ahead);
    }

    /// Takes one event time into account and returns the watermark after it. It never goes back.
    pub fn observe(&mut self, time: EventTime) -> EventTime {
        let now = match (self.now, self.ahead) {
            (None, None) => time.min(EventTime::MIN.after(self.skew)),
            (None, Some(_)) => EventTime::MIN,
            (Some(now), _) => now,
        };
        let now = if time <= now.after(self.skew) {
            now.max(time)
        } else {
            match self.ahead {
                Some(other) => {
                    self.ahead = Some(other.max(time));
                    now.max(other.min(time))
                }
                None => {
                    self.ahead = Some(time);
                    now
                }
            }
        };
        // What was far ahead may be near now: it has been confirmed by whatever moved the watermark there.
        let now = match self.ahead {
            Some(ahead) if ahead <= now.after(self.skew) => {
                self.ahead = None;
                now.max(ahead)
            }
            _ => now,
        };
        self.now = Some(now);
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SKEW: Gap = Gap(100);

    fn run(times: &[i64]) -> Vec<i64> {
        let mut watermark = Watermark::new(SKEW);
        times.iter().map(|t| watermark.observe(EventTime(*t)).0).collect()
    }

    #[test]
    fn a_second_record_confirms_a_jump() {
        let seen = run(&[1_000, 1_010, 1_050, 9_000, 1_060, 1_070]);
        assert_eq!(&seen[1..], [1_010, 1_050, 1_050, 1_060, 1_070], "one future time must not move it");
        let seen = run(&[1_000, 1_010, 50_000, 90_000]);
        assert_eq!(&seen[1..], [1_010, 1_010, 50_000], "two that agree move it to the earlier");
    }

    proptest! {
        #[test]
        fn a_watermark_never_goes_back(times in prop::collection::vec(-1_000_000i64..1_000_000, 0..200)) {
            let seen = run(&times);
            prop_assert!(seen.is_sorted());
        }

        #[test]
        fn one_future_timestamp_never_moves_it_past_the_skew(
            mut times in prop::collection::vec(0i64..1000, 3..50), at in 2usize..40, future in 5_000i64..1_000_000_000
        ) {
            let at = at.min(times.len());
            times.insert(at, future);
            let highest = times.iter().filter(|t| **t != future).max().copied().unwrap_or(0);
            let seen = run(&times);
            prop_assert!(seen.iter().all(|w| *w <= highest + SKEW.0), "{seen:?}");
        }
    }
}
