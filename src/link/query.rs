//! What is asked of the rows of files before they are decoded: `--where`, a condition, and `--select`, computed columns.
//!
//! Both are SQL expressions over the columns of the files, a column within a column by its path (`a.b`); DataFusion reads, types and evaluates them
//! (feature `sql`). A condition that is NULL excludes the row. A computed column takes the place of the file's column of that name, or comes in addition;
//! condition and computed columns see the file's columns, as in SQL, never each other.
//!
//! What they give depends on the row alone: functions whose value depends on anything else (the clock, chance, the file's name) are refused, and those
//! whose last bit would depend on the machine's library are computed by `libm`.
//!
//! Timetable: `parse` with the command line, `bind` once the columns of the files are known, `apply` to each batch of rows.

#[cfg(feature = "sql")]
mod functions;
#[cfg(feature = "sql")]
mod sql;
#[cfg(not(feature = "sql"))]
mod without;

#[cfg(feature = "sql")]
pub use sql::{Bound, Query};
#[cfg(not(feature = "sql"))]
pub use without::{Bound, Query};

/// The option with a condition.
pub const WHERE: &str = "--where";
/// The option with computed columns.
pub const SELECT: &str = "--select";

#[cfg(all(test, feature = "sql"))]
mod tests;
