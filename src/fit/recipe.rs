//! The recipe and its constants, from the train split alone.

use std::collections::HashMap;

use super::baseline::moments;
use super::read::Seen;
use crate::base::error::{Error, Kind, Result};
use crate::base::number::{count_of, f64_of_count};
use crate::base::time::TimeUnit;
use crate::data::schema::EventSchema;
use crate::data::value::{ValueKind, ValueSpec};
use crate::features::recipe::{DecayScale, Encoding, FORMAT, GapScale, NumericScale, Recipe, Spec, Statistic};
use crate::pipeline::plan::{FitPlan, ValuePlan};

/// Most values of a category that get a column of their own; rarer ones share `unknown`.
const MOST_CATEGORIES: usize = 32;
/// Most marks that get a column of their own.
const MOST_MARKS: usize = 256;
/// Furthest that a number enters from its mean where its 0.1 % and 99.9 % quantiles are the same, in standard deviations.
const RARE: f64 = 10.0;
/// Fewest train events with a value before it gets a column.
const FEWEST: usize = 5;
/// A raw gap enters the row only if no train gap is longer than this many time units: a longer one would drown the other columns.
const LONGEST_RAW: f64 = 20.0;

/// Gaps of the train split and the units they are taken in.
pub struct GapFacts<'a> {
    /// Gaps in `unit`.
    pub gaps: &'a [f64],
    /// Unit of the law of time.
    pub unit: TimeUnit,
    /// Smallest gap whose logarithm is taken.
    pub floor: f64,
}

/// Derives the recipe.
///
/// # Errors
/// A field has no value at all in the train split, or is named twice in ways that contradict.
pub fn derive(fit: &FitPlan, schema: &EventSchema, seen: &Seen, facts: &GapFacts<'_>) -> Result<Recipe> {
    let mut columns = gap_columns(facts);
    columns.push(Spec::IsFirst {});
    for field in &fit.numeric {
        numeric_columns(field, seen, schema, &mut columns)?;
    }
    if let Some(value) = &fit.value {
        match value.memory {
            Some(memory) => columns.push(deviation(value, memory, seen, schema)),
            // What the value was says the most of what it will be.
            None if !fit.numeric.contains(&value.field) => numeric_columns(&value.field, seen, schema, &mut columns)?,
            None => {}
        }
    }
    let mark = schema.mark.and_then(|mark| schema.fields.get(mark)).map(|field| &field.name);
    for field in fit.category.iter().chain(mark.filter(|mark| !fit.category.contains(mark))) {
        let most = if Some(field) == mark { MOST_MARKS } else { MOST_CATEGORIES };
        let vocabulary: Vec<String> = frequent(field, seen, schema, FEWEST).into_iter().take(most).collect();
        if vocabulary.is_empty() {
            return Err(Error::new(
                Kind::Data,
                "fit",
                format!("category `{field}` has no value that occurs {FEWEST} times in the train split"),
            )
            .help("check the field's name and its values, or leave it out of [fit] category"));
        }
        columns.push(Spec::Category { field: field.clone(), vocabulary, encoding: Encoding::OneHot, unknown: true });
    }
    columns.extend(fit.calendar.iter().map(|cycle| Spec::Calendar { cycle: *cycle, zone: fit.zone.clone() }));
    let varying: Vec<&String> = fit.numeric.iter().filter(|field| !constant(field, seen, schema)).collect();
    for half_life in &fit.decay {
        let decay =
            |field: Option<String>, statistic| Spec::Decay { field, statistic, half_life: half_life.clone(), scale: DecayScale::Log1p };
        columns.push(decay(None, Statistic::Count));
        columns.extend(varying.iter().map(|field| decay(Some((*field).clone()), Statistic::Mean)));
    }
    let recipe = Recipe { format: FORMAT, columns };
    recipe.check()?;
    Ok(recipe)
}

/// What the package will say of the law of the value; centre and scale from the train split, extremes clipped.
///
/// # Errors
/// The field has no number in the train split.
pub fn value_spec(value: &ValuePlan, schema: &EventSchema, seen: &Seen) -> Result<ValueSpec> {
    let mut all: Vec<f64> = seen.train_numbers(&value.field, schema).filter(|v| v.is_finite()).map(|v| value.transform.apply(v)).collect();
    if all.is_empty() {
        return Err(Error::new(Kind::Data, "fit", format!("value `{}` has no number in the train split", value.field))
            .help("check the field's name; a law of the value needs a field of numbers"));
    }
    all.sort_by(f64::total_cmp);
    let quantile = |q: f64| all.get(count_of(q * f64_of_count(all.len() - 1))).copied().unwrap_or(0.0);
    let (low, high) = (quantile(0.001), quantile(0.999));
    let (mean, std) = moments(&all.iter().map(|v| v.clamp(low, high)).collect::<Vec<_>>());
    let (centre, scale) = match value.memory {
        Some(_) => (0.0, 1.0),
        None => (mean, if std > 1e-9 * mean.abs().max(1e-300) { std } else { 1.0 }),
    };
    let gaussian = value.kind == ValueKind::Gaussian;
    Ok(ValueSpec {
        kind: value.kind,
        field: value.field.clone(),
        transform: value.transform,
        centre,
        scale,
        anchored: value.memory.is_some(),
        components: gaussian.then_some(value.components),
        levels: if gaussian { Vec::new() } else { value.levels.clone() },
    })
}

/// The column of the value that an anchored law needs. A key whose readings never change has a deviation of a millionth of what readings are like.
fn deviation(value: &ValuePlan, memory: u32, seen: &Seen, schema: &EventSchema) -> Spec {
    let known = seen.train_numbers(&value.field, schema).filter(|v| v.is_finite());
    let mut sizes: Vec<f64> = known.map(|v| value.transform.apply(v).abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let floor = (sizes.get(sizes.len() / 2).copied().unwrap_or(0.0) * 1e-6).max(1e-12);
    Spec::Deviation { field: value.field.clone(), transform: value.transform, memory, floor }
}

/// The recipe of a process of marks: which one arrived, or a constant without marks.
#[must_use]
pub fn of_marks(schema: &EventSchema, marks: &[String]) -> Recipe {
    let field = schema.mark.and_then(|mark| schema.fields.get(mark)).filter(|_| !marks.is_empty());
    let column = match field {
        None => Spec::Constant { value: 1.0 },
        Some(field) => Spec::Category { field: field.name.clone(), vocabulary: marks.to_vec(), encoding: Encoding::OneHot, unknown: false },
    };
    Recipe { format: FORMAT, columns: vec![column] }
}

/// The recipe of a process of gaps: whether an event is the first of its key, or nothing at all.
#[must_use]
pub fn of_first(nothing: bool) -> Recipe {
    let column = if nothing { Spec::Constant { value: 0.0 } } else { Spec::IsFirst {} };
    Recipe { format: FORMAT, columns: vec![column] }
}

/// Gaps beyond those of the train split are taken as the shortest and the longest of them: what a network makes of others nobody has seen.
fn gap_columns(facts: &GapFacts<'_>) -> Vec<Spec> {
    let logs: Vec<f64> = facts.gaps.iter().map(|gap| gap.max(facts.floor).ln()).collect();
    let (mean, std) = moments(&logs);
    let longest = facts.gaps.iter().copied().fold(0.0, f64::max);
    let shortest = facts.gaps.iter().copied().fold(longest, f64::min);
    let gap = |scale, mean, std| Spec::Gap {
        unit: facts.unit,
        scale,
        mean,
        std,
        floor: facts.floor.max(shortest),
        longest: (longest > 0.0).then_some(longest),
        first: 0.0,
    };
    let second = if longest <= LONGEST_RAW { GapScale::Raw } else { GapScale::Log1p };
    vec![gap(GapScale::LogStandard, mean, if std > 1e-9 { std } else { 1.0 }), gap(second, 0.0, 1.0)]
}

/// A standardised column, and the logarithm beside it where the values are skewed and not negative. Neither lets in what the train split has not shown.
fn numeric_columns(field: &str, seen: &Seen, schema: &EventSchema, columns: &mut Vec<Spec>) -> Result<()> {
    let all: Vec<f64> = seen.train_numbers(field, schema).collect();
    let mut values: Vec<f64> = all.iter().copied().filter(|value| value.is_finite()).collect();
    if values.is_empty() {
        return Err(Error::new(Kind::Data, "fit", format!("numeric field `{field}` has no value in the train split"))
            .help("check the field's name; a field of text belongs into [fit] category"));
    }
    values.sort_by(f64::total_cmp);
    let quantile = |q: f64| values.get(count_of(q * f64_of_count(values.len() - 1))).copied().unwrap_or(0.0);
    let (least, low, middle, high, most) = (quantile(0.0), quantile(0.001), quantile(0.5), quantile(0.999), quantile(1.0));
    let (mean, std, clip) = if low < high {
        let (mean, std) = moments(&values.iter().map(|value| value.clamp(low, high)).collect::<Vec<_>>());
        (mean, std, [low, high])
    } else {
        // Almost always the same: the few others say something, but not how far off they are.
        let (mean, std) = moments(&values);
        (mean, std, [least.max(mean - RARE * std), most.min(mean + RARE * std)])
    };
    let (mean, std, clip) = if std > 1e-9 * mean.abs().max(1e-300) { (mean, std, clip) } else { (middle, 1.0, [middle, middle]) };
    let missing_flag = values.len() < all.len();
    let column = |scale, mean, std, clip, missing_flag| Spec::Numeric {
        field: field.to_owned(),
        scale,
        mean,
        std,
        clip: Some(clip),
        missing: 0.0,
        missing_flag,
    };
    columns.push(column(NumericScale::Standardise, mean, std, clip, missing_flag));
    if least >= 0.0 && high > 5.0 * middle.max(1e-9) {
        columns.push(column(NumericScale::Log1p, 0.0, 1.0, [least, most], false));
    }
    Ok(())
}

/// Whether a field has one value only in the train split, whose mean over earlier events says nothing and would let in any other that comes later.
fn constant(field: &str, seen: &Seen, schema: &EventSchema) -> bool {
    let mut values = seen.train_numbers(field, schema).filter(|value| value.is_finite());
    let first = values.next();
    values.all(|value| Some(value) == first)
}

/// Values of a text field that occur at least `fewest` times in the train split, most frequent first, then by bytes.
pub fn frequent(field: &str, seen: &Seen, schema: &EventSchema, fewest: usize) -> Vec<String> {
    let mut counts: HashMap<&[u8], usize> = HashMap::new();
    for value in seen.train_texts(field, schema).flatten() {
        *counts.entry(value).or_default() += 1;
    }
    let mut found: Vec<(usize, &str)> = counts
        .into_iter()
        .filter(|(_, count)| *count >= fewest)
        .filter_map(|(value, count)| std::str::from_utf8(value).ok().map(|value| (count, value)))
        .collect();
    found.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    found.into_iter().map(|(_, value)| value.to_owned()).collect()
}
