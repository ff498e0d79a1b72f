//! What tests take from outside: the clock, and how hard they shall try.

use jiff::{SignedDuration, Timestamp};

use crate::chance::rounds;

/// The time so long ago; in the future for a negative span.
pub fn before_now(age: SignedDuration) -> Timestamp {
    Timestamp::now().checked_sub(age).expect("a time")
}

/// How many runs are killed: `RG_KILLS`, else 60, else 300 where experiments are repeated.
pub fn kills() -> u64 {
    match std::env::var("RG_KILLS") {
        Ok(text) => text.parse().expect("RG_KILLS is a whole number"),
        Err(_) if rounds(1) > 1 => 300,
        Err(_) => 60,
    }
}

/// A whole number from the environment, or what a test does by itself.
pub fn wished(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a whole number")),
        Err(_) => otherwise,
    }
}

/// Figures for whoever runs the tests with `--nocapture`.
#[allow(clippy::print_stdout, reason = "the one place where a test speaks")]
pub fn figures(said: &str) {
    println!("{said}");
}
