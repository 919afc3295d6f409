//! Which events count in an evaluation.

use hashbrown::HashSet;

use crate::base::error::{Error, Kind, Result};
use crate::base::time::EventTime;
use crate::data::events::Column;
use crate::data::schema::{Field, FieldKind};
use crate::pipeline::plan::Plan;

/// The keys, or the time, that events must be of to count.
#[derive(Debug, Clone)]
pub enum Subset {
    /// Events of these keys.
    Keys(HashSet<Box<[u8]>>),
    /// Events from this time on.
    Since(EventTime),
}

/// Which events count.
#[derive(Clone)]
pub(super) struct Filter {
    pub(super) since: Option<EventTime>,
    pub(super) only: Option<(usize, String)>,
    pub(super) subset: Option<Subset>,
}

impl Filter {
    pub(super) fn counts(&self, row: usize, time: EventTime, key: &[u8], columns: &[Column]) -> bool {
        let has = |(column, value): &(usize, String)| match columns.get(*column) {
            Some(Column::Text(texts)) => texts.get(row) == Some(value.as_bytes()),
            Some(Column::Number(numbers)) => numbers.get(row).is_some_and(|number| number_of(value) == Some(*number)),
            None => false,
        };
        let within = match &self.subset {
            None => true,
            Some(Subset::Keys(keys)) => keys.contains(key),
            Some(Subset::Since(since)) => time >= *since,
        };
        within && self.since.is_none_or(|since| time >= since) && self.only.as_ref().is_none_or(has)
    }
}

/// A field and the value it must have: adds it to what is read.
pub(super) fn column_of(plan: &mut Plan, only: &str) -> Result<(usize, String)> {
    let Some((field, value)) = only.split_once('=') else {
        return Err(Error::new(Kind::Usage, "evaluate", format!("--where {only} is not FIELD=VALUE")).help("write --where split=test"));
    };
    let column = plan.schema.field(field).unwrap_or_else(|| {
        plan.schema.fields.push(Field { name: field.to_owned(), kind: FieldKind::Text });
        plan.schema.fields.len() - 1
    });
    Ok((column, value.to_owned()))
}

/// A value of a field of numbers as it is written; booleans are 0 and 1 there.
fn number_of(value: &str) -> Option<f64> {
    match value {
        "true" => Some(1.0),
        "false" => Some(0.0),
        value => value.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_a_field_of_numbers_may_be_a_boolean() {
        let columns = [Column::Number(vec![1.0, 0.0, f64::NAN, 2.5])];
        let counted = |value: &str| {
            let filter = Filter { since: None, only: Some((0, value.to_owned())), subset: None };
            (0..4).filter(|row| filter.counts(*row, EventTime(0), b"k", &columns)).collect::<Vec<_>>()
        };
        assert_eq!(
            [counted("true"), counted("1"), counted("false"), counted("2.50"), counted("x")],
            [vec![0], vec![0], vec![1], vec![3], vec![]]
        );
    }
}
