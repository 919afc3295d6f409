//! Level 1: client settings that edges share, and where they keep files.

pub mod file;
pub mod kafka;
pub mod objects;
