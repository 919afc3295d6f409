//! The fields of a forecast that are numbers, and how they are read from rows of either side.

use super::forecasts::Forecasts;
use super::law::LawSpec;
use super::layout::{FieldId, Layout};
use crate::base::time::{EventTime, TimeUnit};

/// What a number is, which decides how a change of it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// A share of 1; its change is a difference, and it has a population stability index.
    Probability,
    /// Seconds until the next event; its change is a ratio.
    Seconds,
    /// Anything else; its change is a difference.
    Number,
}

/// A field that is a number.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Its name in the output.
    pub name: String,
    /// Which it is.
    pub id: FieldId,
}

impl Field {
    /// The numbers of a layout, in its order. Of a time of the next event the number is the seconds until then.
    #[must_use]
    pub fn of(layout: &Layout) -> Vec<Field> {
        let fields = layout.fields.iter().filter(|(_, id)| scale(*id).is_some());
        fields.map(|(name, id)| Field { name: name.clone(), id: *id }).collect()
    }

    /// What it is.
    #[must_use]
    pub fn scale(&self) -> Scale {
        scale(self.id).unwrap_or(Scale::Number)
    }

    /// Its value in a row; NaN where the row has none.
    #[must_use]
    pub fn value(&self, forecasts: &Forecasts, row: usize) -> f64 {
        let column = match self.id {
            FieldId::SurpriseTime => &forecasts.surprise_time,
            FieldId::SurpriseMark => &forecasts.surprise_mark,
            FieldId::Residual => &forecasts.residual,
            FieldId::Score => &forecasts.score,
            FieldId::PNever => &forecasts.p_never,
            FieldId::IntensityNow => &forecasts.intensity_now,
            FieldId::PWithin(horizon) => match forecasts.p_within.get(horizon) {
                Some(column) => column,
                None => return f64::NAN,
            },
            FieldId::NextTime(quantile) => {
                let next = forecasts.next_times.get(quantile).and_then(|column| column.get(row).copied().flatten());
                return seconds(forecasts.event_times.get(row).copied(), next);
            }
            _ => return f64::NAN,
        };
        column.get(row).copied().unwrap_or(f64::NAN)
    }

    /// Its value in a row whose fields are texts, as they were sent; `time` is the event's.
    #[must_use]
    pub fn read(&self, text: Option<&String>, time: Option<EventTime>) -> f64 {
        let Some(text) = text else { return f64::NAN };
        match self.id {
            FieldId::NextTime(_) => seconds(time, moment(text)),
            _ => text.parse().unwrap_or(f64::NAN),
        }
    }
}

/// How numbers of one law are put into the units of another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Units {
    /// Added to a surprise of time; `None`: the two cannot be compared.
    surprise: Option<f64>,
    /// Factor of an intensity.
    intensity: f64,
}

impl Units {
    /// Both laws have the same.
    pub const SAME: Units = Units { surprise: Some(0.0), intensity: 1.0 };

    /// From those of `after` to those of `before`. A density is per unit of time; the probability of a tick of a coarse clock is not, and only ticks of the same
    /// width can be compared.
    #[must_use]
    pub fn between(before: Option<&LawSpec>, after: Option<&LawSpec>) -> Units {
        let (Some(before), Some(after)) = (before, after) else { return Units::SAME };
        let seconds = |unit: TimeUnit| unit.seconds();
        let width = |law: &LawSpec| law.resolution.map(|width| width * seconds(law.time_unit));
        let surprise = match (width(before), width(after)) {
            (None, None) => Some(seconds(after.time_unit).ln() - seconds(before.time_unit).ln()),
            (Some(a), Some(b)) if a == b => Some(0.0),
            _ => None,
        };
        Units { surprise, intensity: seconds(before.time_unit) / seconds(after.time_unit) }
    }

    /// Whether a field of both can be compared.
    #[must_use]
    pub fn has(&self, id: FieldId) -> bool {
        id != FieldId::SurpriseTime || self.surprise.is_some()
    }

    /// A value of `after` in the units of `before`.
    #[must_use]
    pub fn convert(&self, id: FieldId, value: f64) -> f64 {
        match id {
            FieldId::SurpriseTime => value + self.surprise.unwrap_or(f64::NAN),
            FieldId::IntensityNow => value * self.intensity,
            _ => value,
        }
    }
}

/// A time as rows have it.
#[must_use]
pub fn moment(text: &str) -> Option<EventTime> {
    let time = chrono::DateTime::parse_from_rfc3339(text).ok()?;
    Some(EventTime(time.timestamp_micros()))
}

fn scale(id: FieldId) -> Option<Scale> {
    match id {
        FieldId::Score | FieldId::PNever | FieldId::PWithin(_) => Some(Scale::Probability),
        FieldId::NextTime(_) => Some(Scale::Seconds),
        FieldId::SurpriseTime | FieldId::SurpriseMark | FieldId::Residual | FieldId::IntensityNow => Some(Scale::Number),
        _ => None,
    }
}

fn seconds(from: Option<EventTime>, to: Option<EventTime>) -> f64 {
    from.zip(to).map_or(f64::NAN, |(from, to)| to.since(from).seconds())
}
