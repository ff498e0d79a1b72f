//! An answer over HTTP.
