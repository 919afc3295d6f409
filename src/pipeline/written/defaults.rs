//! What a key means that is left out.

use crate::pipeline::unit::{Length, Size};

/// A length that is known to be one.
fn length(text: &str) -> Length {
    Length::try_from(text.to_owned()).expect("the defaults of this file are durations; a test reads each")
}

pub(super) fn default_true() -> bool {
    true
}

pub(super) fn default_sample() -> f64 {
    1.0
}

pub(super) fn default_events() -> u64 {
    100_000
}

pub(super) fn default_keys() -> u32 {
    1_000
}

pub(super) fn default_seed() -> u64 {
    1
}

pub(super) fn default_lateness() -> Length {
    length("0s")
}

pub(super) fn default_future_skew() -> Length {
    length("5m")
}

pub(super) fn default_package() -> String {
    "model".to_owned()
}

pub(super) fn default_max_keys() -> u64 {
    10_000_000
}

pub(super) fn default_commit_every() -> Length {
    length("100ms")
}

pub(super) fn default_roll_size() -> Size {
    Size { text: "128MiB".to_owned(), bytes: 128 << 20 }
}

pub(super) fn default_roll_every() -> Length {
    length("60s")
}

pub(super) fn default_max_bad_ratio() -> f64 {
    0.001
}

pub(super) fn default_dead_letters() -> String {
    "dead-letters.ndjson".to_owned()
}

pub(super) fn default_lanes() -> u32 {
    1
}

pub(super) fn default_max_batch() -> u32 {
    4096
}

pub(super) fn default_stop_timeout() -> Length {
    length("30s")
}

pub(super) fn default_zone() -> String {
    "UTC".to_owned()
}

pub(super) fn default_top() -> u32 {
    3
}

pub(super) fn default_hidden() -> u32 {
    64
}

pub(super) fn default_components() -> u32 {
    16
}

pub(super) fn default_epochs() -> u32 {
    50
}

pub(super) fn default_value_components() -> u32 {
    3
}

pub(super) fn default_value_levels() -> Vec<super::Share> {
    [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99].map(super::Share).to_vec()
}

pub(super) fn default_patience() -> u32 {
    5
}

pub(super) fn default_learning_rate() -> f64 {
    0.002
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_with_a_unit_can_be_read() {
        for length in [default_lateness(), default_future_skew(), default_commit_every(), default_roll_every(), default_stop_timeout()] {
            assert_eq!(Length::try_from(length.text.clone()), Ok(length));
        }
        let size = default_roll_size();
        assert_eq!(Size::try_from(size.text.clone()), Ok(size));
    }
}
