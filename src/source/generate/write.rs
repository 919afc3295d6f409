//! JSON by hand, into a buffer that is used again: a generator must not be slower than what it feeds.

use crate::base::rfc3339;
use crate::base::time::EventTime;

/// Appends a text as it is.
pub fn text(out: &mut Vec<u8>, value: &str) {
    out.extend_from_slice(value.as_bytes());
}

/// Appends an integer.
pub fn integer(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends an integer with at least `width` digits (at most 20), zeros in front.
pub fn padded(out: &mut Vec<u8>, value: u64, width: usize) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value).as_bytes();
    let zeros = b"00000000000000000000";
    out.extend_from_slice(zeros.get(..width.saturating_sub(digits.len())).unwrap_or_default());
    out.extend_from_slice(digits);
}

/// Appends hundredths as a number with two decimals: `-1205` as `-12.05`.
pub fn hundredths(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    let value = value.unsigned_abs();
    padded(out, value / 100, 1);
    out.push(b'.');
    padded(out, value % 100, 2);
}

/// Appends a time as RFC 3339 to the second. Generated times lie far within the years that have such a form.
pub fn date_time(out: &mut Vec<u8>, time: EventTime) {
    rfc3339::write_seconds(out, time);
}

/// Milliseconds since 1970, rounded down.
#[must_use]
pub fn milliseconds(time: EventTime) -> i64 {
    time.0.div_euclid(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_json_reads_them() {
        let mut out = Vec::new();
        for value in [-1205, -5, 0, 7, 123_456] {
            hundredths(&mut out, value);
            out.push(b' ');
        }
        padded(&mut out, 42, 5);
        out.push(b' ');
        padded(&mut out, 123_456, 5);
        assert_eq!(String::from_utf8(out).unwrap(), "-12.05 -0.05 0.00 0.07 1234.56 00042 123456");
    }
}
