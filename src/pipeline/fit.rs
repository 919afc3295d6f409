//! `[fit]` to its plan: defaults, and the checks that need more than one key.

use std::collections::BTreeSet;

use super::build::Build;
use super::plan::{FitPlan, Split, ValuePlan};
use super::written;
use crate::base::nearest::nearest;
use crate::base::number::index;
use crate::base::time::Gap;

impl Build<'_> {
    /// The table, with its defaults.
    pub(super) fn fit(&mut self, fit: Option<&written::Fit>) -> FitPlan {
        let default: written::Fit = serde_json::from_str("{}").expect("every key of [fit] has a default");
        let fit = fit.unwrap_or(&default);
        let zone_path = ["fit", "zone"];
        if fit.zone.parse::<chrono_tz::Tz>().is_err() {
            let loose = self.find(&zone_path).is_some_and(|node| node.loose.is_some());
            let guess = if loose { None } else { nearest(&fit.zone, chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name())) };
            let help =
                guess.map_or_else(|| "write zone = \"Europe/Paris\", for example".to_owned(), |guess| format!("did you mean \"{guess}\"?"));
            let label = format!("got {}", self.shown(&zone_path));
            self.note("pipeline::bad_value", &zone_path, "this is not an IANA time zone", label, help);
        }
        for (key, names) in [("numeric", &fit.numeric), ("category", &fit.category)] {
            let mut seen = BTreeSet::new();
            for (i, name) in names.iter().enumerate() {
                if !seen.insert(name) {
                    let position = i.to_string();
                    let path = ["fit", key, position.as_str()];
                    let label = format!("got {} again", self.shown(&path));
                    self.note("pipeline::duplicate", &path, "a field stands twice", label, "remove one of the two");
                }
            }
        }
        let split = match &fit.split {
            written::Split::Named(written::SplitName::Key) => Split::Key,
            written::Split::Named(written::SplitName::Time) => Split::Time { valid: None, test: None },
            written::Split::Field { field } => Split::Field(field.clone()),
            written::Split::Time { time } => {
                if let (Some(valid), Some(test)) = (&time.valid, &time.test)
                    && valid.value >= test.value
                {
                    let path = ["fit", "split", "time", "test"];
                    let label = format!("got {}, expected a time after `valid`", self.shown(&path));
                    self.note(
                        "pipeline::unsorted",
                        &path,
                        "the test events do not begin after the valid ones",
                        label,
                        "write a later time",
                    );
                }
                Split::Time { valid: time.valid.as_ref().map(|time| time.value), test: time.test.as_ref().map(|time| time.value) }
            }
        };
        FitPlan {
            numeric: fit.numeric.clone(),
            category: fit.category.clone(),
            calendar: fit.calendar.clone(),
            zone: fit.zone.clone(),
            decay: fit.decay.iter().map(|length| length.text.clone()).collect(),
            time_unit: fit.time_unit,
            resolution: fit.resolution.as_ref().map(|length| Gap::from(length.value)),
            cell: fit.cell,
            law: fit.law,
            value: self.fit_value(fit),
            hidden: index(fit.hidden),
            components: index(fit.components),
            epochs: index(fit.epochs),
            patience: index(fit.patience),
            learning_rate: fit.learning_rate,
            seed: fit.seed,
            split,
        }
    }

    /// The law of the value, if one is asked for.
    fn fit_value(&mut self, fit: &written::Fit) -> Option<ValuePlan> {
        let levels: Vec<f64> = fit.value_levels.iter().map(|share| share.0).collect();
        let path = ["fit", "value_levels"];
        if !levels.is_sorted_by(|a, b| a < b) {
            let label = format!("got {}, expected each above the one before", self.shown(&path));
            self.note(
                "pipeline::unsorted",
                &path,
                "the levels are not ascending",
                label,
                "write value_levels = [0.1, 0.5, 0.9], for example",
            );
        }
        if fit.value.is_some() && !fit.cell.is_network() {
            let label = format!("got {}, and cell = \"{}\"", self.shown(&["fit", "value"]), fit.cell.name());
            let help = "remove `value`, or write cell = \"gru\"";
            self.note("pipeline::no_law_of_value", &["fit", "value"], "only a network gives a law of the value", label, help);
        }
        Some(ValuePlan {
            field: fit.value.clone()?,
            kind: fit.value_law,
            components: index(fit.value_components),
            levels,
            transform: fit.value_transform,
            memory: fit.value_memory,
        })
    }
}
