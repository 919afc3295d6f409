//! `features.toml`: the ordered columns of `x`, with their constants, so that training and serving share one definition.

use std::collections::BTreeSet;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::error::{Error, Result};
use crate::base::limits::{MAX_FEATURES, MAX_VOCABULARY};
use crate::base::time::TimeUnit;
use crate::data::schema::{Field, FieldKind};
use crate::data::value::Transform;

/// The format number this build writes and the only one it reads.
pub const FORMAT: u32 = 1;

/// All columns of `x`, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Format number, 1.
    pub format: u32,
    /// The columns. Each gives one float, except where it says otherwise.
    #[serde(rename = "column")]
    pub columns: Vec<Spec>,
}

/// One entry of the recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Spec {
    /// Time since the key's last event, in `unit`.
    Gap {
        /// Unit of the gap before scaling.
        unit: TimeUnit,
        /// How it is scaled.
        scale: GapScale,
        /// `log_standard` only: mean of ln(max(gap, floor)).
        #[serde(default)]
        mean: f64,
        /// `log_standard` only: standard deviation of ln(max(gap, floor)).
        #[serde(default = "one")]
        std: f64,
        /// `log_standard` only: smallest gap, in `unit`, before the logarithm is taken.
        #[serde(default = "tiny")]
        floor: f64,
        /// Gaps are not taken as longer, in `unit`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        longest: Option<f64>,
        /// Value for the first event of a key, which has no gap.
        #[serde(default)]
        first: f64,
    },
    /// 1 for the first event of a key, otherwise 0.
    IsFirst {},
    /// A number from a field.
    Numeric {
        /// The field.
        field: String,
        /// How it is scaled, after clipping.
        scale: NumericScale,
        /// `standardise` only: mean.
        #[serde(default)]
        mean: f64,
        /// `standardise` only: standard deviation.
        #[serde(default = "one")]
        std: f64,
        /// Smallest and largest value taken, before scaling.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clip: Option<[f64; 2]>,
        /// Value of the column where the field is missing.
        #[serde(default)]
        missing: f64,
        /// Adds a second float: 1 where the field is missing, otherwise 0.
        #[serde(default)]
        missing_flag: bool,
    },
    /// A category from a field, compared with a vocabulary.
    Category {
        /// The field.
        field: String,
        /// Known values, in order.
        vocabulary: Vec<String>,
        /// `one_hot` (one float per value) or `index` (one float: position in the vocabulary).
        encoding: Encoding,
        /// `one_hot`: adds a last float that is 1 for unknown or missing values. `index`: such values get the length of
        /// the vocabulary; without it they get -1.
        #[serde(default)]
        unknown: bool,
    },
    /// Sine and cosine (two floats, in this order) of where in a cycle the event time lies.
    Calendar {
        /// Which cycle.
        cycle: Cycle,
        /// IANA time zone, `UTC` by default.
        #[serde(default = "utc")]
        zone: String,
    },
    /// An exponentially decaying statistic over the key's earlier events (this one not included).
    Decay {
        /// The field; not needed for `count`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        field: Option<String>,
        /// Which statistic.
        statistic: Statistic,
        /// Time after which an event counts half, such as `1d`.
        half_life: String,
        /// How the value is scaled.
        #[serde(default)]
        scale: DecayScale,
    },
    /// A reading against the key's own earlier ones: three floats, how many of their standard deviations it lies off their mean (-10 to 10, 0 for a first or
    /// missing one), then mean and ln of the standard deviation with it among them. The last two are what an anchored law of the value needs.
    Deviation {
        /// The field.
        field: String,
        /// Taken of the reading first.
        #[serde(default)]
        transform: Transform,
        /// Readings after which one counts half.
        memory: u32,
        /// Smallest standard deviation.
        #[serde(default = "tiny")]
        floor: f64,
    },
    /// The same number in every row.
    Constant {
        /// The number.
        value: f64,
    },
}

/// Scaling of a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GapScale {
    /// ln(1 + gap).
    Log1p,
    /// (ln(max(gap, floor)) - mean) / std.
    LogStandard,
    /// The gap itself.
    Raw,
}

/// Scaling of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NumericScale {
    /// The number itself.
    Identity,
    /// sign(v) ln(1 + |v|).
    Log1p,
    /// (v - mean) / std.
    Standardise,
}

/// Encoding of a category.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// One float per known value.
    OneHot,
    /// One float: the position.
    Index,
}

/// A calendar cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cycle {
    /// Position in the day, to the microsecond, in local time.
    Hour,
    /// Day of the week plus the part of the day that has passed, Monday 0.
    Weekday,
    /// Month plus the part of the month that has passed, January 0.
    Month,
}

/// A decaying statistic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// Sum over earlier events of 2^(-age / half_life).
    Count,
    /// Sum of value * 2^(-age / half_life); events without the value do not count.
    Sum,
    /// sum / count over events that have the value; 0 while there are none.
    Mean,
}

/// Scaling of a decaying statistic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DecayScale {
    /// The value itself.
    #[default]
    Identity,
    /// sign(v) ln(1 + |v|).
    Log1p,
}

fn one() -> f64 {
    1.0
}

fn tiny() -> f64 {
    1e-6
}

fn utc() -> String {
    "UTC".to_owned()
}

impl Spec {
    /// Floats this entry adds to a row.
    #[must_use]
    pub fn width(&self) -> usize {
        match self {
            Spec::Numeric { missing_flag, .. } => 1 + usize::from(*missing_flag),
            Spec::Category { vocabulary, encoding: Encoding::OneHot, unknown, .. } => vocabulary.len() + usize::from(*unknown),
            Spec::Calendar { .. } => 2,
            Spec::Deviation { .. } => 3,
            _ => 1,
        }
    }

    /// Names of its floats, as people are shown them: `gap (log_standard)`, `amount`, `channel = web`, `hour (sin)`.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let one = |name: String| vec![name];
        match self {
            Spec::Gap { scale, unit, .. } => {
                let scale = match scale {
                    GapScale::Log1p => "log1p",
                    GapScale::LogStandard => "log_standard",
                    GapScale::Raw => "raw",
                };
                one(format!("gap ({scale}, {})", unit.name()))
            }
            Spec::IsFirst {} => one("is_first".to_owned()),
            Spec::Numeric { field, scale, missing_flag, .. } => {
                let scale = match scale {
                    NumericScale::Identity => "",
                    NumericScale::Log1p => " (log1p)",
                    NumericScale::Standardise => " (standardised)",
                };
                let mut names = one(format!("{field}{scale}"));
                names.extend(missing_flag.then(|| format!("{field} is missing")));
                names
            }
            Spec::Category { field, encoding: Encoding::Index, .. } => one(format!("{field} (index)")),
            Spec::Category { field, vocabulary, unknown, .. } => {
                let known = vocabulary.iter().map(|word| format!("{field} = {word}"));
                known.chain(unknown.then(|| format!("{field} is unknown"))).collect()
            }
            Spec::Calendar { cycle, zone } => {
                let cycle = match cycle {
                    Cycle::Hour => "hour",
                    Cycle::Weekday => "weekday",
                    Cycle::Month => "month",
                };
                ["sin", "cos"].iter().map(|part| format!("{cycle} in {zone} ({part})")).collect()
            }
            Spec::Decay { field, statistic, half_life, .. } => {
                let statistic = match statistic {
                    Statistic::Count => "count",
                    Statistic::Sum => "sum",
                    Statistic::Mean => "mean",
                };
                let of = field.as_ref().map(|field| format!(" of {field}")).unwrap_or_default();
                one(format!("{statistic}{of}, half-life {half_life}"))
            }
            Spec::Deviation { field, memory, .. } => {
                let of = format!("{field}, memory {memory}");
                [format!("deviation of {of}"), format!("mean of {of}"), format!("ln deviation of {of}")].to_vec()
            }
            Spec::Constant { value } => one(format!("constant {value}")),
        }
    }

    /// What each of the numbers is that it keeps per key, in their order. The one place that says how many there are.
    #[must_use]
    pub fn aggregates(&self) -> Vec<String> {
        match self {
            Spec::Decay { field, statistic, half_life, .. } => {
                // `24h` and `1d` are the same.
                let half_life =
                    humantime::parse_duration(half_life).map_or_else(|_| half_life.clone(), |d| humantime::format_duration(d).to_string());
                let field = field.as_deref().unwrap_or_default();
                match statistic {
                    // Of whatever field, it counts events.
                    Statistic::Count => vec![format!("count, half-life {half_life}")],
                    Statistic::Sum => vec![format!("sum of {field}, half-life {half_life}")],
                    Statistic::Mean => ["sum", "count"].map(|part| format!("mean of {field} ({part}), half-life {half_life}")).to_vec(),
                }
            }
            // The floor only bounds what is read from them.
            Spec::Deviation { field, transform, memory, .. } => {
                let of = match transform {
                    Transform::Identity => field.clone(),
                    Transform::Log1p => format!("log1p {field}"),
                };
                ["weight", "mean", "squares"].map(|part| format!("deviation of {of} ({part}), memory {memory}")).to_vec()
            }
            _ => Vec::new(),
        }
    }

    /// What it is about, for reasons: columns of one field stand or fall together.
    #[must_use]
    pub fn subject(&self) -> Option<String> {
        match self {
            Spec::Gap { .. } => Some("gap".to_owned()),
            Spec::Numeric { field, .. } | Spec::Category { field, .. } | Spec::Deviation { field, .. } => Some(field.clone()),
            Spec::Calendar { .. } => Some("calendar".to_owned()),
            Spec::Decay { field: Some(field), .. } => Some(format!("earlier {field}")),
            Spec::Decay { field: None, .. } => Some("earlier events".to_owned()),
            Spec::IsFirst {} | Spec::Constant { .. } => None,
        }
    }

    /// The field it reads, with the type it needs.
    #[must_use]
    pub fn field(&self) -> Option<Field> {
        let field = |name: &String, kind| Some(Field { name: name.clone(), kind });
        match self {
            Spec::Numeric { field: name, .. } | Spec::Deviation { field: name, .. } => field(name, FieldKind::Number),
            Spec::Category { field: name, .. } => field(name, FieldKind::Text),
            Spec::Decay { field: Some(name), .. } => field(name, FieldKind::Number),
            _ => None,
        }
    }
}

impl Recipe {
    /// Floats per row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.columns.iter().map(Spec::width).sum()
    }

    /// Each column with the place in a row at which it begins.
    pub fn places(&self) -> impl Iterator<Item = (usize, &Spec)> {
        self.columns.iter().scan(0, |next, spec| {
            let at = *next;
            *next += spec.width();
            Some((at, spec))
        })
    }

    /// Fields the recipe reads, each once, in order of first use.
    #[must_use]
    pub fn fields(&self) -> Vec<Field> {
        let mut seen = BTreeSet::new();
        self.columns.iter().filter_map(Spec::field).filter(|field| seen.insert(field.name.clone())).collect()
    }

    /// What each of the numbers is that a key's decaying statistics are kept in, in their order: two recipes can take over those of the same name.
    #[must_use]
    pub fn aggregates(&self) -> Vec<String> {
        self.columns.iter().flat_map(Spec::aggregates).collect()
    }

    /// Reads and checks `features.toml`.
    ///
    /// # Errors
    /// The file is missing, is not TOML, has an unknown column kind or option, or breaks a bound.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("features", path, e))?;
        let recipe: Recipe = toml::from_str(&text)
            .map_err(|e| Error::config("features", format!("not a recipe: {e}")).at(path.display().to_string()).caused_by(e))?;
        recipe.check().map_err(|e| e.at(path.display().to_string()))?;
        Ok(recipe)
    }

    /// The recipe as `features.toml`.
    ///
    /// # Errors
    /// Never for a recipe that passes `check`.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::internal("features", e.to_string()))
    }

    /// Checks constants and bounds.
    ///
    /// # Errors
    /// Names the column and what is wrong with it.
    pub fn check(&self) -> Result<()> {
        if self.format != FORMAT {
            return Err(Error::config("features", format!("format {} is not known; this build reads format {FORMAT}", self.format)));
        }
        if self.columns.is_empty() || self.width() > MAX_FEATURES {
            return Err(Error::config("features", format!("{} floats a row; allowed are 1 to {MAX_FEATURES}", self.width())));
        }
        let mut kinds: std::collections::BTreeMap<String, FieldKind> = std::collections::BTreeMap::new();
        for (i, spec) in self.columns.iter().enumerate() {
            let fault = |text: String| Err(Error::config("features", format!("column {} ({}): {text}", i + 1, spec.kind())));
            if let Some(field) = spec.field()
                && let Some(other) = kinds.insert(field.name.clone(), field.kind)
                && other != field.kind
            {
                return fault(format!("field `{}` is used as text and as number", field.name));
            }
            match spec {
                Spec::Gap { mean, std, floor, longest, first, .. } => {
                    if !(mean.is_finite() && std.is_finite() && *std > 0.0 && *floor > 0.0 && floor.is_finite() && first.is_finite()) {
                        return fault("mean and first must be finite, std and floor above 0".to_owned());
                    }
                    if longest.is_some_and(|longest| longest.is_nan() || longest < 0.0) {
                        return fault("longest must be 0 or more".to_owned());
                    }
                }
                Spec::Numeric { field, mean, std, clip, missing, .. } => {
                    if !(mean.is_finite() && std.is_finite() && *std > 0.0 && missing.is_finite()) {
                        return fault(format!(
                            "field `{field}`: mean and missing must be finite, std above 0: are its values of one size?"
                        ));
                    }
                    if let Some([low, high]) = clip
                        && (low.is_nan() || high.is_nan() || low > high)
                    {
                        return fault(format!("clip = [{low}, {high}] is empty"));
                    }
                }
                Spec::Category { vocabulary, .. } => {
                    if vocabulary.is_empty() || vocabulary.len() > MAX_VOCABULARY {
                        return fault(format!("{} values in the vocabulary; allowed are 1 to {MAX_VOCABULARY}", vocabulary.len()));
                    }
                    let distinct: BTreeSet<_> = vocabulary.iter().collect();
                    if distinct.len() != vocabulary.len() {
                        return fault("a value stands twice in the vocabulary".to_owned());
                    }
                }
                Spec::Calendar { zone, .. } => {
                    if zone.parse::<chrono_tz::Tz>().is_err() {
                        return fault(format!("`{zone}` is not an IANA time zone"));
                    }
                }
                Spec::Decay { field, statistic, half_life, .. } => {
                    if *statistic != Statistic::Count && field.is_none() {
                        return fault("this statistic needs a field".to_owned());
                    }
                    match humantime::parse_duration(half_life) {
                        Ok(duration) if !duration.is_zero() => {}
                        _ => return fault(format!("half_life = \"{half_life}\" is not a duration such as \"1d\"")),
                    }
                }
                Spec::Deviation { memory, floor, .. } => {
                    if *memory == 0 || !(*floor > 0.0 && floor.is_finite()) {
                        return fault("memory must be 1 or more, floor above 0".to_owned());
                    }
                }
                Spec::Constant { value } => {
                    if !value.is_finite() {
                        return fault("value must be finite".to_owned());
                    }
                }
                Spec::IsFirst {} => {}
            }
        }
        Ok(())
    }
}

impl Spec {
    /// The kind as written in the file.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Spec::Gap { .. } => "gap",
            Spec::IsFirst {} => "is_first",
            Spec::Numeric { .. } => "numeric",
            Spec::Category { .. } => "category",
            Spec::Calendar { .. } => "calendar",
            Spec::Decay { .. } => "decay",
            Spec::Deviation { .. } => "deviation",
            Spec::Constant { .. } => "constant",
        }
    }
}
