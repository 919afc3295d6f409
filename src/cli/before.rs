//! Records of a topic as a pipeline with `since` sees them: which of its events are before that time.

use crate::base::error::Result;
use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;
use crate::data::events::Events;
use crate::data::input::Input;
use crate::data::rejected::Rejected;
use crate::data::schema::EventSchema;
use crate::decode::Decoder;
use crate::link::registry::Schemas;

/// Decodes one record after the other, as the pipeline does.
pub struct Sight {
    decoder: Decoder,
    input: Input,
    events: Events,
    rejected: Rejected,
}

impl Sight {
    /// For records of a schema.
    #[must_use]
    pub fn new(schema: &EventSchema, schemas: Option<&Schemas>) -> Self {
        Sight { decoder: Decoder::of(schema, schemas), input: Input::default(), events: Events::new(schema), rejected: Rejected::default() }
    }

    /// Time and key of a record's event; `None` if it is none that can be used.
    ///
    /// # Errors
    /// The schema of the record cannot be asked for.
    pub fn look(
        &mut self,
        (partition, offset): (Partition, Offset),
        recorded: Option<EventTime>,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
    ) -> Result<Option<(EventTime, &[u8])>> {
        self.input.clear();
        self.events.clear();
        self.rejected.clear();
        self.input.records.push(partition, offset, recorded, key, payload);
        self.decoder.decode(&self.input, &mut self.events, &mut self.rejected)?;
        Ok(self.events.times.first().map(|time| (*time, self.events.keys.bytes_at(0))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::TimeUnit;
    use crate::data::schema::TimeFormat;

    #[test]
    fn a_record_has_a_time_or_is_none_that_can_be_used() {
        let schema = EventSchema {
            key: "k".to_owned(),
            time: "t".to_owned(),
            time_format: TimeFormat::Unit(TimeUnit::Second),
            id: None,
            fields: Vec::new(),
            mark: None,
            label: None,
        };
        let mut sight = Sight::new(&schema, None);
        let mut look = |text: &str| {
            let found = sight.look((Partition(0), Offset(7)), None, Some(b"x"), Some(text.as_bytes()));
            found.unwrap().map(|(time, key)| (time.0, String::from_utf8(key.to_vec()).unwrap()))
        };
        assert_eq!(look(r#"{"k":"a","t":1700000000}"#), Some((1_700_000_000_000_000, "a".to_owned())));
        assert_eq!(look("none"), None);
        assert_eq!(look(r#"{"k":"b","t":1700000001}"#), Some((1_700_000_001_000_000, "b".to_owned())));
    }
}
