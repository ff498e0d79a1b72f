//! Being told to stop: Ctrl-C, SIGTERM.
//!
//! A signal sets a flag that every chain of reads and every wait looks at; the work then ends as
//! a failure and cleans up like any other. What does not end within the grace period is left to
//! the next run, which removes what a killed one left.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Result};

/// How long the work may take to clean up after a signal.
pub const GRACE: Duration = Duration::from_secs(20);
/// How often a wait looks at the flag.
const TICK: Duration = Duration::from_millis(50);

static STOPPED: AtomicBool = AtomicBool::new(false);

/// Asks all work in this process to end.
pub fn request() {
    STOPPED.store(true, Ordering::SeqCst);
}

/// An error once the process was asked to stop.
pub fn check() -> Result<()> {
    if STOPPED.load(Ordering::Relaxed) {
        return Err(
            Failure::new("stopped by a signal").hint("nothing half done is left; run it again")
        );
    }
    Ok(())
}

/// Waits, unless told to stop.
pub fn pause(time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    loop {
        check()?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(TICK));
    }
}

/// A reader that ends in an error when the process was asked to stop.
pub struct Stoppable<R>(pub R);

impl<R: Read> Read for Stoppable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        check().map_err(Failure::into_io)?;
        self.0.read(buffer)
    }
}
