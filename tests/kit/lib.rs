//! The kit
