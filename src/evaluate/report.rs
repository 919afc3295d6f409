//! The figures of an evaluation, as JSON has them.

use serde::Serialize;

use super::history::KeyHistory;
use super::next::NextEvents;
use super::ranking::Ranked;

/// All figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// The pipeline.
    pub pipeline: String,
    /// The model.
    pub model: String,
    /// Its version.
    pub model_version: String,
    /// What its head is.
    pub head: String,
    /// Events that count.
    pub events: usize,
    /// Keys, all of them.
    pub keys: usize,
    /// Events that count and are the first of their key: no law was there to score them.
    pub first: usize,
    /// Events that count and came too late, taken at their key's last time.
    pub late: usize,
    /// Events that count and for which the model gave a number that is none: the figures are without what it concerns.
    pub not_finite: usize,
    /// Records that could not be used.
    pub rejected: usize,
    /// Seconds that it took.
    pub seconds: f64,
    /// Events a second, all of them.
    pub events_per_s: f64,
    /// The law of time, if the model has one.
    pub time: Option<TimeLaw>,
    /// The law of the mark, if the model has one.
    pub marks: Option<Marks>,
    /// The law of the value, if the model has one.
    pub value: Option<ValueLaw>,
    /// The score, if the model has one and events have labels; of a law how unusual each event was (`unusual`), whose log-loss and Brier score mean nothing.
    pub score: Option<Ranked>,
    /// Several next events at once, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<NextEvents>,
    /// One key's history.
    pub history: Option<KeyHistory>,
}

/// How good the law of the next event's time is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TimeLaw {
    /// Unit of densities.
    pub unit: String,
    /// Whether likelihoods are probabilities of clock ticks, not densities.
    pub coarse: bool,
    /// Events with a law before them.
    pub scored: usize,
    /// Mean negative log-likelihood of their gaps, nats.
    pub nll: f64,
    /// The same of gap and mark together.
    pub nll_with_marks: f64,
    /// The sum of the same, by all events that count, first ones included.
    pub nll_per_event: f64,
    /// `nll` of the constant rate that fits these very gaps best; not for a coarse clock.
    pub constant_rate: Option<f64>,
    /// With the open gap behind each key's last event, where that was asked for.
    pub open: Option<Open>,
    /// Compensators over the gaps.
    pub residuals: Residuals,
    /// The median as a forecast of the next event's time.
    pub next_time: NextTime,
    /// Each quantile.
    pub quantiles: Vec<Quantile>,
    /// Each horizon.
    pub horizons: Vec<Horizon>,
}

/// Open gaps.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Open {
    /// Keys whose last gap was open when the data ended.
    pub keys: usize,
    /// Negative log-likelihood by all events, with the survival over the open gaps.
    pub nll_per_event: f64,
}

/// Residuals, which are Exp(1) if the law is right (time rescaling: Brown et al., Neural Computation 2002).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Residuals {
    /// Mean; 1 if the law is right.
    pub mean: f64,
    /// Largest distance between 1 - e^-residual and the uniform law.
    pub ks: f64,
    /// Distance that a true law passes once in twenty times.
    pub ks_bound: f64,
    /// Shares of 1 - e^-residual in twentieths of (0, 1): probability integral transform.
    pub pit: Vec<f64>,
    /// Quantiles of Exp(1), and those of the residuals.
    pub qq: Vec<(f64, f64)>,
    /// Probabilities, and the shares of gaps that the law had given less than that.
    pub calibration: Vec<(f64, f64)>,
}

/// Errors of the median.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NextTime {
    /// Events that came.
    pub events: usize,
    /// Mean absolute error in seconds.
    pub mae_s: f64,
    /// Root of the mean square error in seconds.
    pub rmse_s: f64,
}

/// A quantile of the next event's time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Quantile {
    /// The quantile.
    pub quantile: f64,
    /// Share of laws whose next event came by then; the quantile, if the law is right.
    pub coverage: f64,
    /// Laws whose quantile lies within the data.
    pub laws: usize,
}

/// The probability of an event within a horizon.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Horizon {
    /// Its name.
    pub horizon: String,
    /// Laws whose horizon lies within the data.
    pub laws: usize,
    /// Mean probability.
    pub mean_p: f64,
    /// Share of laws with an event within the horizon.
    pub rate: f64,
    /// Mean square of probability less outcome.
    pub brier: f64,
    /// The same of `rate` for all alike.
    pub brier_rate: f64,
    /// (mean probability, share with an event, laws) by twentieths of the probability.
    pub reliability: Vec<(f64, f64, usize)>,
}

/// How good the law of the next value is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ValueLaw {
    /// The field.
    pub field: String,
    /// Events with a value and a law before them.
    pub scored: usize,
    /// Events with a law before them and without a value.
    pub missing: usize,
    /// Mean negative log-likelihood of the values, nats; densities in the field's unit.
    pub nll: f64,
    /// Mean absolute error of the median, in the field's unit.
    pub mae: f64,
    /// Root of its mean square error.
    pub rmse: f64,
    /// Largest distance between the shares of the law below the values and the uniform law.
    pub ks: f64,
    /// Distance that a true law passes once in twenty times.
    pub ks_bound: f64,
    /// Shares of these in twentieths of (0, 1): probability integral transform.
    pub pit: Vec<f64>,
    /// Each quantile.
    pub quantiles: Vec<ValueQuantile>,
}

/// A quantile of the next value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ValueQuantile {
    /// The quantile.
    pub quantile: f64,
    /// Share of the values at or below it; the quantile, if the law is right.
    pub coverage: f64,
}

/// How good the law of the mark is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Marks {
    /// Events with a known mark and a law before them.
    pub scored: usize,
    /// Mean negative log-likelihood of the mark given its time, nats.
    pub log_loss: f64,
    /// Share of events whose mark was the likeliest.
    pub accuracy: f64,
    /// Each mark that came, up to 64.
    pub by_mark: Vec<MarkRow>,
}

/// One mark.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MarkRow {
    /// Its name.
    pub mark: String,
    /// Events.
    pub events: usize,
    /// Mean negative log-likelihood, nats.
    pub log_loss: f64,
    /// Share of its events that were the likeliest.
    pub recall: f64,
    /// As in `Residuals`, of the gaps that end with it; none of a law whose mark depends on the gap: such gaps are not as long as all of them.
    pub ks: Option<f64>,
    /// As in `Residuals`.
    pub ks_bound: f64,
}
