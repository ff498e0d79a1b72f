//! Facts about the machine and the network, each within a deadline of its own and in bounded memory.
//!
//! A probe collects; it does not judge. Where a target answers badly, or not at all, that is a fact
//! about the target. An `Err` is our own inability to look.

pub mod clock;
pub mod dns;
pub mod excerpt;
pub mod http;
pub mod json_path;
pub mod network;
pub mod tcp;
pub mod tls;
pub mod trouble;
