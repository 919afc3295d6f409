//! Level 1: client settings that edges share, where they keep files, and what is asked of the rows in these.

pub mod file;
pub mod kafka;
pub mod objects;
pub mod query;
pub mod registry;
