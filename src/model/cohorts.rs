//! `cohorts.toml`: where the state of a new key starts. A key whose first event looks like those of a cohort starts from that cohort's state instead of
//! the `init` of `model.toml`: all that is known of it is that event's feature row.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::base::error::{Error, Result};
use crate::base::limits::MAX_COHORTS;

/// Its name in the package.
pub const FILE: &str = "cohorts.toml";
/// The format number this build writes and the only one it reads.
const FORMAT: u32 = 1;

/// The file as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cohorts {
    /// Format number, 1.
    pub format: u32,
    /// What each feature counts by in a distance; 0 leaves it out.
    pub scale: Vec<f32>,
    /// The cohorts.
    #[serde(rename = "cohort")]
    pub cohorts: Vec<Cohort>,
}

/// Keys that begin alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cohort {
    /// Feature row of a typical first event.
    pub centre: Vec<f32>,
    /// State before the first event: all state tensors in the manifest's order, flattened.
    pub state: Vec<f32>,
}

impl Cohorts {
    /// Cohorts with this scale.
    #[must_use]
    pub fn new(scale: Vec<f32>, cohorts: Vec<Cohort>) -> Self {
        Cohorts { format: FORMAT, scale, cohorts }
    }

    /// Reads the file of a package; `Ok(None)` if there is none.
    ///
    /// # Errors
    /// It is not TOML, has another format number, or does not fit a recipe of `features` floats and a model of `states` floats a key.
    pub fn load(folder: &Path, features: usize, states: usize) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let fault = |text: String| Error::config("model", text).at(path.display().to_string());
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io("model", &path, e))?;
        let cohorts: Cohorts = toml::from_str(&text).map_err(|e| fault(format!("not a file of cohorts: {e}")).caused_by(e))?;
        cohorts.check(features, states).map_err(fault)?;
        Ok(Some(cohorts))
    }

    fn check(&self, features: usize, states: usize) -> std::result::Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("format {} is not known; this build reads format {FORMAT}", self.format));
        }
        if self.cohorts.is_empty() || self.cohorts.len() > MAX_COHORTS {
            return Err(format!("{} cohorts; allowed are 1 to {MAX_COHORTS}", self.cohorts.len()));
        }
        if self.scale.len() != features {
            return Err(format!("`scale` has {} numbers, a feature row has {features}", self.scale.len()));
        }
        for (i, cohort) in self.cohorts.iter().enumerate() {
            if (cohort.centre.len(), cohort.state.len()) != (features, states) {
                let (centre, state) = (cohort.centre.len(), cohort.state.len());
                return Err(format!(
                    "cohort {i} has a centre of {centre} numbers and a state of {state}; needed are {features} and {states}"
                ));
            }
        }
        let all = self.cohorts.iter().flat_map(|cohort| cohort.centre.iter().chain(&cohort.state)).chain(&self.scale);
        if all.into_iter().any(|value| !value.is_finite()) {
            return Err("a number is not finite".to_owned());
        }
        Ok(())
    }

    /// Which cohort a first event belongs to: that of the nearest centre, of equals the first; `None` for a row that is not finite.
    #[must_use]
    pub fn nearest(&self, row: &[f32]) -> Option<usize> {
        let distance = |cohort: &Cohort| {
            let parts = row.iter().zip(&cohort.centre).zip(&self.scale);
            parts.map(|((x, centre), scale)| (f64::from(*x) - f64::from(*centre)) * f64::from(*scale)).map(|off| off * off).sum::<f64>()
        };
        let distances = self.cohorts.iter().map(distance).enumerate().filter(|(_, distance)| distance.is_finite());
        distances.reduce(|best, other| if other.1 < best.1 { other } else { best }).map(|(place, _)| place)
    }

    /// The state from which a key with this first event starts.
    #[must_use]
    pub fn start(&self, row: &[f32]) -> Option<&[f32]> {
        self.cohorts.get(self.nearest(row)?).map(|cohort| cohort.state.as_slice())
    }

    /// The file's text.
    ///
    /// # Errors
    /// Never for cohorts that were loaded or made.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::internal("model", e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cohorts() -> Cohorts {
        let cohort = |x: f32| Cohort { centre: vec![x, 100.0 * x], state: vec![x, 0.1 * x, 1.0 / 3.0] };
        Cohorts::new(vec![1.0, 0.01], vec![cohort(0.0), cohort(1.0), cohort(1.0)])
    }

    #[test]
    fn a_first_event_belongs_to_the_nearest_centre_and_one_that_is_no_number_to_none() {
        let cohorts = cohorts();
        assert_eq!(cohorts.nearest(&[0.4, 40.0]), Some(0));
        assert_eq!(cohorts.nearest(&[0.4, 90.0]), Some(1), "the second feature counts as much as the first");
        assert_eq!(cohorts.nearest(&[f32::NAN, 0.0]), None);
        assert_eq!(cohorts.start(&[2.0, 0.0]).map(|state| state[0]), Some(1.0));
    }

    #[test]
    fn the_file_keeps_every_bit_and_what_does_not_fit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let write = |cohorts: &Cohorts| std::fs::write(folder.path().join(FILE), cohorts.to_toml().unwrap()).unwrap();
        let refusal = || Cohorts::load(folder.path(), 2, 3).unwrap_err().to_string();
        assert_eq!(Cohorts::load(folder.path(), 2, 3).unwrap(), None);
        write(&cohorts());
        assert_eq!(Cohorts::load(folder.path(), 2, 3).unwrap(), Some(cohorts()));
        assert!(Cohorts::load(folder.path(), 2, 4).unwrap_err().to_string().contains("needed are 2 and 4"));
        write(&Cohorts { format: 2, ..cohorts() });
        assert!(refusal().contains("format 2"));
        write(&Cohorts { cohorts: Vec::new(), ..cohorts() });
        assert!(refusal().contains("0 cohorts"));
        write(&Cohorts { scale: vec![1.0, f32::INFINITY], ..cohorts() });
        assert!(refusal().contains("not finite"));
    }
}
