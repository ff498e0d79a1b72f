//! placeholder

pub mod inplace;
pub mod table;
