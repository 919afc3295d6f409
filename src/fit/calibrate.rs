//! Calibration of a score on held-back outcomes: Platt's two numbers by logistic regression, or isotonic regression over bins.

use linfa::DatasetBase;
use linfa::traits::{Fit, Predict};
use linfa_linear::IsotonicRegression;
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2};

use crate::base::error::{Error, Kind, Result};
use crate::base::number::{f32_of, f64_of_count};
use crate::data::law::Calibration;

/// Fewest events of either label.
const FEWEST: usize = 20;
/// Most bins of the isotonic regression: as many events in each.
const BINS: usize = 256;

/// What a score is worth as a probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Worth {
    /// Mean negative log-likelihood of the labels, nats.
    pub log_loss: f64,
    /// Mean square of score less label.
    pub brier: f64,
    /// Expected calibration error: mean distance, over ten bins of as many events, between the mean score and the share of positives.
    pub error: f64,
}

/// The worth of scores, corrected if there is a calibration.
#[must_use]
pub fn worth(scored: &[(f32, bool)], calibration: Option<&Calibration>) -> Worth {
    let corrected = |(p, label): &(f32, bool)| {
        let p = calibration.map_or(f64::from(*p), |calibration| calibration.apply(f64::from(*p)));
        (p, f64::from(u8::from(*label)))
    };
    let mut all: Vec<(f64, f64)> = scored.iter().map(corrected).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let n = f64_of_count(all.len().max(1));
    let loss = |(p, y): &(f64, f64)| {
        let p = p.clamp(1e-9, 1.0 - 1e-9);
        -(y * p.ln() + (1.0 - y) * (-p).ln_1p())
    };
    let off = |bin: &[(f64, f64)]| bin.iter().map(|(p, y)| p - y).sum::<f64>().abs();
    Worth {
        log_loss: all.iter().map(loss).sum::<f64>() / n,
        brier: all.iter().map(|(p, y)| (p - y) * (p - y)).sum::<f64>() / n,
        error: all.chunks(all.len().div_ceil(10).max(1)).map(off).sum::<f64>() / n,
    }
}

/// Refuses outcomes that say too little.
///
/// # Errors
/// Fewer than 20 events of either label.
pub fn check(scored: &[(f32, bool)]) -> Result<()> {
    let positive = scored.iter().filter(|(_, label)| *label).count();
    let negative = scored.len() - positive;
    if positive.min(negative) < FEWEST {
        let text = format!("{positive} positive and {negative} negative events have a score; at least {FEWEST} of each are needed");
        return Err(Error::new(Kind::Data, "calibrate", text).help("give more outcomes with --from, or widen --since and --where"));
    }
    Ok(())
}

/// Platt's calibration, with his smoothed targets left out: there are enough events of either kind.
///
/// # Errors
/// The regression does not converge, or says that the score is upside down.
pub fn platt(scored: &[(f32, bool)]) -> Result<Calibration> {
    let logit = |p: f32| {
        let p = f64::from(p).clamp(1e-7, 1.0 - 1e-7);
        p.ln() - (-p).ln_1p()
    };
    let records = Array2::from_shape_fn((scored.len(), 1), |(row, _)| scored.get(row).map_or(0.0, |(p, _)| logit(*p)));
    let targets: Array1<usize> = scored.iter().map(|(_, label)| usize::from(*label)).collect();
    let fault = |e: linfa_logistic::error::Error| Error::new(Kind::Data, "calibrate", format!("the regression failed: {e}"));
    let fitted = LogisticRegression::default().alpha(0.0).max_iterations(200).fit(&DatasetBase::new(records, targets)).map_err(fault)?;
    // The class that the library calls positive is the one it saw first or last; one probability tells which.
    let turn = if fitted.labels().pos.class == 1 { 1.0 } else { -1.0 };
    let calibration =
        Calibration::Platt { slope: turn * fitted.params().first().copied().unwrap_or(f64::NAN), shift: turn * fitted.intercept() };
    match calibration.fault() {
        None => Ok(calibration),
        Some(_) => Err(Error::new(
            Kind::Data,
            "calibrate",
            "higher scores do not mean more positives: the score cannot be corrected, only turned round",
        )
        .help("check that [event] label is the label the model was fitted to")),
    }
}

/// Isotonic calibration over bins of as many events.
///
/// # Errors
/// All scores are alike, or the regression fails.
pub fn isotonic(scored: &[(f32, bool)]) -> Result<Calibration> {
    let mut sorted = scored.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut bins: Vec<(f64, f64, f64)> = Vec::new();
    for bin in sorted.chunks(sorted.len().div_ceil(BINS).max(1)) {
        let n = f64_of_count(bin.len());
        let at = bin.iter().map(|(p, _)| f64::from(*p)).sum::<f64>() / n;
        let positive = f64_of_count(bin.iter().filter(|(_, label)| *label).count());
        match bins.last_mut() {
            Some((before, share, weight)) if at <= *before => {
                (*share, *weight) = ((*share * *weight + positive) / (*weight + n), *weight + n);
            }
            _ => bins.push((at, positive / n, n)),
        }
    }
    if bins.len() < 2 {
        return Err(Error::new(Kind::Data, "calibrate", "all scores are alike: there is nothing to correct"));
    }
    let column = |of: fn(&(f64, f64, f64)) -> f64| bins.iter().map(of).collect::<Array1<f64>>();
    let (at, shares) = (column(|bin| bin.0), column(|bin| bin.1));
    let records = at.clone().insert_axis(ndarray::Axis(1));
    let weights: Array1<f32> = bins.iter().map(|bin| f32_of(bin.2)).collect();
    let fault = |e: linfa_linear::LinearError<f64>| Error::new(Kind::Data, "calibrate", format!("the regression failed: {e}"));
    let data = DatasetBase::new(records.clone(), shares).with_weights(weights);
    let gives: Array1<f64> = IsotonicRegression::new().fit(&data).map_err(fault)?.predict(&records);
    // Rounding of the library must not make it fall.
    let mut highest = 0.0;
    let gives = gives.iter().map(|y| {
        highest = f64::max(highest, y.clamp(0.0, 1.0));
        highest
    });
    Ok(Calibration::Isotonic { at: at.to_vec(), gives: gives.collect() })
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    /// Labels with the probability sigmoid(0.5 logit(p) - 1).
    fn outcomes(n: usize) -> Vec<(f32, bool)> {
        let truth = Calibration::Platt { slope: 0.5, shift: -1.0 };
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(4);
        let draw = |_| {
            let p: f64 = random.random();
            (p as f32, random.random::<f64>() < truth.apply(p))
        };
        (0..n).map(draw).collect()
    }

    #[test]
    fn platt_finds_the_map_that_made_the_labels() {
        let Calibration::Platt { slope, shift } = platt(&outcomes(40_000)).unwrap() else { panic!() };
        assert!((slope - 0.5).abs() < 0.03 && (shift + 1.0).abs() < 0.03, "{slope} {shift}");
    }

    #[test]
    fn both_make_other_outcomes_likelier() {
        let all = outcomes(40_000);
        let (own, other) = all.split_at(20_000);
        let before = worth(other, None);
        for calibration in [platt(own).unwrap(), isotonic(own).unwrap()] {
            assert_eq!(calibration.fault(), None);
            let after = worth(other, Some(&calibration));
            assert!(after.log_loss < before.log_loss - 0.1 && after.error < 0.035 && before.error > 0.1, "{before:?} {after:?}");
            let ranks: Vec<f64> = (0..=100).map(|i| calibration.apply(f64::from(i) / 100.0)).collect();
            assert!(ranks.windows(2).all(|pair| pair[0] <= pair[1]) && ranks.iter().all(|p| (0.0..=1.0).contains(p)));
        }
    }

    #[test]
    fn outcomes_that_say_too_little_are_refused() {
        assert!(check(&[(0.5, true); 100]).unwrap_err().to_string().contains("0 negative"));
        assert!(isotonic(&[(0.5, true), (0.5, false)]).unwrap_err().to_string().contains("alike"));
        let upside_down: Vec<(f32, bool)> = outcomes(5_000).iter().map(|(p, label)| (1.0 - p, *label)).collect();
        assert!(platt(&upside_down).unwrap_err().to_string().contains("turned round"));
    }
}
