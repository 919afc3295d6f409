//! The recipe and the rows it makes.

pub mod recipe;
