//! What the rg tools share. From the outside in: speak (`cli`, `report`) → know (`config`,
//! `catalog`, `dataset`, `schedule`) → move bytes (`seal`, `store`, `program`) → `failure`, `secret`.

pub mod failure;
pub mod program;
pub mod secret;

pub use failure::{Failure, OrFail, Result};
