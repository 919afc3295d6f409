//! Level 1: client settings that edges share, where they keep files, what is asked of the rows in these, and who knows the schemas of records.

pub mod file;
pub mod kafka;
pub mod objects;
pub mod query;
pub mod registry;
