//! Which fields of a forecast are written and under which names: `[sink] fields = { out = "field" }`.

use super::forecasts::Identity;

/// A field of the forecast row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldId {
    /// `kind`: `forecast`, or `overdue` for a row that says that none has come.
    Kind,
    /// `overdue`: the quantile that has passed.
    Overdue,
    /// `key`.
    Key,
    /// `event_id`.
    EventId,
    /// `event_time`.
    EventTime,
    /// `partition`.
    Partition,
    /// `offset`.
    Offset,
    /// `n_events`.
    NEvents,
    /// `gap_s`.
    GapS,
    /// `surprise_time`.
    SurpriseTime,
    /// `surprise_mark`.
    SurpriseMark,
    /// `surprise_value`.
    SurpriseValue,
    /// `residual`.
    Residual,
    /// `residual_value`.
    ResidualValue,
    /// `score`.
    Score,
    /// `next_time_qNN`: index into the quantiles.
    NextTime(usize),
    /// `next_value_qNN`: index into the quantiles of the value.
    NextValue(usize),
    /// `p_never`.
    PNever,
    /// `p_within_H`: index into the horizons.
    PWithin(usize),
    /// `next_marks`.
    NextMarks,
    /// `intensity_now`.
    IntensityNow,
    /// `reasons`.
    Reasons,
    /// `flags`.
    Flags,
    /// `model`.
    Model,
    /// `model_version`.
    ModelVersion,
    /// `fingerprint`.
    Fingerprint,
}

/// The fields that are written, in order, with their output names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// (name in the output, field).
    pub fields: Vec<(String, FieldId)>,
}

/// Name of the column of a quantile: `next_time_q50` for 0.5, `next_time_q99_9` for 0.999.
#[must_use]
pub fn quantile_name(q: f64) -> String {
    format!("next_time_{}", share_name(q))
}

/// The same of the next value: `next_value_q50`.
#[must_use]
pub fn value_quantile_name(q: f64) -> String {
    format!("next_value_{}", share_name(q))
}

fn share_name(q: f64) -> String {
    let percent = format!("{:.6}", q * 100.0);
    let percent = percent.trim_end_matches('0').trim_end_matches('.');
    let padded = if percent.split('.').next().unwrap_or_default().len() < 2 { format!("0{percent}") } else { percent.to_owned() };
    format!("q{}", padded.replace('.', "_"))
}

impl Layout {
    /// Every field of the contract with its own name. `timed`: the head gives a law of time; `marked`: and of marks;
    /// `scored`: it gives a score. Of a value there is a law where `identity` has its quantiles. Fields that the head never fills are left out.
    #[must_use]
    pub fn full(identity: &Identity, timed: bool, marked: bool, scored: bool) -> Self {
        use FieldId as F;
        let mut fields: Vec<(String, F)> = Vec::new();
        let mut add = |name: &str, id: F| fields.push((name.to_owned(), id));
        for (name, id) in [
            ("kind", F::Kind),
            ("key", F::Key),
            ("event_id", F::EventId),
            ("event_time", F::EventTime),
            ("partition", F::Partition),
            ("offset", F::Offset),
            ("n_events", F::NEvents),
            ("gap_s", F::GapS),
        ] {
            add(name, id);
        }
        if !identity.overdue.is_empty() {
            add("overdue", F::Overdue);
        }
        if timed {
            add("surprise_time", F::SurpriseTime);
        }
        if marked {
            add("surprise_mark", F::SurpriseMark);
        }
        if identity.value_quantiles.is_some() {
            add("surprise_value", F::SurpriseValue);
        }
        if timed {
            add("residual", F::Residual);
        }
        if identity.value_quantiles.is_some() {
            add("residual_value", F::ResidualValue);
        }
        if scored {
            add("score", F::Score);
        }
        if timed {
            for (i, q) in identity.quantiles.iter().enumerate().filter(|(i, _)| !identity.unwritten.contains(i)) {
                add(&quantile_name(*q), F::NextTime(i));
            }
            add("p_never", F::PNever);
            for (i, horizon) in identity.horizons.iter().enumerate() {
                add(&format!("p_within_{horizon}"), F::PWithin(i));
            }
        }
        for (i, q) in identity.value_quantiles.iter().flatten().enumerate() {
            add(&value_quantile_name(*q), F::NextValue(i));
        }
        if marked {
            add("next_marks", F::NextMarks);
        }
        if timed {
            add("intensity_now", F::IntensityNow);
        }
        if !identity.reasons.is_empty() {
            add("reasons", F::Reasons);
        }
        for (name, id) in [("flags", F::Flags), ("model", F::Model), ("model_version", F::ModelVersion), ("fingerprint", F::Fingerprint)] {
            add(name, id);
        }
        Layout { fields }
    }

    /// The field called `name` in this layout.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<FieldId> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, id)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_named_by_their_percent() {
        for (q, name) in [
            (0.1, "next_time_q10"),
            (0.05, "next_time_q05"),
            (0.999, "next_time_q99_9"),
            (0.5, "next_time_q50"),
            (0.025, "next_time_q02_5"),
        ] {
            assert_eq!(quantile_name(q), name);
        }
    }
}
