//! A bar on a terminal while bytes stream by; nothing anywhere else.

use std::io::{self, Read};

use crate::cli::Context;

/// A reader that moves a bar.
pub struct Progress<R> {
    inner: R,
    bar: indicatif::ProgressBar,
}

impl<R> Progress<R> {
    /// A bar named `what`; `expected` bytes is a guess from the backup before.
    pub fn new(context: &Context, what: &str, expected: Option<u64>, inner: R) -> Self {
        let bar = if context.progress_wanted() {
            indicatif::ProgressBar::new(expected.unwrap_or(0))
        } else {
            indicatif::ProgressBar::hidden()
        };
        let template = match expected {
            Some(1..) => {
                "{prefix}  {bar:30} {bytes} of about {total_bytes}, {bytes_per_sec}, {eta} left"
            }
            _ => "{prefix}  {spinner} {bytes}, {bytes_per_sec}",
        };
        // The templates above are literals; the default style is the fallback.
        if let Ok(style) = indicatif::ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(what.to_owned());
        Progress { inner, bar }
    }

    /// The reader again, the bar removed.
    pub fn into_inner(self) -> R {
        self.bar.finish_and_clear();
        self.inner
    }
}

impl<R> Progress<R> {
    /// Lets the inner reader bring some bytes in its own way; `bring` says how many came.
    pub fn bring(&mut self, bring: impl FnOnce(&mut R) -> io::Result<usize>) -> io::Result<()> {
        let n = bring(&mut self.inner)?;
        self.bar.inc(n as u64);
        Ok(())
    }
}

impl<R: Read> Read for Progress<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.bar.inc(n as u64);
        Ok(n)
    }
}
