//! What is asked of the rows of files on the command line: `--where` and `--select`.

use crate::base::error::{Error, Kind, Result};
use crate::base::nearest::nearest;
use crate::link::query::{Query, SELECT};

/// Condition and computed columns, as given.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct QueryArgs {
    /// Take only rows for which this holds: an SQL condition over the columns of Parquet files, such as "amount > 10 AND country IN ('DE', 'FR')". Where it
    /// is NULL it does not hold. Needs a build with `--features sql`.
    #[arg(long = "where", value_name = "SQL")]
    filter: Option<String>,
    /// Compute columns before rows are decoded, such as "amount / 100.0 AS amount, lower(country) AS country": a column of that name is replaced, all
    /// others stay. The expressions, like the condition, see the files' own columns. Needs a build with `--features sql`.
    #[arg(long, value_name = "SQL")]
    select: Option<String>,
}

impl QueryArgs {
    /// What is asked, if anything is. `fields` are read of a row.
    ///
    /// # Errors
    /// It cannot be read, or a computed column is read by nothing.
    pub fn query(&self, command: &'static str, fields: &[String]) -> Result<Option<Query>> {
        let query = Query::parse(command, self.filter.as_deref(), self.select.as_deref())?;
        for name in query.iter().flat_map(Query::names) {
            if !fields.iter().any(|field| field == name) {
                let help = match nearest(name, fields.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `AS {}`?", quoted(near)),
                    None => format!("it reads {}", fields.join(", ")),
                };
                let text = format!("{SELECT}: nothing reads a column `{name}`: the pipeline has no such field");
                return Err(Error::new(Kind::Usage, command, text).help(help));
            }
        }
        Ok(query)
    }
}

/// A name as an expression takes it.
fn quoted(name: &str) -> String {
    if name.contains(|c: char| !c.is_ascii_alphanumeric() && c != '_') { format!("\"{name}\"") } else { name.to_owned() }
}
