//! Facts about the machine and the network, each within a deadline of its own and in bounded memory.
//!
//! A probe collects; it does not judge. Where a target answers badly, or not at all, that is a fact
//! about the target. An `Err` is our own inability to look.

pub mod backup;
pub mod bucket;
pub mod clock;
pub mod container;
pub mod disk;
pub mod dns;
pub mod excerpt;
pub mod host;
pub mod http;
pub mod journal;
pub mod json_path;
pub mod log;
pub mod log_figures;
pub mod log_file;
pub mod network;
pub mod postgres;
pub mod quote;
pub mod recent;
pub mod systemd;
pub mod tally;
pub mod tcp;
pub mod tls;
pub mod trouble;
