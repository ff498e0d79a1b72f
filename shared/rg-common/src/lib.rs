//! What the rg tools share. From the outside in: speak (`cli`, `report`, `notify`) → know (`check`, `probe`,
//! `config`, `names`, `catalog`, `schedule`, `keep`, `dataset`, `app`) → move bytes (`ahead`, `seal`, `store`, `whole`,
//! `s3`, `dump`, `files`, `postgres`, `program`) → `failure`, `secret`, `stop`.

pub mod ahead;
pub mod app;
pub mod catalog;
pub mod check;
pub mod cli;
pub mod config;
pub mod dataset;
pub mod dump;
pub mod env_file;
pub mod failure;
pub mod files;
pub mod keep;
pub mod names;
pub mod notify;
pub mod nouns;
pub mod postgres;
pub mod probe;
pub mod program;
pub mod progress;
pub mod report;
pub mod s3;
pub mod schedule;
pub mod seal;
pub mod secret;
pub mod sha256;
pub mod stop;
pub mod store;
pub mod whole;

pub use failure::{Failure, OrFail, Result};
