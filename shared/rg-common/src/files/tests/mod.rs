//! The promises of this module, tried on real trees.

mod kit;
mod round_trip;
