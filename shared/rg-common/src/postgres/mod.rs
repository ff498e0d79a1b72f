//! PostgreSQL: who it is (`url`), how to talk to it (`connect`), where its programs run (`place`),
//! what it holds (`facts`, `compare`) and how a database is made and exchanged (`create`, `exchange`).
//!
//! The promise: questions go to the server itself, never to a pooler, every wait has a limit, and
//! no password is in a message or in a program's arguments. The facade is synchronous: callers
//! stand on blocking threads, the network runs on the one runtime that a [`connect::Connector`] holds.

pub mod compare;
pub mod connect;
pub mod copy;
pub mod create;
pub mod exchange;
pub mod facts;
mod inventory;
pub mod place;
pub mod pooler;
pub mod question;
pub mod scratch;
mod tls;
mod trouble;
pub mod url;

pub use connect::{Connector, Session};
pub use place::Place;
pub use url::DatabaseUrl;

#[cfg(test)]
pub(crate) mod cluster;
