//! What the rest of the code asks of a plan: fields to read, names for the rows, and the fingerprint of what the states depend on.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::plan::Plan;
use crate::base::error::Result;
use crate::data::forecasts::Identity;
use crate::data::law::HeadSpec;
use crate::data::layout::{FieldId, Layout};
use crate::data::schema::{FieldKind, TimeFormat};
use crate::order::Late;
use crate::state::WhenFull;

/// Version of the fingerprint's recipe: a change of what goes into it must not match an old one by accident.
const FINGERPRINT_FORMAT: u32 = 1;

/// Every field that a head fills. `marks`: how many next marks are asked for.
pub(super) fn full_layout(identity: &Identity, head: &HeadSpec, marks: usize) -> Layout {
    let timed = head.is_timed();
    let marked = !head.marks().is_empty();
    let mut layout = Layout::full(identity, timed, marked, matches!(head, HeadSpec::Score { .. }));
    if marks == 0 {
        layout.fields.retain(|(_, id)| *id != FieldId::NextMarks);
    }
    layout
}

impl Plan {
    /// Names of all fields that `decode` reads from a record, each once: key, time, id, then the others.
    #[must_use]
    pub fn field_names(&self) -> Vec<String> {
        let mut names = vec![self.schema.key.clone(), self.schema.time.clone()];
        names.extend(self.schema.id.clone());
        names.extend(self.schema.fields.iter().map(|field| field.name.clone()));
        let mut seen = std::collections::BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
    }

    /// What is the same in every row of a run. Without a model (planned for `fit` or `generate`) its names are empty.
    #[must_use]
    pub fn identity(&self, fingerprint: &str) -> Identity {
        let manifest = self.model.as_ref().map(|(manifest, _)| manifest);
        Identity {
            pipeline: self.name.clone(),
            model: manifest.map(|manifest| manifest.name.clone()).unwrap_or_default(),
            model_version: manifest.map(|manifest| manifest.version.clone()).unwrap_or_default(),
            fingerprint: fingerprint.to_owned(),
            marks: manifest.map(|manifest| manifest.head.marks().to_vec()).unwrap_or_default(),
            quantiles: self.asks.quantiles.clone(),
            unwritten: self.asks.unwritten.clone(),
            overdue: self.asks.overdue.clone(),
            horizons: self.horizon_names.clone(),
            reasons: self.reasons.iter().flat_map(|asked| &asked.reasons).map(|reason| reason.code.clone()).collect(),
            value_quantiles: manifest.and_then(|manifest| manifest.head.value()).map(|_| self.asks.value_quantiles.clone()),
        }
    }

    /// The fields that are written and their names: those of `[sink] fields`, or all that the model's head fills.
    #[must_use]
    pub fn layout(&self, identity: &Identity) -> Layout {
        let full = match &self.model {
            Some((manifest, _)) => full_layout(identity, &manifest.head, self.asks.marks),
            None => Layout::full(identity, true, true, true),
        };
        if self.sink_fields.is_empty() {
            return full;
        }
        // Fields that do not exist were refused when the plan was made.
        Layout { fields: self.sink_fields.iter().filter_map(|(out, field)| Some((out.clone(), full.find(field)?))).collect() }
    }

    /// Hash of everything that key states depend on: the fields read and how, the order, the recipe, the package (by the digest
    /// of its files), the expiry, where keys are evicted how many are kept, when they are overdue, which
    /// events are left out as too early, and whether the event before is kept of each key. Not the sink, the lanes, the batch size or what else is asked of the law: they never
    /// change a state.
    /// 16 hexadecimal digits of a SHA-256.
    ///
    /// # Errors
    /// Never for a plan that was loaded; a recipe that cannot be written as TOML is a defect.
    pub fn fingerprint(&self, package_digest: &str) -> Result<String> {
        let recipe = self.model.as_ref().map(|(_, recipe)| recipe.to_toml()).transpose()?;
        let time = match self.schema.time_format {
            TimeFormat::Unit(unit) => unit.name(),
            TimeFormat::Rfc3339 => "rfc3339",
        };
        let fields: Vec<_> = self.schema.fields.iter().map(|field| (field.name.as_str(), field.kind == FieldKind::Text)).collect();
        // Arrays only: their order is fixed, whatever features serde_json is built with.
        let mut whole = vec![
            json!(FINGERPRINT_FORMAT),
            json!([self.schema.key, self.schema.time, time, fields, self.schema.mark]),
            json!([self.order.lateness.0, self.order.max_future_skew.0, self.order.late == Late::Clamp]),
            json!(recipe),
            json!(package_digest),
            json!(self.state.expiry.map(|expiry| expiry.0)),
        ];
        // A bound that stops the stage changes no state.
        if self.state.when_full == WhenFull::Evict {
            whole.push(json!(self.state.max_keys));
        }
        if !self.asks.overdue.is_empty() {
            let quantiles: Vec<_> = self.asks.overdue.iter().filter_map(|i| self.asks.quantiles.get(*i)).collect();
            whole.push(json!(["overdue", quantiles]));
        }
        if let Some(since) = self.since {
            whole.push(json!(["since", since.0]));
        }
        if self.event_before().is_some() {
            whole.push(json!(["event before"]));
        }
        let digest = Sha256::digest(Value::from(whole).to_string().as_bytes());
        Ok(digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    }
}
