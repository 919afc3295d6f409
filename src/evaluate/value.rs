//! Laws of the next value against the values that came.

use super::report::{ValueLaw, ValueQuantile};
use super::uniform::{Uniform, distance_bound};
use super::{BARS, FINE, Mean};
use crate::base::number::f64_of_count;
use crate::data::forecasts::Forecasts;

/// What of the values is evaluated.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    /// The field.
    pub field: String,
    /// Quantiles that the forecasts have, in their order.
    pub quantiles: Vec<f64>,
}

/// Sums under way.
#[derive(Debug)]
pub(super) struct OfValue {
    settings: Values,
    /// Quantiles of each key's law, by slot; NaN where it has none.
    laws: Vec<f64>,
    nll: Mean,
    missing: usize,
    shares: Uniform,
    error: Mean,
    square_error: Mean,
    /// Values at or below each quantile.
    below: Vec<usize>,
    compared: usize,
}

impl OfValue {
    pub(super) fn new(settings: Values) -> Self {
        let below = vec![0; settings.quantiles.len()];
        OfValue {
            settings,
            laws: Vec::new(),
            nll: Mean::default(),
            missing: 0,
            shares: Uniform::new(FINE),
            error: Mean::default(),
            square_error: Mean::default(),
            below,
            compared: 0,
        }
    }

    /// Compares the value of a row with the law that its key published before, if it was scored against it and counts, and takes down the law of the row.
    pub(super) fn settle(&mut self, slot: usize, forecasts: &Forecasts, row: usize, value: f64, counts: bool) {
        let own = |column: &[f64]| column.get(row).copied().unwrap_or(f64::NAN);
        let width = self.settings.quantiles.len();
        if self.laws.len() < (slot + 1) * width {
            self.laws.resize((slot + 1) * width, f64::NAN);
        }
        let Some(law) = self.laws.get_mut(slot * width..(slot + 1) * width) else { return };
        let surprise = own(&forecasts.surprise_value);
        if counts {
            self.missing += usize::from(!own(&forecasts.gap_s).is_nan() && !value.is_finite());
            self.nll.add(surprise);
            self.shares.add(own(&forecasts.residual_value));
        }
        if counts && !surprise.is_nan() && law.iter().all(|quantile| !quantile.is_nan()) {
            self.compared += 1;
            for ((level, quantile), below) in self.settings.quantiles.iter().zip(law.iter()).zip(&mut self.below) {
                *below += usize::from(value <= *quantile);
                if *level == 0.5 {
                    let error = value - quantile;
                    self.error.add(error.abs());
                    self.square_error.add(error * error);
                }
            }
        }
        for (to, column) in law.iter_mut().zip(&forecasts.next_values) {
            *to = own(column);
        }
    }

    pub(super) fn close(self) -> ValueLaw {
        let compared = f64_of_count(self.compared);
        let quantiles = self.settings.quantiles.iter().zip(&self.below);
        ValueLaw {
            field: self.settings.field,
            scored: self.nll.count,
            missing: self.missing,
            nll: self.nll.get(),
            mae: self.error.get(),
            rmse: self.square_error.get().sqrt(),
            ks: self.shares.distance(),
            ks_bound: distance_bound(self.shares.len()),
            pit: self.shares.shares(BARS),
            quantiles: quantiles
                .map(|(quantile, below)| ValueQuantile { quantile: *quantile, coverage: f64_of_count(*below) / compared })
                .collect(),
        }
    }
}
