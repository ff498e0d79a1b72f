//! The promises of this module, tried on real trees.

mod gnu;
mod hostile;
mod kit;
mod races;
mod random;
mod round_trip;
