//! Columns within columns: the field `a.b` of a table is the child `b` of its column `a`.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, make_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

/// The top-level columns that hold the fields.
pub fn roots(fields: &[String], columns: &[&str]) -> BTreeSet<String> {
    let root = |field: &String| {
        let name = if columns.contains(&field.as_str()) { field } else { field.split('.').next().unwrap_or(field) };
        name.to_owned()
    };
    fields.iter().map(root).collect()
}

/// The batch with a column of its own for each field within another column. What is not there is left out.
pub fn lift(batch: &RecordBatch, fields: &[String]) -> RecordBatch {
    let missing = fields.iter().filter(|field| field.contains('.') && batch.column_by_name(field).is_none());
    let found: Vec<(&String, ArrayRef)> = missing.filter_map(|field| Some((field, child(batch, field)?))).collect();
    if found.is_empty() {
        return batch.clone();
    }
    let schema = batch.schema();
    let mut columns: Vec<(Arc<Field>, ArrayRef)> = schema.fields().iter().cloned().zip(batch.columns().iter().cloned()).collect();
    for (field, array) in found {
        columns.push((Arc::new(Field::new(field, array.data_type().clone(), true)), array));
    }
    columns.retain(|(field, _)| fields.contains(field.name()) || !matches!(field.data_type(), DataType::Struct(_)));
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    // Equal lengths by construction; were they not, the fields would be missing, and every record would say so.
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options).unwrap_or_else(|_| batch.clone())
}

/// A field by its path; null where any column on the way is.
fn child(batch: &RecordBatch, path: &str) -> Option<ArrayRef> {
    let mut names = path.split('.');
    let mut array = Arc::clone(batch.column_by_name(names.next()?)?);
    for name in names {
        let parent = array.as_struct_opt()?;
        let own = parent.column_by_name(name)?;
        let nulls = NullBuffer::union(parent.nulls(), own.nulls());
        array = make_array(own.to_data().into_builder().nulls(nulls).build().ok()?);
    }
    Some(array)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray, StructArray};

    use super::*;

    #[test]
    fn a_field_within_a_column_becomes_a_column_and_is_null_where_that_is() {
        let inner: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
        let fields = vec![Arc::new(Field::new("b", DataType::Int64, true))];
        let outer = StructArray::new(fields.into(), vec![inner], Some(vec![true, true, false].into()));
        let plain: ArrayRef = Arc::new(StringArray::from(vec!["x", "y", "z"]));
        let batch = RecordBatch::try_from_iter([("a", Arc::new(outer) as ArrayRef), ("k", plain)]).unwrap();
        let wanted = ["a.b".to_owned(), "k".to_owned(), "a.none".to_owned()];
        let lifted = lift(&batch, &wanted);
        assert_eq!(lifted.schema().fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["k", "a.b"]);
        let values: Vec<Option<i64>> = lifted.column_by_name("a.b").unwrap().as_primitive::<arrow::datatypes::Int64Type>().iter().collect();
        assert_eq!(values, [Some(1), None, None]);
        assert_eq!(roots(&wanted, &["a", "k"]), ["a".to_owned(), "k".to_owned()].into());
        assert_eq!(roots(&["x.y".to_owned()], &["x.y"]), ["x.y".to_owned()].into(), "a name with a dot is a name");
    }
}
