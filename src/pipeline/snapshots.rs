//! `[state] snapshots` and `snapshot_every`, checked; and what a key's state consists of, for the files.

use std::time::Duration;

use super::build::Build;
use super::plan::Plan;
use super::written::State;
use crate::base::error::Result;
use crate::features::Features;
use crate::features::recipe::Recipe;
use crate::link::objects::Place;
use crate::model::manifest::{Manifest, StateSpec};
use crate::state::EventBefore;
use crate::state::snapshot::{Columns, Settings};

/// How often a snapshot is taken if the pipeline does not say.
const EVERY: Duration = Duration::from_secs(60);

/// Where snapshots go, if anywhere.
pub(super) fn settings(build: &mut Build<'_>, state: &State) -> Option<Settings> {
    let path = ["state", "snapshots"];
    let Some(text) = &state.snapshots else {
        if state.snapshot_every.is_some() && build.is_absent(&path) {
            let every = ["state", "snapshot_every"];
            let label = format!("got {}, but no place for snapshots", build.shown(&every));
            build.note(
                "pipeline::missing_key",
                &every,
                "`snapshots` is missing in [state]",
                label,
                "add snapshots = \"snapshots\", or leave `snapshot_every` out",
            );
        }
        return None;
    };
    match Place::parse(text, build.folder) {
        Ok(place) => Some(Settings { place, every: state.snapshot_every.as_ref().map_or(EVERY, |every| every.value) }),
        Err(error) => {
            let label = format!("got {}: {}", build.shown(&path), error.message);
            build.note("pipeline::bad_value", &path, "this is no place for snapshots", label, error.help.unwrap_or_default());
            None
        }
    }
}

/// How the event before of a model is kept.
pub(super) fn event_before(manifest: &Manifest, recipe: &Recipe) -> EventBefore {
    EventBefore { tensors: manifest.states.iter().map(StateSpec::floats).sum(), columns: recipe.width() }
}

impl Plan {
    /// Time between two snapshots of a partition; `None` if there are none.
    #[must_use]
    pub fn snapshot_every(&self) -> Option<Duration> {
        self.snapshots.as_ref().map(|settings| settings.every)
    }

    /// How the event before is kept of each key; only where reasons ask for it.
    #[must_use]
    pub fn event_before(&self) -> Option<EventBefore> {
        self.reasons.as_ref().filter(|asked| asked.event_before)?;
        self.model.as_ref().map(|(manifest, recipe)| event_before(manifest, recipe))
    }

    /// What a key's state consists of: the package's state tensors, the law that is published for the next event (if the head has one), the event before
    /// (if reasons ask for it), and the aggregates of the recipe. `None` for a plan that was made without a package.
    ///
    /// # Errors
    /// The recipe does not fit the schema.
    pub fn state_columns(&self) -> Result<Option<Columns>> {
        let Some((manifest, recipe)) = &self.model else { return Ok(None) };
        let mut tensors: Vec<(String, usize)> = manifest.states.iter().map(|state| (state.input.clone(), state.floats())).collect();
        if manifest.head.is_timed() {
            tensors.push(("law".to_owned(), manifest.head.width()));
        }
        tensors.extend(self.event_before().map(|event| ("event_before".to_owned(), event.floats())));
        let aggregates = Features::new(recipe, &self.schema)?.aggregates();
        Ok(Some(Columns { tensors, aggregates, fields: self.schema.fields.clone() }))
    }
}
