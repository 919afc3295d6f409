//! The probability that the arrived event is positive, from one model output.

use super::elementary::{exp, ln};
use crate::data::law::ScoreLink;

/// How far a probability may lie outside 0..1 by the model's own rounding.
const SLACK: f64 = 1e-6;

/// The score as a probability; `None` if the output is not finite or, as a probability, not in 0..1.
pub(super) fn score(output: f32, link: ScoreLink) -> Option<f64> {
    if !output.is_finite() {
        return None;
    }
    let x = f64::from(output);
    match link {
        ScoreLink::Logit => {
            // e^-|x| never overflows, and neither side is a difference.
            let e = exp(-x.abs());
            Some(if x < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) })
        }
        ScoreLink::Probability => (-SLACK..=1.0 + SLACK).contains(&x).then(|| x.clamp(0.0, 1.0)),
    }
}

/// ln of the odds; of a probability of 0 or 1 those of 1e-12 from it. `None` as `score`.
pub(super) fn log_odds(output: f32, link: ScoreLink) -> Option<f64> {
    let p = score(output, link)?;
    match link {
        ScoreLink::Logit => Some(f64::from(output)),
        ScoreLink::Probability => {
            let p = p.clamp(1e-12, 1.0 - 1e-12);
            Some(ln(p) - ln(1.0 - p))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logit_becomes_its_probability_without_overflow() {
        for (x, expected) in [
            (0.0, 0.5),
            (2.0, 0.880_797_077_977_882_4),
            (-2.0, 0.119_202_922_022_117_57),
            (-100.0, 3.720_075_976_020_836e-44),
            (1e30, 1.0),
            (-1e30, 0.0),
        ] {
            let p = score(x, ScoreLink::Logit).unwrap();
            assert!((p - expected).abs() <= 4e-16 * expected, "{x}: {p}");
        }
    }

    #[test]
    fn a_probability_is_taken_as_it_is_and_one_outside_is_none() {
        assert_eq!(score(0.25, ScoreLink::Probability), Some(0.25));
        assert_eq!(score(-5e-7, ScoreLink::Probability), Some(0.0));
        assert_eq!(score(1.000_000_5, ScoreLink::Probability), Some(1.0));
        assert_eq!(score(1.01, ScoreLink::Probability), None);
        assert_eq!(score(-0.01, ScoreLink::Probability), None);
    }

    #[test]
    fn what_is_not_a_number_is_none() {
        for link in [ScoreLink::Logit, ScoreLink::Probability] {
            for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                assert_eq!(score(x, link), None);
            }
        }
    }
}
