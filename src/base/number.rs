//! The only number conversions that may lose something, each with the reason why it does not matter here.

/// `i64` to `f64`: exact up to 2^53 (285 years in microseconds), beyond it rounded.
#[allow(clippy::cast_precision_loss)]
#[must_use]
pub fn f64_of(value: i64) -> f64 {
    value as f64
}

/// A count to `f64`: exact up to 2^53.
#[allow(clippy::cast_precision_loss)]
#[must_use]
pub fn f64_of_count(value: usize) -> f64 {
    value as f64
}

/// A number for people, with so many digits behind the point; very small and large ones by powers of ten, so that they keep their digits.
#[must_use]
pub fn shown(value: f64, digits: usize) -> String {
    if value == 0.0 || (1e-3..1e9).contains(&value.abs()) { format!("{value:.digits$}") } else { format!("{value:.digits$e}") }
}

/// `f64` to `f32`, rounded to nearest; what lies beyond the range becomes infinite.
#[allow(clippy::cast_possible_truncation)]
#[must_use]
#[inline(always)]
pub fn f32_of(value: f64) -> f32 {
    value as f32
}

/// `f64` to `i64`: rounded towards zero, saturating, NaN to 0.
#[allow(clippy::cast_possible_truncation)]
#[must_use]
pub fn i64_of(value: f64) -> i64 {
    value as i64
}

/// `f64` to a count: rounded towards zero, saturating at 0 and `usize::MAX`, NaN to 0.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
#[must_use]
pub fn count_of(value: f64) -> usize {
    value as usize
}

/// `u32` to an index: `usize` has at least 32 bits on every platform this crate builds for.
#[must_use]
pub fn index(value: u32) -> usize {
    value as usize
}

/// A length to `u32`, for columns whose size a limit keeps far below 4 Gi.
///
/// # Panics
/// If the value needs more than 32 bits: the limits in `base/limits.rs` rule that out.
#[must_use]
pub fn u32_of(value: usize) -> u32 {
    u32::try_from(value).expect("columns are bounded far below 4 Gi by base/limits")
}

/// A length to `i64`: no allocation is larger than `i64::MAX`.
///
/// # Panics
/// A count as a number of 64 bits.
#[must_use]
pub fn u64_of_count(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// Never: Rust allocations hold at most `isize::MAX` bytes.
#[must_use]
pub fn i64_of_count(value: usize) -> i64 {
    i64::try_from(value).expect("no allocation exceeds isize::MAX")
}
