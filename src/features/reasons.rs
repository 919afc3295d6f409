//! Reasons of a forecast: which codes there are, which columns of a row each stands for, and the wording of `reasons.toml`.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::recipe::{Recipe, Spec};
use crate::base::error::{Error, Result};

/// Name of the wording's file in a package.
pub const FILE: &str = "reasons.toml";

/// Parts of a surprise, which is about the event that came and not about columns: how far out in the laws before it its time and its value lay,
/// and how rare its mark was.
pub const OF_SURPRISE: [&str; 5] = ["gap is short", "gap is long", "mark is rare", "value is low", "value is high"];

/// `reasons.toml`: codes and texts that stay the same from one model to the next, whatever its columns are called.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wording {
    /// An entry per subject that has a code or text of its own.
    #[serde(default, rename = "reason")]
    pub reasons: Vec<Entry>,
}

/// How one subject is said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What it is about: a field of the recipe, `earlier FIELD`, `earlier events`, `gap`, `calendar`; or, of a surprise, `gap is short`, `gap is long`,
    /// `mark is rare`, `value is low`, `value is high`.
    pub subject: String,
    /// What forecasts say, such as `R07`; by default the subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What people are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// One reason that a forecast may name.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    /// What it is about.
    pub subject: String,
    /// What forecasts say.
    pub code: String,
    /// What people are told.
    pub text: String,
    /// Columns of a row that are left out together to see what they bring about; none of a part of a surprise.
    pub places: Vec<usize>,
}

/// What a pipeline's `[reasons]` asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// Reasons that may be named; forecasts name them by index.
    pub reasons: Vec<Reason>,
    /// Most of them a row.
    pub top: usize,
    /// They are those of a surprise by the columns of the event before, which is kept of each key for that.
    pub event_before: bool,
    /// Only rows whose score is at least this, or whose effects are at least so many nats together.
    pub above: f64,
}

/// Columns of a row by subject, in the order in which the recipe first names each.
#[must_use]
pub fn subjects(recipe: &Recipe) -> Vec<(String, Vec<usize>)> {
    let mut all: Vec<(String, Vec<usize>)> = Vec::new();
    let mut at = 0;
    for spec in &recipe.columns {
        let places = at..at + spec.width();
        at = places.end;
        let Some(subject) = Spec::subject(spec) else { continue };
        match all.iter_mut().find(|(name, _)| *name == subject) {
            Some((_, own)) => own.extend(places),
            None => all.push((subject, places.collect())),
        }
    }
    all
}

impl Wording {
    /// Reads the wording of a package; the empty one where it has none.
    ///
    /// # Errors
    /// It cannot be read, is not TOML, names a subject twice, or one that neither the recipe nor a surprise has.
    pub fn load(package: &Path, recipe: &Recipe) -> Result<Self> {
        let path = package.join(FILE);
        if !path.is_file() {
            return Ok(Wording::default());
        }
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io("features", &path, e))?;
        let fault = |text: String| Error::config("features", text).at(path.display().to_string());
        let wording: Wording = toml::from_str(&text).map_err(|e| fault(format!("not the wording of reasons: {e}")).caused_by(e))?;
        let known: Vec<String> = subjects(recipe).into_iter().map(|(subject, _)| subject).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).chain(OF_SURPRISE).collect();
        let mut seen = BTreeMap::new();
        for entry in &wording.reasons {
            if !known.contains(&entry.subject.as_str()) {
                return Err(fault(format!("there is no subject \"{}\"", entry.subject))
                    .help(format!("the subjects are \"{}\"", known.join("\", \""))));
            }
            if seen.insert(entry.subject.as_str(), ()).is_some() {
                return Err(fault(format!("the subject \"{}\" stands twice", entry.subject)));
            }
            if entry.code.as_deref().is_some_and(|code| code.trim().is_empty()) {
                return Err(fault(format!("the code of \"{}\" is empty", entry.subject)).help("leave `code` out to use the subject itself"));
            }
        }
        Ok(wording)
    }

    /// The reasons a forecast may name: the recipe's subjects, else the parts of a surprise.
    #[must_use]
    pub fn reasons(&self, recipe: &Recipe, columns: bool) -> Vec<Reason> {
        let of = if columns { subjects(recipe) } else { OF_SURPRISE.iter().map(|subject| ((*subject).to_owned(), Vec::new())).collect() };
        let say = |(subject, places): (String, Vec<usize>)| {
            let entry = self.reasons.iter().find(|entry| entry.subject == subject);
            let code = entry.and_then(|entry| entry.code.clone()).unwrap_or_else(|| subject.clone());
            let text = entry.and_then(|entry| entry.text.clone()).unwrap_or_else(|| subject.clone());
            Reason { subject, code, text, places }
        };
        of.into_iter().map(say).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        toml::from_str(
            "format = 1\n[[column]]\nkind = \"gap\"\nunit = \"h\"\nscale = \"log1p\"\n[[column]]\nkind = \"is_first\"\n\
             [[column]]\nkind = \"numeric\"\nfield = \"amount\"\nscale = \"log1p\"\nmissing_flag = true\n\
             [[column]]\nkind = \"category\"\nfield = \"channel\"\nvocabulary = [\"pos\", \"web\"]\nencoding = \"one_hot\"\n\
             [[column]]\nkind = \"decay\"\nfield = \"amount\"\nstatistic = \"mean\"\nhalf_life = \"1d\"\n\
             [[column]]\nkind = \"decay\"\nfield = \"amount\"\nstatistic = \"sum\"\nhalf_life = \"7d\"\n",
        )
        .unwrap()
    }

    #[test]
    fn columns_of_one_subject_stand_together_and_flags_of_first_events_are_no_subject() {
        let all = subjects(&recipe());
        let expected = [("gap", vec![0]), ("amount", vec![2, 3]), ("channel", vec![4, 5]), ("earlier amount", vec![6, 7])];
        assert_eq!(all, expected.map(|(name, places)| (name.to_owned(), places)));
    }

    #[test]
    fn codes_are_those_of_the_file_or_the_subject_and_unknown_subjects_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let load = |text: &str| {
            std::fs::write(folder.path().join(FILE), text).unwrap();
            Wording::load(folder.path(), &recipe())
        };
        let wording = load("[[reason]]\nsubject = \"amount\"\ncode = \"R01\"\ntext = \"Unusual amount\"\n").unwrap();
        let reasons = wording.reasons(&recipe(), true);
        assert_eq!((reasons[1].code.as_str(), reasons[1].text.as_str()), ("R01", "Unusual amount"));
        assert_eq!((reasons[0].code.as_str(), reasons.len()), ("gap", 4));
        assert_eq!(wording.reasons(&recipe(), false).iter().map(|reason| reason.code.as_str()).collect::<Vec<_>>(), OF_SURPRISE);
        for (text, says) in [
            ("[[reason]]\nsubject = \"amout\"\n", "no subject \"amout\""),
            ("[[reason]]\nsubject = \"gap\"\n[[reason]]\nsubject = \"gap\"\n", "twice"),
            ("[[reason]]\nsubject = \"gap\"\ncode = \" \"\n", "empty"),
            ("reasons = 3\n", "not the wording"),
        ] {
            let error = load(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        std::fs::remove_file(folder.path().join(FILE)).unwrap();
        assert_eq!(Wording::load(folder.path(), &recipe()).unwrap(), Wording::default());
    }
}
