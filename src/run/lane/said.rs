//! What a lane says once about what it is given: not wrong, but hardly what is meant.

use super::Lane;
use crate::decode::OwnKeys;
use crate::source;

/// Events after which what none of them has is said, and at least so many at the end of the input.
pub(super) const ENOUGH: usize = 1_000;
pub(super) const FEWEST: usize = 20;

/// How many events it takes to say what none of them has.
pub(super) fn enough(ended: bool) -> usize {
    if ended { FEWEST } else { ENOUGH }
}

impl Lane {
    /// Says that times may be in another unit than the pipeline names, by the first event.
    pub(super) fn say_unit(&mut self) {
        let Some(first) = self.decoded.times.first().filter(|_| !self.unit_seen) else { return };
        self.unit_seen = true;
        if let Some(doubt) = self.plan.schema.doubt(*first) {
            tracing::warn!("{doubt}");
        }
    }

    /// Says that the topic may spread the events of one key over its partitions, once.
    pub(super) fn say_spread(&mut self) {
        let own = self.decoder.own_keys();
        if self.spread_said || own == OwnKeys::default() || !matches!(self.plan.source, source::Settings::Kafka(_)) {
            return;
        }
        self.spread_said = true;
        tracing::warn!(
            missing = own.missing,
            different = own.different,
            field = %self.plan.schema.key,
            "records whose own key is missing, or not the event's key: unless something else puts all events of a key into one partition, each partition has a \
             state of a part of them (`verify` counts keys in two partitions)"
        );
    }

    /// Says that no event so far has a field that is read, once.
    pub(super) fn say_absent(&mut self, ended: bool) {
        let Some((events, columns)) = self.absent.told(ended) else { return };
        let names = columns.iter().filter_map(|at| Some(self.plan.schema.fields.get(*at)?.name.as_str()));
        let fields = names.collect::<Vec<_>>().join(", ");
        tracing::warn!(
            events,
            fields,
            "no event so far has these fields: they count as missing in each; see their names in [event] and in the model's features.toml"
        );
    }

    /// Says that the package knows no mark of the events so far, once.
    pub(super) fn say_strangers(&mut self, ended: bool) {
        let Some((events, example)) = self.strangers.told(ended) else { return };
        let field = self.plan.schema.mark.and_then(|mark| self.plan.schema.fields.get(mark)).map_or("", |field| field.name.as_str());
        let marks = self.plan.model.as_ref().map(|(manifest, _)| manifest.head.marks()).unwrap_or_default();
        let package = marks.iter().take(8).map(String::as_str).collect::<Vec<_>>().join(", ");
        tracing::warn!(
            field,
            events,
            example,
            package,
            "the model package knows no mark of these events: [event] mark names another field than the one it was fitted with"
        );
    }
}
