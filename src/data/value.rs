//! `[head.value]` of `model.toml`: what the head says of the value that the next event will carry in one of its fields.
//!
//! The law is one of z = (t(value) - centre) / scale, with t the transform. Centre and scale are constants of the package or, `anchored`, the key's own,
//! published with the law.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the package says of a law of the next value. Its parameters stand behind those of the time and the logits of the marks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ValueSpec {
    /// What the parameters are.
    pub kind: ValueKind,
    /// The field, a number.
    pub field: String,
    /// Taken of the value first.
    #[serde(default)]
    pub transform: Transform,
    /// Subtracted from it.
    #[serde(default)]
    pub centre: f64,
    /// What is left is divided by this, above 0.
    #[serde(default = "one")]
    pub scale: f64,
    /// Centre and scale are the key's own: the last two parameters are the centre and ln of the scale, and those above are not given.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anchored: bool,
    /// `gaussian`: number of normals, 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub components: Option<usize>,
    /// `quantile`: the levels, rising, between 0 and 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<f64>,
}

fn one() -> f64 {
    1.0
}

/// A kind of law of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ValueKind {
    /// A mixture of normals: `components` weight logits, then as many means and log scales.
    #[default]
    Gaussian,
    /// Quantiles at `levels`: the lowest one, then ln of the step from each to the next.
    Quantile,
}

/// What is taken of a value before its law.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Transform {
    /// The value itself.
    #[default]
    Identity,
    /// sign(v) ln(1 + |v|).
    Log1p,
}

impl Transform {
    /// t(v).
    #[must_use]
    pub fn apply(self, value: f64) -> f64 {
        match self {
            Transform::Identity => value,
            Transform::Log1p => libm::log1p(value.abs()).copysign(value),
        }
    }

    /// The v with t(v) = y; infinite beyond all numbers.
    #[must_use]
    pub fn invert(self, y: f64) -> f64 {
        match self {
            Transform::Identity => y,
            Transform::Log1p => libm::expm1(y.abs()).copysign(y),
        }
    }

    /// -ln t'(v): what a density loses on the way back.
    #[must_use]
    pub fn ln_stretch(self, value: f64) -> f64 {
        match self {
            Transform::Identity => 0.0,
            Transform::Log1p => libm::log1p(value.abs()),
        }
    }
}

impl ValueSpec {
    /// Parameters of the law itself, without those of an anchor.
    #[must_use]
    pub fn law_width(&self) -> usize {
        match self.kind {
            ValueKind::Gaussian => 3 * self.components.unwrap_or(1),
            ValueKind::Quantile => self.levels.len(),
        }
    }

    /// Floats per event.
    #[must_use]
    pub fn width(&self) -> usize {
        self.law_width() + if self.anchored { 2 } else { 0 }
    }

    /// What it is, in a few words for people: `gaussian of 3 of \`temperature\``.
    #[must_use]
    pub fn describe(&self) -> String {
        let size = match self.kind {
            ValueKind::Gaussian => format!("gaussian of {}", self.components.unwrap_or(1)),
            ValueKind::Quantile => format!("quantile at {} levels", self.levels.len()),
        };
        let anchor = if self.anchored { ", about each key's own mean" } else { "" };
        format!("value of `{}`: {size}{anchor}", self.field)
    }

    /// Why it cannot be used, if it cannot; `most` is the largest number of components or levels.
    #[must_use]
    pub fn fault(&self, most: usize) -> Option<String> {
        let gaussian = self.kind == ValueKind::Gaussian;
        let components = self.components.unwrap_or(1);
        let rising = self.levels.windows(2).all(|pair| matches!(pair, [a, b] if a < b));
        let anchor_and_constants = self.anchored && (self.centre != 0.0 || self.scale != 1.0);
        match () {
            () if self.field.is_empty() => Some("value names no field".to_owned()),
            () if !(self.centre.is_finite() && self.scale.is_finite() && self.scale > 0.0) => {
                Some(format!("value: centre = {} must be finite, scale = {} above 0", self.centre, self.scale))
            }
            () if anchor_and_constants => Some("value: an anchored law has its centre and scale among its parameters".to_owned()),
            () if gaussian && !self.levels.is_empty() => Some("value: a law of the kind gaussian has no `levels`".to_owned()),
            () if !gaussian && self.components.is_some() => Some("value: a law of the kind quantile has no `components`".to_owned()),
            () if gaussian && !(1..=most).contains(&components) => {
                Some(format!("value: components = {components}; allowed are 1 to {most}"))
            }
            () if !gaussian && !(2..=most).contains(&self.levels.len()) => {
                Some(format!("value: {} levels; allowed are 2 to {most}", self.levels.len()))
            }
            () if !rising || self.levels.iter().any(|level| !(*level > 0.0 && *level < 1.0)) => {
                Some(format!("value: levels = {:?} do not rise between 0 and 1", self.levels))
            }
            () => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transforms_are_undone_and_stretch_as_their_slope_says() {
        for transform in [Transform::Identity, Transform::Log1p] {
            for value in [-1e6, -3.5, -1e-9, 0.0, 1e-9, 0.7, 42.0, 1e9] {
                let back = transform.invert(transform.apply(value));
                assert!((back - value).abs() <= 1e-12 * value.abs(), "{transform:?} {value} {back}");
                let step = 1e-5 * f64::max(1.0, value.abs());
                let slope = (transform.apply(value + step) - transform.apply(value - step)) / (2.0 * step);
                assert!((transform.ln_stretch(value) + slope.ln()).abs() < 1e-4, "{transform:?} {value}");
            }
        }
    }

    #[test]
    fn what_is_written_is_read_and_what_is_left_out_has_its_default() {
        let least: ValueSpec = toml::from_str("kind = \"gaussian\"\nfield = \"t\"").unwrap();
        assert_eq!((least.width(), least.scale, least.fault(8)), (3, 1.0, None));
        let quantile: ValueSpec =
            toml::from_str("kind = \"quantile\"\nfield = \"t\"\nlevels = [0.1, 0.5, 0.9]\nanchored = true\ntransform = \"log1p\"").unwrap();
        assert_eq!((quantile.width(), quantile.fault(8)), (5, None));
        assert_eq!(toml::from_str::<ValueSpec>(&toml::to_string(&quantile).unwrap()).unwrap(), quantile);
        assert!(toml::from_str::<ValueSpec>("kind = \"gaussian\"\nfield = \"t\"\nlevel = [0.5]").is_err());
        for (text, part) in [
            ("kind = \"gaussian\"\nfield = \"t\"\nlevels = [0.5]", "no `levels`"),
            ("kind = \"gaussian\"\nfield = \"t\"\ncomponents = 9", "1 to 8"),
            ("kind = \"gaussian\"\nfield = \"t\"\nscale = 0", "above 0"),
            ("kind = \"gaussian\"\nfield = \"t\"\nscale = 2\nanchored = true", "among its parameters"),
            ("kind = \"quantile\"\nfield = \"t\"\nlevels = [0.5]", "2 to 8"),
            ("kind = \"quantile\"\nfield = \"t\"\nlevels = [0.5, 0.4]", "do not rise"),
            ("kind = \"quantile\"\nfield = \"t\"\ncomponents = 1\nlevels = [0.4, 0.5]", "no `components`"),
        ] {
            let fault = toml::from_str::<ValueSpec>(text).unwrap().fault(8).unwrap_or_default();
            assert!(fault.contains(part), "{text}: {fault}");
        }
    }
}
