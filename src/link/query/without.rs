//! A build that cannot read SQL: there is no query, so nothing can be asked of one.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use super::{SELECT, WHERE};
use crate::base::error::{Error, Kind, Result};

/// Condition and computed columns; there are none in this build.
#[derive(Clone, Debug)]
pub enum Query {}

/// A query with the columns of files; there is none in this build.
#[derive(Clone, Debug)]
pub enum Bound {}

impl Query {
    /// `None` where neither is given.
    ///
    /// # Errors
    /// One is given, and this build cannot read it.
    pub fn parse(command: &'static str, filter: Option<&str>, select: Option<&str>) -> Result<Option<Query>> {
        let Some(option) = filter.map(|_| WHERE).or(select.map(|_| SELECT)) else { return Ok(None) };
        Err(Error::new(Kind::Usage, command, format!("{option}: this build reads no SQL")).help("build with `--features sql`"))
    }

    /// The condition as it was given.
    #[must_use]
    pub fn filter(&self) -> Option<&str> {
        match *self {}
    }

    /// The computed columns as they were given.
    #[must_use]
    pub fn select(&self) -> Option<&str> {
        match *self {}
    }

    /// Names of the computed columns.
    #[must_use]
    pub fn names(&self) -> std::iter::Empty<&str> {
        match *self {}
    }

    /// Columns of the files that `wanted` columns take.
    #[must_use]
    pub fn inputs(&self, _wanted: &[String]) -> Vec<String> {
        match *self {}
    }

    /// A column that is read and not there: the option that reads it, and its name.
    #[must_use]
    pub fn missing(&self, _columns: &SchemaRef) -> Option<(&'static str, &str)> {
        match *self {}
    }

    /// The query over the columns of files.
    ///
    /// # Errors
    /// None in this build.
    pub fn bind(&self, _columns: &SchemaRef, _wanted: &[String]) -> Result<Bound> {
        match *self {}
    }
}

impl Bound {
    /// The columns that come out.
    #[must_use]
    pub fn columns(&self) -> &SchemaRef {
        match *self {}
    }

    /// The rows that are kept, with those columns.
    ///
    /// # Errors
    /// None in this build.
    pub fn apply(&self, _rows: &RecordBatch) -> Result<RecordBatch> {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_refused_with_the_feature_that_is_needed_and_none_is_fine() {
        for (filter, select, option) in
            [(Some("a > 1"), None, "--where"), (None, Some("a AS b"), "--select"), (Some("a"), Some("a AS b"), "--where")]
        {
            let error = Query::parse("backfill", filter, select).unwrap_err();
            assert_eq!(error.kind, Kind::Usage);
            assert!(
                error.to_string().starts_with(&format!("backfill: {option}: ")) && error.to_string().contains("--features sql"),
                "{error}"
            );
        }
        assert!(Query::parse("backfill", None, None).unwrap().is_none());
    }
}
