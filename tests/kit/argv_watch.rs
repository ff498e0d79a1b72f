//! Watches for a secret where anybody on the machine could read it: in a process's arguments.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Between two looks at all processes; a program that lives shorter may be missed.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A thread that reads every `/proc/PID/cmdline` again and again until it is stopped.
pub struct ArgvWatch {
    stop: Arc<AtomicBool>,
    looks: Arc<AtomicU64>,
    watcher: Option<JoinHandle<Vec<String>>>,
}

impl ArgvWatch {
    /// Watches for `secret` from now on.
    pub fn start(secret: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let looks = Arc::new(AtomicU64::new(0));
        let watcher = {
            let (stop, looks, secret) = (Arc::clone(&stop), Arc::clone(&looks), secret.to_owned());
            thread::spawn(move || {
                let mut seen = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    look(secret.as_bytes(), &mut seen);
                    looks.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(LOOK_EVERY);
                }
                seen
            })
        };
        ArgvWatch {
            stop,
            looks,
            watcher: Some(watcher),
        }
    }

    /// How often all processes have been looked at until now.
    pub fn looks(&self) -> u64 {
        self.looks.load(Ordering::Relaxed)
    }

    /// Stops, and gives the command lines in which the secret stood.
    pub fn stop(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let watcher = self.watcher.take().expect("stopped once");
        watcher.join().expect("the watching thread does not panic")
    }
}

impl Drop for ArgvWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn look(secret: &[u8], seen: &mut Vec<String>) {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        if !name
            .to_string_lossy()
            .starts_with(|c: char| c.is_ascii_digit())
        {
            continue;
        }
        // A process that has just ended has nothing to read.
        let Ok(bytes) = fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        if bytes.windows(secret.len()).any(|window| window == secret) {
            let line = String::from_utf8_lossy(&bytes).replace('\0', " ");
            if !seen.contains(&line) {
                seen.push(line);
            }
        }
    }
}
